//! What goes over the socket: JSON in HTTP/1.1, one exchange to a connection.

use serde::{Deserialize, Serialize};

use crate::{
    Error,
    journal::{
        Found,
        quarantine::{Discarded, Replayed, Select},
    },
    sink::Order,
};

/// The path of all commands. Its number changes only if nothing of the exchange can stay as it is: what a version does not know of
/// another's commands, it says itself.
pub(super) const PATH: &str = "/control/1";
/// Most bytes of a command.
pub(super) const MAX_COMMAND: usize = 1 << 20;
/// Most bytes of an answer.
pub(super) const MAX_ANSWER: u64 = 16 << 20;
/// This build.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Something that a folder's holder is to do. A field that it does not know is refused: it may be the one that matters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Command {
    /// Who are you?
    Status,
    /// Send some of quarantine through the checks again.
    QuarantineReplay(Part),
    /// Throw some of quarantine away.
    QuarantineDiscard(Part, Note),
    /// Have a sink do something in between.
    Sink {
        /// Its id.
        tenant: String,
        /// Its name.
        sink: String,
        /// What.
        order: Order,
    },
    /// Erase a person.
    Erase(Erasure),
}

/// A part of erasing a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Erasure {
    /// The tenant's id.
    pub(crate) tenant: String,
    pub(crate) user: Option<String>,
    pub(crate) anonymous: Option<String>,
    /// Change nothing.
    pub(crate) only_look: bool,
    /// Also what a sink has not got yet.
    pub(crate) undelivered: bool,
    /// Which part.
    pub(crate) step: Step,
}

/// Where an erasure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Step {
    /// What is known in memory goes into the table first.
    Begin,
    /// Frames behind one, up to another; `waits`: a sink has yet to get them.
    Frames { after: i64, until: i64, waits: bool },
    /// All of quarantine.
    Quarantine,
    /// Rows of the events table behind one, to be blanked.
    Table { after: i64 },
    /// The same of what sinks refused.
    Dead { after: i64 },
    /// Rows of the events table behind one, to be deleted if they are blank.
    TableAgain { after: i64 },
    /// The same of what sinks refused.
    DeadAgain { after: i64 },
    /// What was cut off a sink's file and is kept.
    Tails,
    /// The logs.
    Scrub,
}

/// Some of a tenant's quarantine: a part of it, from one id on to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    /// The tenant's id.
    pub(crate) tenant: String,
    pub(crate) select: Select,
    /// Behind this one.
    pub(crate) after: i64,
    /// Up to this one: what is set aside meanwhile is not meant.
    pub(crate) until: i64,
}

/// Who discards, and why: both are told by who gives the command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Note {
    pub(crate) who: String,
    pub(crate) why: String,
}

impl Command {
    /// For the log, which is not told the rest: that may name a person.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::QuarantineReplay(_) => "quarantine-replay",
            Self::QuarantineDiscard(..) => "quarantine-discard",
            Self::Sink { .. } => "sink",
            Self::Erase(_) => "erase",
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// Who holds the folder.
    Status(Status),
    /// What came of it, and behind which id to go on: none, if that was all.
    QuarantineReplay(Replayed, Option<i64>),
    /// What is gone, and behind which id to go on.
    QuarantineDiscard(Discarded, Option<i64>),
    /// What became of a sink's order.
    Sink {
        /// Events delivered, or forgotten.
        done: u64,
        /// Events that stay refused.
        refused: u64,
    },
    /// What was found there, and where to go on: none, if that was all.
    Erase(Found, Option<Step>),
}

impl Reply {
    /// Another command's reply: only a server that breaks the protocol gives one.
    pub(crate) fn unexpected(&self) -> Error {
        Error::Control(format!("the server answered something else than was asked: {self:?}"))
    }
}

/// A server, about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Its process.
    pub(crate) pid: u32,
    /// Since its start.
    pub(crate) uptime_seconds: u64,
    /// What `/readyz` says.
    pub(crate) ready: bool,
    /// Whether it is stopping.
    pub(crate) draining: bool,
    /// How many tenants it has open.
    pub(crate) tenants: usize,
    /// Its version; the answer has it as well.
    pub(crate) version: String,
}

/// The body of every answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Whose answer it is: read first, so that a reply that makes no sense here can be explained.
    pub(super) version: String,
    #[serde(flatten)]
    pub(super) result: Said,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Said {
    Reply(Reply),
    Error(Refused),
}

/// An error as it travels: its kind, so that it stays the same kind at the other end, and its text.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Refused {
    pub(super) kind: String,
    pub(super) message: String,
}

impl From<&Error> for Refused {
    fn from(error: &Error) -> Self {
        let kind = match error {
            Error::Settings(_) => "settings",
            Error::Tenant(_) => "tenant",
            Error::Control(_) => "control",
            _ => "fault",
        };
        Self { kind: kind.into(), message: error.to_string() }
    }
}

impl Refused {
    /// The same error, here.
    pub(super) fn into_error(self) -> Error {
        match self.kind.as_str() {
            "settings" => Error::Settings(self.message),
            "tenant" => Error::Tenant(self.message),
            "control" => Error::Control(self.message),
            _ => Error::Fault(self.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_ignored() {
        let read = |text: &str| serde_json::from_str::<Command>(text).map_err(|error| error.to_string());
        assert_eq!(read(r#""status""#), Ok(Command::Status));
        assert!(read(r#""polish""#).expect_err("unknown").contains("unknown variant `polish`"));
    }

    #[test]
    fn an_error_stays_what_it_is() {
        for error in [Error::Tenant("no such".into()), Error::Settings("x".into()), Error::Fault("y".into())] {
            let json = serde_json::to_string(&Refused::from(&error)).expect("JSON");
            let back = serde_json::from_str::<Refused>(&json).expect("JSON").into_error();
            assert_eq!(
                (back.to_string(), std::mem::discriminant(&back)),
                (error.to_string(), std::mem::discriminant(&error))
            );
        }
    }
}
