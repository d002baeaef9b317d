//! `firsthop sinks` and `firsthop replay`

use clap::{ArgGroup, Args, Subcommand};
use firsthop_core::Timestamp;
use rusqlite::{Connection, OptionalExtension};
use serde_json::json;

use super::{
    Chosen, Folder,
    events::moment,
    out::{Out, cut, harmless},
};
use crate::{
    Error, clock,
    control::{self, Control, Reply},
    journal,
    sink::{
        Order,
        events::State,
        records::{Known, RecordsReader},
        spec::EVENTS,
    },
    tenants::StoredTenant,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show where each sink is, and what is wrong with it.
    List {
        #[command(flatten)]
        chosen: Chosen,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show events that a sink refused for good, the newest first.
    Dead {
        #[command(flatten)]
        chosen: Chosen,
        /// Only this sink's.
        #[arg(long, short)]
        sink: Option<String>,
        /// How many of each sink.
        #[arg(long, short = 'n', default_value_t = 50)]
        limit: u32,
        /// The events themselves, one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Forget the events that a sink refused for good. They stay in the journal.
    Discard {
        #[command(flatten)]
        chosen: Chosen,
        /// Whose.
        #[arg(long, short)]
        sink: String,
    },
}

/// Deliver again: what came since a time or with a frame and after it, or what was refused.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["from", "dead"])))]
pub(super) struct Replay {
    #[command(flatten)]
    chosen: Chosen,
    /// The sink that is to have it again. Events keep their ids.
    #[arg(long, short)]
    sink: String,
    /// Everything from then on: a time such as 2026-11-21T18:00 (UTC), how long ago, such as 2h, or the number of a frame.
    #[arg(long)]
    from: Option<String>,
    /// The events that it refused.
    #[arg(long)]
    dead: bool,
}

impl Command {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Error> {
        match self {
            Self::List { chosen, json } => list(&find(&chosen)?, json, out),
            Self::Dead { chosen, sink, limit, json } => dead(&find(&chosen)?, sink.as_deref(), limit, json, out),
            Self::Discard { chosen, sink } => {
                let stored = find(&chosen)?;
                check_name(&stored, &sink)?;
                if sink == EVENTS {
                    return Err(Error::Tenant(
                        "the events table has all events or `firsthop verify` says so: remove what it refuses them for, then \
                         `firsthop replay --sink events --dead`"
                            .into(),
                    ));
                }
                let (done, _) = order(&chosen.folder, &stored, &sink, Order::Discard)?;
                out.line(format_args!("{done} dead letters of {sink} are forgotten."))
            }
        }
    }
}

impl Replay {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Error> {
        let (stored, sink) = (find(&self.chosen)?, self.sink);
        check_name(&stored, &sink)?;
        let Some(from) = self.from else {
            let (done, refused) = order(&self.chosen.folder, &stored, &sink, Order::Retry)?;
            out.line(format_args!("{done} events that {sink} had refused are delivered; {refused} stay refused."))?;
            return if refused == 0 { Ok(()) } else { Err(Error::Fault(format!("{refused} events stay refused"))) };
        };
        let path = stored.journal();
        let reader = journal::open_reader(&path)?;
        let Some(frame) = first_frame(&reader, &from)?.map_err(Error::database(&path))? else {
            return Err(Error::Tenant(format!("nothing to deliver again: no frame from {from} on")));
        };
        let sql = "SELECT COUNT(*), SUM(LENGTH(body) = 0) FROM frames WHERE id >= ?1";
        let (frames, empty): (i64, i64) =
            reader.query_row(sql, [frame], |row| Ok((row.get(0)?, row.get(1)?))).map_err(Error::database(&path))?;
        order(&self.chosen.folder, &stored, &sink, Order::From(frame))?;
        out.line(format_args!("{sink} gets {frames} frames again, from frame {frame} on."))?;
        if empty > 0 {
            out.line(format_args!("{empty} of them have no events any more: retention or an erasure removed those."))?;
        }
        Ok(())
    }
}

/// The first frame that is meant. The outer result is the argument's.
fn first_frame(journal: &Connection, from: &str) -> Result<rusqlite::Result<Option<i64>>, Error> {
    let is_frame = from.len() <= 10 && from.bytes().all(|b| b.is_ascii_digit());
    if let Some(frame) = from.parse::<i64>().ok().filter(|_| is_frame) {
        let sql = "SELECT id FROM frames WHERE id >= ?1 ORDER BY id LIMIT 1";
        return Ok(journal.query_row(sql, [frame], |row| row.get(0)).optional());
    }
    let time = moment(from).map_err(|what| Error::Tenant(format!("--from: {what}, or the number of a frame")))?;
    Ok(journal.query_row(
        "SELECT MIN(id) FROM frames WHERE received_ms >= ?1",
        [i64::try_from(time.as_millis()).unwrap_or(i64::MAX)],
        |row| row.get(0),
    ))
}

fn find(chosen: &Chosen) -> Result<StoredTenant, Error> {
    chosen.folder.store()?.find(chosen.tenant.as_deref())
}

fn names(stored: &StoredTenant) -> Vec<(&str, &str)> {
    let asked = stored.tenant.sinks.iter().map(|spec| (spec.name(), spec.kind()));
    std::iter::once((EVENTS, "sqlite")).chain(asked).collect()
}

fn check_name(stored: &StoredTenant, sink: &str) -> Result<(), Error> {
    let names = names(stored);
    if names.iter().any(|(name, _)| *name == sink) {
        return Ok(());
    }
    let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
    Err(Error::Tenant(format!("no sink {sink:?}; there are: {}", names.join(", "))))
}

fn order(folder: &Folder, stored: &StoredTenant, sink: &str, order: Order) -> Result<(u64, u64), Error> {
    let command = control::Command::Sink { tenant: stored.tenant.id.to_string(), sink: sink.to_owned(), order };
    match Control::reach(&folder.settings()?)?.call(&command)? {
        Reply::Sink { done, refused } => Ok((done, refused)),
        other => Err(other.unexpected()),
    }
}

fn records(stored: &StoredTenant) -> Result<Option<RecordsReader>, Error> {
    RecordsReader::open(&stored.sinks())
}

fn known(records: Option<&RecordsReader>, stored: &StoredTenant, sink: &str) -> Result<Known, Error> {
    let path = stored.sinks();
    records.map_or_else(|| Ok(Known::default()), |records| records.known(sink).map_err(Error::database(&path)))
}

fn list(stored: &StoredTenant, json: bool, out: &mut Out) -> Result<(), Error> {
    let path = stored.journal();
    let (records, reader) = (records(stored)?, path.exists().then(|| journal::open_reader(&path)).transpose()?);
    let mut rows = Vec::new();
    let mut troubles = Vec::new();
    for (name, kind) in names(stored) {
        let known = known(records.as_ref(), stored, name)?;
        let cursor = if name == EVENTS { State::cursor(&stored.events())? } else { known.frame };
        let (frames, waits) = match &reader {
            Some(reader) => lag(reader, cursor.unwrap_or(0)).map_err(Error::database(&path))?,
            None => (0, None),
        };
        let waits = waits.map(|since| clock::now().as_millis().saturating_sub(since.as_millis()) / 1000);
        if json {
            let trouble = known.trouble.map(|(since, what)| json!({ "since": clock::format(since), "what": what }));
            out.line(json!({
                "sink": name, "kind": kind, "atFrame": cursor, "behindFrames": frames, "waitingSeconds": waits, "dead": known.dead,
                "trouble": trouble,
            }))?;
            continue;
        }
        let waits = waits.map_or_else(|| "-".into(), |seconds| format!("{seconds}s"));
        let state = if known.trouble.is_some() { "fails" } else { "well" };
        let cursor = cursor.map_or_else(|| "-".into(), |cursor| cursor.to_string());
        rows.push([name.into(), kind.into(), state.into(), cursor, frames.to_string(), waits, known.dead.to_string()]);
        troubles.extend(known.trouble.map(|(since, what)| (name, since, what)));
    }
    if json {
        return Ok(());
    }
    out.table(["SINK", "KIND", "STATE", "AT FRAME", "BEHIND", "WAITING", "DEAD"], &rows)?;
    for (name, since, what) in troubles {
        out.line(format_args!("{name}: since {}: {}", clock::format(since), harmless(&what)))?;
    }
    Ok(())
}

/// Frames after this one, and when the first of them was received.
fn lag(journal: &Connection, cursor: i64) -> rusqlite::Result<(i64, Option<Timestamp>)> {
    let frames = journal.query_row("SELECT COUNT(*) FROM frames WHERE id > ?1", [cursor], |row| row.get(0))?;
    let first = "SELECT received_ms FROM frames WHERE id > ?1 ORDER BY id LIMIT 1";
    let since: Option<i64> = journal.query_row(first, [cursor], |row| row.get(0)).optional()?;
    Ok((frames, since.map(|ms| Timestamp::from_millis(ms as u64))))
}

fn dead(stored: &StoredTenant, only: Option<&str>, limit: u32, json: bool, out: &mut Out) -> Result<(), Error> {
    if let Some(only) = only {
        check_name(stored, only)?;
    }
    let path = stored.sinks();
    let mut rows = Vec::new();
    if let Some(records) = records(stored)? {
        for (name, _) in names(stored).into_iter().filter(|(name, _)| only.is_none_or(|only| only == *name)) {
            for letter in records.letters(name, limit).map_err(Error::database(&path))? {
                if json {
                    out.line(letter.json)?;
                    continue;
                }
                rows.push([
                    name.to_owned(),
                    clock::format(letter.last),
                    letter.times.to_string(),
                    letter.event_id,
                    cut(&harmless(&letter.name), 24),
                    cut(&harmless(&letter.reason), 160),
                ]);
            }
        }
    }
    if json {
        return Ok(());
    }
    if rows.is_empty() {
        return out.line("no dead letters");
    }
    out.table(["SINK", "LAST", "TIMES", "EVENT", "NAME", "REASON"], &rows)
}
