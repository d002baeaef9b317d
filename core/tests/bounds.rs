//! Over a bound is an error, and what a writer has been given before that stays as it was.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use firsthop_core::{
    Annotation, Campaign, Context, Envelope, Error, Event, EventKind, Flags, Frame, FrameWriter, Network, Notes,
    Unsigned, Value, crc32,
    limits::{
        MAX_CLICK_ID, MAX_CONTEXT, MAX_DEPTH, MAX_ENVELOPE, MAX_EVENT, MAX_EVENTS, MAX_FOREIGN_ID, MAX_FRAME,
        MAX_HEADER, MAX_NAME, MAX_NOTE, MAX_NOTES, MAX_PARAMETER, MAX_SEQ, MAX_SHARED, MAX_VALUES,
    },
    seal_envelope,
};

mod common;

use common::{
    ContextModel, Entries, EventModel, Tree, content, entries, fix_crc, header, postcard, put, unsigned, writer,
    written,
};

fn nested(depth: usize) -> Tree {
    (0..depth).fold(Tree::Null, |inner, i| match i % 2 {
        0 => Tree::List(vec![inner]),
        _ => Tree::Map(vec![("k".into(), inner)]),
    })
}

#[test]
fn depth_is_bounded() {
    let deepest = vec![("k".to_owned(), nested(MAX_DEPTH))];
    let writer_ = written(&deepest).unwrap();
    assert_eq!(entries(writer_.finish().unwrap()), deepest);
    assert_eq!(written(&vec![("k".into(), nested(MAX_DEPTH + 1))]).err(), Some(Error::TooDeep));
    // A copy counts from where it is put.
    let Some((_, inner)) = writer_.finish().unwrap().iter().next() else { panic!("one entry") };
    let mut writer = writer();
    writer.put("same depth", inner).unwrap();
    writer.begin_list(Some("one deeper")).unwrap();
    assert_eq!(writer.push(inner), Err(Error::TooDeep));
}

#[test]
fn values_are_counted() {
    let list = |len| Tree::List(vec![Tree::Null; len]);
    // The list itself is one.
    let most = vec![("k".to_owned(), list(MAX_VALUES - 1))];
    let full = written(&most).unwrap();
    assert_eq!(unsigned(&ContextModel::default(), &[model(most.clone())]).map(|_| ()), Ok(()));
    assert_eq!(written(&vec![("k".into(), list(MAX_VALUES))]).err(), Some(Error::TooLarge));
    let Some((_, list)) = full.finish().unwrap().iter().next() else { panic!("one entry") };
    let mut writer = writer();
    writer.put("k", list).unwrap();
    assert_eq!(writer.put("l", Value::Null), Err(Error::TooLarge));
    assert_eq!(writer.put("l", list), Err(Error::TooLarge));
    assert_eq!(entries(writer.finish().unwrap()), most);
}

fn model(properties: Entries) -> EventModel {
    EventModel { kind: EventKind::Track, offset_ms: 0, id: None, name: String::new(), context: None, properties }
}

/// The frame that holds this, or the error of writing it.
fn try_event(event: EventModel) -> Result<Vec<u8>, Error> {
    unsigned(&ContextModel::default(), &[event])
}

#[test]
fn sizes_are_bounded() {
    let mut writer = writer();
    assert_eq!(writer.put("", Value::Bytes(&[0; MAX_EVENT])), Err(Error::BufferFull));
    let half = "x".repeat(MAX_EVENT / 2);
    writer.put("a", Value::Str(&half)).unwrap();
    assert_eq!(writer.put("b", Value::Bytes(half.as_bytes())), Err(Error::TooLarge));
    assert_eq!(writer.finish().unwrap().iter().count(), 1);

    // To the byte, on the writing and on the reading side.
    let of = |len: usize| model(vec![("k".into(), Tree::Str("x".repeat(len)))]);
    let overhead = postcard_len(&of(20_000)) - 20_000;
    let largest = try_event(of(MAX_EVENT - overhead)).unwrap();
    assert_eq!(content(&Frame::parse(&largest).unwrap()).map(|(_, events)| events.len()), Ok(1));
    assert_eq!(try_event(of(MAX_EVENT - overhead + 1)), Err(Error::TooLarge));
    // serde knows no bound, so it makes what the writer refuses.
    let mut larger = unsigned(&ContextModel::default(), &[]).unwrap();
    larger.extend(of(MAX_EVENT - overhead + 1).with(|event| postcard(event)));
    larger[44] = 1;
    let payload_len = larger.len() as u32 - 88;
    larger[76..80].copy_from_slice(&payload_len.to_le_bytes());
    fix_crc(&mut larger);
    assert_eq!(Frame::parse(&larger).unwrap().check(), Err(Error::TooLarge));

    let name = |len: usize| EventModel { name: "n".repeat(len), ..model(vec![]) };
    assert!(try_event(name(MAX_NAME)).is_ok());
    assert_eq!(try_event(name(MAX_NAME + 1)), Err(Error::TooLarge));
    let id = |len: usize| EventModel { id: Some("i".repeat(len)), ..model(vec![]) };
    assert!(try_event(id(MAX_FOREIGN_ID)).is_ok());
    assert_eq!(try_event(id(MAX_FOREIGN_ID + 1)), Err(Error::TooLarge));

    let url = |len: usize| {
        let mut context = ContextModel::default();
        context.texts[6] = Some("u".repeat(len));
        context
    };
    let overhead = url(10_000).with(|context| postcard(context)).len() - 10_000;
    let largest = unsigned(&url(MAX_CONTEXT - overhead), &[]).unwrap();
    assert!(Frame::parse(&largest).unwrap().check().is_ok());
    assert_eq!(unsigned(&url(MAX_CONTEXT - overhead + 1), &[]), Err(Error::TooLarge));

    let note = "n".repeat(MAX_NOTE + 1);
    let annotation = |note| Annotation { pop: note, ..Annotation::default() };
    assert!(annotation(&note[1..]).encode(&mut [0; 512]).is_ok());
    assert_eq!(annotation(&note).encode(&mut [0; 512]), Err(Error::TooLarge));

    let (parameter, click) = ("p".repeat(MAX_PARAMETER + 1), "c".repeat(MAX_CLICK_ID + 1));
    let notes = |city, term, click_id| {
        let campaign = Some(Campaign { term: Some(term), ..Campaign::default() });
        Notes { city, campaign, click_id, ..Notes::default() }.encode(&mut [0; MAX_NOTES]).map(<[u8]>::len)
    };
    assert!(notes(&note[1..], &parameter[1..], &click[1..]).is_ok());
    for over in [notes(&note, "", ""), notes("", &parameter, ""), notes("", "", &click)] {
        assert_eq!(over, Err(Error::TooLarge));
    }
}

fn postcard_len(event: &EventModel) -> usize {
    event.with(|event| postcard(event)).len()
}

#[test]
fn the_writer_takes_negative_and_other_numbers_under_one_name() {
    let mut writer = writer();
    for number in [i64::MIN, -1, 0, 1, i64::MAX] {
        writer.put("n", Value::I64(number)).unwrap();
    }
    let read: Vec<_> = writer.finish().unwrap().iter().map(|(_, value)| Tree::from(value)).collect();
    let expected = [Tree::I64(i64::MIN), Tree::I64(-1), Tree::U64(0), Tree::U64(1), Tree::U64(i64::MAX as u64)];
    assert_eq!(read, expected);
}

#[test]
fn a_writer_of_properties_keeps_its_order() {
    let mut writer = writer();
    assert_eq!(writer.end(), Err(Error::State));
    assert_eq!(writer.push(Value::Null), Err(Error::State));
    writer.begin_list(Some("l")).unwrap();
    assert_eq!(writer.put("k", Value::Null), Err(Error::State));
    assert_eq!(writer.begin_map(Some("k")), Err(Error::State));
    assert_eq!(writer.finish().err(), Some(Error::State));
    writer.begin_map(None).unwrap();
    assert_eq!(writer.push(Value::Null), Err(Error::State));
    writer.put("k", Value::Bool(true)).unwrap();
    writer.end().unwrap();
    writer.end().unwrap();
    let expected = vec![("l".to_owned(), Tree::List(vec![Tree::Map(vec![("k".into(), Tree::Bool(true))])]))];
    assert_eq!(entries(writer.finish().unwrap()), expected);
    writer.clear();
    assert!(writer.finish().unwrap().is_empty());
}

/// Whatever a buffer has no room for leaves it as it was: what comes after is as if the call had not been.
#[test]
fn a_full_buffer_keeps_what_it_has() {
    let value = Tree::Map(vec![("list".into(), Tree::List(vec![Tree::Str("größe".into()), Tree::U64(300)]))]);
    let mut whole = writer();
    put(&mut whole, Some("key"), &value).unwrap();
    let (_, copied) = whole.finish().unwrap().iter().next().unwrap();
    for (shape_len, text_len) in (0..20).flat_map(|shape| (0..24).map(move |text| (shape, text))) {
        let (mut shape, mut text) = (vec![0; shape_len], vec![0; text_len]);
        let mut writer = firsthop_core::PropertiesWriter::new(&mut shape[..], &mut text[..]);
        type Call<'c> = &'c dyn Fn(&mut firsthop_core::PropertiesWriter<&mut [u8]>) -> Result<(), Error>;
        let calls: [Call<'_>; 6] = [
            &|w| w.put("a", Value::Null),
            &|w| w.put("text", Value::Str("größe")),
            &|w| w.put("number", Value::U64(u64::MAX)),
            &|w| w.put("double", Value::F64(1.5)),
            &|w| w.put("bytes", Value::Bytes(&[1, 2, 3])),
            &|w| w.put("copy", copied),
        ];
        let mut kept = 0;
        for call in calls {
            match call(&mut writer) {
                Ok(()) => kept += 1,
                Err(error) => assert_eq!(error, Error::BufferFull),
            }
            assert_eq!(writer.finish().unwrap().iter().count(), kept);
        }
    }
}

#[test]
fn a_frame_that_is_full_goes_on_in_the_next() {
    let event = Event { name: "Product Viewed", ..Event::default() };
    for len in 0..400 {
        let mut writer = match FrameWriter::new(vec![0; len], &header()) {
            Ok(writer) => writer,
            Err(error) => {
                assert!(error == Error::BufferFull && len < 88);
                continue;
            }
        };
        let mut count = 0;
        let error = loop {
            match writer.event(&event) {
                Ok(()) => count += 1,
                Err(error) => break error,
            }
        };
        assert_eq!((error, writer.count(), writer.is_empty()), (Error::BufferFull, count, count == 0));
        match writer.finish(&Unsigned) {
            Ok(bytes) => {
                let frame = Frame::parse(bytes).unwrap();
                assert_eq!(frame.open().unwrap().1.filter(|read| *read == Ok(event)).count(), usize::from(count));
            }
            // Not even an empty context fits.
            Err(error) => assert!(error == Error::BufferFull && count == 0 && len < 88 + 13),
        }
    }
}

#[test]
fn a_frame_writer_keeps_its_order() {
    let mut writer = FrameWriter::new(vec![0; 4096], &header()).unwrap();
    let (trace, other) = (firsthop_core::ExtensionKind::Traceparent, firsthop_core::ExtensionKind::Unknown(77));
    writer.extension(trace, b"1").unwrap();
    assert_eq!(writer.extension(trace, b"2"), Err(Error::Extension));
    writer.extension(other, &[0; MAX_HEADER - 88 - 5 - 4]).unwrap();
    assert_eq!(writer.extension(firsthop_core::ExtensionKind::Session, b""), Err(Error::HeaderLength));
    // An event that is refused changes nothing: the context may still be written.
    let large = "n".repeat(MAX_NAME + 1);
    assert_eq!(writer.event(&Event { name: &large, ..Event::default() }), Err(Error::TooLarge));
    writer.context(&Context { locale: Some("de"), ..Context::default() }).unwrap();
    assert_eq!(writer.context(&Context::default()), Err(Error::State));
    assert_eq!(writer.extension(other, b""), Err(Error::State));
    writer.event(&Event::default()).unwrap();
    writer.set_dropped(5);
    let wrong = firsthop_core::MacKey::new(firsthop_core::Alg::HmacSha256, &[1; 32]).unwrap();
    assert_eq!(writer.finish(&wrong).err(), Some(Error::Algorithm));
    let len = writer.len();
    let bytes = writer.finish(&Unsigned).unwrap().to_vec();
    assert_eq!(bytes.len(), len);
    let frame = Frame::parse(&bytes).unwrap();
    assert_eq!((frame.header().count, frame.header().dropped), (1, 5));
    assert_eq!(frame.open().unwrap().0.locale, Some("de"));
    assert_eq!(writer.finish(&Unsigned).err(), Some(Error::State));
    assert_eq!(writer.event(&Event::default()), Err(Error::State));
    // The next one owes nothing to the one before.
    writer.begin(&header()).unwrap();
    assert_eq!(writer.finish(&Unsigned).unwrap(), unsigned(&ContextModel::default(), &[]).unwrap());
}

/// Names are remembered while a frame is read. One that differs in a single byte is another one, and is checked.
#[test]
fn names_that_are_nearly_the_same() {
    for len in 1..40 {
        let names: Vec<String> = (0..len)
            .flat_map(|at| {
                [0, 1].map(|other| (0..len).map(|i| if i == at { ['x', 'y'][other] } else { 'x' }).collect())
            })
            .collect();
        let events: Vec<_> = names.iter().map(|name| EventModel { name: name.clone(), ..model(vec![]) }).collect();
        let bytes = unsigned(&ContextModel::default(), &events).unwrap();
        assert_eq!(content(&Frame::parse(&bytes).unwrap()).unwrap().1, events);
        // The last name ends in what is not UTF-8: kind, offset, id, length, name, and three empty fields.
        let mut broken = bytes;
        let last = broken.len() - 4;
        broken[last] = 0xff;
        fix_crc(&mut broken);
        assert_eq!(Frame::parse(&broken).unwrap().check(), Err(Error::Payload));
    }
}

#[test]
fn numbers_of_events_are_bounded() {
    let mut writer = FrameWriter::new(vec![0; MAX_FRAME], &header()).unwrap();
    for _ in 0..MAX_EVENTS {
        writer.event(&Event::default()).unwrap();
    }
    assert_eq!(writer.event(&Event::default()), Err(Error::Count));
    let bytes = writer.finish(&Unsigned).unwrap();
    assert_eq!(Frame::parse(bytes).unwrap().open().unwrap().1.filter(Result::is_ok).count(), usize::from(MAX_EVENTS));

    let near_the_end = firsthop_core::Header { first_seq: MAX_SEQ - 2, ..header() };
    let mut writer = FrameWriter::new(vec![0; 4096], &near_the_end).unwrap();
    writer.event(&Event::default()).unwrap();
    writer.event(&Event::default()).unwrap();
    assert_eq!(writer.event(&Event::default()), Err(Error::Count));
    assert_eq!(Frame::parse(writer.finish(&Unsigned).unwrap()).map(|frame| frame.header().count), Ok(2));
    for over in [
        firsthop_core::Header { first_seq: MAX_SEQ + 1, ..header() },
        firsthop_core::Header { batch_seq: MAX_SEQ + 1, ..header() },
        firsthop_core::Header { first_seq: u64::MAX, ..header() },
    ] {
        assert_eq!(FrameWriter::new(vec![0; 4096], &over).err(), Some(Error::Count));
    }
}

#[test]
fn an_envelope_is_no_frame_of_events() {
    let mut writer =
        FrameWriter::new(vec![0; 4096], &firsthop_core::Header { flags: Flags::ENVELOPE, ..header() }).unwrap();
    let bytes = writer.finish(&Unsigned).unwrap();
    assert_eq!(Frame::parse(bytes).unwrap().open().err(), Some(Error::State));
}

#[test]
fn envelopes_are_bounded() {
    let (mut buf, inner) = (vec![0; 2 * MAX_ENVELOPE], vec![0; MAX_ENVELOPE]);
    let mut seal = |len: usize| {
        let (header, worker) = (header(), firsthop_core::WorkerId::new(1));
        let sealed = seal_envelope(&mut buf, &header, worker, &Annotation::default(), &inner[..len], &Unsigned)?;
        let frame = Frame::parse(sealed).unwrap();
        Envelope::open(&frame).map(|envelope| (sealed.len(), envelope.frame.len()))
    };
    // Whatever is a frame fits.
    let overhead = seal(MAX_FRAME).unwrap().0 - MAX_FRAME;
    assert_eq!(seal(MAX_ENVELOPE - overhead), Ok((MAX_ENVELOPE, MAX_ENVELOPE - overhead)));
    assert_eq!(seal(MAX_ENVELOPE - overhead + 1), Err(Error::TooLarge));
    assert_eq!(seal(MAX_ENVELOPE), Err(Error::TooLarge));
}

#[test]
fn networks_are_cut() {
    for (address, network) in [
        ("203.0.113.77", "203.0.113.0/24"),
        ("2001:db8:1234:5678:9abc::1", "2001:db8:1234::/48"),
        ("::ffff:203.0.113.77", "203.0.113.0/24"),
        // 6to4 of 203.0.113.77
        ("2002:cb00:714d:1::1", "203.0.113.0/24"),
        ("::1", "::/48"),
        ("255.255.255.255", "255.255.255.0/24"),
    ] {
        assert_eq!(Network::of(address.parse().unwrap()).to_string(), network);
    }
    assert_eq!(Network::Unknown.to_string(), "");
}

/// A traceparent is taken as it should be or not at all; a campaign is replaced as a whole.
#[test]
fn what_a_frame_says_beside_its_events() {
    for (text, good) in [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff", true),
        ("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false),
        ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0", false),
        ("00-4bf92f3577b34da6a3ce929d0e0e47360-0f067aa0ba902b7-01", false),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0é", false),
        ("", false),
    ] {
        let mut writer = FrameWriter::new(vec![0; 4096], &header()).unwrap();
        writer.extension(firsthop_core::ExtensionKind::Traceparent, text.as_bytes()).unwrap();
        let bytes = writer.finish(&Unsigned).unwrap();
        assert_eq!(Frame::parse(bytes).unwrap().traceparent(), good.then_some(text), "{text}");
    }
    for (text, good) in [
        ("fh_00000000000a11ce_Kq7Zp0c3Vn8Rb5Ls", true),
        ("fh_00000000000a11cf_Kq7Zp0c3Vn8Rb5Ls", false),
        ("fh_00000000000a11ce_Kq7Zp0c3Vn8Rb5L", false),
    ] {
        let mut writer = FrameWriter::new(vec![0; 4096], &header()).unwrap();
        writer.extension(firsthop_core::ExtensionKind::WriteKey, text.as_bytes()).unwrap();
        let bytes = writer.finish(&Unsigned).unwrap();
        assert_eq!(Frame::parse(bytes).unwrap().write_key().is_ok(), good, "{text}");
    }
    let campaign = |name| Context { campaign: Some(Campaign { name, ..Campaign::default() }), ..Context::default() };
    assert_eq!(campaign(Some("a")).with(&campaign(None)), campaign(None));
}

/// A few kilobytes of context beside each of thousands of tiny events are more than anybody wants to store: a writer goes
/// on to the next frame in time, and what another writer made is refused.
#[test]
fn a_context_is_shared_by_no_more_events_than_its_size_allows() {
    let event = Event { name: "x", ..Event::default() };
    for (byte, len, written) in [('u', 4_000, 1), ('\u{1}', 4_000, 6), ('u', 40, 1)] {
        let locale = byte.to_string().repeat(len);
        let context = Context { locale: Some(&locale), ..Context::default() };
        let mut writer = FrameWriter::new(vec![0; MAX_FRAME], &header()).unwrap();
        writer.context(&context).unwrap();
        let shared = writer.len();
        while writer.event(&event).is_ok() {}
        let count = writer.count();
        assert_eq!(writer.event(&event), Err(Error::Count), "the next frame is for it");
        let frame = writer.finish(&Unsigned).unwrap().to_vec();
        assert!(Frame::parse(&frame).unwrap().check().is_ok());
        // The fields that are not there and the lengths, generously.
        let (least, most) = (len * written, len * written + 120);
        let count = usize::from(count);
        if len < 1_000 {
            assert_eq!(count, usize::from(MAX_EVENTS));
            continue;
        }
        assert!((count + 1) * most > MAX_SHARED && count * least <= MAX_SHARED, "{count}");

        // The same frame with one event more.
        let mut more = frame.clone();
        let event_len = (frame.len() - shared) / count;
        more.extend_from_slice(&frame[frame.len() - event_len..]);
        more[44..46].copy_from_slice(&(count as u16 + 1).to_le_bytes());
        let payload = (more.len() - firsthop_core::HEADER_LEN) as u32;
        more[76..80].copy_from_slice(&payload.to_le_bytes());
        more[80..84].fill(0);
        let crc = crc32(&[&more]);
        more[80..84].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Frame::parse(&more).unwrap().check(), Err(Error::TooLarge));
    }
}
