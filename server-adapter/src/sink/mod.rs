//! Sinks: what reads the journal and brings its events to where people look at them.
//!
//! ```text
//!             ┌─ runner ─ batch ─► events table   its cursor moves in the transaction of the rows
//! journal.db ─┤
//!             └─ runner ─ batch ─► …              a thread, a cursor and a pause of its own
//! ```
//!
//! Each sink has a cursor of its own, so one that is down or slow delays no other and no acknowledgement. An event's id is
//! the same at every delivery: after any crash a sink goes on where it was, and who knows ids doubles nothing.

mod batch;
pub(crate) mod erase;
pub(crate) mod events;
#[cfg(feature = "sink-http")]
mod http;
mod kept;
mod ndjson;
mod order;
mod pace;
mod plan;
#[cfg(feature = "sink-postgres")]
mod postgres;
pub(crate) mod records;
mod row;
mod runner;
mod set;
pub(crate) mod spec;
#[cfg(any(feature = "sink-http", feature = "sink-postgres"))]
mod stop;
#[cfg(any(feature = "sink-http", feature = "sink-postgres"))]
mod tls;
mod way;

use std::{path::Path, time::Duration};

use rusqlite::ErrorCode;

pub use self::spec::{Algorithm, Begin, HttpSpec, NdjsonSpec, PostgresSpec, PostgresTls, SinkSpec};
use self::{
    batch::{Batch, Limits},
    records::{Records, Saved},
};
pub(crate) use self::{
    order::{Order, Ordered},
    runner::Runner,
    set::Sinks,
};
use crate::journal::Subject;

/// Where events go. It decides nothing: it is given events in the journal's order, and says what became of each.
trait Sink: Send {
    /// The most that a batch should hold. One frame more is in it where that is what crosses the bound.
    fn limits(&self) -> Limits;

    /// Delivers events of the batch, from its front. What is not `done` afterwards is given again.
    fn deliver(&mut self, batch: &Batch) -> Delivery;

    /// Makes what was delivered last, against a power cut.
    fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// What it must find again, when it is opened, to go on from what was flushed.
    fn mark(&self) -> String {
        String::new()
    }
}

/// A sink, and where it is.
struct Opened {
    sink: Box<dyn Sink>,
    saved: Saved,
    /// Who keeps the cursor. None: the sink does, beside what it delivers.
    records: Option<Records>,
    /// Whether the journal turned out to be another than the one that the sink was at, or an older state of it.
    rewound: bool,
}

/// What became of a batch.
#[derive(Debug, Default)]
struct Delivery {
    /// How many events, from the front, are delivered or rejected for good.
    done: usize,
    /// Those of them that were rejected, in order.
    rejected: Vec<Rejected>,
    /// Why it stopped, if something failed. The next attempt is on a sink that was opened anew.
    failed: Option<Failure>,
}

/// An event that this sink will never take.
#[derive(Debug)]
struct Rejected {
    /// Its place in the batch.
    index: usize,
    reason: String,
}

/// Something that may be better later.
#[derive(Clone, Debug)]
struct Failure {
    what: String,
    /// The same without the other side's words, where it has some: who knows whom they name, and logs name nobody.
    for_log: Option<String>,
    /// No attempt before then, if the other side said so.
    after: Option<Duration>,
    /// Others were writing to `sinks.db`, for longer than one waits: it says nothing of the sink.
    is_busy: bool,
}

impl Failure {
    fn new(what: impl ToString) -> Self {
        Self { what: what.to_string(), for_log: None, after: None, is_busy: false }
    }

    /// Of `sinks.db`.
    fn of_records(error: crate::Error) -> Self {
        let is_busy = matches!(&error, crate::Error::Database(_, error)
            if matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)));
        Self { is_busy, ..Self::new(error) }
    }
}

/// Brings the files that sinks keep up to this build's versions. One that is not there is not made.
pub(crate) fn bring_up(events: &Path, sinks: &Path) -> Result<(), crate::Error> {
    if events.exists() {
        events::bring_up(events)?;
    }
    if sinks.exists() {
        Records::open(sinks, spec::EVENTS, records::ORDERED)?;
    }
    Ok(())
}

/// When the first of the authorities ends that a sink names: from then on it trusts nobody. None: it names none, or they cannot be read.
pub(crate) fn authorities_end(spec: &spec::SinkSpec, folder: &Path) -> Option<firsthop_core::Timestamp> {
    let file = folder.join(spec.ca_file()?);
    #[cfg(any(feature = "sink-http", feature = "sink-postgres"))]
    return tls::first_end(&file);
    #[cfg(not(any(feature = "sink-http", feature = "sink-postgres")))]
    {
        drop(file);
        None
    }
}

/// Erases a person from what a sink keeps of its own accord. What it has delivered is not the server's any more.
pub(crate) fn erase_kept(spec: &spec::SinkSpec, folder: &Path, subject: &Subject) -> Result<(), crate::Error> {
    match spec {
        spec::SinkSpec::Ndjson(spec) => ndjson::erase_tails(spec, folder, subject),
        _ => Ok(()),
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::new(error)
    }
}

impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Self {
        Self::new(error)
    }
}

/// What to do after an attempt with a part of a batch.
#[cfg(any(feature = "sink-http", feature = "sink-postgres"))]
enum Next {
    Delivered,
    /// Again, later.
    Later(Failure),
    /// In halves; if it is one event, never.
    Refused(String),
}

/// Delivers so many events, and looks for those that are refused by halves. In order: what fails ends it.
#[cfg(any(feature = "sink-http", feature = "sink-postgres"))]
fn deliver_in_parts(events: usize, mut attempt: impl FnMut(std::ops::Range<usize>) -> Next) -> Delivery {
    let mut delivery = Delivery::default();
    let all = 0..events;
    let mut parts = Vec::from([all]);
    while let Some(part) = parts.pop() {
        match attempt(part.clone()) {
            Next::Delivered => delivery.done = part.end,
            Next::Later(failure) => {
                delivery.failed = Some(failure);
                break;
            }
            Next::Refused(reason) if part.len() <= 1 => {
                delivery.rejected.push(Rejected { index: part.start, reason });
                delivery.done = part.end;
            }
            Next::Refused(_) => {
                let middle = part.start + part.len() / 2;
                parts.push(middle..part.end);
                parts.push(part.start..middle);
            }
        }
    }
    delivery
}
