//! Envelopes: what an edge notes on a frame.

use firsthop_core::{
    Alg,
    limits::{MAX_CLICK_ID, MAX_NOTE, MAX_NOTES, MAX_PARAMETER},
};
use firsthop_intake::Account as _;

use super::{
    AsideBefore, Refused, Row, Taken, World,
    bytes::{Parts, block},
    frame::Route,
};
use crate::common::{Page, now};

/// The fields of an annotation, as they are encoded.
const PLAIN: [&[u8]; 8] = [&[1], &[0], &[0], &[0], &[0], &[0], &[1], &[0]];
/// And those of notes.
const NOTES: [&[u8]; 9] = [&[0], &[0], &[0], &[0], &[0], &[0], &[0], &[0], &[0]];

fn with<const N: usize>(plain: [&[u8]; N], field: usize, bytes: &[u8]) -> Vec<u8> {
    let mut fields = plain;
    fields[field] = bytes;
    fields.concat()
}

pub(super) fn rows(world: &mut World) -> Vec<Row> {
    let tenant = world.tenant.clone();
    let (key_id, scope, lease) = world.edge.account.current(now()).expect("a lease");
    let key = *lease.envelope_secret();
    let inner = || Page::new(&tenant).frame(1);
    let good = || {
        let numbers = [key_id.get().to_le_bytes(), scope.epoch.get().to_le_bytes()].concat();
        let parts = Parts::new(tenant.id, "EU", 1, Some((Alg::HmacSha256, key))).put(5, &[4]).put(32, &numbers);
        parts.with(4, &scope.worker.get().to_le_bytes()).holding([PLAIN.concat(), inner()].concat())
    };
    let route = Route { path: "/v1/e", good: &good, is_envelope: true };
    let mut rows = Vec::new();
    route.header(&mut rows);
    let plain = || good().bytes();
    let mut row = |field: &str, said, inside: &[u8], outside: &[u8], code| {
        rows.push(route.row(field, said, inside, outside, Refused(code)));
    };
    row(
        "frame.key_id",
        "no root with this `key_id`",
        &plain(),
        &good().put(32, &99_u32.to_le_bytes()).bytes(),
        "unknown-key",
    );
    let epoch = |epoch: u32| good().put(36, &epoch.to_le_bytes()).bytes();
    let late = epoch(scope.epoch.get() - 7 * 24 - 2);
    row("frame.epoch", "whose epoch is at most one ahead and 7 days past", &plain(), &late, "epoch-out-of-range");
    row(
        "frame.epoch",
        "whose epoch is at most one ahead and 7 days past",
        &plain(),
        &epoch(scope.epoch.get() + 2),
        "epoch-out-of-range",
    );
    let mut forged = plain();
    *forged.last_mut().expect("bytes") ^= 1;
    row("frame.tag", "the tag does not match", &plain(), &forged, "bad-signature");
    let worker = scope.worker.get().to_le_bytes();
    let hop = good().with(4, &[&worker[..], &[0]].concat()).bytes();
    row("extensions.hop", "which first hop signed it, 4 bytes", &plain(), &hop, "bad-extension");
    row(
        "frame.count",
        "at most 4,096; in an envelope",
        &good().put(44, &[0, 16]).bytes(),
        &good().put(44, &[1, 16]).bytes(),
        "bad-count",
    );

    // Annotation.
    let noted = |field: usize, bytes: &[u8]| good().holding([with(PLAIN, field, bytes), inner()].concat()).bytes();
    let text = |length: usize| block(&vec![b'x'; length]);
    for (field, name) in [(1, "pop"), (2, "country")] {
        row(
            &format!("annotation.{name}"),
            "text in an annotation | 64 bytes",
            &noted(field, &text(MAX_NOTE)),
            &noted(field, &text(MAX_NOTE + 1)),
            "too-large",
        );
    }
    for (field, name, most, said) in [
        (4, "agent", 6, "unknown, desktop, phone, tablet, library, robot, television"),
        (5, "traffic", 5, "unknown, bot, prefetch, human, AI agent, scanner"),
    ] {
        row(
            &format!("annotation.{name}"),
            said,
            &noted(field, &[most]),
            &noted(field, &[most + 1]),
            "malformed-payload",
        );
    }
    let network = |kind: u8| noted(3, &[kind, 1, 2, 3, 4, 5, 6][..if kind == 1 { 4 } else { 7 }]);
    row("annotation.network", "IPv6: the first 6 bytes", &network(2), &network(3), "malformed-payload");
    let trust = |trust: u8| {
        // What it vouches for is there: a frame with a write key.
        noted(6, &[trust])
    };
    row("annotation.trust", "unchecked: the hop could not check it", &trust(1), &trust(3), "malformed-payload");
    let most = [&[0xff; 9][..], &[1]].concat();
    let over = [&[0xff; 9][..], &[2]].concat();
    row(
        "annotation.received_ms",
        "at most 64 bits in at most ten bytes",
        &noted(0, &most),
        &noted(0, &over),
        "malformed-payload",
    );

    // Notes.
    let notes = |field: usize, bytes: &[u8]| good().with(6, &with(NOTES, field, bytes)).bytes();
    for (field, name) in [(5, "subdivision"), (6, "city")] {
        row(
            &format!("notes.{name}"),
            "At most 64 bytes each",
            &notes(field, &text(MAX_NOTE)),
            &notes(field, &text(MAX_NOTE + 1)),
            "too-large",
        );
    }
    for nth in 0..5 {
        let campaign = |length: usize| {
            let mut texts = vec![vec![0]; 5];
            texts[nth] = [vec![1], text(length)].concat();
            notes(7, &[vec![1], texts.concat()].concat())
        };
        row(
            "notes.campaign",
            "at most 96 bytes each",
            &campaign(MAX_PARAMETER),
            &campaign(MAX_PARAMETER + 1),
            "too-large",
        );
    }
    row(
        "notes.click_id",
        "or empty; at most 208 bytes",
        &notes(8, &text(MAX_CLICK_ID)),
        &notes(8, &text(MAX_CLICK_ID + 1)),
        "too-large",
    );
    let (most, over) = ([0xff, 0xff, 0xff, 0xff, 15], [0xff, 0xff, 0xff, 0xff, 16]);
    row(
        "notes.rules",
        "the first 4 bytes, little-endian, of the SHA-256",
        &notes(0, &most),
        &notes(0, &over),
        "malformed-payload",
    );
    row(
        "notes.effects",
        "8 the source stands for the visit",
        &notes(1, &[0]),
        &notes(1, &[0xff, 0xff, 4]),
        "malformed-payload",
    );
    row("notes.referrer", "AI assistant, campaign, other", &notes(3, &[8]), &notes(3, &[9]), "malformed-payload");
    let (most, over) = ([&[0xff; 9][..], &[1]].concat(), [&[0xff; 9][..], &[2]].concat());
    row(
        "notes.skew_ms",
        "at most 64 bits in at most ten bytes",
        &notes(4, &most),
        &notes(4, &over),
        "malformed-payload",
    );
    // What stands behind the last field is skipped, within the bound of all.
    let long = |length: usize| {
        let mut bytes = NOTES.concat();
        bytes.resize(length, 0);
        good().with(6, &bytes).bytes()
    };
    row("extensions.notes", "in at most 896 bytes", &long(MAX_NOTES), &long(MAX_NOTES + 1), "too-large");
    let any = route.row(
        "notes.withdrawn",
        "purposes that the request took back",
        &notes(2, &[0]),
        &notes(2, &[255]),
        Taken(200),
    );
    rows.push(any);
    let refused = |length: usize| noted(7, &text(length));
    rows.push(Row {
        inside: (route.post(&refused(MAX_NOTE)), AsideBefore("refused-by-edge")),
        ..route.row(
            "annotation.refused",
            "text in an annotation | 64 bytes",
            &refused(MAX_NOTE),
            &refused(MAX_NOTE + 1),
            Refused("too-large"),
        )
    });
    rows
}
