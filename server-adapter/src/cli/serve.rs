//! `firsthop serve`

use std::{
    io::{IsTerminal, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use clap::Args;
use tracing::level_filters::LevelFilter;

use super::{
    out::Out,
    running::{self, Running},
};
use crate::{
    Error, Server, Settings,
    http::lanes::Lanes,
    settings::{Layer, LogFormat, LogLevel},
    tenants::StoredTenant,
};

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    given: Given,
    /// If a server has the data folder already, take its place: its listeners come over, so that nobody who connects is
    /// refused, and it ends once this one serves. If this one does not get that far, the other goes on.
    #[arg(long)]
    take_over: bool,
}

/// All settings.
#[derive(Debug, Args)]
pub(super) struct Given {
    /// Settings file (TOML): the same names as the options, with _ for -.
    #[arg(long, env = "FIRSTHOP_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Layer,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Error> {
        let settings = self.given.resolve()?;
        log(&settings);
        raise_file_limit(&settings);
        let threads = |error| Error::Io("threads".into(), error);
        let lanes = Arc::new(Lanes::start(settings.threads).map_err(threads)?);
        // It accepts and waits; what takes time has threads of its own.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(threads)?;
        let served = runtime.block_on(running::serve(settings, self.take_over, &lanes, announce));
        // A second signal does not wait for what still closes the journals: what was acknowledged is on disk.
        runtime.shutdown_background();
        served
    }
}

impl Given {
    pub(super) fn print(self, out: &mut Out) -> Result<(), Error> {
        for (name, value) in self.resolve()?.entries() {
            out.line(format_args!("{name} = {value}"))?;
        }
        Ok(())
    }

    fn resolve(self) -> Result<Settings, Error> {
        Settings::resolve(self.config.as_deref(), self.settings)
    }
}

/// What the files of some tenants take.
#[cfg(target_os = "linux")]
const OWN_FILES: u64 = 500;

/// Each connection is a file descriptor, and what a process gets without asking is often 1,024.
fn raise_file_limit(settings: &Settings) {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(%error, "the limit of open files stays as it is");
        }
        let (connections, files) = (settings.connections as u64, getrlimit(Resource::Nofile).current);
        if let Some(files) = files.filter(|&files| files < connections + OWN_FILES) {
            tracing::warn!(
                files,
                connections,
                "fewer files may be open than `connections` wants: raise the limit (ulimit -n, LimitNOFILE=)"
            );
        }
    }
}

fn announce(server: &Server, running: &Running) {
    let settings = server.settings();
    let (public, internal) = (running.public.address(), running.internal.address());
    tracing::info!(%public, %internal, data = %settings.data.display(), "ready");
    if settings.log_format == LogFormat::Text {
        // For a person who has just started it; a closed standard output is not worth ending for.
        let _ = std::io::stdout().write_all(greeting(server, public, internal).as_bytes());
    }
}

fn log(settings: &Settings) {
    let level = match settings.log {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    let set = match settings.log_format {
        LogFormat::Text => {
            tracing::subscriber::set_global_default(log.with_ansi(std::io::stderr().is_terminal()).finish())
        }
        LogFormat::Json => tracing::subscriber::set_global_default(log.json().flatten_event(true).finish()),
    };
    debug_assert!(set.is_ok(), "logging is set up once");
}

/// Where it is, and what to do next.
fn greeting(server: &Server, public: SocketAddr, internal: SocketAddr) -> String {
    let data = server.settings().data.display();
    let mut text = format!(
        "\nfirsthop {} takes events at {}\n  internal: {} (/metrics, /readyz, /v1/leases)\n  data:     {data}\n",
        env!("CARGO_PKG_VERSION"),
        url(public),
        url(internal),
    );
    match server.made() {
        Some(made) => text.push_str(&first_steps(made, &url(public), &data.to_string())),
        None => text.push_str("  tenants and write keys: firsthop tenant list\n\n"),
    }
    text
}

fn first_steps(made: &StoredTenant, url: &str, data: &str) -> String {
    let key = &made.tenant.write_keys[0];
    let folder = if data == "firsthop-data" { String::new() } else { format!(" --data {data}") };
    format!(
        r#"
There was no tenant, so there is one called "default" now. Its keys are in
  {}

1. Send an event:

  curl {url}/v1/track -u {key}: \
    -H 'content-type: application/json' \
    -d '{{"event":"Hello","anonymousId":"me","properties":{{"first":true}}}}'

2. See it, and what comes after it:

  firsthop events --follow{folder}

3. Send from a page (npm install firsthop):

  import {{ load, track }} from "firsthop";
  load({{ endpoint: "{url}", writeKey: "{key}" }});
  track("Product Viewed", {{ sku: "G-32", price: 18.99 }});

"#,
        made.folder.display(),
    )
}

/// A URL that works from here: an address that means "all" is not one.
fn url(address: SocketAddr) -> String {
    let ip = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}
