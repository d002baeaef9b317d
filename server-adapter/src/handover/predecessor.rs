//! The old server's part.

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixStream},
    sync::Mutex,
    time::{Duration, Instant},
};

use super::{CLOSED, CONNECTION, GO, Idle, Offer, SERVING, Sockets, expect, say, send_sockets};
use crate::Error;

/// Time for a successor to look at what it is offered. It opens nothing yet.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where successors come in, if this server can hand anything over.
#[derive(Debug, Default)]
pub(crate) struct Successors(Mutex<Option<tokio::sync::mpsc::Sender<Successor>>>);

impl Successors {
    /// From here on successors are sent there.
    pub(crate) fn watch(&self) -> tokio::sync::mpsc::Receiver<Successor> {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(sender);
        receiver
    }

    /// A place for one, before its connection is upgraded.
    pub(crate) fn reserve(&self) -> Result<tokio::sync::mpsc::OwnedPermit<Successor>, Error> {
        let sender = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let sender = sender.ok_or_else(|| {
            Error::Control(
                "the folder is held by a service that has the router mounted: its listener is its own to hand over"
                    .into(),
            )
        })?;
        sender
            .try_reserve_owned()
            .map_err(|_| Error::Control("another server is taking over already, or this one is stopping".into()))
    }
}

/// A process that wants to take over.
#[derive(Debug)]
pub(crate) struct Successor(UnixStream);

impl Successor {
    pub(crate) const fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// Offers the sockets, and waits until it wants them. An error: it does not, or is gone. Blocks.
    pub(crate) fn offer(self, sockets: &Sockets) -> io::Result<Leaving> {
        let stream = self.0;
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let offer = Offer {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            public: sockets.public.local_addr()?,
            internal: sockets.internal.local_addr()?,
        };
        send_sockets(&stream, &[sockets.public.as_fd(), sockets.internal.as_fd()])?;
        say(&stream, &serde_json::to_string(&offer)?)?;
        expect(&stream, GO)?;
        Ok(Leaving { stream, stopped: Instant::now() })
    }
}

/// A successor that waits for this server to let go.
#[derive(Debug)]
pub(crate) struct Leaving {
    stream: UnixStream,
    stopped: Instant,
}

impl Leaving {
    /// Nothing is accepted any more: from here on whoever connects waits.
    pub(crate) fn stopped(&mut self) {
        self.stopped = Instant::now();
    }

    /// Sends the connections that are between two requests or before the first, says that the folder is free, and waits until the
    /// successor serves. Returns for how long nobody accepted. An error: it is gone. For how long is its own matter: it may have a large
    /// journal to bring up to its version. Blocks.
    pub(crate) fn closed(self, idle: &Idle) -> io::Result<Duration> {
        self.stream.set_read_timeout(None)?;
        for (connections, from) in idle.iter().zip(CONNECTION) {
            for connection in connections {
                say(&self.stream, from)?;
                send_sockets(&self.stream, &[connection.as_fd()])?;
            }
        }
        say(&self.stream, CLOSED)?;
        expect(&self.stream, SERVING)?;
        Ok(self.stopped.elapsed())
    }
}
