//! A connection's bytes. What is no request hyper answers itself, before there is one: with a bare status. Here that becomes a problem like
//! every other refusal, and is counted.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use firsthop_intake::{CORS, Problem, Refusal};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep, timeout},
};

use super::connections::Connection;
use crate::Server;

pub(super) struct Wire {
    stream: TcpStream,
    server: Server,
    connection: Arc<Connection>,
    /// Our answer in the place of hyper's, as far as it is not sent.
    answer: Bytes,
    /// After such an answer, how long what is still on its way is read and thrown away: a connection that is closed with bytes unread
    /// is reset, and the reset can overtake the answer.
    linger: Option<Pin<Box<Sleep>>>,
}

const LINGER: Duration = Duration::from_millis(250);

impl Wire {
    pub(super) fn new(stream: TcpStream, server: Server, connection: Arc<Connection>) -> Self {
        Self { stream, server, connection, answer: Bytes::new(), linger: None }
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Ends it, in so much time: who does not listen any more learns nothing, and who reads nothing is not waited for.
    pub(super) async fn close(mut self, time: Duration) {
        let _ = timeout(time, std::future::poll_fn(|context| Pin::new(&mut self).poll_shutdown(context))).await;
    }

    fn flush_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.answer.has_remaining() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.answer))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.answer.advance(sent);
        }
        Poll::Ready(Ok(()))
    }
}

/// What hyper says of itself: an answer without a body, which none of ours with these statuses is.
fn of_hyper(answer: &[u8]) -> Option<Refusal> {
    let begins = |status: &str| {
        let head = answer.strip_prefix(b"HTTP/1.1 ").or_else(|| answer.strip_prefix(b"HTTP/1.0 "));
        head.is_some_and(|head| head.starts_with(status.as_bytes()))
    };
    let is_empty = || answer.windows(19).any(|line| line.eq_ignore_ascii_case(b"content-length: 0\r\n"));
    let refusal = match () {
        () if begins("400 ") => Refusal::Head,
        () if begins("431 ") || begins("414 ") => Refusal::HeadTooLarge,
        () => return None,
    };
    is_empty().then_some(refusal)
}

/// A problem as bytes.
pub(super) fn answer(problem: &Problem) -> Bytes {
    let body = problem.to_json();
    let status = http::StatusCode::from_u16(problem.status()).unwrap_or_default();
    let reason = status.canonical_reason().unwrap_or_default();
    let mut text = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16());
    let ours = problem.headers();
    let headers = ours.iter().map(|(name, value)| (*name, &**value)).chain(CORS.into_iter().take(1));
    for (name, value) in headers.chain([("connection", "close")]) {
        text.push_str(name);
        text.push_str(": ");
        text.push_str(value);
        text.push_str("\r\n");
    }
    text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    text.into()
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.connection.hear();
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.flush_answer(cx))?;
        if let Some(refusal) = of_hyper(buf) {
            self.connection.refuse();
            let problem = Problem::new(refusal);
            self.server.inner.traffic.refused(problem.code());
            self.server.inner.traffic.answered(None, problem.status());
            self.answer = answer(&problem);
            self.linger = Some(Box::pin(sleep(LINGER)));
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // hyper's own answers come in one piece.
        if let [first] = bufs {
            return self.poll_write(cx, first);
        }
        ready!(self.flush_answer(cx))?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.flush_answer(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.flush_answer(cx))?;
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        let Self { stream, linger, .. } = &mut *self;
        while let Some(sleep) = linger {
            let mut bytes = [0; 4096];
            let mut rest = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *stream).poll_read(cx, &mut rest) {
                Poll::Ready(Ok(())) if !rest.filled().is_empty() => {
                    if sleep.as_mut().poll(cx).is_ready() {
                        *linger = None;
                    }
                }
                Poll::Ready(_) => *linger = None,
                Poll::Pending => {
                    ready!(sleep.as_mut().poll(cx));
                    *linger = None;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::{Settings, http::connections::Connections};

    /// There is an answer for it, its side of the connection is full, and it reads nothing.
    #[tokio::test]
    async fn one_who_reads_nothing_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::open(Settings { data: folder.path().into(), ..Settings::default() }).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, address) = listener.accept().await.unwrap();
        let place = Connections::new(1, 1).enter(address.ip()).unwrap();
        let mut wire = Wire::new(stream, server.clone(), Arc::clone(&place.connection));
        wire.answer = answer(&Problem::new(Refusal::Head));
        // The kernel moves what is sent to the other side's buffer, and takes more: until neither has room.
        let full = async {
            while timeout(LINGER, wire.stream.writable()).await.is_ok() {
                drop(wire.stream.try_write(&[0; 1 << 16]))
            }
        };
        full.await;
        timeout(Duration::from_secs(30), wire.close(Duration::from_millis(20))).await.expect("ends");
        drop(peer);
        tokio::task::spawn_blocking(move || server.close(std::time::Instant::now())).await.unwrap();
    }

    #[test]
    fn only_what_hyper_says_of_itself_is_replaced() {
        let empty = "content-length: 0\r\ndate: Sun, 22 Nov 2026 00:00:00 GMT\r\n\r\n";
        let of = |status: &str| of_hyper(format!("HTTP/1.1 {status}\r\nconnection: close\r\n{empty}").as_bytes());
        assert_eq!(of("400 Bad Request"), Some(Refusal::Head));
        assert_eq!(of("431 Request Header Fields Too Large"), Some(Refusal::HeadTooLarge));
        assert_eq!(of("414 URI Too Long"), Some(Refusal::HeadTooLarge));
        assert_eq!(of("204 No Content"), None);
        assert_eq!(of_hyper(&answer(&Problem::new(Refusal::Head))), None, "ours has a body");
        assert_eq!(of_hyper(b"HTTP/1.1 100 Continue\r\n\r\n"), None);
    }
}
