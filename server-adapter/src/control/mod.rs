//! Changing a data folder by command, whether or not a server holds it.
//!
//! ```text
//!                        lock free: take it, open the folder ───────────────┐
//!  a command ──► Control                                                    ├──► run(server, command)
//!                        lock held: DATA/control.sock ──► the server's task ┘
//! ```
//!
//! One function does the work either way. A command changes a bounded part at a time and says where it stopped; who has
//! much to do calls again. So no request is long, progress can be shown, and a break-off in between leaves a whole number of
//! parts done. Commands that only read open the databases themselves and are not here.

mod client;
mod erase;
mod path;
mod quarantine;
mod run;
mod socket;
mod wire;

use std::{
    thread,
    time::{Duration, Instant},
};

pub use self::socket::ControlSocket;
pub(crate) use self::wire::{Command, Erasure, Note, Part, Reply, Status, Step};

use crate::{Error, Server, Settings, server::try_lock};

/// A way to a data folder's commands.
#[derive(Debug)]
pub(crate) struct Control(Way);

#[derive(Debug)]
enum Way {
    /// A server has the folder.
    Served(client::Client),
    /// Nobody had it; now this process does.
    Own(Server),
}

/// How long to wait for a folder that is held by somebody who does not listen: a server that starts or stops, or another
/// command.
const PATIENCE: Duration = Duration::from_secs(5);

impl Control {
    /// Finds the way: through the server that holds the folder, or by holding it.
    ///
    /// # Errors
    /// [`Error::Control`] if somebody holds the folder and does not listen; what [`Server::open`] says.
    pub(crate) fn reach(settings: &Settings) -> Result<Self, Error> {
        let began = Instant::now();
        loop {
            if let Some(lock) = try_lock(&settings.data)? {
                return Server::open_locked(settings.clone(), lock).map(|server| Self(Way::Own(server)));
            }
            match client::Client::connect(&settings.data) {
                Ok(client) => return Ok(Self(Way::Served(client))),
                Err(_) if began.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(50)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// What went wrong there, or on the way there.
    pub(crate) fn call(&mut self, command: &Command) -> Result<Reply, Error> {
        match &mut self.0 {
            Way::Served(client) => client.call(command),
            Way::Own(server) => run::run(server, command),
        }
    }
}

/// A folder that was opened for a command is left as a server leaves it.
impl Drop for Control {
    fn drop(&mut self) {
        if let Way::Own(server) = &self.0 {
            server.close(Instant::now());
        }
    }
}

/// A connection to the server that holds a folder, for an exchange of its own.
///
/// # Errors
/// [`Error::Control`] if nobody listens.
pub(crate) fn connect(data: &std::path::Path) -> Result<std::os::unix::net::UnixStream, Error> {
    client::Client::connect(data).and_then(client::Client::into_stream)
}

/// Who serves a folder. None: nobody does.
///
/// # Errors
/// [`Error::Control`] if somebody holds it and does not listen.
pub(crate) fn status(settings: &Settings) -> Result<Option<Status>, Error> {
    if !settings.data.is_dir() {
        let data = settings.data.display();
        return Err(Error::Control(format!(
            "{data}: there is no such folder; `firsthop serve` makes it, --data or FIRSTHOP_DATA names another"
        )));
    }
    if try_lock(&settings.data)?.is_some() {
        return Ok(None);
    }
    match client::Client::connect(&settings.data)?.call(&Command::Status)? {
        Reply::Status(status) => Ok(Some(status)),
        other => Err(other.unexpected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(folder: &tempfile::TempDir) -> Settings {
        Settings { data: folder.path().to_owned(), ..Settings::default() }
    }

    #[test]
    fn a_folder_that_nobody_holds_is_opened_for_the_command() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let settings = settings(&folder);
        assert_eq!(status(&settings).expect("nobody"), None);
        let mut control = Control::reach(&settings).expect("free");
        let Reply::Status(said) = control.call(&Command::Status).expect("done") else { panic!("another reply") };
        // Opened as it is: a command makes no tenant.
        assert_eq!((said.pid, said.tenants), (std::process::id(), 0));
        assert!(Server::open(settings.clone()).is_err(), "held");
        drop(control);
        Server::open(settings).expect("free again").close(Instant::now());
    }

    #[test]
    fn a_folder_that_is_not_there_is_not_made() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut settings = settings(&folder);
        settings.data.push("none");
        assert!(Control::reach(&settings).is_err() && status(&settings).is_err());
        assert!(!settings.data.exists());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_held_folder_is_reached_through_its_socket() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let settings = settings(&folder);
        // As a crash leaves it.
        drop(std::os::unix::net::UnixListener::bind(folder.path().join("control.sock")).expect("bound"));
        let server = Server::open(settings.clone()).expect("opens");
        let socket = server.control().expect("bound in the place of the stale one");
        let mode = std::fs::metadata(folder.path().join("control.sock")).expect("there");
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);
        let asked = settings.clone();
        let said = tokio::task::spawn_blocking(move || {
            let mut control = Control::reach(&asked)?;
            // Twice: a way is good for many commands.
            control.call(&Command::Status)?;
            control.call(&Command::Status)
        });
        let Reply::Status(said) = said.await.expect("asked").expect("answered") else { panic!("another reply") };
        assert_eq!((said.tenants, said.ready, said.draining), (1, true, false));
        socket.stop(Duration::from_secs(5)).await;
        assert!(!folder.path().join("control.sock").exists(), "nothing is left");
        let error =
            tokio::task::spawn_blocking(move || status(&settings)).await.expect("asked").expect_err("nobody listens");
        assert!(error.to_string().contains("does not take commands"), "{error}");
        tokio::task::spawn_blocking(move || server.close(Instant::now())).await.expect("closed");
    }
}
