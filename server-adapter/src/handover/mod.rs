//! One server handing its listeners to the next, on one data folder.
//!
//! ```text
//!  old: serves                                          new: `firsthop serve --take-over`
//!       │ ◄────────────── POST, upgraded ──────────────  finds the folder held
//!       │ ─── both listening sockets, and whose ───────► checks its own settings, binds what differs
//!       │ ◄──────────────────── go ────────────────────
//!       │ accepts no more: who connects waits in the kernel
//!       │ ────────────── idle connections ─────────────►
//!       │ answers what is under way, commits, closes
//!       │ ─────────────────── closed ──────────────────► takes the lock, opens, accepts
//!       │ ◄───────────────── serving ──────────────────
//!       end
//! ```
//!
//! The sockets are the same ones in both processes, and the old one keeps its own until it is told that the new one serves: so
//! nobody who connects is ever refused. If the new one ends before that, at whatever step, the old one opens the folder
//! again and goes on. A connection that waits for its next request goes over as it is: what its client sends meanwhile is read by the
//! other process. One with a request under way ends with the answer, which says so.

mod predecessor;
mod successor;

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

pub(crate) use self::{
    predecessor::{Leaving, Successor, Successors},
    successor::{Predecessor, take_over},
};
use crate::{Error, Settings, http::listen::bind};

/// The path of the exchange on the control socket.
pub(crate) const PATH: &str = "/control/1/take-over";
/// What the exchange turns into. Its number changes with the lines.
pub(crate) const PROTOCOL: &str = "firsthop-take-over/1";

/// For the folder's lock, once the other process has let go or is gone: a command may have been faster, and a process that was killed
/// has it until it is cleared away.
pub(crate) const LOCK: Duration = Duration::from_secs(10);

const GO: &str = "go";
/// Before a connection that is between two requests: it goes to where it came from.
const CONNECTION: [&str; 2] = ["public", "internal"];
const CLOSED: &str = "closed";
const SERVING: &str = "serving";

/// Both listening sockets. They live as long as the process, whatever becomes of those who accept from them.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) public: TcpListener,
    pub(crate) internal: TcpListener,
}

impl Sockets {
    pub(crate) async fn bind(settings: &Settings) -> Result<Self, Error> {
        let own =
            |listener: tokio::net::TcpListener| listener.into_std().map_err(|error| Error::Io("listen".into(), error));
        let (public, internal) = (bind(settings.listen).await?, bind(settings.internal_listen).await?);
        Ok(Self { public: own(public)?, internal: own(internal)? })
    }

    /// The same sockets once more, to accept from.
    pub(crate) fn listeners(&self) -> io::Result<[tokio::net::TcpListener; 2]> {
        let [public, internal] = self.again()?;
        Ok([tokio::net::TcpListener::from_std(public)?, tokio::net::TcpListener::from_std(internal)?])
    }

    pub(crate) fn again(&self) -> io::Result<[TcpListener; 2]> {
        Ok([self.public.try_clone()?, self.internal.try_clone()?])
    }
}

/// Connections that are between two requests, or before the first: public ones, internal ones.
pub(crate) type Idle = [Vec<TcpStream>; 2];

/// Sends sockets: with a byte, since there has to be something that they travel with.
fn send_sockets(stream: &UnixStream, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    if !message.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    rustix::net::sendmsg(stream, &[IoSlice::new(b"s")], &mut message, SendFlags::empty())?;
    Ok(())
}

fn receive_sockets<const N: usize>(stream: &UnixStream) -> io::Result<[OwnedFd; N]> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    // Nothing that this process may start shall inherit them.
    #[cfg(target_os = "linux")]
    let flags = RecvFlags::CMSG_CLOEXEC;
    #[cfg(not(target_os = "linux"))]
    let flags = RecvFlags::empty();
    rustix::net::recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut message, flags)?;
    let mut sockets = Vec::new();
    for part in message.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = part {
            sockets.extend(more);
        }
    }
    sockets.try_into().map_err(|_| io::ErrorKind::InvalidData.into())
}

fn say(mut stream: &UnixStream, line: &str) -> io::Result<()> {
    stream.write_all(format!("{line}\n").as_bytes())
}

/// One line. Read byte by byte, so that nothing of the next is taken.
fn hear(mut stream: &UnixStream) -> io::Result<String> {
    const LONGEST: usize = 4096;
    let (mut line, mut byte) = (Vec::new(), [0]);
    loop {
        stream.read_exact(&mut byte)?;
        match byte {
            [b'\n'] => return String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData.into()),
            _ if line.len() == LONGEST => return Err(io::ErrorKind::InvalidData.into()),
            [byte] => line.push(byte),
        }
    }
}

fn expect(stream: &UnixStream, expected: &str) -> io::Result<()> {
    let said = hear(stream)?;
    let other = || io::Error::new(io::ErrorKind::InvalidData, format!("{said:?} instead of {expected:?}"));
    if said == expected { Ok(()) } else { Err(other()) }
}

/// What the old server says with its sockets.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Offer {
    version: String,
    pid: u32,
    public: SocketAddr,
    internal: SocketAddr,
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_socket_that_was_passed_has_the_same_queue() {
        let (here, there) = UnixStream::pair().expect("a pair");
        let bind = || TcpListener::bind("127.0.0.1:0").expect("bound");
        let sockets = [bind(), bind()];
        let addresses = sockets.each_ref().map(|socket| socket.local_addr().expect("an address"));
        // Connected before anybody accepts, and before it is passed.
        let mut client = std::net::TcpStream::connect(addresses[0]).expect("connected");
        client.write_all(b"hello").expect("sent");
        send_sockets(&here, &sockets.each_ref().map(AsFd::as_fd)).expect("sent");
        say(&here, "more").expect("said");
        drop(sockets);
        let received = receive_sockets(&there).expect("received").map(TcpListener::from);
        assert_eq!(hear(&there).expect("a line"), "more");
        assert_eq!(received.each_ref().map(|socket| socket.local_addr().expect("an address")), addresses);
        let (mut accepted, _) = received[0].accept().expect("still in the queue");
        let mut said = [0; 5];
        accepted.read_exact(&mut said).expect("read");
        assert_eq!(&said, b"hello");
        drop(here);
        assert!(hear(&there).is_err(), "the other end is gone");
    }
}
