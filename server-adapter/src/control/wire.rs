//! What goes over the socket: JSON in HTTP/1.1, one exchange to a connection.

use serde::{Deserialize, Serialize};

use crate::Error;

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
}

impl Command {
    /// For the log, which is not told the rest: that may name a person.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// Who holds the folder.
    Status(Status),
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
