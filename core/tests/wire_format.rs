//! `docs/wire-format.md` says what the code does: its tables and examples are read and compared. Not in the published
//! crate, which has no `docs/`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use firsthop_core::{ForeignId, Frame, SourceId, Value, Vendor, limits};

mod common;

use common::json::{self, hex, unhex};

const DOC: &str = include_str!("../../docs/wire-format.md");

/// The rows of all tables in the section with this number, as cells.
fn rows(section: u32) -> Vec<Vec<&'static str>> {
    let start = DOC.find(&format!("\n## {section}. ")).unwrap();
    let text = &DOC[start + 1..];
    let text = &text[..text.find("\n## ").unwrap_or(text.len())];
    let rows = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix('|'));
    rows.map(|row| row.split('|').map(str::trim).collect()).collect()
}

/// Bytes in backquotes.
fn bytes(cell: &str) -> Vec<u8> {
    unhex(&cell.trim_matches('`').replace(' ', ""))
}

#[test]
fn the_worked_frame_is_the_vectors() {
    let case = &json::cases(include_str!("vectors/sessions.json"))[0];
    let mut frame = Vec::new();
    for row in rows(15) {
        // The first row is the table's head, and another table follows.
        let Ok(at) = row[0].parse::<usize>() else { continue };
        assert_eq!(at, frame.len(), "{row:?}");
        frame.extend(bytes(row[1]));
    }
    assert_eq!(hex(&frame), json::text(&case["frame"], "hex"));
    assert!(Frame::parse(&frame).unwrap().check().is_ok());
    for field in ["root", "lease_info", "lease", "session_info", "session_secret"] {
        assert!(DOC.contains(&format!("`{}`", json::text(case, field))), "{field}");
    }
}

#[test]
fn the_worked_sealed_frame_is_the_vectors() {
    let case = &json::cases(include_str!("vectors/sealed.json"))[3];
    let mut frame = Vec::new();
    for row in rows(16) {
        let Ok(at) = row[0].parse::<usize>() else { continue };
        assert_eq!(at, frame.len(), "{row:?}");
        frame.extend(bytes(row[1]));
    }
    assert_eq!(hex(&frame), json::text(case, "hex"));
    let key = &case["region_key"];
    for (json, field) in [(key, "secret"), (key, "public"), (case, "random"), (case, "info"), (case, "payload")] {
        assert!(DOC.contains(&format!("`{}`", json::text(json, field))), "{field}");
    }
}

#[test]
fn the_example_of_properties_is_right() {
    let mut writer = common::writer();
    writer.put("sku", Value::Str("G-32")).unwrap();
    writer.begin_list(Some("tags")).unwrap();
    writer.push(Value::Str("a")).unwrap();
    writer.push(Value::Null).unwrap();
    writer.end().unwrap();
    writer.put("n", Value::I64(-3)).unwrap();
    let example: Vec<u8> =
        rows(6).iter().filter(|row| row[0].starts_with('`') && row.len() == 2).flat_map(|row| bytes(row[0])).collect();
    assert_eq!(hex(&common::postcard(&writer.finish().unwrap())), hex(&example));
}

#[test]
fn the_header_has_no_holes() {
    let mut end = 0;
    for row in rows(2) {
        let (Ok(at), Ok(len)) = (row[0].parse::<usize>(), row[2].parse::<usize>()) else { continue };
        assert_eq!(at, end, "{row:?}");
        end = at + len;
    }
    assert_eq!(end, firsthop_core::HEADER_LEN);
}

#[test]
fn bounds_are_those_of_the_code() {
    let expected = [
        ("frame", limits::MAX_FRAME as u64),
        ("envelope", limits::MAX_ENVELOPE as u64),
        ("header with extensions", limits::MAX_HEADER as u64),
        ("events in a frame", limits::MAX_EVENTS.into()),
        ("sequence numbers", limits::MAX_SEQ + 1),
        ("a frame's context", limits::MAX_CONTEXT as u64),
        ("a frame's context, for each of its events", limits::MAX_SHARED as u64),
        ("event", limits::MAX_EVENT as u64),
        ("properties, both halves", limits::MAX_EVENT as u64),
        ("values in properties", limits::MAX_VALUES as u64),
        ("depth of properties", limits::MAX_DEPTH as u64),
        ("name of an event", limits::MAX_NAME as u64),
        ("foreign id", limits::MAX_FOREIGN_ID as u64),
        ("write key", limits::MAX_WRITE_KEY as u64),
        ("text in an annotation", limits::MAX_NOTE as u64),
        ("session", limits::MAX_SESSION_MS),
        ("grace after a session", limits::SESSION_GRACE_MS),
        ("grace of a root", limits::ROOT_GRACE_MS),
    ];
    let number = |cell: &str| -> Option<u64> {
        let word = cell.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
        word.replace(',', "").parse().ok()
    };
    let said: Vec<_> = rows(12).into_iter().filter_map(|row| Some((row[0], number(row[1])?))).collect();
    assert_eq!(said, expected);
}

/// One row for each error of the code, and none besides.
#[test]
fn errors_are_those_of_the_code() {
    let source = include_str!("../src/error.rs");
    let code = source.split_once("pub const fn code").unwrap().1.split_once("impl fmt::Display").unwrap().0;
    let expected: BTreeSet<_> = code.split('"').skip(1).step_by(2).collect();
    let said: Vec<_> = rows(13).into_iter().filter_map(|row| row[0].strip_prefix('`')?.strip_suffix('`')).collect();
    assert_eq!(said.len(), expected.len());
    assert_eq!(said.into_iter().collect::<BTreeSet<_>>(), expected);
    // Whatever the checks of a frame or a session say is one of them.
    for cell in [3, 10].into_iter().flat_map(rows).filter_map(|row| row.get(2).copied()) {
        for said in cell.split('`').skip(1).step_by(2).filter(|word| word.contains('-') && !word.contains(' ')) {
            assert!(expected.contains(said), "{said}");
        }
    }
}

#[test]
fn the_example_of_a_foreign_source_is_right() {
    let id = ForeignId { vendor: Vendor::Segment, id: "ajs-next-1700000000000-9f0c7a52" };
    let source = SourceId::of_foreign("00000000000a11ce".parse().unwrap(), &id);
    assert!(DOC.contains(&format!("is source `{source}`")));
}

#[test]
fn links_lead_somewhere() {
    for link in DOC.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        if let Some(anchor) = link.strip_prefix('#') {
            let heading = |line: &str| {
                line.trim_start_matches("## ")
                    .to_lowercase()
                    .replace(' ', "-")
                    .replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "")
            };
            assert!(DOC.lines().any(|line| line.starts_with("## ") && heading(line) == anchor), "{anchor}");
        } else if !link.starts_with("https://") {
            let link = link.split('#').next().unwrap();
            assert!(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(link).exists(), "{link}");
        }
    }
}
