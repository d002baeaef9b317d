//! A model of what the core encodes, owned and plain, for tests to compare with; and the vectors, read into it.

#![allow(dead_code, reason = "every test file compiles this and uses a part of it")]

use firsthop_core::{
    Campaign, Context, ContextDelta, Error, Event, EventKind, ForeignId, Frame, FrameSigner, FrameWriter, Header,
    Properties, PropertiesWriter, Screen, SourceId, TenantId, Timestamp, Unsigned, Value, Vendor,
    limits::{MAX_EVENT, MAX_FRAME},
};

pub(crate) mod json;

/// A value of a property. Doubles are equal if their bits are.
#[derive(Clone, Debug)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    U64(u64),
    I64(i64),
    F64(f64),
    Str(String),
    Bytes(Vec<u8>),
    List(Vec<Tree>),
    Map(Entries),
}

pub(crate) type Entries = Vec<(String, Tree)>;

impl PartialEq for Tree {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::U64(a), Self::U64(b)) => a == b,
            (Self::I64(a), Self::I64(b)) => a == b,
            (Self::F64(a), Self::F64(b)) => a.to_bits() == b.to_bits(),
            (Self::Str(a), Self::Str(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::List(a), Self::List(b)) => a == b,
            (Self::Map(a), Self::Map(b)) => a == b,
            _ => false,
        }
    }
}

impl From<Value<'_>> for Tree {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::U64(value) => Self::U64(value),
            Value::I64(value) => Self::I64(value),
            Value::F64(value) => Self::F64(value),
            Value::Str(value) => Self::Str(value.into()),
            Value::Bytes(value) => Self::Bytes(value.into()),
            Value::List(list) => Self::List(list.iter().map(Self::from).collect()),
            Value::Map(map) => Self::Map(entries(map)),
        }
    }
}

pub(crate) fn entries(properties: Properties<'_>) -> Entries {
    properties.iter().map(|(key, value)| (key.into(), value.into())).collect()
}

pub(crate) type Writer = PropertiesWriter<Vec<u8>>;

pub(crate) fn writer() -> Writer {
    PropertiesWriter::new(vec![0; MAX_EVENT], vec![0; MAX_EVENT])
}

/// Writes a value under a key, or without one as an item.
pub(crate) fn put(writer: &mut Writer, key: Option<&str>, value: &Tree) -> Result<(), Error> {
    let scalar = match value {
        Tree::Null => Value::Null,
        Tree::Bool(value) => Value::Bool(*value),
        Tree::U64(value) => Value::U64(*value),
        Tree::I64(value) => Value::I64(*value),
        Tree::F64(value) => Value::F64(*value),
        Tree::Str(value) => Value::Str(value),
        Tree::Bytes(value) => Value::Bytes(value),
        Tree::List(items) => {
            writer.begin_list(key)?;
            items.iter().try_for_each(|item| put(writer, None, item))?;
            return writer.end();
        }
        Tree::Map(entries) => {
            writer.begin_map(key)?;
            entries.iter().try_for_each(|(key, value)| put(writer, Some(key), value))?;
            return writer.end();
        }
    };
    match key {
        Some(key) => writer.put(key, scalar),
        None => writer.push(scalar),
    }
}

pub(crate) fn written(entries: &Entries) -> Result<Writer, Error> {
    let mut writer = writer();
    entries.iter().try_for_each(|(key, value)| put(&mut writer, Some(key), value))?;
    Ok(writer)
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ContextModel {
    pub(crate) texts: [Option<String>; 9],
    pub(crate) screen: Option<(u32, u32)>,
    pub(crate) campaign: Option<[Option<String>; 5]>,
    pub(crate) extra: Entries,
}

impl ContextModel {
    pub(crate) fn of(context: &Context<'_>) -> Self {
        let owned = |text: Option<&str>| text.map(String::from);
        Self {
            texts: [
                context.anonymous_id,
                context.user_id,
                context.session_id,
                context.locale,
                context.timezone,
                context.user_agent,
                context.url,
                context.title,
                context.referrer,
            ]
            .map(owned),
            screen: context.screen.map(|screen| (screen.width, screen.height)),
            campaign: context.campaign.map(|c| [c.source, c.medium, c.name, c.term, c.content].map(owned)),
            extra: entries(context.extra),
        }
    }

    pub(crate) fn with<R>(&self, use_it: impl FnOnce(&Context<'_>) -> R) -> R {
        let extra = written(&self.extra).expect("the model is within bounds");
        let text = |i: usize| self.texts[i].as_deref();
        use_it(&Context {
            anonymous_id: text(0),
            user_id: text(1),
            session_id: text(2),
            locale: text(3),
            timezone: text(4),
            user_agent: text(5),
            url: text(6),
            title: text(7),
            referrer: text(8),
            screen: self.screen.map(|(width, height)| Screen { width, height }),
            campaign: self.campaign.as_ref().map(|texts| {
                let [source, medium, name, term, content] = texts.each_ref().map(Option::as_deref);
                Campaign { source, medium, name, term, content }
            }),
            extra: extra.finish().expect("everything is closed"),
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EventModel {
    pub(crate) kind: EventKind,
    pub(crate) offset_ms: i64,
    pub(crate) id: Option<String>,
    pub(crate) name: String,
    pub(crate) context: Option<ContextModel>,
    pub(crate) properties: Entries,
}

impl EventModel {
    pub(crate) fn of(event: &Event<'_>) -> Self {
        let context = event.context.apply(&Context::default()).expect("it was checked");
        Self {
            kind: event.kind,
            offset_ms: event.offset_ms,
            id: event.id.map(|id| {
                assert_eq!(id.vendor, Vendor::Segment);
                id.id.into()
            }),
            name: event.name.into(),
            context: (!event.context.is_none()).then(|| ContextModel::of(&context)),
            properties: entries(event.properties),
        }
    }

    pub(crate) fn with<R>(&self, use_it: impl FnOnce(&Event<'_>) -> R) -> R {
        let mut buf = vec![0; 2 * MAX_EVENT];
        let context = match &self.context {
            None => ContextDelta::NONE,
            Some(context) => context.with(|context| ContextDelta::encode(context, &mut buf)).expect("within bounds"),
        };
        let properties = written(&self.properties).expect("the model is within bounds");
        use_it(&Event {
            kind: self.kind,
            offset_ms: self.offset_ms,
            id: self.id.as_deref().map(|id| ForeignId { vendor: Vendor::Segment, id }),
            name: &self.name,
            context,
            properties: properties.finish().expect("everything is closed"),
        })
    }
}

pub(crate) fn header() -> Header {
    Header::new(TenantId::new(0xa11ce), SourceId::new([7; 16]), Timestamp::from_millis(1_700_000_000_000))
}

/// A whole frame.
pub(crate) fn frame(
    header: &Header,
    extensions: &[(firsthop_core::ExtensionKind, Vec<u8>)],
    context: &ContextModel,
    events: &[EventModel],
    signer: &(impl FrameSigner + ?Sized),
) -> Result<Vec<u8>, Error> {
    let mut writer = FrameWriter::new(vec![0; MAX_FRAME], header)?;
    for (kind, value) in extensions {
        writer.extension(*kind, value)?;
    }
    context.with(|context| writer.context(context))?;
    for event in events {
        event.with(|event| writer.event(event))?;
    }
    writer.finish(signer).map(<[u8]>::to_vec)
}

/// An unsigned frame of these events.
pub(crate) fn unsigned(context: &ContextModel, events: &[EventModel]) -> Result<Vec<u8>, Error> {
    frame(&header(), &[], context, events, &Unsigned)
}

/// What a frame carries.
pub(crate) fn content(frame: &Frame<'_>) -> Result<(ContextModel, Vec<EventModel>), Error> {
    let (context, events) = frame.open()?;
    let events = events.map(|event| event.map(|event| EventModel::of(&event))).collect::<Result<_, _>>()?;
    Ok((ContextModel::of(&context), events))
}

pub(crate) fn postcard(value: &impl serde::Serialize) -> Vec<u8> {
    let mut buf = vec![0; 4 * MAX_EVENT];
    postcard::to_slice(value, &mut buf).expect("it fits").to_vec()
}

/// Gives a frame that was changed the checksum that it should have.
pub(crate) fn fix_crc(bytes: &mut [u8]) {
    bytes[80..84].fill(0);
    let crc = firsthop_core::crc32(&[bytes]);
    bytes[80..84].copy_from_slice(&crc.to_le_bytes());
}
