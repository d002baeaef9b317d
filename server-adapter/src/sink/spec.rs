//! `[[sinks]]` in `tenant.toml`: what an operator says of a sink.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    Error,
    settings::{Bytes, Span},
};

/// The sink that every tenant has.
pub(crate) const EVENTS: &str = "events";
/// Sinks of one tenant: each is a thread.
const MOST: usize = 16;

/// A sink besides the events table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum SinkSpec {
    /// A file with an event a line, or standard output.
    Ndjson(NdjsonSpec),
}

/// Where a new sink begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Begin {
    /// With the first event in the journal.
    #[default]
    Start,
    /// With the first event that comes after the sink was opened for the first time.
    Now,
}

/// A file with an event a line, or standard output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NdjsonSpec {
    /// What it is called in metrics, logs and commands.
    pub name: String,
    /// The file, seen from the tenant's folder; `-` is standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// A file that has so much is put aside, and the next begins.
    #[serde(default = "rotate_bytes")]
    pub rotate_bytes: Bytes,
    /// A file that is so old is, too.
    #[serde(default = "rotate_after")]
    pub rotate_after: Span,
    /// Where to begin.
    #[serde(default)]
    pub from: Begin,
}

const fn rotate_bytes() -> Bytes {
    Bytes(256 << 20)
}

const fn rotate_after() -> Span {
    Span(std::time::Duration::from_secs(24 * 3600))
}

impl SinkSpec {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Ndjson(spec) => &spec.name,
        }
    }

    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Ndjson(_) => "ndjson",
        }
    }

    pub(super) const fn begin(&self) -> Begin {
        match self {
            Self::Ndjson(spec) => spec.from,
        }
    }

    fn check(&self) -> Result<(), Error> {
        match self {
            Self::Ndjson(spec) => spec.check(),
        }
    }
}

impl NdjsonSpec {
    fn check(&self) -> Result<(), Error> {
        if self.rotate_bytes.0 < 1 << 20 {
            return Err(refuse(&self.name, "rotate_bytes: at least 1MiB"));
        }
        if self.rotate_after.0 < std::time::Duration::from_secs(1) {
            return Err(refuse(&self.name, "rotate_after: at least 1s"));
        }
        if self.path.as_ref().is_some_and(|path| path.file_name().is_none()) {
            return Err(refuse(&self.name, "path: a file, or - for standard output"));
        }
        Ok(())
    }
}

/// Checks what a hand may have got wrong.
pub(crate) fn check(specs: &[SinkSpec]) -> Result<(), Error> {
    if specs.len() > MOST {
        return Err(Error::tenant(format!("sinks: at most {MOST}")));
    }
    for (i, spec) in specs.iter().enumerate() {
        let name = spec.name();
        let well_formed = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if name.is_empty() || name.len() > 32 || !well_formed || name.starts_with('-') {
            return Err(refuse(name, "name: 1 to 32 small letters, digits and -"));
        }
        if name == EVENTS {
            return Err(refuse(name, "name: the events table is called so; it is always there"));
        }
        if specs[..i].iter().any(|other| other.name() == name) {
            return Err(refuse(name, "name: stands twice"));
        }
        spec.check()?;
    }
    Ok(())
}

/// What is wrong with a sink's settings.
pub(super) fn refuse(name: &str, what: &str) -> Error {
    Error::tenant(format!("sinks: {name:?}: {what}"))
}
