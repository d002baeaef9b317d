//! What each command does. Blocks; called by the process that holds the folder.

use super::{
    quarantine,
    wire::{Command, Reply, Status, VERSION},
};
use crate::{Error, Server};

pub(super) fn run(server: &Server, command: &Command) -> Result<Reply, Error> {
    match command {
        Command::Status => Ok(Reply::Status(status(server))),
        Command::QuarantineReplay(part) => quarantine::replay(server, part),
        Command::QuarantineDiscard(part, note) => quarantine::discard(server, part, note),
    }
}

fn status(server: &Server) -> Status {
    Status {
        pid: std::process::id(),
        uptime_seconds: server.inner.began.elapsed().as_secs(),
        ready: server.is_ready(),
        draining: server.is_draining(),
        tenants: server.inner.tenants.all().len(),
        version: VERSION.into(),
    }
}
