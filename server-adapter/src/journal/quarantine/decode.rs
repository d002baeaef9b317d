//! What was set aside, for people: decoded as far as it decodes, with the first thing that is wrong and where.
//!
//! The bytes are anybody's. Nothing here believes a length before it has looked, and nothing fails: what cannot be decoded is left for a
//! dump of its bytes.

use std::ops::Range;

use firsthop_core::{
    Annotation, Envelope, Error, Extension, ExtensionKind, Flags, Frame, HEADER_LEN, Header, MAGIC, SessionGrant,
    SourceId, TenantId, Timestamp, crc32, limits,
};
use firsthop_intake::{
    RegionSecrets,
    json::{Json, to_string},
};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use crate::{clock, journal::Readable};

/// A body, as far as it decodes.
#[derive(Debug, Serialize)]
pub(crate) struct Decoded {
    /// What it seems to be.
    pub(crate) kind: Kind,
    /// Its bytes, counted from the beginning of what was stored.
    pub(crate) bytes: Range<usize>,
    /// What stands where.
    pub(crate) fields: Vec<Field>,
    /// What the events share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) context: Option<Box<RawValue>>,
    /// The events until the first that does not decode.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) events: Vec<Told>,
    /// The first check that fails. None: the bytes are well formed, and it was refused for another reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fault: Option<Fault>,
    /// The bytes that nothing above tells.
    pub(crate) undecoded: Range<usize>,
    /// Of an envelope: what its edge was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) inside: Option<Box<Decoded>>,
}

/// What bytes seem to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A producer's frame, by its first four bytes.
    Frame,
    /// An edge's envelope, by its flag.
    Envelope,
    /// Text that was to be JSON.
    Json,
    /// Nothing that is known here.
    Bytes,
}

/// A value and where it stands.
#[derive(Debug, Serialize)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) at: usize,
    pub(crate) value: Value,
}

/// An event and where it begins. What is JSON in it is kept as text, so that entries stay in their order and numbers keep their digits.
#[derive(Debug, Serialize)]
pub(crate) struct Told {
    /// Its number in its source.
    pub(crate) seq: u64,
    pub(crate) at: usize,
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) time: String,
    /// The id that another vendor's SDK gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) foreign_id: Option<String>,
    /// All of its context, if that is not the frame's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) context: Option<Box<RawValue>>,
    pub(crate) properties: Option<Box<RawValue>>,
}

/// A check that fails.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Fault {
    /// Its name among the reasons.
    pub(crate) code: &'static str,
    /// Where to look: the first byte of what is wrong.
    pub(crate) at: usize,
    /// In words.
    pub(crate) what: String,
}

/// Decodes a body; what is sealed in it too, if it opens with these.
pub(crate) fn decode(body: &[u8], secrets: &RegionSecrets) -> Decoded {
    decode_at(body, 0, true, secrets)
}

/// `base`: where these bytes stand in what was stored. `outer`: whether an envelope is opened. One in another is refused everywhere, and
/// a hundred of them would be read a hundred times.
fn decode_at(bytes: &[u8], base: usize, outer: bool, secrets: &RegionSecrets) -> Decoded {
    let looks = bytes.iter().zip(&MAGIC).take_while(|(byte, magic)| byte == magic).count();
    let is_frame = looks == MAGIC.len() || (looks > 0 && looks == bytes.len());
    let mut decoded = Decoded {
        kind: if is_frame { Kind::Frame } else { Kind::Bytes },
        bytes: base..base + bytes.len(),
        fields: Vec::new(),
        context: None,
        events: Vec::new(),
        fault: None,
        undecoded: base..base + bytes.len(),
        inside: None,
    };
    if is_frame {
        decoded.frame(bytes, base, outer, secrets);
    } else {
        decoded.json(bytes, base);
    }
    decoded
}

impl Decoded {
    fn fail(&mut self, error: Error, at: usize) {
        self.fault.get_or_insert(Fault { code: error.code(), at, what: error.to_string() });
    }

    fn field(&mut self, name: impl Into<String>, at: usize, value: impl Into<Value>) {
        self.fields.push(Field { name: name.into(), at, value: value.into() });
    }

    fn told(&mut self, until: usize) {
        self.undecoded.start = until.clamp(self.undecoded.start, self.undecoded.end);
    }

    fn frame(&mut self, bytes: &[u8], base: usize, outer: bool, secrets: &RegionSecrets) {
        let told = self.header(bytes, base);
        self.told(base + told);
        let header = match Header::peek(bytes) {
            Ok(header) => header,
            Err(error) => return self.fail(error, base + header_fault(bytes, error)),
        };
        if header.flags.contains(Flags::ENVELOPE) {
            self.kind = Kind::Envelope;
        }
        let header_len = usize::from(u16::from_le_bytes([bytes[6], bytes[7]]));
        let extensions_end = self.extensions(bytes, header_len.min(bytes.len()), base);
        self.told(base + extensions_end);
        match Frame::parse(bytes) {
            Ok(_) if self.kind == Kind::Envelope && !outer => self.fail(Error::Reserved, base + 5),
            Ok(frame) => self.payload(&frame, base, secrets),
            Err(error) => {
                let at = match error {
                    Error::Truncated => bytes.len(),
                    Error::TrailingBytes => frame_len(bytes, &header),
                    Error::Crc => 80,
                    Error::Extension | Error::Payload => extensions_end,
                    _ => 0,
                };
                self.fail(error, base + at);
                if error == Error::Crc {
                    self.say_crc(bytes, &header);
                }
            }
        }
    }

    /// The fixed header, as much of it as is there, whatever its values. Returns where it ends.
    fn header(&mut self, bytes: &[u8], base: usize) -> usize {
        let mut told = 0;
        for (name, at, len, show) in HEADER {
            let Some(raw) = bytes.get(*at..at + len) else { break };
            self.field(*name, base + at, show(raw));
            told = at + len;
        }
        if bytes.len() >= HEADER_LEN { HEADER_LEN } else { told }
    }

    /// The extensions that are whole. Returns where the first begins that is not.
    fn extensions(&mut self, bytes: &[u8], end: usize, base: usize) -> usize {
        let mut at = HEADER_LEN;
        while let Some([a, b, c, d]) = bytes.get(at..end).and_then(|rest| rest.first_chunk()) {
            let (number, len) = (u16::from_le_bytes([*a, *b]), usize::from(u16::from_le_bytes([*c, *d])));
            let Some(value) = bytes.get(at + 4..(at + 4 + len).min(end)).filter(|value| value.len() == len) else {
                break;
            };
            let (name, value) = extension(number, value);
            self.field(name, base + at, value);
            at += 4 + len;
        }
        at
    }

    fn say_crc(&mut self, bytes: &[u8], header: &Header) {
        let end = frame_len(bytes, header) - header.alg.tag_len();
        let (Some(front), Some(rest), Some(fault)) = (bytes.get(..80), bytes.get(84..end), &mut self.fault) else {
            return;
        };
        let is = crc32(&[front, &[0; 4], rest]);
        fault.what = format!("{}: the bytes have {is:08x}", fault.what);
    }

    fn payload(&mut self, frame: &Frame<'_>, base: usize, secrets: &RegionSecrets) {
        let payload = base + (frame.signed().len() - frame.payload().len());
        let end = base + frame.signed().len();
        self.told(payload);
        if self.kind == Kind::Envelope {
            return self.envelope(frame, payload, end, secrets);
        }
        let readable = match Readable::new(*frame, secrets) {
            Ok(readable) => readable,
            Err(error) => return self.fail(error, payload),
        };
        let opened = readable.frame();
        let (context, mut events) = match opened.open() {
            Ok(opened) => opened,
            Err(error) => return self.fail(error, payload),
        };
        self.context = RawValue::from_string(to_string(Json(context))).ok();
        let header = frame.header();
        for seq in header.first_seq.. {
            // Of what was sealed no place in these bytes is the place.
            let at = if frame.sealed_to().is_some() { payload } else { end - events.unread() };
            self.told(at);
            match events.next() {
                None => break,
                Some(Err(error)) => return self.fail(error, at),
                Some(Ok(event)) => {
                    let own = event.context.apply(&context).ok().filter(|own| *own != context);
                    self.events.push(Told {
                        seq,
                        at,
                        kind: event.kind.as_str(),
                        name: event.name.to_owned(),
                        time: clock::format(event.time(header.created)),
                        foreign_id: event.id.map(|id| id.id.to_owned()),
                        context: own.and_then(|own| RawValue::from_string(to_string(Json(own))).ok()),
                        properties: RawValue::from_string(to_string(Json(event.properties))).ok(),
                    });
                }
            }
        }
        // What is left is the tag, and its bytes are all that there is to say of it.
        self.told(end);
        self.tag(frame, end);
    }

    fn tag(&mut self, frame: &Frame<'_>, end: usize) {
        if !frame.tag().is_empty() {
            self.field("tag", end, hex(frame.tag()));
        }
        self.told(end + frame.tag().len());
    }

    fn envelope(&mut self, frame: &Frame<'_>, payload: usize, end: usize, secrets: &RegionSecrets) {
        match Envelope::open(frame) {
            Err(error) => self.fail(error, payload),
            Ok(envelope) => {
                for (name, value) in annotation(&envelope.annotation) {
                    self.field(name, payload, value);
                }
                let inside = end - envelope.frame.len();
                self.inside = Some(Box::new(decode_at(envelope.frame, inside, false, secrets)));
                self.told(end);
                self.tag(frame, end);
            }
        }
    }

    fn json(&mut self, bytes: &[u8], base: usize) {
        let text = match str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let at = error.valid_up_to();
                if matches!(bytes.trim_ascii_start(), [b'{' | b'[', ..]) {
                    self.kind = Kind::Json;
                    self.field("text", base, String::from_utf8_lossy(&bytes[..at]));
                    self.told(base + at);
                    self.fault = Some(Fault { code: "malformed-json", at: base + at, what: "not UTF-8".into() });
                } else {
                    self.fail(Error::Magic, base + header_fault(bytes, Error::Magic));
                }
                return;
            }
        };
        if text.is_empty() {
            return self.fail(Error::Truncated, base);
        }
        self.kind = Kind::Json;
        match serde_json::from_str::<Value>(text) {
            Ok(value) => self.field("json", base, value),
            Err(error) => {
                let at = position(text, error.line(), error.column());
                self.field("text", base, text);
                self.fault = Some(Fault { code: "malformed-json", at: base + at, what: error.to_string() });
            }
        }
        self.told(base + bytes.len());
    }
}

/// Where a line and a column are, both counted from 1.
fn position(text: &str, line: usize, column: usize) -> usize {
    let line: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    (line + column.saturating_sub(1)).min(text.len())
}

type Show = fn(&[u8]) -> Value;

/// The fixed header: `docs/wire-format.md` §3.
const HEADER: &[(&str, usize, usize, Show)] = &[
    ("magic", 0, 4, |raw| String::from_utf8_lossy(raw).into()),
    ("version", 4, 1, number),
    ("flags", 5, 1, |raw| flags(raw[0])),
    ("header_len", 6, 2, number),
    ("tenant", 8, 8, |raw| TenantId::new(u64_of(raw)).to_string().into()),
    ("source", 16, 16, |raw| {
        <[u8; 16]>::try_from(raw).map_or(Value::Null, |raw| SourceId::new(raw).to_string().into())
    }),
    ("key_id", 32, 4, number),
    ("epoch", 36, 4, number),
    ("region", 40, 2, |raw| String::from_utf8_lossy(raw).into()),
    ("alg", 42, 1, |raw| alg(raw[0])),
    ("consent", 43, 1, |raw| format!("{:08b}", raw[0]).into()),
    ("count", 44, 2, number),
    ("reserved", 46, 2, number),
    ("batch_seq", 48, 8, number),
    ("first_seq", 56, 8, number),
    ("created", 64, 8, |raw| clock::format(Timestamp::from_millis(u64_of(raw))).into()),
    ("dropped", 72, 4, number),
    ("payload_len", 76, 4, number),
    ("crc32", 80, 4, |raw| format!("{:08x}", u64_of(raw)).into()),
    ("reserved", 84, 4, number),
];

fn u64_of(raw: &[u8]) -> u64 {
    raw.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn number(raw: &[u8]) -> Value {
    u64_of(raw).into()
}

fn flags(bits: u8) -> Value {
    let names = [(1, "sealed"), (2, "trust"), (4, "envelope")];
    let mut said: Vec<String> =
        names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| (*name).to_owned()).collect();
    if bits & !7 != 0 {
        said.push(format!("unknown {:#04x}", bits & !7));
    }
    if said.is_empty() { "none".into() } else { said.join(" ").into() }
}

fn alg(number: u8) -> Value {
    let name = match number {
        0 => "none",
        1 => "HMAC-SHA256-128",
        2 => "HMAC-SHA256-256",
        3 => "Ed25519",
        4 => "keyed BLAKE3-256",
        _ => return format!("unknown {number}").into(),
    };
    name.into()
}

/// Where the field is of which the header's check complains.
fn header_fault(bytes: &[u8], error: Error) -> usize {
    let is_set = |range: Range<usize>| bytes.get(range).is_some_and(|raw| raw.iter().any(|byte| *byte != 0));
    match error {
        Error::Magic => bytes.iter().zip(&MAGIC).take_while(|(byte, magic)| byte == magic).count(),
        Error::Version => 4,
        Error::Reserved if bytes.get(5).is_some_and(|flags| *flags > 7 || *flags & 5 == 5) => 5,
        Error::Reserved if is_set(46..48) => 46,
        Error::Reserved => 84,
        Error::HeaderLength => 6,
        Error::Algorithm => 42,
        Error::TooLarge => 76,
        Error::Region => 40,
        Error::Count if bytes.get(44..46).is_some_and(|raw| u64_of(raw) > limits::MAX_EVENTS.into()) => 44,
        Error::Count if bytes.get(48..56).is_some_and(|raw| u64_of(raw) > limits::MAX_SEQ) => 48,
        Error::Count => 56,
        // Cut within the header.
        _ => bytes.len(),
    }
}

/// How long a frame is by its own word.
fn frame_len(bytes: &[u8], header: &Header) -> usize {
    let at = |range: Range<usize>| bytes.get(range).map_or(0, u64_of) as usize;
    at(6..8) + at(76..80) + header.alg.tag_len()
}

/// What an extension is called, and what it says.
fn extension(number: u16, value: &[u8]) -> (String, Value) {
    let kinds = [
        ExtensionKind::Traceparent,
        ExtensionKind::WriteKey,
        ExtensionKind::Session,
        ExtensionKind::Worker,
        ExtensionKind::SealKey,
    ];
    let kind = kinds.into_iter().find(|kind| kind.number() == number).unwrap_or(ExtensionKind::Unknown(number));
    let text = || String::from_utf8_lossy(value).into_owned().into();
    match (Extension { kind, value }).kind {
        ExtensionKind::Traceparent => ("traceparent".into(), text()),
        ExtensionKind::WriteKey => ("write_key".into(), text()),
        ExtensionKind::Worker if value.len() == 4 => ("worker".into(), u64_of(value).into()),
        ExtensionKind::SealKey if value.len() == 4 => ("seal_key".into(), u64_of(value).into()),
        ExtensionKind::Session => {
            let said = SessionGrant::from_bytes(value).map_or_else(
                |error| json!({ "fault": error.code(), "bytes": hex(value) }),
                |grant| {
                    json!({
                        "worker": grant.worker.get(),
                        "region": grant.region.as_str(),
                        "expires": clock::format(grant.expires),
                    })
                },
            );
            ("session".into(), said)
        }
        _ => (format!("extension {number}"), hex(value).into()),
    }
}

/// What a first hop noted, in its order.
pub(crate) fn annotation(noted: &Annotation<'_>) -> Vec<(&'static str, Value)> {
    vec![
        ("received", clock::format(Timestamp::from_millis(noted.received_ms)).into()),
        ("pop", noted.pop.into()),
        ("country", noted.country.into()),
        ("network", noted.network.to_string().into()),
        ("agent", noted.agent.as_str().into()),
        ("traffic", noted.traffic.as_str().into()),
        ("trust", noted.trust.as_str().into()),
        ("refused", noted.refused.into()),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes as people read them: sixteen to a line, with their place and their text. `at`: where they stand.
pub(crate) fn dump(bytes: &[u8], at: usize) -> impl Iterator<Item = String> + '_ {
    bytes.chunks(16).zip((at..).step_by(16)).map(|(line, at)| {
        let numbers: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let text: String =
            line.iter().map(|byte| if matches!(byte, 0x20..=0x7e) { char::from(*byte) } else { '.' }).collect();
        format!("{at:08x}  {:<47}  {text}", numbers.join(" "))
    })
}

#[cfg(test)]
mod tests {
    use firsthop_core::{Alg, Event, FrameWriter, PropertiesWriter, Unsigned, Value as Property};
    use proptest::prelude::*;

    use super::*;

    fn frame(events: u64) -> Vec<u8> {
        let header = Header {
            first_seq: 40,
            ..Header::new(TenantId::new(7), SourceId::new([9; 16]), Timestamp::from_millis(1_700_000_000_000))
        };
        let mut buffer = vec![0; 8192];
        let mut writer = FrameWriter::new(&mut buffer[..], &header).expect("room");
        writer.extension(ExtensionKind::WriteKey, b"fh_0000000000000007_abcdefgh").expect("room");
        for i in 0..events {
            let (mut shape, mut words) = ([0; 64], [0; 64]);
            let mut properties = PropertiesWriter::new(&mut shape[..], &mut words[..]);
            properties.put("z", Property::U64(i)).expect("room");
            properties.put("a", Property::Str("x")).expect("room");
            let properties = properties.finish().expect("closed");
            writer.event(&Event { name: "Seen", properties, ..Event::default() }).expect("room");
        }
        writer.finish(&Unsigned).expect("finished").to_vec()
    }

    /// With its CRC put right, so that what is changed is what is found.
    fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
        let crc = crc32(&[&bytes[..80], &[0; 4], &bytes[84..]]);
        bytes[80..84].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn fault(bytes: &[u8]) -> (&'static str, usize) {
        let fault = decode(bytes, &RegionSecrets::default()).fault.expect("a fault");
        (fault.code, fault.at)
    }

    #[test]
    fn a_whole_frame_is_told_whole() {
        let bytes = frame(3);
        let told = decode(&bytes, &RegionSecrets::default());
        assert_eq!((told.kind, &told.fault), (Kind::Frame, &None));
        assert!(told.undecoded.is_empty(), "{told:?}");
        assert_eq!(told.events.iter().map(|event| event.seq).collect::<Vec<_>>(), [40, 41, 42]);
        assert_eq!(
            told.events[1].properties.as_ref().map(|raw| raw.get()),
            Some(r#"{"z":1,"a":"x"}"#),
            "in their order"
        );
        let field = |name: &str| told.fields.iter().find(|field| field.name == name).expect(name);
        assert_eq!((field("count").at, field("count").value.as_u64()), (44, Some(3)));
        assert_eq!(field("write_key").at, HEADER_LEN);
    }

    #[test]
    fn the_first_check_that_fails_is_named_and_where() {
        let good = frame(3);
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            seal(bytes)
        };
        assert_eq!(fault(&with(1, b'x')), (Error::Magic.code(), 1));
        for (bytes, error, at) in [
            (with(4, 9), Error::Version, 4),
            (with(5, 8), Error::Reserved, 5),
            (with(47, 1), Error::Reserved, 46),
            (with(86, 1), Error::Reserved, 84),
            (with(6, 0), Error::HeaderLength, 6),
            (with(42, 99), Error::Algorithm, 42),
            (with(78, 255), Error::TooLarge, 76),
            (with(40, b'e'), Error::Region, 40),
            (with(45, 255), Error::Count, 44),
            (with(55, 255), Error::Count, 48),
            (with(63, 255), Error::Count, 56),
            (good[..good.len() - 1].to_vec(), Error::Truncated, good.len() - 1),
            (good[..50].to_vec(), Error::Truncated, 50),
            ([&good[..], b"more"].concat(), Error::TrailingBytes, good.len()),
        ] {
            assert_eq!(fault(&bytes), (error.code(), at), "{error}");
        }
        let mut damaged = good.clone();
        *damaged.last_mut().expect("bytes") ^= 1;
        assert_eq!(fault(&damaged), (Error::Crc.code(), 80));
    }

    #[test]
    fn events_are_told_until_the_first_that_fails() {
        let good = decode(&frame(3), &RegionSecrets::default());
        let at = good.events[2].at;
        let mut bytes = frame(3);
        // Its kind: there is none of that number.
        bytes[at] = 99;
        let told = decode(&seal(bytes), &RegionSecrets::default());
        assert_eq!(told.events.len(), 2);
        assert_eq!(told.fault, Some(Fault { code: Error::Payload.code(), at, what: Error::Payload.to_string() }));
        assert_eq!(told.undecoded.start, at, "and the rest is for a dump");
        // A count that is too high: everything is there, and one is missing.
        let mut bytes = frame(3);
        bytes[44] = 4;
        let told = decode(&seal(bytes), &RegionSecrets::default());
        assert_eq!((told.events.len(), told.fault.map(|fault| fault.code)), (3, Some(Error::Count.code())));
    }

    #[test]
    fn json_is_told_as_json_and_where_it_breaks() {
        let told = decode(br#"{"event":"x"}"#, &RegionSecrets::default());
        assert_eq!((told.kind, told.fault, told.undecoded.len()), (Kind::Json, None, 0));
        let told = decode(b"{\"event\":\n  ?}", &RegionSecrets::default());
        assert_eq!(told.fault.expect("broken").at, 12);
        let told = decode(b"{\"a\":\"\xff\"}", &RegionSecrets::default());
        assert_eq!((told.kind, told.fault.expect("no text").at, told.undecoded), (Kind::Json, 6, 6..9));
        assert_eq!(decode(b"\x00\xff\x17", &RegionSecrets::default()).kind, Kind::Bytes);
        assert_eq!(fault(b""), (Error::Truncated.code(), 0));
    }

    #[test]
    fn a_dump_has_every_byte() {
        let lines: Vec<_> = dump(b"FHOP\x01\x00 and some more bytes", 32).collect();
        assert_eq!(lines[0], "00000020  46 48 4f 50 01 00 20 61 6e 64 20 73 6f 6d 65 20  FHOP.. and some ");
        assert_eq!(lines[1], "00000030  6d 6f 72 65 20 62 79 74 65 73                    more bytes");
    }

    #[test]
    fn every_algorithm_has_its_name() {
        for known in [Alg::None, Alg::HmacSha256Trunc128, Alg::HmacSha256, Alg::Ed25519, Alg::Blake3] {
            assert!(alg(known as u8).as_str().is_some_and(|name| !name.starts_with("unknown")), "{known:?}");
        }
    }

    /// What holds of any bytes: every byte is told or left over, and everything lies within.
    fn check(bytes: &[u8]) {
        let told = decode(bytes, &RegionSecrets::default());
        let parts = [Some(&told), told.inside.as_deref()];
        for part in parts.into_iter().flatten() {
            assert!(part.bytes.end <= bytes.len() && part.undecoded.end <= part.bytes.end, "{part:?}");
            assert!(part.undecoded.start >= part.bytes.start, "{part:?}");
            assert!(part.undecoded.is_empty() || part.fault.is_some(), "left over without a reason: {part:?}");
            assert!(part.fields.iter().all(|field| part.bytes.contains(&field.at)), "{part:?}");
            assert!(part.fault.as_ref().is_none_or(|fault| fault.at <= bytes.len()), "{part:?}");
            // What the core takes has no fault here, and what it does not has one.
            if part.kind == Kind::Frame {
                let taken = Frame::parse(&bytes[part.bytes.clone()]).and_then(|frame| frame.check());
                assert_eq!(taken.err().map(|error| error.code()), part.fault.as_ref().map(|fault| fault.code));
            }
        }
        serde_json::to_string(&told).expect("JSON");
        assert_eq!(dump(bytes, 0).count(), bytes.len().div_ceil(16));
    }

    proptest! {
        #[test]
        fn any_bytes_are_told(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            check(&bytes);
            check(&[&MAGIC[..], &bytes].concat());
        }

        #[test]
        fn any_change_of_a_frame_is_told(
            events in 0..5_u64,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in prop::option::of(any::<prop::sample::Index>()),
            sealed in any::<bool>(),
        ) {
            let mut bytes = frame(events);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if sealed {
                bytes = seal(bytes);
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            check(&bytes);
        }

        #[test]
        fn any_text_is_told(text in "\\PC{0,200}", json in any::<bool>()) {
            check(if json { format!("{{\"event\":{text}") } else { text }.as_bytes());
        }
    }
}
