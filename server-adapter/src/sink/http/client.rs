//! One connection to one receiver: HTTP/1.1, kept open between batches, bounded in time and in what is read.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, runtime::Runtime, sync::watch};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use super::super::{Failure, stop::until_stopped};

/// Of what a receiver answers: enough for a reason.
const MOST_ANSWER: usize = 16 << 10;

pub(super) struct Client {
    runtime: Runtime,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
    stop: watch::Receiver<bool>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// An answer, with as much of its body as a reason needs.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Client {
    pub(super) fn new(
        target: &Uri,
        tls: Option<TlsConnector>,
        timeout: Duration,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, Failure> {
        let host = target.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = target.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        let name = |tls| {
            let name = ServerName::try_from(host.clone());
            name.map(|name| (tls, name))
                .map_err(|_| Failure::new(format!("{host}: no name that a certificate could have")))
        };
        let tls = tls.map(name).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::new)?;
        Ok(Self { runtime, host, port, tls, timeout, stop, connection: None })
    }

    /// Sends a request and reads its answer. Fails if there is none in time, or the sink is to stop.
    pub(super) fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let kept = self.connection.take();
        let Self { runtime, host, port, tls, timeout, stop, .. } = self;
        let exchange = async {
            // A connection that was kept may have been closed meanwhile. Then it is sent again, on a new one: events have ids.
            if let Some(mut kept) = kept
                && kept.ready().await.is_ok()
                && let Ok(answered) = exchange(&mut kept, request.clone()).await
            {
                return Ok((answered, kept));
            }
            let mut fresh = connect(host, *port, tls.as_ref()).await?;
            let answered = exchange(&mut fresh, request).await?;
            Ok((answered, fresh))
        };
        let timeout = *timeout;
        let bounded = async { tokio::time::timeout(timeout, exchange).await };
        match runtime.block_on(until_stopped(stop, bounded)) {
            None => Err(Failure::new("the sink stops")),
            Some(Err(_)) => Err(Failure::new(format!("no answer within {timeout:?}"))),
            Some(Ok(Err(failure))) => Err(failure),
            Some(Ok(Ok((answer, connection)))) => {
                self.connection = Some(connection);
                Ok(answer)
            }
        }
    }
}

async fn connect(
    host: &str,
    port: u16,
    tls: Option<&(TlsConnector, ServerName<'static>)>,
) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let failed = |what: &str, error: &dyn std::fmt::Display| Failure::new(format!("{what} {host}:{port}: {error}"));
    let stream = TcpStream::connect((host, port)).await.map_err(|error| failed("connect to", &error))?;
    // A request is written in one piece.
    let _ = stream.set_nodelay(true);
    match tls {
        None => {
            let (sender, connection) =
                handshake(TokioIo::new(stream)).await.map_err(|error| failed("HTTP to", &error))?;
            tokio::spawn(connection);
            Ok(sender)
        }
        Some((connector, name)) => {
            let stream = connector.connect(name.clone(), stream).await.map_err(|error| failed("TLS to", &error))?;
            let (sender, connection) =
                handshake(TokioIo::new(stream)).await.map_err(|error| failed("HTTP to", &error))?;
            tokio::spawn(connection);
            Ok(sender)
        }
    }
}

async fn exchange(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
    let response: Response<_> =
        sender.send_request(request).await.map_err(|error| Failure::new(format!("no answer: {error}")))?;
    let (head, body) = response.into_parts();
    // The status has said all that matters. A body that is too long ends the connection, and is no reason any more.
    let text = match Limited::new(body, MOST_ANSWER).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(_) => String::new(),
    };
    Ok(Answer { status: head.status, headers: head.headers, text })
}
