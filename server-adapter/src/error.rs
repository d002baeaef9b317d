//! What can go wrong outside a request: settings, files, databases.

use std::{fmt, path::Path};

/// What went wrong outside a request. (A request's refusal is a [`Problem`](firsthop_intake::Problem).)
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A setting is unknown or wrong.
    Settings(String),
    /// A tenant's file is missing or wrong, or a command names a tenant that is not there.
    Tenant(String),
    /// A file or a socket.
    Io(String, std::io::Error),
    /// A database, and which.
    Database(String, rusqlite::Error),
    /// Another server has the data folder.
    Locked(String),
    /// The way to the server that holds a data folder.
    Control(String),
    /// A check found something wrong.
    Fault(String),
    /// The ledger's balance does not close.
    Unbalanced(String),
}

impl Error {
    pub(crate) fn settings(what: impl Into<String>) -> Self {
        Self::Settings(what.into())
    }

    pub(crate) fn tenant(what: impl Into<String>) -> Self {
        Self::Tenant(what.into())
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let what = path.display().to_string();
        move |error| Self::Io(what, error)
    }

    pub(crate) fn database(path: &Path) -> impl FnOnce(rusqlite::Error) -> Self {
        let what = path.display().to_string();
        move |error| Self::Database(what, error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(what)
            | Self::Tenant(what)
            | Self::Control(what)
            | Self::Fault(what)
            | Self::Unbalanced(what) => f.write_str(what),
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::Database(what, error) => write!(f, "{what}: {error}"),
            Self::Locked(what) => write!(
                f,
                "{what}: another firsthop serves this folder: `firsthop status` says which, `firsthop serve --take-over` has it hand over"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            Self::Database(_, error) => Some(error),
            _ => None,
        }
    }
}
