//! The core's parsers.

use arbitrary::Arbitrary;
use firsthop_core::{
    Alg, Annotation, Context, Envelope, Epoch, Error, Event, EventId, Frame, Header, LeaseKey, Properties, Region,
    SessionGrant, SourceId, TenantId, Timestamp, WriteKey,
};

use crate::{
    common::{self, ContextModel, Entries, EventModel, Tree},
    key, mended,
};

/// Frames, as they come, and with lengths, CRC and tag put right.
pub fn frame(bytes: &[u8]) {
    // What comes from a fuzzer is not signed with our key.
    if let Ok(frame) = Frame::parse(bytes) {
        assert!(frame.verify(&key()).is_err());
        read(&frame);
    }
    let Some(bytes) = mended(bytes) else { return };
    let Ok(frame) = Frame::parse(&bytes) else { return };
    assert_eq!(frame.bytes(), bytes);
    if frame.header().alg == Alg::HmacSha256Trunc128 {
        frame.verify(&key()).expect("a tag of ours");
    }
    read(&frame);
}

/// Reads everything in a frame, and holds looking against decoding, and decoding against writing it again.
fn read(frame: &Frame<'_>) {
    let header = Header::peek(frame.bytes()).expect("it was parsed");
    assert_eq!(header, *frame.header());
    let extensions: usize = frame.extensions().map(|extension| 4 + extension.value.len()).sum();
    assert_eq!(88 + extensions + frame.payload().len() + frame.tag().len(), frame.bytes().len());
    let _ = (frame.session(), frame.write_key(), frame.traceparent());
    if let Ok(envelope) = Envelope::open(frame) {
        let _ = Frame::parse(envelope.frame);
    }
    match common::content(frame) {
        Ok((context, events)) => {
            frame.check().expect("it was decoded");
            let again = common::unsigned(&context, &events).expect("it was within bounds");
            assert_eq!(Frame::parse(&again).expect("our own").payload(), frame.payload());
        }
        Err(error) => assert_eq!(frame.check(), Err(error)),
    }
}

/// Headers.
pub fn header(bytes: &[u8]) {
    let Ok(header) = Header::peek(bytes) else { return };
    assert!(bytes.len() >= 88);
    assert_eq!(Header::peek(&bytes[..88]), Ok(header));
    // What is read is what is written, except that it takes more than a flag to seal.
    if header.flags.contains(firsthop_core::Flags::SEALED) {
        return;
    }
    let mut writer = firsthop_core::FrameWriter::new(vec![0; 512], &header).expect("it was within bounds");
    if header.alg == Alg::None {
        let frame = writer.finish(&firsthop_core::Unsigned).expect("there is room");
        let kept = |range: std::ops::Range<usize>| assert_eq!(frame[range.clone()], bytes[range]);
        kept(0..6);
        kept(8..44);
        kept(46..76);
    }
}

/// Blocks of properties.
pub fn properties(bytes: &[u8]) {
    let Ok((properties, rest)) = postcard::take_from_bytes::<Properties<'_>>(bytes) else { return };
    let model = common::entries(properties);
    let writer = common::written(&model).expect("it was within bounds");
    assert_eq!(writer.finish().expect("everything is closed"), properties);
    for (key, value) in properties {
        assert!(properties.get(key).is_some());
        let mut copy = common::writer();
        copy.put(key, value).expect("it was within bounds");
        assert_eq!(common::entries(copy.finish().expect("nothing is open")), [(key.to_owned(), Tree::from(value))]);
    }
    let again = common::postcard(&properties);
    // Lengths may have had needless groups: serde reads them.
    assert!(again.len() <= bytes.len() - rest.len());
}

/// Entries of any kind and depth.
#[derive(Arbitrary, Debug)]
pub struct Map(Vec<(String, Node)>);

#[derive(Arbitrary, Debug)]
enum Node {
    Null,
    Bool(bool),
    Whole(u64),
    Signed(i64),
    Double(u64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Node>),
    Map(Map),
}

impl Map {
    fn entries(&self) -> Entries {
        self.0.iter().map(|(key, node)| (key.clone(), node.tree())).collect()
    }
}

impl Node {
    /// The value as it is read again.
    fn tree(&self) -> Tree {
        match self {
            Self::Null => Tree::Null,
            Self::Bool(value) => Tree::Bool(*value),
            Self::Whole(value) => Tree::U64(*value),
            Self::Signed(value) => u64::try_from(*value).map_or(Tree::I64(*value), Tree::U64),
            Self::Double(bits) => Tree::F64(f64::from_bits(*bits)),
            Self::Text(value) => Tree::Str(value.clone()),
            Self::Bytes(value) => Tree::Bytes(value.clone()),
            Self::List(items) => Tree::List(items.iter().map(Self::tree).collect()),
            Self::Map(map) => Tree::Map(map.entries()),
        }
    }
}

/// Blocks of properties, from a tree of values.
pub fn properties_model(input: &Map) {
    let entries = input.entries();
    match common::written(&entries) {
        Ok(writer) => {
            let properties = writer.finish().expect("everything is closed");
            assert_eq!(common::entries(properties), entries);
            let bytes = common::postcard(&properties);
            assert_eq!(postcard::from_bytes(&bytes), Ok(properties));
        }
        Err(error) => assert!(matches!(error, Error::BufferFull | Error::TooLarge | Error::TooDeep)),
    }
}

/// Events and contexts: what is read by hand, serde reads too, and sees the same.
pub fn event(bytes: &[u8]) {
    // The empty context, and one event, in a frame.
    let empty = common::unsigned(&ContextModel::default(), &[]).expect("it is empty");
    let mut frame = [&empty[..], bytes].concat();
    frame[44] = 1;
    if let Some(frame) = mended(&frame) {
        let frame = Frame::parse(&frame).expect("it was mended");
        if let Ok((_, events)) = common::content(&frame) {
            let theirs: Event<'_> = postcard::from_bytes(bytes).expect("read by hand");
            assert_eq!(events, [EventModel::of(&theirs)]);
        }
    }
    // The other way round, a context of its own.
    let mut frame = [&empty[..88], bytes].concat();
    frame[44] = 0;
    if let Some(frame) = mended(&frame) {
        let frame = Frame::parse(&frame).expect("it was mended");
        if let Ok((context, _)) = frame.open() {
            let (theirs, _): (Context<'_>, _) = postcard::take_from_bytes(bytes).expect("read by hand");
            assert_eq!(ContextModel::of(&context), ContextModel::of(&theirs));
        }
    }
}

/// Annotations.
pub fn annotation(bytes: &[u8]) {
    let Ok((annotation, _)) = Annotation::decode(bytes) else { return };
    let mut buf = [0; 512];
    let again = annotation.encode(&mut buf).expect("it was within bounds");
    assert_eq!(Annotation::from_bytes(again), Ok(annotation));
    let _ = annotation.network.to_string();
}

/// Session grants: bytes of a grant, of a frame's epoch and of a clock.
pub fn grant(bytes: &[u8]) {
    let (grant_bytes, rest) = bytes.split_at(bytes.len().min(30));
    let Ok(grant) = SessionGrant::from_bytes(grant_bytes) else { return };
    assert_eq!(grant.to_bytes(), grant_bytes);
    let number = |at: usize| {
        rest.get(at..at + 8).map_or(1_700_000_000_000, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight")))
    };
    let mut header = common::header();
    header.alg = Alg::HmacSha256;
    header.epoch = Epoch::at(Timestamp::from_millis(number(8)));
    let lease = LeaseKey::new([5; 32]);
    let secret = lease.session_secret(header.source, &grant);
    let key = firsthop_core::MacKey::new(header.alg, &secret).expect("symmetric");
    let extension = [(firsthop_core::ExtensionKind::Session, grant.to_bytes().to_vec())];
    let bytes = common::frame(&header, &extension, &ContextModel::default(), &[], &key).expect("there is room");
    let verdict = lease.verify_session(&Frame::parse(&bytes).expect("our own"), Timestamp::from_millis(number(0)));
    assert!(matches!(verdict, Err(Error::Session | Error::Epoch | Error::SessionExpired)) || verdict == Ok(grant));
}

/// Ids and keys as text: what is read is written the same, but for capitals in a UUID.
pub fn ids(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(key) = WriteKey::parse(text) {
        assert_eq!(key.as_str(), text);
        assert_eq!(text[3..19].parse(), Ok(key.tenant()));
    }
    if let Ok(id) = text.parse::<TenantId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(id) = text.parse::<SourceId>() {
        assert_eq!(id.to_string(), text.to_lowercase());
    }
    if let Ok(id) = text.parse::<EventId>() {
        assert_eq!(id.to_string(), text.to_lowercase());
    }
    if let Ok(region) = text.parse::<Region>() {
        assert_eq!(region.as_str(), text);
    }
}
