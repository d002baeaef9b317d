//! `firsthop status`

use clap::Args;

use super::{Folder, out::Out};
use crate::{Error, control};

#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    folder: Folder,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Error> {
        let settings = self.folder.settings()?;
        let status = control::status(&settings)?;
        if self.json {
            return out.line(serde_json::json!({ "served": status.is_some(), "server": status }));
        }
        let data = settings.data.display();
        let Some(status) = status else {
            return out.line(format_args!("Nobody serves {data}."));
        };
        let state = match (status.draining, status.ready) {
            (true, _) => "stopping",
            (false, true) => "ready",
            (false, false) => "not ready",
        };
        out.line(format_args!(
            "firsthop {} serves {data}: {state}, {} tenants, process {}, for {} s.",
            status.version, status.tenants, status.pid, status.uptime_seconds
        ))
    }
}
