use firsthop_core::{
    Alg, Event, ExtensionKind, FrameWriter, PropertiesWriter, SourceId, TenantId, Timestamp, Unsigned,
    Value as Property,
};
use proptest::prelude::*;

use super::{show::alg, *};

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
    assert_eq!(told.events[1].properties.as_ref().map(|raw| raw.get()), Some(r#"{"z":1,"a":"x"}"#), "in their order");
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
