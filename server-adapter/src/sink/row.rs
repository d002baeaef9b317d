//! One event as a row: what a frame, its context and its first hop say of it, side by side.

use std::{fmt::Write, io};

use firsthop_core::{Campaign, Consent, Context, Effects, Event, Frame, Network, Notes, SourceId, Timestamp};
use firsthop_intake::json::Json;

use crate::{clock, journal::Noted};

/// Texts that are made anew for every row, in memory that is not.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    source: String,
    event_id: String,
    time: String,
    properties: Vec<u8>,
    context: Vec<u8>,
    shared: Texts,
}

/// Texts that all events of a frame share.
#[derive(Debug, Default)]
struct Texts {
    source: String,
    received_at: String,
    network: String,
    consent: String,
    rules: String,
    effects: String,
    /// The shared context: for every event that adds nothing of its own.
    context: String,
}

impl Texts {
    fn clear(&mut self) {
        let Self { source, received_at, network, consent, rules, effects, context } = self;
        [source, received_at, network, consent, rules, effects, context].into_iter().for_each(String::clear);
    }
}

impl Buffers {
    fn clear(&mut self) {
        [&mut self.source, &mut self.event_id, &mut self.time].into_iter().for_each(String::clear);
        [&mut self.properties, &mut self.context].into_iter().for_each(Vec::clear);
    }
}

/// An event, as every sink has it. Times are UTC as `2026-11-21T21:18:03.123Z`, which sorts as time does; what is not known is
/// none. `docs/sinks.md` says what each means.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) event_id: &'a str,
    pub(crate) received_at: &'a str,
    pub(crate) time: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) name: &'a str,
    pub(crate) user_id: Option<&'a str>,
    pub(crate) anonymous_id: Option<&'a str>,
    pub(crate) session_id: Option<&'a str>,
    pub(crate) url: Option<&'a str>,
    pub(crate) title: Option<&'a str>,
    pub(crate) referrer: Option<&'a str>,
    /// A JSON object.
    pub(crate) properties: &'a str,
    /// A JSON object: what of the context has no column.
    pub(crate) context: &'a str,
    pub(crate) country: Option<&'a str>,
    pub(crate) pop: Option<&'a str>,
    pub(crate) network: Option<&'a str>,
    pub(crate) agent: &'a str,
    pub(crate) traffic: &'a str,
    pub(crate) trust: &'a str,
    pub(crate) source: &'a str,
    pub(crate) seq: i64,
    pub(crate) vendor: Option<&'a str>,
    pub(crate) foreign_id: Option<&'a str>,
    pub(crate) consent: &'a str,
    pub(crate) region: &'a str,
    pub(crate) subdivision: Option<&'a str>,
    pub(crate) city: Option<&'a str>,
    pub(crate) referrer_class: Option<&'a str>,
    /// source, medium, campaign, term, content
    pub(crate) utm: [Option<&'a str>; 5],
    pub(crate) click_id: Option<&'a str>,
    pub(crate) skew_ms: Option<i64>,
    pub(crate) rules: Option<&'a str>,
    pub(crate) effects: &'a str,
    /// Of the request that made the frame, if it came with one and the frame is at hand. It stands beside the event, in no column.
    #[cfg_attr(not(feature = "sink-http"), allow(dead_code, reason = "only HTTP has a place for it"))]
    pub(crate) traceparent: Option<&'a str>,
    /// Whether it differs from the row before it in its [`own`](Self::own) fields alone, if in any.
    pub(crate) repeats: bool,
}

/// Fields of a row.
pub(super) const COLUMNS: usize = 37;
/// Those of them that are texts.
pub(super) const TEXTS: usize = COLUMNS - 2;
/// Those of them that are an event's own in any case.
pub(super) const OWN: usize = 9;

/// The columns of a table of rows as it was made first, behind `event_id`. What came later are steps.
macro_rules! first_columns {
    () => {
        "
    received_at TEXT NOT NULL,
    time TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    user_id TEXT,
    anonymous_id TEXT,
    session_id TEXT,
    url TEXT,
    title TEXT,
    referrer TEXT,
    properties TEXT NOT NULL,
    context TEXT NOT NULL,
    country TEXT,
    pop TEXT,
    network TEXT,
    agent TEXT NOT NULL,
    traffic TEXT NOT NULL,
    trust TEXT NOT NULL,
    source TEXT NOT NULL,
    seq INTEGER NOT NULL,
    vendor TEXT,
    foreign_id TEXT,
    consent TEXT NOT NULL,
    region TEXT NOT NULL"
    };
}
pub(super) use first_columns;

/// The step of a table of rows that brings what first hops' rules found and did. What was stored before says nothing of it.
macro_rules! rules_columns {
    ($table:literal) => {
        concat!(
            "ALTER TABLE ",
            $table,
            " ADD COLUMN subdivision TEXT;",
            "ALTER TABLE ",
            $table,
            " ADD COLUMN city TEXT;",
            "ALTER TABLE ",
            $table,
            " ADD COLUMN referrer_class TEXT;",
            "ALTER TABLE ",
            $table,
            " ADD COLUMN utm_source TEXT;",
            "ALTER TABLE ",
            $table,
            " ADD COLUMN utm_medium TEXT;",
            "ALTER TABLE ",
            $table,
            " ADD COLUMN utm_campaign TEXT;",
            "ALTER TABLE ",
            $table,
            " ADD COLUMN utm_term TEXT;",
            "ALTER TABLE ",
            $table,
            " ADD COLUMN utm_content TEXT;",
            "ALTER TABLE ",
            $table,
            " ADD COLUMN click_id TEXT;",
            "ALTER TABLE ",
            $table,
            " ADD COLUMN skew_ms INTEGER;",
            "ALTER TABLE ",
            $table,
            " ADD COLUMN rules TEXT;",
            "ALTER TABLE ",
            $table,
            " ADD COLUMN effects TEXT NOT NULL DEFAULT '';",
        )
    };
}
pub(super) use rules_columns;

/// A field of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field<'a> {
    Text(Option<&'a str>),
    Json(&'a str),
    Number(Option<i64>),
}

impl<'a> Row<'a> {
    /// For its fields' names.
    #[cfg(any(feature = "sink-postgres", test))]
    pub(crate) const EMPTY: Row<'static> = Row {
        event_id: "",
        received_at: "",
        time: "",
        kind: "",
        name: "",
        user_id: None,
        anonymous_id: None,
        session_id: None,
        url: None,
        title: None,
        referrer: None,
        properties: "{}",
        context: "{}",
        country: None,
        pop: None,
        network: None,
        agent: "",
        traffic: "",
        trust: "",
        source: "",
        seq: 0,
        vendor: None,
        foreign_id: None,
        consent: "",
        region: "",
        subdivision: None,
        city: None,
        referrer_class: None,
        utm: [None; 5],
        click_id: None,
        skew_ms: None,
        rules: None,
        effects: "",
        traceparent: None,
        repeats: false,
    };

    /// Names and values, in the order of the columns.
    pub(crate) const fn fields(&self) -> [(&'static str, Field<'a>); COLUMNS] {
        use Field::{Json, Number, Text};
        let [utm_source, utm_medium, utm_campaign, utm_term, utm_content] = self.utm;
        [
            ("event_id", Text(Some(self.event_id))),
            ("received_at", Text(Some(self.received_at))),
            ("time", Text(Some(self.time))),
            ("kind", Text(Some(self.kind))),
            ("name", Text(Some(self.name))),
            ("user_id", Text(self.user_id)),
            ("anonymous_id", Text(self.anonymous_id)),
            ("session_id", Text(self.session_id)),
            ("url", Text(self.url)),
            ("title", Text(self.title)),
            ("referrer", Text(self.referrer)),
            ("properties", Json(self.properties)),
            ("context", Json(self.context)),
            ("country", Text(self.country)),
            ("pop", Text(self.pop)),
            ("network", Text(self.network)),
            ("agent", Text(Some(self.agent))),
            ("traffic", Text(Some(self.traffic))),
            ("trust", Text(Some(self.trust))),
            ("source", Text(Some(self.source))),
            ("seq", Number(Some(self.seq))),
            ("vendor", Text(self.vendor)),
            ("foreign_id", Text(self.foreign_id)),
            ("consent", Text(Some(self.consent))),
            ("region", Text(Some(self.region))),
            ("subdivision", Text(self.subdivision)),
            ("city", Text(self.city)),
            ("referrer_class", Text(self.referrer_class)),
            ("utm_source", Text(utm_source)),
            ("utm_medium", Text(utm_medium)),
            ("utm_campaign", Text(utm_campaign)),
            ("utm_term", Text(utm_term)),
            ("utm_content", Text(utm_content)),
            ("click_id", Text(self.click_id)),
            ("skew_ms", Number(self.skew_ms)),
            ("rules", Text(self.rules)),
            ("effects", Text(Some(self.effects))),
        ]
    }

    /// Of those [`fields`](Self::fields) what an event has of its own, though it adds nothing to what its frame shares; with their places.
    pub(super) const fn own(&self) -> [(usize, Field<'a>); OWN] {
        use Field::{Json, Number, Text};
        [
            (0, Text(Some(self.event_id))),
            (2, Text(Some(self.time))),
            (3, Text(Some(self.kind))),
            (4, Text(Some(self.name))),
            (11, Json(self.properties)),
            (19, Text(Some(self.source))),
            (20, Number(Some(self.seq))),
            (21, Text(self.vendor)),
            (22, Text(self.foreign_id)),
        ]
    }

    /// The event as one JSON object, without a line break. Properties and context stand as they are, so that a number keeps its
    /// digits.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>) {
        let mut next = b'{';
        for (name, field) in self.fields() {
            out.extend_from_slice(&[next, b'"']);
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"\":");
            match field {
                Field::Text(None) | Field::Number(None) => out.extend_from_slice(b"null"),
                Field::Text(Some(text)) => write_text(out, text),
                Field::Json(text) => out.extend_from_slice(text.as_bytes()),
                Field::Number(Some(number)) => {
                    let _ = io::Write::write_fmt(out, format_args!("{number}"));
                }
            }
            next = b',';
        }
        out.push(b'}');
    }
}

/// A JSON string.
pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    // A vector takes everything.
    let _ = serde_json::to_writer(out, text);
}

/// What all events of a frame share.
pub(super) struct FrameRow<'a> {
    texts: Texts,
    region: &'a str,
    context: Context<'a>,
    noted: Noted<'a>,
    /// URL and referrer of the frame's first event: what is noted of a page is noted of this one.
    page: (Option<&'a str>, Option<&'a str>),
    header: &'a firsthop_core::Header,
    traceparent: Option<&'a str>,
}

impl<'a> FrameRow<'a> {
    /// [`end`](Self::end) gives the buffers back what it takes of them.
    pub(super) fn new(
        buffers: &mut Buffers,
        frame: &'a Frame<'a>,
        context: Context<'a>,
        first: Option<&Event<'a>>,
        noted: Noted<'a>,
        received: Timestamp,
        region: &'a str,
    ) -> Self {
        let mut texts = std::mem::take(&mut buffers.shared);
        texts.clear();
        let mut json = std::mem::take(&mut texts.context).into_bytes();
        write_json(&mut json, Json(rest_of(&context)));
        texts.context = String::from_utf8(json).unwrap_or_default();
        let annotation = noted.annotation;
        let notes = noted.notes.unwrap_or_default();
        // Writing to a string does not fail.
        let _ = write!(texts.source, "{}", frame.header().source);
        clock::push(&mut texts.received_at, received);
        if annotation.network != Network::Unknown {
            let _ = write!(texts.network, "{}", annotation.network);
        }
        push_names(&mut texts.consent, consent(frame.header().consent.without(notes.withdrawn)));
        if notes.rules != 0 {
            let _ = write!(texts.rules, "{:08x}", notes.rules);
        }
        push_names(&mut texts.effects, effects(notes.effects));
        let first = first.and_then(|event| event.context.apply(&context).ok()).unwrap_or(context);
        Self {
            texts,
            page: (first.url, first.referrer),
            region,
            context,
            noted,
            header: frame.header(),
            traceparent: frame.traceparent(),
        }
    }

    pub(super) fn end(self, buffers: &mut Buffers) {
        buffers.shared = self.texts;
    }

    /// One event. The row is good until the next one is made.
    pub(super) fn row<'r>(&'r self, buffers: &'r mut Buffers, index: usize, event: &Event<'r>) -> Row<'r>
    where
        'a: 'r,
    {
        buffers.clear();
        let foreign = event.id.map(|id| SourceId::of_foreign(self.header.tenant, &id));
        let seq = match foreign {
            Some(source) => {
                // Writing to a string does not fail.
                let _ = write!(buffers.source, "{source}");
                0
            }
            None => {
                buffers.source.push_str(&self.texts.source);
                self.header.first_seq + index as u64
            }
        };
        // The text form of an `EventId`.
        let _ = write!(buffers.event_id, "{}/{seq}", buffers.source);
        clock::push(&mut buffers.time, event.time(self.header.created));
        write_json(&mut buffers.properties, Json(event.properties));
        // Checked when the frame was stored.
        let context = event.context.apply(&self.context).unwrap_or(self.context);
        if !event.context.is_none() {
            write_json(&mut buffers.context, Json(rest_of(&context)));
        }
        let (buffers, texts) = (&*buffers, &self.texts);
        let note = &self.noted.annotation;
        let none = Notes::default();
        let notes = self.noted.notes.as_ref().unwrap_or(&none);
        // What was noted of a page says nothing of an event that was on another.
        let of_page = (context.url, context.referrer) == self.page;
        let campaign = context.campaign.or_else(|| notes.campaign.filter(|_| of_page)).unwrap_or_default();
        let Campaign { source: utm_source, medium, name, term, content } = campaign;
        let stands_for_visit = notes.effects.contains(Effects::SESSION);
        Row {
            event_id: &buffers.event_id,
            received_at: &texts.received_at,
            time: &buffers.time,
            kind: event.kind.as_str(),
            name: event.name,
            user_id: context.user_id,
            anonymous_id: context.anonymous_id,
            session_id: context.session_id.or_else(|| stands_for_visit.then_some(&*texts.source)),
            url: context.url,
            title: context.title,
            referrer: context.referrer,
            properties: str::from_utf8(&buffers.properties).unwrap_or("{}"),
            context: if event.context.is_none() {
                &texts.context
            } else {
                str::from_utf8(&buffers.context).unwrap_or("{}")
            },
            country: known(note.country),
            pop: known(note.pop),
            network: known(&texts.network),
            agent: note.agent.as_str(),
            traffic: note.traffic.as_str(),
            trust: note.trust.as_str(),
            source: &buffers.source,
            seq: seq as i64,
            vendor: event.id.map(|id| id.vendor.as_str()),
            foreign_id: event.id.map(|id| id.id),
            consent: &texts.consent,
            region: self.region,
            subdivision: known(notes.subdivision),
            city: known(notes.city),
            referrer_class: notes.referrer.as_str().filter(|_| of_page),
            utm: [utm_source, medium, name, term, content],
            click_id: known(notes.click_id).filter(|_| of_page),
            skew_ms: Some(notes.skew_ms).filter(|skew| *skew != 0),
            rules: known(&texts.rules),
            effects: &texts.effects,
            traceparent: self.traceparent,
            repeats: false,
        }
    }
}

fn known(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// A context without what has columns of its own.
fn rest_of<'a>(context: &Context<'a>) -> Context<'a> {
    Context { anonymous_id: None, user_id: None, session_id: None, url: None, title: None, referrer: None, ..*context }
}

fn write_json<T>(out: &mut Vec<u8>, json: Json<T>)
where
    Json<T>: serde::Serialize,
{
    // A vector takes everything, and nothing in the core's values fails.
    let _ = serde_json::to_writer(out, &json);
}

/// The purposes.
fn consent(consent: Consent) -> impl Iterator<Item = &'static str> {
    Consent::NAMES.iter().filter(move |(bit, _)| consent.contains(*bit)).map(|(_, name)| *name)
}

/// What rules did. That the frame was rewritten for it goes without saying.
fn effects(effects: Effects) -> impl Iterator<Item = &'static str> {
    let effects = effects.without(Effects::REWRITTEN);
    Effects::NAMES.iter().filter(move |(bit, _)| effects.contains(*bit)).map(|(_, name)| *name)
}

/// `necessary analytics`
fn push_names(out: &mut String, names: impl Iterator<Item = &'static str>) {
    for name in names {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(name);
    }
}

#[cfg(test)]
mod tests {
    use firsthop_core::{
        EventKind, ForeignId, FrameWriter, Header, PropertiesWriter, TenantId, Unsigned, Value, Vendor,
    };

    use super::*;

    /// What all events of a frame share is given to a table once.
    #[test]
    fn rows_of_events_that_add_nothing_to_their_frame_differ_in_their_own_fields_alone() {
        let mut buffer = vec![0; 8192];
        let header =
            Header { first_seq: 8, ..Header::new(TenantId::new(7), SourceId::new([9; 16]), Timestamp::from_millis(5)) };
        let mut writer = FrameWriter::new(&mut buffer[..], &header).expect("room");
        let context = Context { user_id: Some("ada"), url: Some("https://shop.example/"), ..Context::EMPTY };
        writer.context(&context).expect("room");
        let foreign = ForeignId { vendor: Vendor::Segment, id: "m" };
        for (i, id) in [None, Some(foreign), None].into_iter().enumerate() {
            let (mut shape, mut text) = ([0; 64], [0; 64]);
            let mut properties = PropertiesWriter::new(&mut shape[..], &mut text[..]);
            properties.put("i", Value::U64(i as u64)).expect("room");
            let properties = properties.finish().expect("closed");
            let (kind, name) = if i == 0 { (EventKind::Page, "Start") } else { (EventKind::Track, "Seen") };
            writer.event(&Event { kind, name, id, properties, offset_ms: i as i64, ..Event::default() }).expect("room");
        }
        let bytes = writer.finish(&Unsigned).expect("finished");
        let frame = Frame::parse(bytes).expect("a frame");
        let (context, events) = frame.open().expect("a context");
        let mut buffers = Buffers::default();
        let noted = Noted { notes: Some(Notes { effects: Effects::SESSION, ..Notes::default() }), ..Noted::default() };
        let shared = FrameRow::new(&mut buffers, &frame, context, None, noted, Timestamp::from_millis(6), "eu");
        let text = |field: Field<'_>| format!("{field:?}");
        let mut rows: Vec<Vec<String>> = Vec::new();
        for (index, event) in events.enumerate() {
            let row = shared.row(&mut buffers, index, &event.expect("an event"));
            let fields = row.fields().map(|(_, field)| text(field));
            assert!(row.own().into_iter().all(|(place, field)| fields[place] == text(field)), "the same by either way");
            rows.push(fields.into());
        }
        let own = Row::EMPTY.own().map(|(place, _)| place);
        for (place, (name, _)) in Row::EMPTY.fields().into_iter().enumerate() {
            let differs = rows.windows(2).any(|rows| rows[0][place] != rows[1][place]);
            assert_eq!(differs, own.contains(&place), "{name}");
        }
    }
}
