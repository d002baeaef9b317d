//! Settings: one struct with working defaults; a TOML file over them; `FIRSTHOP_*` variables over that; options of the
//! command line over all.
//!
//! What nobody knows is refused, so that a typing error is not a silent default. No setting is a secret: roots and
//! write keys are a tenant's ([`tenants`](crate::tenants)).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Deserializer, de::Error as _};

pub use crate::traces::Collector;
use crate::{Error, clock};

/// Declares every setting once: the struct with defaults, the layer that a file or the environment makes, and the
/// options of `firsthop serve`.
macro_rules! settings {
    ($( $(#[doc = $doc:literal])+ $name:ident($env:literal): $type:ty = $default:expr, $shown:literal; )*) => {
        /// What an operator can set.
        ///
        /// ```
        /// let mut settings = firsthop_server::Settings::default();
        /// settings.data = "/var/lib/firsthop".into();
        /// ```
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub struct Settings {
            $( $(#[doc = $doc])+ pub $name: $type, )*
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $( $name: $default, )* }
            }
        }

        /// Some of the settings: what one file, the environment or a command line says.
        #[derive(Clone, Debug, Default, Deserialize)]
        #[cfg_attr(feature = "cli", derive(clap::Args))]
        #[serde(deny_unknown_fields)]
        pub struct Layer {
            $(
                $(#[doc = $doc])+
                #[cfg_attr(feature = "cli", arg(long, env = $env, hide_env_values = true, help = help(&[$($doc),+], $shown)))]
                #[serde(default)]
                pub $name: Option<$type>,
            )*
        }

        impl Settings {
            /// Lays what a layer says over these settings.
            pub fn apply(&mut self, layer: Layer) {
                $( if let Some(value) = layer.$name { self.$name = value; } )*
            }

            /// The variables that are read.
            const VARIABLES: &[&str] = &[$($env),*];

            /// Every setting and its value, for `firsthop settings`.
            #[must_use]
            pub fn entries(&self) -> Vec<(&'static str, String)> {
                vec![$((stringify!($name), Shown::shown(&self.$name)),)*]
            }
        }

        impl Layer {
            /// Whether this layer says where to listen for the public.
            const fn has_listen(&self) -> bool {
                self.listen.is_some()
            }
        }
    };
}

settings! {
    /// Folder that holds tenants, journals and tables.
    data("FIRSTHOP_DATA"): PathBuf = "firsthop-data".into(), "./firsthop-data";
    /// Address for pages and edges. `PORT` in the environment means 0.0.0.0 and that port.
    listen("FIRSTHOP_LISTEN"): SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080), "127.0.0.1:8080";
    /// Address for operators and enrolled edges: leases, metrics, health. Keep it inside.
    internal_listen("FIRSTHOP_INTERNAL_LISTEN"): SocketAddr =
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090), "127.0.0.1:9090";
    /// Folder of the page SDK to serve at /sdk: `dist` of the npm package firsthop. Several, with : between, are releases, the current one
    /// first. Empty: none.
    sdk("FIRSTHOP_SDK"): Folders = Folders::default(), "";
    /// Trusted proxies in front that each append to X-Forwarded-For. 0: the header is not believed.
    proxies("FIRSTHOP_PROXIES"): u8 = 0, "0";
    /// Threads that serve requests. 0: one for each processor.
    threads("FIRSTHOP_THREADS"): usize = 0, "0";
    /// Connections at a time, on each address.
    connections("FIRSTHOP_CONNECTIONS"): usize = 10_000, "10000";
    /// Of those, from one address (of IPv6: from one /64); 0: any number. Behind proxies (see there) there is no such bound.
    connections_per_address("FIRSTHOP_CONNECTIONS_PER_ADDRESS"): usize = 2500, "2500";
    /// Time for the headers of a request, and for a connection to stay idle.
    header_timeout("FIRSTHOP_HEADER_TIMEOUT"): Span = Span(Duration::from_secs(15)), "15s";
    /// Time for the body of a request.
    body_timeout("FIRSTHOP_BODY_TIMEOUT"): Span = Span(Duration::from_secs(15)), "15s";
    /// Least bytes a second of a body, once it has had three seconds; 0: only body_timeout.
    body_rate("FIRSTHOP_BODY_RATE"): Bytes = Bytes(1024), "1KiB";
    /// Time for a commit before a request is answered with 503.
    commit_timeout("FIRSTHOP_COMMIT_TIMEOUT"): Span = Span(Duration::from_secs(10)), "10s";
    /// Memory for requests under way, of all tenants together. Over it, requests are answered with 503.
    memory("FIRSTHOP_MEMORY"): Bytes = Bytes(64 << 20), "64MiB";
    /// How much of that one tenant may have waiting for its journal.
    queue("FIRSTHOP_QUEUE"): Bytes = Bytes(24 << 20), "24MiB";
    /// Bytes of requests under way while several tenants send, 16KiB more for each request: every tenant has an equal part, and what is
    /// more waits. 0: 256KiB for each processor.
    sharing("FIRSTHOP_SHARING"): Bytes = Bytes(0), "0";
    /// What is kept free on the data folder's disk: with less than that left, events are answered with 503. 0: a twentieth of the
    /// disk, 256MiB at most.
    disk_reserve("FIRSTHOP_DISK_RESERVE"): Bytes = Bytes(0), "0";
    /// Disk for each tenant's quarantine. Over it, what is refused is only counted.
    quarantine("FIRSTHOP_QUARANTINE"): Bytes = Bytes(256 << 20), "256MiB";
    /// Requests a second of one tenant; 0: any number. This and what follows, a tenant.toml may say otherwise, under `limits`.
    limit_requests("FIRSTHOP_LIMIT_REQUESTS"): u64 = 0, "0";
    /// Events a second of one tenant; 0: any number.
    limit_events("FIRSTHOP_LIMIT_EVENTS"): u64 = 0, "0";
    /// Bytes a second of one tenant's bodies; 0: any number.
    limit_bytes("FIRSTHOP_LIMIT_BYTES"): Bytes = Bytes(0), "0";
    /// How many seconds' worth of these may come at once.
    limit_burst("FIRSTHOP_LIMIT_BURST"): Span = Span(Duration::from_secs(2)), "2s";
    /// Bytes of one body; 0: what the path takes, about 512KiB.
    limit_body("FIRSTHOP_LIMIT_BODY"): Bytes = Bytes(0), "0";
    /// Requests of one tenant under way at a time; 0: any number.
    limit_concurrent("FIRSTHOP_LIMIT_CONCURRENT"): u64 = 0, "0";
    /// Bytes a second that a tenant's quarantine takes of what nobody answers for, 4KiB more for each; 0: any number.
    limit_unvouched("FIRSTHOP_LIMIT_UNVOUCHED"): Bytes = Bytes(8 << 20), "8MiB";
    /// How often to look for events that are missing. The look rests nineteen times as long as it works.
    ledger_interval("FIRSTHOP_LEDGER_INTERVAL"): Span = Span(Duration::from_secs(60)), "1m";
    /// How long what is missing counts as in flight, after its source was last heard of.
    ledger_grace("FIRSTHOP_LEDGER_GRACE"): Span = Span(Duration::from_secs(24 * 3600)), "1d";
    /// How long a journal keeps events; 0: for ever. This and what follows, a tenant.toml may say otherwise, under `retention`.
    retention_age("FIRSTHOP_RETENTION_AGE"): Span = Span(Duration::ZERO), "0s";
    /// How much disk a journal may use before its oldest events are removed; 0: any.
    retention_bytes("FIRSTHOP_RETENTION_BYTES"): Bytes = Bytes(0), "0";
    /// Time between the end of readiness and the end of accepting, for load balancers to notice.
    drain_delay("FIRSTHOP_DRAIN_DELAY"): Span = Span(Duration::ZERO), "0s";
    /// Time for requests under way and for the events table to catch up, at the end.
    drain_timeout("FIRSTHOP_DRAIN_TIMEOUT"): Span = Span(Duration::from_secs(20)), "20s";
    /// Collector of traces, OTLP over HTTP: http://127.0.0.1:4318, say. Only what its sender marks as sampled is traced. Empty: none.
    otlp_endpoint("FIRSTHOP_OTLP_ENDPOINT"): Collector = Collector::default(), "";
    /// How much to log: error, warn, info, debug or trace.
    log("FIRSTHOP_LOG"): LogLevel = LogLevel::Info, "info";
    /// How to log: text or json.
    log_format("FIRSTHOP_LOG_FORMAT"): LogFormat = LogFormat::Text, "text";
}

/// What `--help` says of a setting.
#[cfg(feature = "cli")]
fn help(lines: &[&str], default: &str) -> String {
    format!("{} [default: {default}]", lines.concat().trim())
}

/// Variables that begin like ours and are another's: the repository's tools, and what Kubernetes sets in every pod
/// beside a Service named `firsthop`.
fn is_foreign(variable: &str) -> bool {
    matches!(variable, "FIRSTHOP_ROOT" | "FIRSTHOP_TOOLS" | "FIRSTHOP_BIN" | "FIRSTHOP_CONFIG" | "FIRSTHOP_PORT")
        || ["FIRSTHOP_SERVICE_", "FIRSTHOP_PORT_", "FIRSTHOP_TEST_"].iter().any(|prefix| variable.starts_with(prefix))
}

impl Settings {
    /// Defaults, a file if there is one, `PORT` and `FIRSTHOP_*` of the environment, and what the command line says.
    ///
    /// With [`Layer`] parsed by clap, the environment is in `over` already;
    /// [`check_environment`](Self::check_environment) is what remains of it.
    ///
    /// # Errors
    /// [`Error::Settings`]: what is wrong, and where.
    pub fn resolve(file: Option<&Path>, over: Layer) -> Result<Self, Error> {
        Self::check_environment()?;
        let mut settings = Self::default();
        let layer = file.map(Self::read).transpose()?.unwrap_or_default();
        let listen_is_said = over.has_listen();
        settings.apply(layer);
        // A platform's PORT is more than a file's listen, and less than an operator's own word.
        if !listen_is_said && let Ok(port) = std::env::var("PORT") {
            let port = port.parse().map_err(|_| Error::settings(format!("PORT={port}: not a port")))?;
            settings.listen = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        }
        settings.apply(over);
        settings.check()?;
        Ok(settings)
    }

    fn read(file: &Path) -> Result<Layer, Error> {
        let text =
            std::fs::read_to_string(file).map_err(|error| Error::settings(format!("{}: {error}", file.display())))?;
        toml::from_str(&text).map_err(|error| Error::settings(format!("{}: {error}", file.display())))
    }

    /// Refuses `FIRSTHOP_*` variables that name no setting.
    ///
    /// # Errors
    /// [`Error::Settings`], naming the variable.
    pub fn check_environment() -> Result<(), Error> {
        Self::check_variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))
    }

    fn check_variables(names: impl Iterator<Item = String>) -> Result<(), Error> {
        for name in names {
            if name.starts_with("FIRSTHOP_") && !is_foreign(&name) && !Self::VARIABLES.contains(&name.as_str()) {
                let known = Self::VARIABLES.join(", ");
                return Err(Error::settings(format!("{name}: no such setting; there are {known}")));
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Error> {
        let least = (firsthop_core::limits::MAX_ENVELOPE * 2) as u64;
        let refuse = |what: &str| Err(Error::settings(what.to_owned()));
        if self.queue.0 < least {
            return refuse("queue: must hold two of the largest frames (2MiB will do)");
        }
        if self.memory.0 < self.queue.0 {
            return refuse("memory: must be at least queue");
        }
        if self.connections == 0 {
            return refuse("connections: must be at least 1");
        }
        if self.listen == self.internal_listen && self.listen.port() != 0 {
            return refuse("listen and internal_listen must differ");
        }
        for (name, span) in [
            ("header_timeout", self.header_timeout),
            ("body_timeout", self.body_timeout),
            ("commit_timeout", self.commit_timeout),
        ] {
            if span.0.is_zero() {
                return refuse(&format!("{name}: must be more than 0"));
            }
        }
        Ok(())
    }
}

/// A length of time: `250ms`, `10s`, `5m`, `2h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A number of bytes: `4096`, `64KiB`, `16MiB`, `2GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// Folders: one, or several with `:` between (on Windows `;`), as in `PATH`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folders(pub Vec<PathBuf>);

/// How much to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What needs a person.
    Error,
    /// What may need one.
    Warn,
    /// Start, stop, changes.
    Info,
    /// Refusals.
    Debug,
    /// Every request.
    Trace,
}

/// How to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        clock::parse_duration(text).map(Self).ok_or("a time is a number and ms, s, m, h or d, such as 10s")
    }
}

impl FromStr for Bytes {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim() {
            "" | "B" => Some(0),
            "KiB" | "K" => Some(10),
            "MiB" | "M" => Some(20),
            "GiB" | "G" => Some(30),
            _ => None,
        };
        number
            .parse::<u64>()
            .ok()
            .zip(shift)
            .and_then(|(number, shift)| number.checked_mul(1 << shift))
            .map(Self)
            .ok_or("a size is a number and nothing, KiB, MiB or GiB, such as 64MiB")
    }
}

impl FromStr for Folders {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(std::env::split_paths(text).filter(|path| !path.as_os_str().is_empty()).collect()))
    }
}

impl FromStr for LogLevel {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "error" => Self::Error,
            "warn" => Self::Warn,
            "info" => Self::Info,
            "debug" => Self::Debug,
            "trace" => Self::Trace,
            _ => return Err("one of error, warn, info, debug, trace"),
        })
    }
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("one of text, json"),
        }
    }
}

/// In a file, these stand as text; a size may stand as a number.
macro_rules! from_text {
    ($($name:ident),*) => { $(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )* };
}
from_text!(Span, Folders, LogLevel, LogFormat);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(Self(number)),
            Written::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

/// How a value is written.
trait Shown {
    fn shown(&self) -> String;
}

macro_rules! shown {
    ($($type:ty: $value:ident => $text:expr;)*) => { $(
        impl Shown for $type {
            fn shown(&self) -> String {
                let $value = self;
                $text
            }
        }
    )* };
}
shown! {
    PathBuf: path => path.display().to_string();
    SocketAddr: address => address.to_string();
    u8: number => number.to_string();
    u64: number => number.to_string();
    usize: number => number.to_string();
    Span: span => span.to_string();
    Bytes: bytes => bytes.to_string();
    Folders: folders => folders.0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":");
    Collector: collector => collector.to_string();
    LogLevel: level => format!("{level:?}").to_lowercase();
    LogFormat: format => format!("{format:?}").to_lowercase();
}

impl serde::Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl serde::Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&clock::format_duration(self.0))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 >= 1 << shift && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Settings, String> {
        let layer = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut settings = Settings::default();
        settings.apply(layer);
        settings.check().map_err(|error| error.to_string())?;
        Ok(settings)
    }

    #[test]
    fn the_defaults_hold() {
        Settings::default().check().expect("defaults");
    }

    #[test]
    fn a_file_says_some_of_it() {
        let settings =
            file("listen = '0.0.0.0:80'\nmemory = '1GiB'\nqueue = 4194304\nbody_timeout = '2m'").expect("valid");
        assert_eq!(settings.listen.port(), 80);
        assert_eq!(settings.memory, Bytes(1 << 30));
        assert_eq!(settings.queue, Bytes(4 << 20));
        assert_eq!(settings.body_timeout.0, Duration::from_secs(120));
        assert_eq!(settings.internal_listen.port(), 9090);
    }

    #[test]
    fn what_nobody_knows_is_refused() {
        for (text, says) in [
            ("lisen = '0.0.0.0:80'", "unknown field `lisen`"),
            ("listen = 'somewhere'", "invalid socket address"),
            ("memory = '64MB'", "such as 64MiB"),
            ("body_timeout = 10", "expected a string"),
            ("body_timeout = '0s'", "must be more than 0"),
            ("queue = '1KiB'", "two of the largest frames"),
            ("memory = '4MiB'", "at least queue"),
            ("connections = 0", "at least 1"),
            ("log = 'loud'", "one of error"),
            ("internal_listen = '127.0.0.1:8080'", "must differ"),
        ] {
            let error = file(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_variable_that_names_no_setting_is_refused() {
        let check = |name: &str| Settings::check_variables([name.to_owned()].into_iter());
        check("FIRSTHOP_LISTEN").expect("a setting");
        check("LISTEN").expect("not ours");
        check("FIRSTHOP_SERVICE_HOST").expect("set by Kubernetes");
        check("FIRSTHOP_PORT_8080_TCP").expect("set by Kubernetes");
        assert!(check("FIRSTHOP_LISTN").expect_err("a typing error").to_string().contains("FIRSTHOP_LISTN"));
    }

    #[test]
    fn every_setting_has_its_name_in_the_environment() {
        for ((name, _), variable) in Settings::default().entries().iter().zip(Settings::VARIABLES) {
            assert_eq!(*variable, format!("FIRSTHOP_{}", name.to_uppercase()));
        }
    }
}
