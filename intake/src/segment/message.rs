//! One message of Segment's → one event.

use std::borrow::Cow;

use firsthop_core::{
    Campaign, Context, ContextDelta, Error, Event, EventKind, ForeignId, PropertiesWriter, Screen, Timestamp, Value,
    Vendor,
    limits::{MAX_EVENT, MAX_FOREIGN_ID},
};

use crate::{
    Problem, Refusal, json,
    segment::{
        lexical,
        members::{Members, is_nothing, malformed},
    },
    time,
};

/// What a message says, read but for what goes into properties and context.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    kind: EventKind,
    id: Option<Cow<'a, str>>,
    name: Cow<'a, str>,
    user_id: Option<Cow<'a, str>>,
    anonymous_id: Option<Cow<'a, str>>,
    /// When it happened, in milliseconds since the Unix epoch; none if it does not say.
    time: Option<i64>,
    properties: Option<&'a str>,
    /// What the visitor grants, as it stands; it stays in the context, too.
    pub(crate) consent: Option<&'a str>,
    context: Members<'a>,
    /// What no field of an event holds.
    rest: Members<'a>,
}

/// What the messages of a batch share.
#[derive(Debug, Default)]
pub(crate) struct Shared<'a> {
    pub(crate) context: Members<'a>,
    pub(crate) rest: Members<'a>,
    /// When the request was sent, by the sender's clock.
    pub(crate) sent: Option<i64>,
}

impl<'a> Message<'a> {
    /// Reads a message. `kind` is the path's, or none where each message says its own.
    pub(crate) fn read(
        mut members: Members<'a>,
        kind: Option<EventKind>,
        shared: &Shared<'a>,
        write_key: &str,
        now: Timestamp,
    ) -> Result<Self, Problem> {
        members.check_count()?;
        let said = members.get("type")?.and_then(json::text);
        let said = EventKind::ALL.into_iter().find(|kind| said.as_deref() == Some(kind.as_str()));
        let kind = kind.or(said).ok_or_else(|| malformed("a message needs a `type` of the six that there are"))?;
        if said == Some(kind) {
            members.take("type")?;
        }
        if members.take("writeKey")?.is_some_and(|json| json::text(json).as_deref() != Some(write_key)) {
            return Err(Problem::new(Error::WriteKey).with_detail("the message names another write key"));
        }
        let id = members.take("messageId")?.map(|json| read_id("messageId", json)).transpose()?.flatten();
        if id.as_ref().is_some_and(|id| id.len() > MAX_FOREIGN_ID) {
            return Err(Problem::new(Error::TooLarge).with_detail("`messageId` is too long"));
        }
        let mut id_of = |name| members.take(name)?.map(|json| read_id(name, json)).transpose().map(Option::flatten);
        let (user_id, anonymous_id) = (id_of("userId")?, id_of("anonymousId")?);
        let name = read_name(kind, &mut members)?;
        let content = match kind {
            EventKind::Identify | EventKind::Group => Some("traits"),
            EventKind::Track | EventKind::Page | EventKind::Screen => Some("properties"),
            EventKind::Alias => None,
        };
        let properties = content.map(|name| members.take(name)).transpose()?.flatten();
        let context = members.take("context")?.unwrap_or("null");
        let mut context = Members::parse(context).ok_or_else(|| malformed("`context` is not an object"))?;
        context.check_count()?;
        context.or(&shared.context);
        let consent = context.get("consent")?;
        let sent = members.take("sentAt")?.and_then(read_time).or(shared.sent);
        let time = event_time(&members, sent, now)?;
        members.or(&shared.rest);
        Ok(Self { kind, id, name, user_id, anonymous_id, time, properties, consent, context, rest: members })
    }
}

/// The name of an event: what [`EventKind`] says that it is.
fn read_name<'a>(kind: EventKind, members: &mut Members<'a>) -> Result<Cow<'a, str>, Problem> {
    let (name, needed) = match kind {
        EventKind::Track => ("event", true),
        EventKind::Page | EventKind::Screen => ("name", false),
        EventKind::Group => ("groupId", true),
        EventKind::Alias => ("previousId", true),
        EventKind::Identify => return Ok(Cow::Borrowed("")),
    };
    let text = members.take(name)?.map(|json| read_id(name, json)).transpose()?.flatten();
    match text {
        None if needed => Err(malformed(format!("`{}` needs `{name}`", kind.as_str()))),
        text => Ok(text.unwrap_or_default()),
    }
}

/// An id or name: a text, or a number as SDKs of typed languages send it. Null and the empty text are none.
fn read_id<'a>(name: &str, json: &'a str) -> Result<Option<Cow<'a, str>>, Problem> {
    match json.as_bytes() {
        b"null" => Ok(None),
        [b'0'..=b'9' | b'-', ..] => Ok(Some(Cow::Borrowed(json))),
        _ => match json::text(json) {
            Some(text) => Ok(Some(text).filter(|text| !text.is_empty())),
            None => Err(malformed(format!("`{name}` is not a text"))),
        },
    }
}

pub(crate) fn read_time(json: &str) -> Option<i64> {
    json::text(json).and_then(|text| time::parse(&text))
}

/// When it happened. On the wire `timestamp`, or `originalTimestamp` alone, is the sender's clock; where the request
/// says when it was sent, the sender's clock can be set right: `timestamp + (now − sentAt)`. A message with both has been
/// through Segment, and its `timestamp` was set right there.
fn event_time(members: &Members<'_>, sent: Option<i64>, now: Timestamp) -> Result<Option<i64>, Problem> {
    let timestamp = members.get("timestamp")?.and_then(read_time);
    let original = members.get("originalTimestamp")?.and_then(read_time);
    Ok(match (timestamp, original, sent) {
        (Some(corrected), Some(_), _) => Some(corrected),
        (Some(time), None, Some(sent)) | (None, Some(time), Some(sent)) => Some(time + (now_ms(now) - sent)),
        (time, original, None) => time.or(original),
        (None, None, Some(_)) => None,
    })
}

fn now_ms(now: Timestamp) -> i64 {
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// The member of an event's extra context that holds what a message says and no field of an event does.
pub(crate) const REST: &str = "segment";

/// Makes events of messages, in buffers that it keeps.
#[derive(Debug)]
pub(crate) struct Encoder {
    properties: PropertiesWriter<Vec<u8>>,
    extra: PropertiesWriter<Vec<u8>>,
    context: Vec<u8>,
}

impl Encoder {
    /// For messages of up to this many bytes of JSON.
    pub(crate) fn new(most: usize) -> Self {
        // JSON's shortest doubles triple at most; the fixed part of a context is far below the rest.
        let len = (3 * most + 256).min(MAX_EVENT);
        let writer = || PropertiesWriter::new(vec![0; len], vec![0; len]);
        Self { properties: writer(), extra: writer(), context: vec![0; len] }
    }

    /// Hands the event of a message to `sink`. `random_id` stands in for an id that the message lacks; `created` is the
    /// clock that the event's time counts from.
    pub(crate) fn encode(
        &mut self,
        message: &Message<'_>,
        random_id: impl FnOnce() -> String,
        created: Timestamp,
        sink: impl FnOnce(&Event<'_>) -> Result<(), Error>,
    ) -> Result<(), Problem> {
        self.properties.clear();
        if let Some(properties) = message.properties.filter(|json| !is_nothing(json)) {
            json::read_entries(properties, &mut self.properties).map_err(|refusal| match refusal {
                Refusal::Json => malformed("properties or traits are not an object"),
                other => other.into(),
            })?;
        }
        self.extra.clear();
        let fields = Fields::read(&message.context, &mut self.extra)?;
        write_rest(&message.rest, &mut self.extra)?;
        let context = Context {
            anonymous_id: message.anonymous_id.as_deref(),
            user_id: message.user_id.as_deref(),
            extra: self.extra.finish()?,
            ..fields.context()
        };
        let context = ContextDelta::encode(&context, &mut self.context).map_err(too_large)?;
        let id = message.id.clone().unwrap_or_else(|| random_id().into());
        sink(&Event {
            kind: message.kind,
            offset_ms: message.time.map_or(0, |time| time.saturating_sub(now_ms(created))),
            id: Some(ForeignId { vendor: Vendor::Segment, id: &id }),
            name: &message.name,
            context,
            properties: self.properties.finish()?,
        })?;
        Ok(())
    }
}

/// The buffers are as large as an event may be: what does not fit is too large.
fn too_large(error: Error) -> Problem {
    if error == Error::BufferFull { Error::TooLarge.into() } else { error.into() }
}

/// The members of `context` that have a field of their own.
#[derive(Default)]
struct Fields<'a> {
    locale: Option<Cow<'a, str>>,
    timezone: Option<Cow<'a, str>>,
    user_agent: Option<Cow<'a, str>>,
    /// `url`, `title`, `referrer`
    page: [Option<Cow<'a, str>>; 3],
    /// `source`, `medium`, `name`, `term`, `content`
    campaign: [Option<Cow<'a, str>>; 5],
    screen: Option<Screen>,
}

impl<'a> Fields<'a> {
    /// Takes what has a field, and writes all else into `extra` under the name that it has.
    fn read(context: &Members<'a>, extra: &mut PropertiesWriter<Vec<u8>>) -> Result<Self, Problem> {
        let mut fields = Self::default();
        for (name, value) in &context.0 {
            let slot = match &**name {
                "locale" => &mut fields.locale,
                "timezone" => &mut fields.timezone,
                "userAgent" => &mut fields.user_agent,
                "page" => {
                    split(name, value, ["url", "title", "referrer"], &mut fields.page, extra)?;
                    continue;
                }
                "campaign" => {
                    let names = ["source", "medium", "name", "term", "content"];
                    split(name, value, names, &mut fields.campaign, extra)?;
                    continue;
                }
                "screen" => {
                    fields.read_screen(value, extra)?;
                    continue;
                }
                _ => {
                    write(name, value, extra)?;
                    continue;
                }
            };
            match json::text(value) {
                Some(text) if slot.is_none() => *slot = Some(text),
                _ => write(name, value, extra)?,
            }
        }
        Ok(fields)
    }

    fn read_screen(&mut self, json: &'a str, extra: &mut PropertiesWriter<Vec<u8>>) -> Result<(), Problem> {
        let Some(mut members) = Members::parse(json) else { return write("screen", json, extra) };
        let side = |name| members.get(name).ok().flatten().and_then(|json| json.parse().ok());
        if let (None, Some(width), Some(height)) = (self.screen, side("width"), side("height")) {
            self.screen = Some(Screen { width, height });
            members.0.retain(|(name, _)| name != "width" && name != "height");
        }
        write_map("screen", &members, extra)
    }

    fn context(&self) -> Context<'_> {
        let [url, title, referrer] = self.page.each_ref().map(Option::as_deref);
        let [source, medium, name, term, content] = self.campaign.each_ref().map(Option::as_deref);
        let campaign = Campaign { source, medium, name, term, content };
        Context {
            locale: self.locale.as_deref(),
            timezone: self.timezone.as_deref(),
            user_agent: self.user_agent.as_deref(),
            url,
            title,
            referrer,
            screen: self.screen,
            campaign: Some(campaign).filter(|campaign| *campaign != Campaign::default()),
            ..Context::default()
        }
    }
}

/// Takes the texts of an object that have slots, and writes all else of it into `extra`.
fn split<'a, const N: usize>(
    name: &str,
    json: &'a str,
    names: [&str; N],
    slots: &mut [Option<Cow<'a, str>>; N],
    extra: &mut PropertiesWriter<Vec<u8>>,
) -> Result<(), Problem> {
    let Some(mut members) = Members::parse(json) else { return write(name, json, extra) };
    members.0.retain(|(key, value)| {
        let slot = names.iter().position(|name| name == key).map(|at| &mut slots[at]);
        let Some(slot) = slot.filter(|slot| slot.is_none()) else { return true };
        *slot = json::text(value);
        slot.is_none()
    });
    write_map(name, &members, extra)
}

/// Writes members as a map; none, as nothing.
fn write_map(name: &str, members: &Members<'_>, extra: &mut PropertiesWriter<Vec<u8>>) -> Result<(), Problem> {
    if members.0.is_empty() {
        return Ok(());
    }
    extra.begin_map(Some(name)).map_err(too_large)?;
    for (name, value) in &members.0 {
        write(name, value, extra)?;
    }
    extra.end().map_err(too_large)
}

/// What no field holds goes under one name, so that it cannot be taken for a member of `context`.
fn write_rest(rest: &Members<'_>, extra: &mut PropertiesWriter<Vec<u8>>) -> Result<(), Problem> {
    write_map(REST, rest, extra)
}

/// Writes a member of what surrounds an event. An address that an SDK passes on in it is cut like one of our own, at any depth; what
/// is no address may hold one: null.
fn write(name: &str, json: &str, extra: &mut PropertiesWriter<Vec<u8>>) -> Result<(), Problem> {
    if name == "ip" {
        let network = json::text(json).and_then(|address| lexical::network(&address));
        return extra.put(name, network.as_deref().map_or(Value::Null, Value::Str)).map_err(too_large);
    }
    let cut = lexical::without_addresses(json.as_bytes());
    Ok(json::read(str::from_utf8(&cut).unwrap_or("null"), Some(name), extra)?)
}
