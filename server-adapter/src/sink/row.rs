//! One event as a row: what a frame, its context and its first hop say of it, side by side.

use std::fmt::Write;

use firsthop_core::{Annotation, Consent, Context, Event, Frame, Network, SourceId, Timestamp};
use firsthop_intake::json::Json;
use rusqlite::{CachedStatement, params};

use crate::clock;

/// The table that people query. Times are UTC as `2026-11-21T21:18:03.123Z`, which sorts as time does; what is not
/// known is NULL. And beside it the frame up to which it has the journal's events.
pub(super) const TABLES: &str = "
CREATE TABLE events (
    rowid INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,
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
    region TEXT NOT NULL
) STRICT;
CREATE TABLE firsthop_cursor (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    frame INTEGER NOT NULL,
    journal INTEGER NOT NULL,
    sum INTEGER NOT NULL
) STRICT;
INSERT INTO firsthop_cursor VALUES (0, 0, 0, 0);
";

pub(super) const INSERT: &str = "
INSERT INTO events (event_id, received_at, time, kind, name, user_id, anonymous_id, session_id, url, title, referrer,
    properties, context, country, pop, network, agent, traffic, trust, source, seq, vendor, foreign_id, consent, region)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25)
ON CONFLICT (event_id) DO NOTHING";

/// Texts that are made anew for every row, in memory that is not.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    event_id: String,
    time: String,
    properties: Vec<u8>,
    context: Vec<u8>,
}

/// What all events of a frame share.
pub(super) struct FrameRow<'a> {
    source: String,
    received_at: String,
    network: Option<String>,
    consent: String,
    region: &'a str,
    context: Context<'a>,
    /// The shared context's text: for every event that adds nothing of its own.
    context_json: String,
    annotation: Annotation<'a>,
    header: &'a firsthop_core::Header,
}

impl<'a> FrameRow<'a> {
    pub(super) fn new(
        frame: &'a Frame<'a>,
        context: Context<'a>,
        annotation: Annotation<'a>,
        received: Timestamp,
        region: &'a str,
    ) -> Self {
        let mut json = Vec::new();
        write_json(&mut json, Json(rest_of(&context)));
        Self {
            source: frame.header().source.to_string(),
            received_at: clock::format(received),
            network: (annotation.network != Network::Unknown).then(|| annotation.network.to_string()),
            consent: consent(frame.header().consent),
            region,
            context,
            context_json: String::from_utf8(json).unwrap_or_default(),
            annotation,
            header: frame.header(),
        }
    }

    /// Inserts one event. An event that is there already stays as it is.
    pub(super) fn insert(
        &self,
        statement: &mut CachedStatement<'_>,
        buffers: &mut Buffers,
        index: usize,
        event: &Event<'a>,
    ) -> rusqlite::Result<usize> {
        let seq = self.header.first_seq + index as u64;
        let foreign = event.id.map(|id| SourceId::of_foreign(self.header.tenant, &id).to_string());
        let (source, seq) = match &foreign {
            Some(source) => (source, 0),
            None => (&self.source, seq),
        };
        buffers.event_id.clear();
        // The text form of an `EventId`. Writing to a string does not fail.
        let _ = write!(buffers.event_id, "{source}/{seq}");
        buffers.time.clear();
        clock::push(&mut buffers.time, event.time(self.header.created));
        buffers.properties.clear();
        write_json(&mut buffers.properties, Json(event.properties));
        // Checked when the frame was stored.
        let context = event.context.apply(&self.context).unwrap_or(self.context);
        let context_json = if event.context.is_none() {
            self.context_json.as_str()
        } else {
            buffers.context.clear();
            write_json(&mut buffers.context, Json(rest_of(&context)));
            str::from_utf8(&buffers.context).unwrap_or("{}")
        };
        let note = &self.annotation;
        statement.execute(params![
            buffers.event_id,
            self.received_at,
            buffers.time,
            event.kind.as_str(),
            event.name,
            context.user_id,
            context.anonymous_id,
            context.session_id,
            context.url,
            context.title,
            context.referrer,
            str::from_utf8(&buffers.properties).unwrap_or("{}"),
            context_json,
            known(note.country),
            known(note.pop),
            self.network,
            note.agent.as_str(),
            note.traffic.as_str(),
            note.trust.as_str(),
            source,
            seq as i64,
            event.id.map(|id| id.vendor.as_str()),
            event.id.map(|id| id.id),
            self.consent,
            self.region,
        ])
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

/// The purposes by name: `necessary analytics`.
fn consent(consent: Consent) -> String {
    let names = [
        (Consent::NECESSARY, "necessary"),
        (Consent::ANALYTICS, "analytics"),
        (Consent::PREFERENCES, "preferences"),
        (Consent::MARKETING, "marketing"),
    ];
    let granted: Vec<&str> = names.iter().filter(|(bit, _)| consent.contains(*bit)).map(|(_, name)| *name).collect();
    granted.join(" ")
}
