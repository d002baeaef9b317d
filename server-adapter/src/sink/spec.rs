//! `[[sinks]]` in `tenant.toml`: what an operator says of a sink.

use std::path::{Path, PathBuf};

use http::Uri;
use serde::{Deserialize, Serialize};

#[cfg(any(feature = "sink-http", feature = "sink-postgres"))]
use zeroize::Zeroizing;

use super::Failure;
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
    /// Batches of CloudEvents by HTTP.
    Http(HttpSpec),
    /// Rows of a PostgreSQL table.
    Postgres(PostgresSpec),
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

/// Batches of CloudEvents by HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSpec {
    /// What it is called in metrics, logs and commands.
    pub name: String,
    /// Where to, `https://` or `http://`.
    pub url: String,
    /// The attribute `source` of the events. Without it: `urn:firsthop:TENANT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// File with the key that signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key_file: Option<PathBuf>,
    /// Or the variable that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key_env: Option<String>,
    /// What the receiver knows that key by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_key_id: Option<String>,
    /// How it signs.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// File with the value of the header `Authorization`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_file: Option<PathBuf>,
    /// Or the variable that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_env: Option<String>,
    /// Certificate authorities, in place of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Events of one request.
    #[serde(default = "http_events")]
    pub batch_events: usize,
    /// Bytes of one request.
    #[serde(default = "http_bytes")]
    pub batch_bytes: Bytes,
    /// Time for one request, with its answer.
    #[serde(default = "http_timeout")]
    pub timeout: Span,
    /// Where to begin.
    #[serde(default)]
    pub from: Begin,
}

/// How requests are signed (RFC 9421).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// A private key here, a public one there.
    #[default]
    Ed25519,
    /// One secret on both sides.
    HmacSha256,
}

/// Rows of a PostgreSQL table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresSpec {
    /// What it is called in metrics, logs and commands.
    pub name: String,
    /// Where to, `postgres://user@host/database`, without a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Or the file that has it, with a password if need be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// Or the variable that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_env: Option<String>,
    /// The table, perhaps with its schema. Made if it is not there.
    #[serde(default = "postgres_table")]
    pub table: String,
    /// Whether to speak TLS.
    #[serde(default)]
    pub tls: PostgresTls,
    /// Certificate authorities, in place of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Rows of one statement.
    #[serde(default = "postgres_events")]
    pub batch_events: usize,
    /// Time to connect, and for one statement.
    #[serde(default = "http_timeout")]
    pub timeout: Span,
    /// Where to begin.
    #[serde(default)]
    pub from: Begin,
}

/// Whether to speak TLS with a database. Through a socket in the file system nobody does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PostgresTls {
    /// Always, and its certificate must be for the host that is named.
    #[default]
    Verify,
    /// Never.
    Off,
}

fn postgres_table() -> String {
    "firsthop_events".into()
}

const fn postgres_events() -> usize {
    4096
}

const fn http_events() -> usize {
    500
}

const fn http_bytes() -> Bytes {
    Bytes(1 << 20)
}

const fn http_timeout() -> Span {
    Span(std::time::Duration::from_secs(30))
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
            Self::Http(spec) => &spec.name,
            Self::Postgres(spec) => &spec.name,
        }
    }

    /// The authorities that it names, in place of the system's.
    pub(super) fn ca_file(&self) -> Option<&Path> {
        match self {
            Self::Ndjson(_) => None,
            Self::Http(spec) => spec.ca_file.as_deref(),
            Self::Postgres(spec) => spec.ca_file.as_deref(),
        }
    }

    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Ndjson(_) => "ndjson",
            Self::Http(_) => "http",
            Self::Postgres(_) => "postgres",
        }
    }

    pub(super) const fn begin(&self) -> Begin {
        match self {
            Self::Ndjson(spec) => spec.from,
            Self::Http(spec) => spec.from,
            Self::Postgres(spec) => spec.from,
        }
    }

    fn check(&self) -> Result<(), Error> {
        match self {
            Self::Ndjson(spec) => spec.check(),
            Self::Http(spec) => spec.check(),
            Self::Postgres(spec) => spec.check(),
        }
    }
}

impl NdjsonSpec {
    /// Whether the file is on the disk of the data folder, as far as the path says.
    pub(super) fn is_in_folder(&self) -> bool {
        self.path.as_ref().is_none_or(|path| path.is_relative() && path.as_os_str() != "-")
    }

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

impl HttpSpec {
    fn check(&self) -> Result<(), Error> {
        let refuse = |what: &str| Err(refuse(&self.name, what));
        if let Err(failure) = self.target() {
            return refuse(&failure.what);
        }
        let is_key_id = |id: &str| {
            !id.is_empty() && id.len() <= 128 && id.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\')
        };
        let has_key = self.signing_key_file.is_some() || self.signing_key_env.is_some();
        if has_key != self.signing_key_id.as_deref().is_some_and(is_key_id) {
            return refuse(
                "signing_key_id: what the receiver knows the signing key by, up to 128 letters without quotes; and a key to go with it",
            );
        }
        one_of("signing_key", &self.signing_key_file, &self.signing_key_env)
            .map_err(|what| self::refuse(&self.name, &what))?;
        one_of("authorization", &self.authorization_file, &self.authorization_env)
            .map_err(|what| self::refuse(&self.name, &what))?;
        if self
            .source
            .as_deref()
            .is_some_and(|source| source.is_empty() || source.len() > 512 || source.parse::<Uri>().is_err())
        {
            return refuse("source: a URI");
        }
        if !(1..=10_000).contains(&self.batch_events) {
            return refuse("batch_events: 1 to 10000");
        }
        if !(16 << 10..=16 << 20).contains(&self.batch_bytes.0) {
            return refuse("batch_bytes: 16KiB to 16MiB");
        }
        check_timeout(&self.name, self.timeout)
    }

    /// The address, in the form in which it is signed.
    pub(super) fn target(&self) -> Result<Uri, Failure> {
        let failed = |what: &str| Failure::new(format!("url: {what}"));
        let uri: Uri = self.url.parse().map_err(|_| failed("not a URL"))?;
        let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
        let authority = uri.authority().filter(|_| scheme == "https" || scheme == "http");
        let authority = authority.ok_or_else(|| failed("begins with https:// or http://"))?;
        if authority.as_str().contains('@') {
            return Err(failed("no credentials here; they go into authorization_file"));
        }
        if self.url.contains('#') {
            return Err(failed("no fragment"));
        }
        let default = if scheme == "https" { 443 } else { 80 };
        let host = authority.host().to_ascii_lowercase();
        let authority = match authority.port_u16().filter(|port| *port != default) {
            Some(port) => format!("{host}:{port}"),
            None => host,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let built = Uri::builder().scheme(scheme.as_str()).authority(authority).path_and_query(path).build();
        built.map_err(|_| failed("not a URL"))
    }

    #[cfg(feature = "sink-http")]
    pub(super) fn signing_key(&self, folder: &Path) -> Result<Option<Zeroizing<String>>, Failure> {
        secret(folder, self.signing_key_file.as_deref(), self.signing_key_env.as_deref())
    }

    #[cfg(feature = "sink-http")]
    pub(super) fn authorization(&self, folder: &Path) -> Result<Option<Zeroizing<String>>, Failure> {
        let text = secret(folder, self.authorization_file.as_deref(), self.authorization_env.as_deref())?;
        Ok(text.map(|text| Zeroizing::new(text.trim().to_owned())))
    }
}

impl PostgresSpec {
    fn check(&self) -> Result<(), Error> {
        let refuse = |what: &str| Err(refuse(&self.name, what));
        one_of("url", &self.url_file, &self.url_env).map_err(|what| self::refuse(&self.name, &what))?;
        if self.url.is_some() == (self.url_file.is_some() || self.url_env.is_some()) {
            return refuse("url: one of url, url_file and url_env");
        }
        #[cfg(feature = "sink-postgres")]
        if let Some(url) = &self.url {
            match url.parse::<tokio_postgres::Config>() {
                Err(error) => return refuse(&format!("url: {error}")),
                Ok(config) if config.get_password().is_some() => {
                    return refuse("url: no password here; put the whole into a file and name that in url_file");
                }
                Ok(_) => {}
            }
        }
        let is_name = |name: &str| {
            let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
            begins
                && name.len() <= 63
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        };
        if self.table.split('.').count() > 2 || !self.table.split('.').all(is_name) {
            return refuse("table: a name of small letters, digits and _, perhaps behind a schema and a dot");
        }
        if !(1..=20_000).contains(&self.batch_events) {
            return refuse("batch_events: 1 to 20000");
        }
        check_timeout(&self.name, self.timeout)
    }

    #[cfg(feature = "sink-postgres")]
    pub(super) fn connection(&self, folder: &Path) -> Result<tokio_postgres::Config, Failure> {
        let text = match &self.url {
            Some(url) => Zeroizing::new(url.clone()),
            None => secret(folder, self.url_file.as_deref(), self.url_env.as_deref())?.unwrap_or_default(),
        };
        // Not the error: it may quote what it does not understand.
        text.trim()
            .parse()
            .map_err(|_| Failure::new("url: not a PostgreSQL URL, such as postgres://user:password@host/database"))
    }
}

fn check_timeout(name: &str, timeout: Span) -> Result<(), Error> {
    let range = std::time::Duration::from_secs(1)..=std::time::Duration::from_secs(300);
    if range.contains(&timeout.0) { Ok(()) } else { Err(refuse(name, "timeout: 1s to 5m")) }
}

/// A secret stands in a file or in a variable, and never in `tenant.toml`.
fn one_of(what: &str, file: &Option<PathBuf>, variable: &Option<String>) -> Result<(), String> {
    if file.is_some() && variable.is_some() {
        return Err(format!("{what}_file or {what}_env, not both"));
    }
    // Those are settings, and one that nobody knows would stop the server.
    if variable.as_deref().is_some_and(|name| name.is_empty() || name.starts_with("FIRSTHOP_")) {
        return Err(format!("{what}_env: the name of a variable that does not begin with FIRSTHOP_"));
    }
    Ok(())
}

/// Reads a secret, when the sink is opened: a new one holds after the next failure, or a change of `tenant.toml`.
#[cfg(any(feature = "sink-http", feature = "sink-postgres"))]
fn secret(folder: &Path, file: Option<&Path>, variable: Option<&str>) -> Result<Option<Zeroizing<String>>, Failure> {
    const MOST: u64 = 64 << 10;
    if let Some(variable) = variable {
        let value =
            std::env::var(variable).map_err(|_| Failure::new(format!("variable {variable}: not set, or no text")))?;
        return Ok(Some(Zeroizing::new(value)));
    }
    let Some(file) = file else { return Ok(None) };
    let path = folder.join(file);
    let failed = |what: &dyn std::fmt::Display| Failure::new(format!("{}: {what}", path.display()));
    if std::fs::metadata(&path).map_err(|error| failed(&error))?.len() > MOST {
        return Err(failed(&"too large for a secret"));
    }
    std::fs::read_to_string(&path).map(Zeroizing::new).map(Some).map_err(|error| failed(&error))
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
