//! A server from its start to its end, or to the one that takes over.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    Error, Server, Settings,
    control::ControlSocket,
    handover::{Idle, LOCK, Leaving, Predecessor, Sockets, Successor, take_over},
    http::{Shelf, lanes::Lanes, listen::Listening},
};

/// How long new connections wait for those that are open. What takes longer is answered with 503 by the old server, and
/// sent again by its producer.
const WAIT: Duration = Duration::from_secs(3);
/// Before a folder is opened again that could not be: after a moment while another process may be about to end, then less often.
const SOON: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_secs(1);

/// What ends a server by a person's or an orchestrator's will.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        let signals = |error| Error::Io("signals".into(), error);
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(signals)?,
            interrupt: signal(SignalKind::interrupt()).map_err(signals)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Serves until a signal, or until another server has taken over. `started` is told where it listens.
pub(super) async fn serve(
    settings: Settings,
    takes_over: bool,
    lanes: &Arc<Lanes>,
    started: impl Fn(&Server, &Running),
) -> Result<(), Error> {
    let mut signals = Signals::new()?;
    // Once, and before another server is asked for anything: what is wrong with it now is in nobody's way, and what becomes of those
    // files later does not keep this server from taking its folder back.
    let sdk = Arc::new(Shelf::open(&settings.sdk.0)?);
    let taken = if takes_over { take_over(&settings).await? } else { None };
    let (sockets, mut predecessor) = taken.map_or((None, None), |(sockets, old)| (Some(sockets), Some(old)));
    let server = open(&settings, &sdk, predecessor.as_ref()).await?;
    let sockets = match sockets {
        Some(sockets) => sockets,
        None => Sockets::bind(&settings).await?,
    };
    let idle = predecessor.as_mut().map(Predecessor::idle).unwrap_or_default();
    let mut running = Running::start(server, &sockets, idle, lanes).map_err(|failed| failed.0)?;
    loop {
        started(&running.server, &running);
        if let Some(old) = predecessor.take() {
            old.serving();
        }
        let Some(successor) = running.until(&mut signals, &sockets).await else {
            running.end(&settings, &mut signals).await;
            return Ok(());
        };
        match running.hand_over(successor, &settings, &mut signals).await {
            Ok(()) => return Ok(()),
            Err((error, idle)) => {
                tracing::error!(%error, "the server that was taking over is gone; this one goes on");
                let Some(again) = start_again(&settings, &sdk, &sockets, (idle, lanes), &mut signals).await else {
                    return Ok(());
                };
                running = again;
            }
        }
    }
}

/// Opening reads and writes files: there is nothing else to do meanwhile, but the runtime's threads stay free for it.
async fn open(settings: &Settings, sdk: &Arc<Shelf>, predecessor: Option<&Predecessor>) -> Result<Server, Error> {
    let (settings, sdk, waits) = (settings.clone(), Arc::clone(sdk), predecessor.is_some());
    let work = move || if waits { Predecessor::open(&settings, &sdk) } else { Server::open_with(settings, sdk) };
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Fault(format!("start: {error}")))?
}

/// Serves again once a successor is gone, however long it takes: nobody else serves the folder. None: a signal came first.
async fn start_again(
    settings: &Settings,
    sdk: &Arc<Shelf>,
    sockets: &Sockets,
    (mut idle, lanes): (Idle, &Arc<Lanes>),
    signals: &mut Signals,
) -> Option<Running> {
    let began = Instant::now();
    loop {
        let error = match open(settings, sdk, None).await {
            // What does not start gives the folder back, and the connections that nobody has answered yet.
            Ok(server) => match Running::start(server.clone(), sockets, std::mem::take(&mut idle), lanes) {
                Ok(running) => return Some(running),
                Err(failed) => {
                    let error;
                    (error, idle) = *failed;
                    close(&server, Instant::now()).await;
                    error
                }
            },
            Err(error) => error,
        };
        // What was killed lets go of the lock a moment later.
        let pause = if matches!(error, Error::Locked(_)) && began.elapsed() < LOCK {
            SOON
        } else {
            tracing::error!(%error, "nobody serves: the folder cannot be served again; trying on until a signal");
            PAUSE
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = signals.next() => {
                tracing::warn!("stopped by a signal before the folder could be served again");
                return None;
            }
        }
    }
}

/// Connections that end one after the other.
type Ending = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An open data folder, and what listens for it.
pub(super) struct Running {
    server: Server,
    pub(super) public: Listening,
    pub(super) internal: Listening,
    control: ControlSocket,
    successors: tokio::sync::Mutex<tokio::sync::mpsc::Receiver<Successor>>,
}

impl Running {
    /// With an error, the connections that were given. They are served once all else is there.
    fn start(server: Server, sockets: &Sockets, idle: Idle, lanes: &Arc<Lanes>) -> Result<Self, Box<(Error, Idle)>> {
        let listening = |error| Error::Io("listen".into(), error);
        let successors = tokio::sync::Mutex::new(server.inner.successors.watch());
        let ready = server.control().and_then(|control| Ok((control, sockets.listeners().map_err(listening)?)));
        let (control, [public, internal]) = match ready {
            Ok(ready) => ready,
            Err(error) => return Err(Box::new((error, idle))),
        };
        let listening = |error| Box::new((listening(error), Idle::default()));
        let [idle_public, idle_internal] = idle;
        let public =
            Listening::start(public, idle_public, server.clone(), server.public(), lanes).map_err(listening)?;
        let internal =
            Listening::start(internal, idle_internal, server.clone(), server.internal(), lanes).map_err(listening)?;
        Ok(Self { server, public, internal, control, successors })
    }

    /// Until a signal (none), or until a successor has what it needs and wants this server to let go.
    async fn until(&self, signals: &mut Signals, sockets: &Sockets) -> Option<Leaving> {
        let mut successors = self.successors.lock().await;
        loop {
            let successor = tokio::select! {
                () = signals.next() => return None,
                Some(successor) = successors.recv() => successor,
            };
            // Served on meanwhile: it may yet find that it cannot.
            let sockets = sockets.again().map(|[public, internal]| Sockets { public, internal });
            let offered = tokio::task::spawn_blocking(move || successor.offer(&sockets?));
            tokio::select! {
                () = signals.next() => return None,
                offered = offered => match offered.map_err(std::io::Error::other).flatten() {
                    Ok(leaving) => return Some(leaving),
                    Err(error) => tracing::warn!(%error, "a server that was to take over went away; this one goes on"),
                },
            }
        }
    }

    /// Unready, accept no more, answer what is under way, commit, let the table catch up.
    async fn end(self, settings: &Settings, signals: &mut Signals) {
        tracing::info!("stopping");
        let Self { server, public, internal, control, .. } = self;
        let end = async {
            server.drain();
            tokio::time::sleep(settings.drain_delay.0).await;
            let deadline = Instant::now() + settings.drain_timeout.0;
            public.stop(deadline.saturating_duration_since(Instant::now())).await;
            // Commands wait for commits: none may come once the journals close.
            control.stop(deadline.saturating_duration_since(Instant::now())).await;
            close(&server, deadline).await;
            // Last, so that readiness and figures can be asked until the end.
            internal.stop(Duration::from_millis(500)).await;
        };
        tokio::select! {
            () = end => tracing::info!("stopped"),
            () = signals.next() => {
                // Everything acknowledged is on disk already.
                tracing::warn!("stopped at once, on a second signal");
            }
        }
    }

    /// Lets go of everything, and ends once the successor serves. An error: it is gone, and the folder is free; with the connections
    /// that were idle.
    async fn hand_over(
        self,
        mut leaving: Leaving,
        settings: &Settings,
        signals: &mut Signals,
    ) -> Result<(), (std::io::Error, Idle)> {
        tracing::info!("handing over");
        let Self { server, public, internal, control, .. } = self;
        control.stop(WAIT).await;
        leaving.stopped();
        let ((public, idle_public), (internal, idle_internal)) =
            tokio::join!(public.stop_accepting(), internal.stop_accepting());
        let idle = [idle_public, idle_internal];
        let mut open: Ending = Box::pin(async {
            tokio::join!(public, internal);
        });
        let mut late = tokio::time::timeout(WAIT, &mut open).await.is_err();
        // The sinks go on where they are, in the other process.
        close(&server, Instant::now()).await;
        let mut served = pin!(tokio::task::spawn_blocking(move || match leaving.closed(&idle) {
            Ok(gap) => Ok(gap),
            Err(error) => Err((error, idle)),
        }));
        let gap = loop {
            tokio::select! {
                served = &mut served => {
                    break served.unwrap_or_else(|error| Err((std::io::Error::other(error), Idle::default())))?;
                }
                () = &mut open, if late => late = false,
                () = signals.next() => {
                    tracing::warn!("stopped by a signal before the other server said that it serves");
                    return Ok(());
                }
            }
        };
        tracing::info!(seconds = gap.as_secs_f64(), "handed over; for so long, who connected waited");
        if late {
            tracing::warn!("some requests took too long to wait for; they are answered with 503");
            let _ = tokio::time::timeout(settings.drain_timeout.0, open).await;
        }
        Ok(())
    }
}

async fn close(server: &Server, deadline: Instant) {
    let closing = server.clone();
    if tokio::task::spawn_blocking(move || closing.close(deadline)).await.is_err() {
        tracing::error!("closing the journals panicked");
    }
}
