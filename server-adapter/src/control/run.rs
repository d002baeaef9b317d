//! What each command does. Blocks; called by the process that holds the folder.

use std::sync::Arc;

use super::{
    erase::erase,
    quarantine,
    wire::{Command, Reply, Status, VERSION},
};
use crate::{
    Error, Server,
    sink::{Ordered, Runner},
};

pub(super) fn run(server: &Server, command: &Command) -> Result<Reply, Error> {
    match command {
        Command::Status => Ok(Reply::Status(status(server))),
        Command::QuarantineReplay(part) => quarantine::replay(server, part),
        Command::QuarantineDiscard(part, note) => quarantine::discard(server, part, note),
        Command::Sink { tenant, sink, order } => {
            let Ordered { done, refused } = sink_named(server, tenant, sink)?.order(*order)?;
            Ok(Reply::Sink { done, refused })
        }
        Command::Erase(erasure) => erase(server, erasure),
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

fn sink_named(server: &Server, tenant: &str, sink: &str) -> Result<Arc<Runner>, Error> {
    let found = tenant.parse().ok().and_then(|id| server.inner.tenants.find(id));
    let live = found.ok_or_else(|| Error::tenant(format!("the server has no tenant {tenant}")))?.live;
    let runner = live.sinks.all().into_iter().find(|runner| runner.name() == sink);
    runner.ok_or_else(|| Error::tenant(format!("the server has no sink {sink:?} yet; its log says why")))
}
