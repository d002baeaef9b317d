//! Our own listener: HTTP/1.1 with a time limit on headers, a bound on connections, and an orderly end.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use tower_service::Service;

use super::ClientAddress;
use crate::{Error, Server};

/// A listener at work.
pub(crate) struct Listening {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<GracefulShutdown>,
}

/// Bytes of a request's head; more is answered with 431. A body is read in pieces of up to as much.
const BUFFER: usize = 64 << 10;

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
    let slots = Arc::new(Semaphore::new(settings.connections));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(settings.header_timeout.0).max_buf_size(BUFFER);
    loop {
        // Without a slot nothing is accepted: the rest waits in the kernel's queue, where it costs nothing.
        let accepted = tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => break,
            accepted = accept_one(&listener, &slots) => accepted,
        };
        let (stream, address, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: some will come back.
                tracing::warn!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Answers are small and complete; none shall wait for another packet.
        let _ = stream.set_nodelay(true);
        let service = service.clone();
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ClientAddress(address.ip()));
            service.clone().call(request)
        });
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        let traffic = server.clone();
        traffic.inner.traffic.opened();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                // Clients break off as they like.
                tracing::trace!(%error, "connection");
            }
            traffic.inner.traffic.closed();
            drop(slot);
        });
    }
    graceful
}

async fn accept_one(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((stream, address, slot))
}
