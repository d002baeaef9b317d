//! The new server's part.

use std::{
    io::{self, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{CLOSED, CONNECTION, GO, Idle, LOCK, Offer, PATH, PROTOCOL, SERVING, Sockets, hear, receive_sockets, say};
use crate::{
    Error, Server, Settings, clock, control,
    http::{Shelf, listen::bind},
    journal,
    server::try_lock,
    tenants::{Store, make_folder},
};

/// For the old server to say what it has. It need not stop anything for that.
const PATIENCE: Duration = Duration::from_secs(30);

/// The server that is taken over from, until it is told that this one serves.
#[derive(Debug)]
pub(crate) struct Predecessor {
    stream: UnixStream,
    idle: Idle,
}

/// Gets the listening sockets of the server that holds the data folder, and makes it let go of it. None: nobody holds it.
///
/// # Errors
/// [`Error::Control`] if whoever holds it cannot hand over; then it serves on.
pub(crate) async fn take_over(settings: &Settings) -> Result<Option<(Sockets, Predecessor)>, Error> {
    make_folder(&settings.data).map_err(Error::io(&settings.data))?;
    if try_lock(&settings.data)?.is_some() {
        return Ok(None);
    }
    let data = settings.data.clone();
    let asked = tokio::task::spawn_blocking(move || ask(control::connect(&data)?)).await;
    let (stream, [public, internal], offer) = asked.map_err(|error| Error::Fault(format!("take over: {error}")))??;
    tracing::info!(pid = offer.pid, version = offer.version, public = %offer.public, internal = %offer.internal, "taking over");
    // What this one is to listen on instead is bound while the old one can still go on.
    let public = chosen(settings.listen, offer.public, public).await?;
    let internal = chosen(settings.internal_listen, offer.internal, internal).await?;
    let checked = settings.clone();
    let checked = tokio::task::spawn_blocking(move || check(&checked)).await;
    checked.map_err(|error| Error::Fault(format!("take over: {error}")))??;
    let released = tokio::task::spawn_blocking(move || release(&stream).map(|idle| (stream, idle))).await;
    let (stream, idle) = released.map_err(|error| Error::Fault(format!("take over: {error}")))?.map_err(broken)?;
    Ok(Some((Sockets { public, internal }, Predecessor { stream, idle })))
}

fn broken(error: io::Error) -> Error {
    Error::Control(format!("the server that was to hand over: {error}"))
}

fn ask(stream: UnixStream) -> Result<(UnixStream, [std::net::TcpListener; 2], Offer), Error> {
    let exchange = || -> io::Result<Result<(), String>> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let request = format!(
            "POST {PATH} HTTP/1.1\r\nHost: control\r\nConnection: upgrade\r\nUpgrade: {PROTOCOL}\r\nContent-Length: 0\r\n\r\n"
        );
        (&stream).write_all(request.as_bytes())?;
        let status = hear(&stream)?;
        let mut length = 0;
        loop {
            let line = hear(&stream)?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse::<usize>().unwrap_or(0).min(1 << 16);
            }
        }
        if status.starts_with("HTTP/1.1 101 ") {
            return Ok(Ok(()));
        }
        let mut body = vec![0; length];
        io::Read::read_exact(&mut &stream, &mut body)?;
        Ok(Err(refusal(&body).unwrap_or_else(|| format!("it answered {}", status.trim_end()))))
    };
    match exchange().map_err(broken)? {
        Ok(()) => {}
        Err(refused) => {
            return Err(Error::Control(format!(
                "the server that holds the folder does not hand it over: {refused}. It serves on"
            )));
        }
    }
    let offered = || -> io::Result<_> {
        let sockets: [_; 2] = receive_sockets(&stream)?;
        Ok((sockets.map(std::net::TcpListener::from), serde_json::from_str(&hear(&stream)?)?))
    };
    let (sockets, offer) = offered().map_err(broken)?;
    Ok((stream, sockets, offer))
}

/// What a refusal says, also one of another version.
fn refusal(body: &[u8]) -> Option<String> {
    let said: serde_json::Value = serde_json::from_slice(body).ok()?;
    let (version, message) = (said.get("version")?.as_str()?, said.get("error")?.get("message")?.as_str()?);
    Some(format!("{message} (it is firsthop {version})"))
}

/// The socket that is offered, if it is where this server is to listen; or a new one. Port 0 is wherever it is.
async fn chosen(
    said: SocketAddr,
    offered: SocketAddr,
    socket: std::net::TcpListener,
) -> Result<std::net::TcpListener, Error> {
    if said == offered || (said.port() == 0 && said.ip() == offered.ip()) {
        return Ok(socket);
    }
    tracing::warn!(old = %offered, new = %said, "another address: who still connects to the old one is refused once it ends");
    bind(said).await?.into_std().map_err(|error| Error::Io(format!("listen on {said}"), error))
}

/// Finds what would keep this server from opening the folder while the old one still serves it.
fn check(settings: &Settings) -> Result<(), Error> {
    for stored in Store::new(&settings.data).all()? {
        stored.tenant.account(&stored.keys, clock::now())?;
        if stored.journal().exists() {
            journal::admit(&stored.journal())?;
        }
    }
    Ok(())
}

/// Makes the old server let go, and waits until it has. Blocks.
fn release(stream: &UnixStream) -> io::Result<Idle> {
    say(stream, GO)?;
    // It answers what is under way first.
    stream.set_read_timeout(None)?;
    let mut idle = Idle::default();
    loop {
        match hear(stream) {
            Ok(said) if said == CLOSED => return Ok(idle),
            Ok(said) => {
                let from = CONNECTION.iter().position(|from| *from == said).ok_or(io::ErrorKind::InvalidData)?;
                let [socket] = receive_sockets(stream)?;
                idle[from].push(socket.into());
            }
            // It crashed on the way: then the folder is free as well.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                tracing::warn!("the old server ended before it said that it had closed its files");
                return Ok(idle);
            }
            Err(error) => return Err(error),
        }
    }
}

impl Predecessor {
    /// Opens the folder that was let go. Blocks.
    pub(crate) fn open(settings: &Settings, sdk: &Arc<Shelf>) -> Result<Server, Error> {
        let began = Instant::now();
        loop {
            match Server::open_with(settings.clone(), Arc::clone(sdk)) {
                Err(Error::Locked(_)) if began.elapsed() < LOCK => thread::sleep(Duration::from_millis(5)),
                opened => return opened,
            }
        }
    }

    /// Connections that it had accepted, and that are between two requests or before the first.
    pub(crate) fn idle(&mut self) -> Idle {
        std::mem::take(&mut self.idle)
    }

    /// Lets the old one end.
    pub(crate) fn serving(self) {
        if let Err(error) = say(&self.stream, SERVING) {
            tracing::warn!(%error, "the old server ended before it was told to");
        }
    }
}
