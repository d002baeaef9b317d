//! Our own listener: HTTP/1.1 with a time limit on headers, a bound on connections, and an orderly end.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use firsthop_intake::Refusal;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tower_service::Service;

use super::{
    ClientAddress,
    connections::{Connections, Place},
    traffic::Closed,
    wire::{Wire, answer},
};
use crate::{Error, Server, ingest::full};

/// A listener at work.
pub(crate) struct Listening {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<GracefulShutdown>,
}

/// Bytes of a request's head; more is answered with 431. A body is read in pieces of up to as much. A connection holds one such buffer,
/// and a second one while a body is being read: so this times `connections` is part of the ceiling of memory.
const BUFFER: usize = 16 << 10;

/// Binds an address.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|error| Error::Io(format!("listen on {address}"), error))
}

impl Listening {
    /// Serves what connects.
    pub(crate) fn start<S>(listener: TcpListener, server: Server, service: S) -> std::io::Result<Self>
    where
        S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(accept(listener, stopped, server, service));
        Ok(Self { address, stop, task })
    }

    /// Where: of port 0 the port that was given.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more, lets requests under way be answered, and closes the connections; after `time` without waiting
    /// further.
    pub(crate) async fn stop(self, time: Duration) {
        let _ = self.stop.send(true);
        let Ok(connections) = self.task.await else { return };
        if tokio::time::timeout(time, connections.shutdown()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }
}

async fn accept<S>(
    listener: TcpListener,
    mut stopped: watch::Receiver<bool>,
    server: Server,
    service: S,
) -> GracefulShutdown
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let graceful = GracefulShutdown::new();
    let settings = server.settings().clone();
    let of_address = settings.connections_per_address;
    // Behind a proxy, its address is that of all.
    let of_address = if of_address == 0 || settings.proxies > 0 { settings.connections } else { of_address };
    let connections = Connections::new(settings.connections, of_address);
    let turned_away = answer(&full().with_detail("too many connections"));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(settings.header_timeout.0).max_buf_size(BUFFER);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => break,
            accepted = listener.accept() => accepted,
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
            // The socket is new, so this fits; who does not read it learns less.
            let _ = stream.try_write(&turned_away);
            traffic.refused(full().code());
            traffic.closed(Closed::Refused);
            continue;
        };
        // Answers are small and complete; none shall wait for another packet.
        let _ = stream.set_nodelay(true);
        let (connection, service) = (Arc::clone(&place.connection), service.clone());
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            connection.reading();
            request.extensions_mut().insert(ClientAddress(address.ip()));
            request.extensions_mut().insert(Arc::clone(&connection));
            let (connection, answering) = (Arc::clone(&connection), service.clone().call(request));
            async move {
                let answer = answering.await;
                connection.waiting();
                answer
            }
        });
        let wire = Wire::new(stream, server.clone(), Arc::clone(&place.connection));
        let served = graceful.watch(http.serve_connection(TokioIo::new(wire), service));
        let server = server.clone();
        tokio::spawn(async move {
            let closed = tokio::select! {
                served = served => why(served, &place, &server),
                () = place.connection.shed() => Closed::Shed,
            };
            server.inner.traffic.closed(closed);
        });
    }
    graceful
}

/// How a connection ended.
fn why(served: Result<(), hyper::Error>, place: &Place, server: &Server) -> Closed {
    let connection = &place.connection;
    match served {
        _ if connection.was_refused() => Closed::NotHttp,
        Ok(()) => Closed::End,
        Err(error) if error.is_timeout() && connection.was_heard() => Closed::HeadTimeout,
        Err(error) if error.is_timeout() => Closed::Idle,
        Err(error) if error.is_parse() => {
            // One of those that hyper has no answer to, such as HTTP/2.
            server.inner.traffic.refused(Refusal::Head.code());
            Closed::NotHttp
        }
        Err(error) => {
            // Clients break off as they like.
            tracing::trace!(%error, "connection");
            Closed::BrokenOff
        }
    }
}
