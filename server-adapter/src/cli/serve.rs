//! `firsthop serve`

use std::{
    io::{IsTerminal, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Instant,
};

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::level_filters::LevelFilter;

use super::out::Out;
use crate::{
    ControlSocket, Error, Server, Settings,
    http::listen::{Listening, bind},
    settings::{Layer, LogFormat, LogLevel},
    tenants::StoredTenant,
};

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Settings file (TOML): the same names as the options, with _ for -.
    #[arg(long, env = "FIRSTHOP_CONFIG", hide_env_values = true)]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Layer,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Error> {
        let settings = self.resolve()?;
        log(&settings);
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        if settings.threads > 0 {
            runtime.worker_threads(settings.threads);
        }
        let runtime = runtime.enable_all().build().map_err(|error| Error::Io("threads".into(), error))?;
        let served = runtime.block_on(serve(settings));
        // A second signal does not wait for what still closes the journals: what was acknowledged is on disk.
        runtime.shutdown_background();
        served
    }

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

async fn serve(settings: Settings) -> Result<(), Error> {
    raise_file_limit();
    let signals = |error| Error::Io("signals".into(), error);
    let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
    // Opening reads and writes files: there is nothing else to do meanwhile, but the runtime's threads stay free for
    // it.
    let opened = settings.clone();
    let server = tokio::task::spawn_blocking(move || Server::open(opened)).await;
    let server = server.map_err(|error| Error::Fault(format!("start: {error}")))??;
    let listening = |error| Error::Io("listen".into(), error);
    let (public, internal) = (bind(settings.listen).await?, bind(settings.internal_listen).await?);
    let public = Listening::start(public, server.clone(), server.public()).map_err(listening)?;
    let internal = Listening::start(internal, server.clone(), server.internal()).map_err(listening)?;
    let control = server.control()?;
    let (public_address, internal_address) = (public.address(), internal.address());
    tracing::info!(public = %public_address, internal = %internal_address, data = %settings.data.display(), "ready");
    if settings.log_format == LogFormat::Text {
        // For a person who has just started it; a closed standard output is not worth ending for.
        let _ = std::io::stdout().write_all(greeting(&server, public_address, internal_address).as_bytes());
    }
    first_of(&mut terminate, &mut interrupt).await;
    tracing::info!("stopping");
    let end = end(server, public, internal, control, &settings);
    tokio::select! {
        () = end => tracing::info!("stopped"),
        () = first_of(&mut terminate, &mut interrupt) => {
            // Everything acknowledged is on disk already.
            tracing::warn!("stopped at once, on a second signal");
        }
    }
    Ok(())
}

/// Unready, accept no more, answer what is under way, commit, let the table catch up.
async fn end(server: Server, public: Listening, internal: Listening, control: ControlSocket, settings: &Settings) {
    server.drain();
    tokio::time::sleep(settings.drain_delay.0).await;
    let deadline = Instant::now() + settings.drain_timeout.0;
    public.stop(deadline.saturating_duration_since(Instant::now())).await;
    // Commands wait for commits: none may come once the journals close.
    control.stop(deadline.saturating_duration_since(Instant::now())).await;
    let closing = tokio::task::spawn_blocking(move || server.close(deadline));
    if closing.await.is_err() {
        tracing::error!("closing the journals panicked");
    }
    // Last, so that readiness and figures can be asked until the end.
    internal.stop(std::time::Duration::from_millis(500)).await;
}

/// Each connection is a file descriptor, and what a process gets without asking is often 1,024.
fn raise_file_limit() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(%error, "the limit of open files stays as it is");
        }
    }
}

async fn first_of(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
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
