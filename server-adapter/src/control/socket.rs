//! The server's end of the socket.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE, UPGRADE},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
};

use super::{
    path,
    run::run,
    wire::{Answer, Command, MAX_COMMAND, PATH, Refused, Reply, Said, VERSION},
};
use crate::{
    Error, Server,
    handover::{self, Successor},
};

/// Exchanges at a time: commands are given by hand, and each writes.
const CONNECTIONS: usize = 8;
/// Time for a command's head, and for its body.
const READ: Duration = Duration::from_secs(10);

/// A server's control socket, at work. By it `firsthop quarantine` and others change what the server holds.
///
/// It is in the data folder, and only the folder's owner can open it. Dropped, it ends.
#[derive(Debug)]
pub struct ControlSocket {
    data: PathBuf,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<JoinSet<()>>>,
}

impl Server {
    /// Opens the control socket. The binary does; a service that mounts the router does if `firsthop` commands shall reach it while it
    /// runs.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn control(&self) -> Result<ControlSocket, Error> {
        let data = &self.settings().data;
        let bind = || -> std::io::Result<(UnixListener, u32)> {
            let path = path::prepare(data)?;
            let listener = UnixListener::bind(&path)?;
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
            let owner = std::fs::symlink_metadata(&path)?.uid();
            Ok((listener, owner))
        };
        let (listener, owner) = bind().map_err(Error::io(&data.join("control.sock")))?;
        let (stop, stopped) = watch::channel(false);
        let task = Some(tokio::spawn(accept(listener, owner, stopped, self.clone())));
        Ok(ControlSocket { data: data.clone(), stop, task })
    }
}

impl ControlSocket {
    /// Takes no more commands, lets those under way end, and removes the socket; after `time` without waiting further.
    pub async fn stop(mut self, time: Duration) {
        let _ = self.stop.send(true);
        let Some(task) = self.task.take() else { return };
        let end = async {
            if let Ok(mut exchanges) = task.await {
                while exchanges.join_next().await.is_some() {}
            }
        };
        if tokio::time::timeout(time, end).await.is_err() {
            tracing::warn!("a command by the control socket did not end in time");
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        remove(&self.data);
    }
}

fn remove(data: &Path) {
    if let Err(error) = path::remove(data) {
        // The next start does it.
        tracing::warn!(%error, "the control socket stays");
    }
}

async fn accept(listener: UnixListener, owner: u32, mut stopped: watch::Receiver<bool>, server: Server) -> JoinSet<()> {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut exchanges = JoinSet::new();
    loop {
        while exchanges.try_join_next().is_some() {}
        let accepted = tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => return exchanges,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept on the control socket");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // The mode says it already, but for the moment between making the socket and setting it.
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == owner || peer.uid() == 0) {
            tracing::warn!("somebody else than the data folder's owner came to the control socket");
            continue;
        }
        // One too many is turned away by what it sees: the end of the connection.
        if let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
            let server = server.clone();
            exchanges.spawn(async move {
                exchange(stream, server).await;
                drop(slot);
            });
        }
    }
}

async fn exchange(stream: UnixStream, server: Server) {
    let service = hyper::service::service_fn(|request| {
        let server = server.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(server, request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(READ).keep_alive(false);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await {
        tracing::debug!(%error, "control socket");
    }
}

async fn answer(server: Server, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() == handover::PATH {
        return match take_over(&server, request) {
            Ok(response) => response,
            Err(error) => respond(StatusCode::CONFLICT, Err(error)),
        };
    }
    let (status, result) = match read(request).await {
        Err((status, error)) => (status, Err(error)),
        Ok(command) => {
            tracing::info!(command = command.name(), "by the control socket");
            // It waits for commits.
            let ran = tokio::task::spawn_blocking(move || run(&server, &command)).await;
            match ran.unwrap_or_else(|_| Err(Error::Fault("the command panicked; the server's log says where".into())))
            {
                Ok(reply) => (StatusCode::OK, Ok(reply)),
                Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, Err(error)),
            }
        }
    };
    respond(status, result)
}

/// Another server wants to take over: its connection becomes the two servers' own, and who serves here sees to it.
fn take_over(server: &Server, mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Error> {
    let place = server.inner.successors.reserve()?;
    let protocol = HeaderValue::from_static(handover::PROTOCOL);
    if request.headers().get(UPGRADE) != Some(&protocol) {
        return Err(Error::Control(format!("to take over, a connection is upgraded to {}", handover::PROTOCOL)));
    }
    tokio::spawn(async move {
        let stream = hyper::upgrade::on(&mut request).await;
        let stream = stream.ok().and_then(|stream| stream.downcast::<TokioIo<UnixStream>>().ok());
        match stream.map(|parts| parts.io.into_inner().into_std()) {
            Some(Ok(stream)) => drop(place.send(Successor::new(stream))),
            _ => tracing::warn!("a server that was to take over went away"),
        }
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(UPGRADE, protocol);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    Ok(response)
}

fn respond(status: StatusCode, result: Result<Reply, Error>) -> Response<Full<Bytes>> {
    let result = match result {
        Ok(reply) => Said::Reply(reply),
        Err(error) => Said::Error(Refused::from(&error)),
    };
    let body = serde_json::to_vec(&Answer { version: VERSION.into(), result }).unwrap_or_default();
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn read(request: Request<Incoming>) -> Result<Command, (StatusCode, Error)> {
    let refuse = |status, what: String| Err((status, Error::Control(what)));
    if request.uri().path() != PATH {
        return refuse(StatusCode::NOT_FOUND, format!("{} is not known here", request.uri().path()));
    }
    if request.method() != Method::POST {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "a command is a POST".into());
    }
    let body = Limited::new(request.into_body(), MAX_COMMAND).collect();
    let body = match tokio::time::timeout(READ, body).await {
        Err(_) => return refuse(StatusCode::REQUEST_TIMEOUT, "the command did not arrive in time".into()),
        Ok(Err(error)) => return refuse(StatusCode::PAYLOAD_TOO_LARGE, format!("the command: {error}")),
        Ok(Ok(body)) => body.to_bytes(),
    };
    serde_json::from_slice(&body).or_else(|error| refuse(StatusCode::BAD_REQUEST, format!("the command: {error}")))
}
