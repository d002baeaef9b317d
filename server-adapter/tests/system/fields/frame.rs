//! Native frames: header, extensions, payload. What is said of a header here holds for an envelope's, too.

use firsthop_core::{
    Epoch, Holder, SourceId, Timestamp,
    limits::{
        MAX_CONTEXT, MAX_DEPTH, MAX_EVENT, MAX_EVENTS, MAX_FOREIGN_ID, MAX_HEADER, MAX_NAME, MAX_SEQ, MAX_SHARED,
        MAX_VALUES,
    },
};
use firsthop_intake::Session;

use super::{
    Expect, Refused, Row, Taken, World,
    bytes::{Event, Parts, block, context, no_context, some, varint},
    request,
};
use crate::common::{now, random};

/// How a route takes a frame, and the frame that it takes.
pub(super) struct Route<'a> {
    pub(super) path: &'static str,
    pub(super) good: &'a dyn Fn() -> Parts,
    /// Signed at its lease's edge, so that what is in the header holds.
    pub(super) is_envelope: bool,
}

impl Route<'_> {
    pub(super) fn post(&self, body: &[u8]) -> Vec<u8> {
        request("POST", self.path, &[], body)
    }

    pub(super) fn row(&self, field: &str, said: &'static str, inside: &[u8], outside: &[u8], expect: Expect) -> Row {
        let row = Row::new(("POST", self.path), field, said);
        row.within(self.post(inside), Taken(200)).beyond(self.post(outside), expect)
    }

    /// The fields of a header.
    pub(super) fn header(&self, rows: &mut Vec<Row>) {
        let good = self.good;
        let changed = |at: usize, to: &[u8]| {
            let to = to.to_vec();
            good().bytes_with(move |bytes| bytes[at..at + to.len()].copy_from_slice(&to))
        };
        let any = "Any number: clocks are wrong";
        let flags = if self.is_envelope { 4 } else { 0 };
        let mut row = |field: &str, said, inside: &[u8], outside: &[u8], expect: Expect| {
            rows.push(self.row(&format!("frame.{field}"), said, inside, outside, expect));
        };
        let plain = || good().bytes();
        row("magic", "the first four bytes are not `FHOP`", &plain(), &changed(3, b"p"), Refused("bad-magic"));
        row("version", "`version` is 1", &plain(), &changed(4, &[2]), Refused("unknown-version"));
        row("flags", "no unknown flag", &changed(5, &[flags]), &changed(5, &[flags | 8]), Refused("reserved-bits"));
        let wide = |length: usize| {
            let least = good().and(1000, b"").header_len();
            good().and(1000, &vec![b'x'; length - least]).bytes()
        };
        let length = "`header_len` is 88 to 1,024";
        row("header_len", length, &wide(MAX_HEADER), &wide(MAX_HEADER + 1), Refused("bad-header-length"));
        let stranger = changed(8, &7_u64.to_le_bytes());
        let nobody = if self.is_envelope { "unknown-key" } else { "wrong-write-key" };
        row("tenant", "name a tenant that is known", &plain(), &stranger, Refused(nobody));
        row("source", "who produced it: a UUID", &changed(16, &[0; 16]), &changed(16, &[0xff; 16]), Taken(200));
        row("region", "two capital letters or \"--\"", &plain(), &changed(40, b"E{"), Refused("bad-region"));
        row("alg", "`alg` is one of", &plain(), &changed(42, &[5]), Refused("unknown-algorithm"));
        row(
            "consent",
            "other bits are kept and mean nothing yet",
            &changed(43, &[15]),
            &changed(43, &[255]),
            Taken(200),
        );
        row("reserved", "the reserved fields are zero", &plain(), &changed(46, &[1]), Refused("reserved-bits"));
        row("reserved", "the reserved fields are zero", &plain(), &changed(87, &[1]), Refused("reserved-bits"));
        let most = MAX_SEQ.to_le_bytes();
        let over = (MAX_SEQ + 1).to_le_bytes();
        row("batch_seq", "from 0, below 2⁶³", &changed(48, &most), &changed(48, &over), Refused("bad-count"));
        let last = |count: u64| (MAX_SEQ - count).to_le_bytes();
        let said = "`first_seq + count` is below 2⁶³";
        row("first_seq", said, &changed(56, &last(1)), &changed(56, &last(0)), Refused("bad-count"));
        row("created_ms", any, &changed(64, &[0; 8]), &changed(64, &[0xff; 8]), Taken(200));
        row(
            "dropped",
            "events that the source has had to give up",
            &changed(72, &[0; 4]),
            &changed(72, &[0xff; 4]),
            Taken(200),
        );
        row(
            "crc32",
            "the CRC",
            &plain(),
            &{
                let mut bytes = plain();
                bytes[80] ^= 1;
                bytes
            },
            Refused("bad-crc"),
        );
        let parts = good();
        let most =
            if self.is_envelope { firsthop_core::limits::MAX_ENVELOPE } else { firsthop_core::limits::MAX_FRAME };
        let room = most - parts.header_len() - (parts.bytes().len() - parts.header_len() - parts.payload.len());
        let long = |length: usize| changed(76, &(length as u32).to_le_bytes());
        let said = "It is at most 524,288 bytes, an envelope 526,336";
        rows.push(Row {
            inside: (self.post(&long(room)), Refused("truncated")),
            ..self.row("frame.payload_len", said, &[], &long(room + 1), Refused("too-large"))
        });
        let twice = |kind: u16| good().and(kind, b"").and(kind, b"").bytes();
        let said = "none of the kinds 0 to 63 stands twice";
        rows.push(self.row("frame.extensions", said, &twice(64), &twice(63), Refused("bad-extension")));
        let more = [plain(), b"x".to_vec()].concat();
        let said = "as many bytes as the lengths say: no fewer, no more";
        rows.push(self.row("frame.payload", said, &plain(), &more, Refused("trailing-bytes")));
        rows.push(self.row("frame.payload", said, &plain(), &plain()[..plain().len() - 1], Refused("truncated")));
    }
}

pub(super) fn rows(world: &mut World) -> Vec<Row> {
    let (tenant, key) = (world.tenant.id, world.tenant.key.clone());
    let good = || Parts::new(tenant, "EU", 1, None).with(2, key.as_bytes()).holding(Event::new().payload());
    let route = Route { path: "/v1/f", good: &good, is_envelope: false };
    let mut rows = Vec::new();
    route.header(&mut rows);
    let mut row = |field: &str, said, inside: &[u8], outside: &[u8], expect: Expect| {
        rows.push(route.row(field, said, inside, outside, expect));
    };

    // How many events.
    let events = |count: u16, context: &[u8]| {
        let payload = [context.to_vec(), Event::new().bytes().repeat(count.into())].concat();
        good().put(44, &count.to_le_bytes()).holding(payload).bytes()
    };
    row(
        "frame.count",
        "at most 4,096; in an envelope",
        &events(MAX_EVENTS, &no_context()),
        &events(MAX_EVENTS + 1, &no_context()),
        Refused("bad-count"),
    );
    row(
        "frame.count",
        "A frame without events is well-formed, but a hop refuses it",
        &events(1, &no_context()),
        &events(0, &no_context()),
        Refused("bad-count"),
    );

    // Extensions.
    let traced = |trace: &str| good().and(1, trace.as_bytes()).bytes();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    row(
        "extensions.trace",
        "One that is not of that form is no trace, and no error",
        &traced(trace),
        &traced(&format!("{trace}-0")),
        Taken(200),
    );
    let keyed = |key: &str| good().with(2, key.as_bytes()).bytes();
    row(
        "extensions.write key",
        "16 to 44 ASCII letters or digits",
        &keyed(&key),
        &keyed(&(key.clone() + &"a".repeat(45))),
        Refused("wrong-write-key"),
    );
    let sealed = |id: &[u8]| good().put(5, &[1]).and(5, id).holding(vec![0; 48]).bytes();
    let unread = |bytes: Vec<u8>| (route.post(&bytes), Refused("sealed-unsupported"));
    rows.push(Row {
        inside: unread(sealed(&[9, 0, 0, 0])),
        ..route.row(
            "extensions.seal key",
            "which of the region's keys, 4 bytes",
            &[],
            &sealed(&[9; 5]),
            Refused("bad-extension"),
        )
    });
    let mut row = |field: &str, said, inside: &[u8], outside: &[u8], expect: Expect| {
        rows.push(route.row(field, said, inside, outside, expect));
    };
    let rewritten = good().and(7, &[0]).bytes();
    row("extensions.rewritten", "never from a producer", &good().bytes(), &rewritten, Refused("reserved-bits"));

    // Context: each of its texts has all of it for itself.
    let shared = |length: usize, field: usize, wrap: &dyn Fn(&[u8]) -> Vec<u8>| {
        // What a longer length takes is a byte more: so it is looked for.
        let make = |bytes: usize| context(field, &wrap(&vec![b'x'; bytes]));
        let bytes = (0..=length).rev().find(|bytes| make(*bytes).len() == length).expect("a length");
        good().holding([make(bytes), Event::new().bytes()].concat()).bytes()
    };
    let most = "a frame's context | 16,384 bytes";
    let texts =
        ["anonymous_id", "user_id", "session_id", "locale", "timezone", "user_agent", "url", "title", "referrer"];
    let optional: &dyn Fn(&[u8]) -> Vec<u8> = &some;
    let mut sized = |name: &str, field: usize, wrap: &dyn Fn(&[u8]) -> Vec<u8>| {
        let name = format!("context.{name}");
        row(
            &name,
            most,
            &shared(MAX_CONTEXT, field, wrap),
            &shared(MAX_CONTEXT + 1, field, wrap),
            Refused("too-large"),
        );
    };
    for (field, name) in texts.iter().enumerate() {
        sized(name, field, optional);
    }
    for nth in 0..5 {
        sized("campaign", 10, &move |text| {
            let mut texts = vec![vec![0]; 5];
            texts[nth] = some(text);
            [vec![1], texts.concat()].concat()
        });
    }
    sized("extra", 11, &|text| [block(text), block(&[&[6, 0][..], &varint(text.len() as u64)].concat())].concat());
    let screen = |width: u64| {
        let screen = [vec![1], varint(width), varint(1)].concat();
        good().holding([context(9, &screen), Event::new().bytes()].concat()).bytes()
    };
    let most = u64::from(u32::MAX);
    row(
        "context.screen",
        "`varint` height, 32 bits each",
        &screen(most),
        &screen(most + 1),
        Refused("malformed-payload"),
    );
    // With all events that there may be, each of which it stands beside.
    let each = MAX_SHARED / usize::from(MAX_EVENTS);
    // As JSON writes it, and one more.
    let written = |context: &[u8]| context.iter().fold(1, |sum, &byte| sum + if byte < 0x20 { 6 } else { 1 });
    let spread = |length: usize| {
        let contexts = (0..length).map(|bytes| context(0, &some(&vec![b'x'; bytes])));
        let context = contexts.rev().find(|context| written(context) == length).expect("a length");
        events(MAX_EVENTS, &context)
    };
    row(
        "context of all events",
        "times the number of events are at most 2,097,152",
        &spread(each),
        &spread(each + 1),
        Refused("too-large"),
    );

    // An event's own.
    let event = |event: Event| good().holding(event.payload()).bytes();
    let kind = |kind: u8| event(Event { kind: vec![kind], ..Event::new() });
    row("event.kind", "track, page, screen, identify, group, alias", &kind(5), &kind(6), Refused("malformed-payload"));
    let offset = |offset: &[u8]| event(Event { offset: offset.to_vec(), ..Event::new() });
    let most = varint(u64::MAX);
    let mut over = most.clone();
    *over.last_mut().expect("bytes") = 2;
    row(
        "event.offset_ms",
        "at most 64 bits in at most ten bytes",
        &offset(&most),
        &offset(&over),
        Refused("malformed-payload"),
    );
    let id = |vendor: u8, length: usize| {
        event(Event { id: [vec![1, vendor], block(&vec![b'x'; length])].concat(), ..Event::new() })
    };
    row("event.id", "foreign id | 256 bytes", &id(0, MAX_FOREIGN_ID), &id(0, MAX_FOREIGN_ID + 1), Refused("too-large"));
    row("event.id", "vendor (`enum`: segment)", &id(0, 9), &id(1, 9), Refused("malformed-payload"));
    let name = |name: &[u8]| event(Event { name: block(name), ..Event::new() });
    row(
        "event.name",
        "name of an event | 512 bytes",
        &name(&[b'x'; MAX_NAME]),
        &name(&[b'x'; MAX_NAME + 1]),
        Refused("too-large"),
    );
    row("event.name", "`bytes` that are UTF-8", &name("é".as_bytes()), &name(b"\xc3"), Refused("malformed-payload"));
    let filled = |length: usize, make: &dyn Fn(&[u8]) -> Event| {
        let of = |bytes: usize| make(&vec![b'x'; bytes]);
        let bytes = (0..=length).rev().find(|bytes| of(*bytes).bytes().len() == length).expect("a length");
        event(of(bytes))
    };
    let delta = |text: &[u8]| Event { context: block(&context(6, &some(text))), ..Event::new() };
    let said = "event | 32,768 bytes";
    row("event.context", said, &filled(MAX_EVENT, &delta), &filled(MAX_EVENT + 1, &delta), Refused("too-large"));
    let text = |text: &[u8]| {
        let shape = block(&[&[6, 0][..], &varint(text.len() as u64)].concat());
        Event { text: block(text), shape, ..Event::new() }
    };
    row("event.properties", said, &filled(MAX_EVENT, &text), &filled(MAX_EVENT + 1, &text), Refused("too-large"));
    row("properties.text", said, &filled(MAX_EVENT, &text), &filled(MAX_EVENT + 1, &text), Refused("too-large"));
    row(
        "properties.text",
        "`bytes` that are UTF-8",
        &event(text("é".as_bytes())),
        &event(text(b"\xc3")),
        Refused("malformed-payload"),
    );
    let shape = |shape: &[u8]| event(Event { shape: block(shape), ..Event::new() });
    row(
        "properties.shape",
        "values in properties | 1,024",
        &shape(&[0; 2 * MAX_VALUES]),
        &shape(&[0; 2 * MAX_VALUES + 2]),
        Refused("too-large"),
    );
    let deep = |depth: usize| shape(&[&[8, 0][..], &vec![8; depth - 1], &vec![10; depth]].concat());
    row("properties.shape", "depth of properties | 8", &deep(MAX_DEPTH), &deep(MAX_DEPTH + 1), Refused("too-deep"));
    row(
        "properties.shape",
        "the end of a list or map; none at the top",
        &shape(&[9, 0, 10]),
        &shape(&[11, 0]),
        Refused("malformed-payload"),
    );
    rows.extend(of_sessions(world));
    rows
}

/// What only a session's frame has.
fn of_sessions(world: &World) -> Vec<Row> {
    let (tenant, account) = (world.tenant.id, &world.edge.account);
    let granted = |at: Timestamp| {
        let source = SourceId::v7(now(), random());
        (source, Session::mint(account, source, Holder::new("", &world.tenant.key), at).expect("a lease"))
    };
    let of = |(source, session): (SourceId, Session)| {
        let Session { alg, key_id, epoch, region, grant, .. } = &session;
        let parts = Parts::new(tenant, region.as_str(), 1, Some((*alg, *session.secret)));
        let numbers = [key_id.get().to_le_bytes(), epoch.get().to_le_bytes()].concat();
        parts
            .put(5, &[2])
            .put(16, source.as_bytes())
            .put(32, &numbers)
            .with(3, &grant.to_bytes())
            .holding(Event::new().payload())
    };
    let good = || of(granted(now()));
    let route = Route { path: "/v1/f", good: &good, is_envelope: false };
    let changed = |at: usize, to: &[u8]| {
        let parts = good();
        let mut grant = parts.extensions[0].1.clone();
        grant[at..at + to.len()].copy_from_slice(to);
        parts.with(3, &grant).bytes()
    };
    let plain = || good().bytes();
    let row = |field: &str, said, outside: &[u8], code| route.row(field, said, &plain(), outside, Refused(code));
    let hours = |hours: u64| now().offset(i64::try_from(hours * 3_600_000).expect("hours"));
    let ahead = of(granted(hours(1))).bytes();
    let two = Epoch::at(hours(2)).get().to_le_bytes();
    let (_, session) = granted(now());
    let start = Epoch::at(now()).start().as_millis();
    let late = |ms: u64| changed(6, &(start + ms).to_le_bytes());
    let mut forged = plain();
    *forged.last_mut().expect("bytes") ^= 1;
    let long = [&session.grant.to_bytes()[..], b"x"].concat();
    let day = 26 * 3_600_000;
    vec![
        row(
            "frame.key_id",
            "no root with this `key_id`",
            &good().put(32, &99_u32.to_le_bytes()).bytes(),
            "unknown-key",
        ),
        route.row(
            "frame.epoch",
            "its epoch is at most one ahead of the clock",
            &ahead,
            &{
                // Of a session that begins with it, as all do.
                let expires = hours(2).offset(1).as_millis().to_le_bytes();
                let parts = good().put(36, &two);
                let mut grant = parts.extensions[0].1.clone();
                grant[6..14].copy_from_slice(&expires);
                parts.with(3, &grant).bytes()
            },
            Refused("epoch-out-of-range"),
        ),
        row("frame.tag", "the tag does not match", &forged, "bad-signature"),
        row("extensions.session", "extension 3 is there, 30 bytes", &good().with(3, &long).bytes(), "bad-session"),
        row("grant.worker", "which hop granted it", &changed(0, &[0xff; 4]), "bad-signature"),
        row("grant.region", "30 bytes, and its region is one", &changed(4, b"e1"), "bad-session"),
        Row {
            inside: (route.post(&late(day)), Refused("bad-signature")),
            ..row("grant.expires_ms", "nor more than 26 hours after", &late(day + 1), "bad-session")
        },
        row(
            "grant.holder",
            "digests of the page's origin (8) and of the write key (8)",
            &changed(14, &[1; 16]),
            "bad-signature",
        ),
    ]
}
