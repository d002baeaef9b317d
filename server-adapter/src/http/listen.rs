//! Our own listener: HTTP/1.1 with a time limit on headers, a bound on connections, and an orderly end.

use std::{
    convert::Infallible,
    io::Write as _,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use firsthop_intake::Refusal;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::{JoinHandle, coop::unconstrained},
    time::{Instant, Sleep, sleep},
};

use super::{
    connections::{Connection, Connections, Place},
    lanes::Lanes,
    service::{Answering, OnConnection},
    traffic::Closed,
    wire::{Wire, answer},
};
use crate::{Error, Server, ingest::full};

/// A listener at work.
pub(crate) struct Listening {
    address: SocketAddr,
    /// Who waits for it: the task that accepts, and each connection until its end.
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    /// Connections that were between two requests when it stopped, or had not begun the first.
    idle: mpsc::UnboundedReceiver<TcpStream>,
}

/// Bytes of a request's head; more is answered with 431. A body is read in pieces of up to as much. A connection holds one such buffer,
/// and a second one while a body is being read: so this times `connections` is part of the ceiling of memory.
const BUFFER: usize = 16 << 10;

/// Connections that may wait until they are accepted; where `net.core.somaxconn` is less, as many as that. The usual 128 are there within
/// milliseconds when many connect at once, and the kernel has everybody who comes then try again a second later.
const BACKLOG: i32 = 4096;

/// Binds an address.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|error| Error::Io(format!("listen on {address}"), error))
}

impl Listening {
    /// Serves what connects, and what has connected elsewhere and is between two requests.
    pub(crate) fn start<S>(
        listener: TcpListener,
        connected: Vec<std::net::TcpStream>,
        server: Server,
        service: S,
        lanes: &Arc<Lanes>,
    ) -> std::io::Result<Self>
    where
        S: OnConnection + Send + 'static,
    {
        let address = listener.local_addr()?;
        // Here, because an older build may have made the socket.
        rustix::net::listen(&listener, BACKLOG)?;
        let (stop, stopped) = watch::channel(false);
        let (still, idle) = mpsc::unbounded_channel();
        let task = tokio::spawn(accept(listener, connected, stopped, still, server, service, Arc::clone(lanes)));
        Ok(Self { address, stop, task, idle })
    }

    /// Where: of port 0 the port that was given.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more, lets requests under way be answered, and closes the connections; after `time` without waiting
    /// further.
    pub(crate) async fn stop(self, time: Duration) {
        let (ended, _) = self.stop_accepting().await;
        if tokio::time::timeout(time, ended).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }

    /// Accepts no more. Returns what ends with the last connection on which a request is under way, and the idle connections: no request
    /// on them is lost if whoever takes over reads on where this one stopped. Dropped, they are closed.
    pub(crate) async fn stop_accepting(self) -> (impl Future<Output = ()> + Send, Vec<std::net::TcpStream>) {
        let Self { stop, task, idle: mut given, .. } = self;
        let _ = stop.send(true);
        if task.await.is_err() {
            tracing::error!("accepting connections panicked");
        }
        let mut idle = Vec::new();
        while let Some(connection) = given.recv().await {
            idle.extend(connection.into_std());
        }
        (async move { stop.closed().await }, idle)
    }
}

async fn accept<S>(
    listener: TcpListener,
    mut connected: Vec<std::net::TcpStream>,
    mut stopped: watch::Receiver<bool>,
    still: mpsc::UnboundedSender<TcpStream>,
    server: Server,
    service: S,
    lanes: Arc<Lanes>,
) where
    S: OnConnection + Send + 'static,
{
    let settings = server.settings().clone();
    let of_address = settings.connections_per_address;
    // Behind a proxy, its address is that of all.
    let of_address = if of_address == 0 || settings.proxies > 0 { settings.connections } else { of_address };
    let connections = Connections::new(settings.connections, of_address);
    let turned_away = answer(&full().with_detail("too many connections"));
    let mut http = http1::Builder::new();
    // Whoever has sent a request may close its side: nothing is read before the answer has gone out, and so the memory of the one is free
    // for the next. Answers are small, and go out in one piece. Who waits too long is dealt with in `Patience`.
    http.half_close(true).writev(false).max_buf_size(BUFFER);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => break,
            accepted = accept_one(&listener, &mut connected) => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely.
                tracing::warn!(%error, "accept");
                connections.make_room();
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let traffic = &server.inner.traffic;
        traffic.opened();
        let Some(place) = connections.enter(address.ip()) else {
            // Counted before it is said: whoever reads the answer finds it in the metrics.
            traffic.refused(full().code());
            traffic.closed(Closed::Refused);
            // The socket is new, so this fits; who does not read it learns less.
            let _ = (&stream).write(&turned_away);
            continue;
        };
        // Answers are small and complete; none shall wait for another packet.
        let _ = stream.set_nodelay(true);
        let service =
            OfConnection { service: service.on(&place.connection), connection: Arc::clone(&place.connection) };
        let (http, server, stopped, still) = (http.clone(), server.clone(), stopped.clone(), still.clone());
        let patience = settings.header_timeout.0;
        lanes.spawn(stream, move |stream| async move {
            let served = async {
                let heard = match stream {
                    Ok(stream) => first_byte(stream, stopped.clone(), &still, patience).await,
                    Err(_) => Err(Closed::BrokenOff),
                };
                match heard {
                    Ok(stream) => {
                        let wire = Wire::new(stream, server.clone(), Arc::clone(&place.connection));
                        let connection = http.serve_connection(TokioIo::new(wire), service);
                        // What has begun has all of its time.
                        place.connection.waiting();
                        let patience = Patience::new(&place.connection, patience);
                        why(serve(connection, patience, stopped, still).await, &place, &server)
                    }
                    Err(closed) => closed,
                }
            };
            let (mut served, mut shed) = (pin!(served), pin!(unconstrained(place.connection.shed())));
            let mut is_asked = false;
            let closed = std::future::poll_fn(|context| {
                // Asked once, it wakes this task when it is so; to ask it each time costs a lock.
                if (!std::mem::replace(&mut is_asked, true) || place.connection.is_shed())
                    && shed.as_mut().poll(context).is_ready()
                {
                    return Poll::Ready(Closed::Shed);
                }
                served.as_mut().poll(context)
            });
            let closed = closed.await;
            server.inner.traffic.closed(closed);
        });
    }
}

/// The service for one connection.
struct OfConnection<S> {
    service: S,
    connection: Arc<Connection>,
}

impl<S: OnConnection> hyper::service::Service<Request<Incoming>> for OfConnection<S> {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = OfRequest;

    fn call(&self, request: Request<Incoming>) -> OfRequest {
        self.connection.reading();
        OfRequest { answering: self.service.answering(request), connection: Arc::clone(&self.connection) }
    }
}

/// A request that is being answered.
struct OfRequest {
    answering: Answering,
    connection: Arc<Connection>,
}

impl Future for OfRequest {
    type Output = Result<Response<Full<Bytes>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.answering.as_mut().poll(context));
        self.connection.waiting();
        Poll::Ready(answer)
    }
}

/// How long a connection may keep the server waiting for the head of a request. One timer for all of its requests, that looks when it
/// fires whether there is cause: to set one for each of them costs more than to read their heads.
struct Patience<'a> {
    connection: &'a Connection,
    time: Duration,
    timer: Pin<Box<Sleep>>,
    is_set: bool,
}

impl<'a> Patience<'a> {
    fn new(connection: &'a Connection, time: Duration) -> Self {
        Self { connection, time, timer: Box::pin(sleep(time)), is_set: false }
    }

    /// Ready once it is over.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // Whom it wakes is always the same task.
        while !self.is_set || self.timer.is_elapsed() {
            // Whatever else this task has done in this turn: one that is told to come back later has set no timer.
            if pin!(unconstrained(self.timer.as_mut())).poll(context).is_pending() {
                self.is_set = true;
                break;
            }
            self.is_set = false;
            let waited = self.connection.waited().unwrap_or_default();
            if waited >= self.time {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(Instant::now() + (self.time - waited));
        }
        Poll::Pending
    }
}

async fn accept_one(
    listener: &TcpListener,
    connected: &mut Vec<std::net::TcpStream>,
) -> std::io::Result<(std::net::TcpStream, SocketAddr)> {
    while let Some(stream) = connected.pop() {
        // One that has gone meanwhile is nobody's.
        if let Ok(address) = stream.peer_addr() {
            return Ok((stream, address));
        }
    }
    let (stream, address) = listener.accept().await?;
    Ok((stream.into_std()?, address))
}

/// Waits for the first byte. Until then a connection is nobody's: at a stop it is given back, for whoever takes over. An error:
/// there is nothing to serve.
async fn first_byte(
    stream: TcpStream,
    mut stopped: watch::Receiver<bool>,
    still: &mpsc::UnboundedSender<TcpStream>,
    patience: Duration,
) -> Result<TcpStream, Closed> {
    let mut byte = [0];
    let heard = tokio::select! {
        biased;
        heard = tokio::time::timeout(patience, stream.peek(&mut byte)) => heard,
        _ = stopped.wait_for(|stopped| *stopped) => {
            let _ = still.send(stream);
            return Err(Closed::End);
        }
    };
    match heard {
        Ok(Ok(1)) => Ok(stream),
        Ok(Ok(_)) => Err(Closed::End),
        Ok(Err(_)) => Err(Closed::BrokenOff),
        Err(_) => Err(Closed::Idle),
    }
}

/// Serves a connection whose first bytes are there, until it ends or is told to stop: then it ends with the answer to the request that is
/// under way, or is given back if there is none. Closed instead, it would take with it what its client may be sending at this very moment.
async fn serve<S: OnConnection>(
    mut connection: http1::Connection<TokioIo<Wire>, OfConnection<S>>,
    mut patience: Patience<'_>,
    mut stopped: watch::Receiver<bool>,
    still: mpsc::UnboundedSender<TcpStream>,
) -> Result<(), Ended> {
    let state = patience.connection;
    let looked_at = stopped.clone();
    let mut stopping = pin!(unconstrained(stopped.wait_for(|stopped| *stopped)));
    // Whoever stops waits until no connection can be given back any more.
    let mut still = Some(still);
    let (mut is_stopped, mut is_told, mut is_asked) = (false, false, false);
    let served = std::future::poll_fn(|context| {
        loop {
            // First, what has arrived: with it a connection is not idle.
            if let Poll::Ready(ended) = connection.poll_without_shutdown(context) {
                return Poll::Ready(ended.map_err(Ended::Broken));
            }
            if patience.poll(context).is_ready() {
                return Poll::Ready(Err(Ended::Waited));
            }
            // Asked once, it wakes this task when it is so; to ask it each time costs a lock that all connections share.
            if !is_stopped && (!std::mem::replace(&mut is_asked, true) || looked_at.has_changed().unwrap_or(true)) {
                is_stopped = stopping.as_mut().poll(context).is_ready();
            }
            if is_told {
                // An idle one would have ended at once: its last answer is not read. It cannot be given back before that is.
                still = None;
            }
            if !is_stopped || is_told {
                return Poll::Pending;
            }
            if !state.is_idle() {
                still = None;
                // With a part of a head: hyper takes that for nothing, and would close.
                if state.is_waiting() {
                    return Poll::Pending;
                }
            }
            is_told = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
    })
    .await;
    let parts = connection.into_parts();
    let wire = parts.io.into_inner();
    match still {
        Some(still) if is_told && served.is_ok() && parts.read_buf.is_empty() => drop(still.send(wire.into_stream())),
        _ => wire.close(patience.time).await,
    }
    served
}

/// What ends a connection before its end.
enum Ended {
    /// No head came in time.
    Waited,
    Broken(hyper::Error),
}

/// How a connection ended.
fn why(served: Result<(), Ended>, place: &Place, server: &Server) -> Closed {
    let connection = &place.connection;
    match served {
        _ if connection.was_refused() => Closed::NotHttp,
        Ok(()) => Closed::End,
        Err(Ended::Waited) if connection.was_heard() => Closed::HeadTimeout,
        Err(Ended::Waited) => Closed::Idle,
        Err(Ended::Broken(error)) if error.is_parse() => {
            // One of those that hyper has no answer to, such as HTTP/2.
            server.inner.traffic.refused(Refusal::Head.code());
            Closed::NotHttp
        }
        Err(Ended::Broken(error)) => {
            // Clients break off as they like.
            tracing::trace!(%error, "connection");
            Closed::BrokenOff
        }
    }
}
