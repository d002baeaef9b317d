//! `firsthop edge`

use clap::Subcommand;
use firsthop_core::Region;

use super::{Chosen, out::Out, tenant::region};
use crate::{Error, clock};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Enrol an edge, and print its token: once, the server keeps only a hash of it.
    Add {
        #[command(flatten)]
        chosen: Chosen,
        /// For people.
        #[arg(long)]
        name: String,
        /// Where it stands: two capitals. It gets leases for there and nowhere else.
        #[arg(long, allow_hyphen_values = true, value_parser = region)]
        region: Region,
    },
    /// Show enrolled edges.
    List {
        #[command(flatten)]
        chosen: Chosen,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// End an edge's enrolment: it gets no more leases, and what it forwards is refused.
    #[command(visible_alias = "remove")]
    Revoke {
        #[command(flatten)]
        chosen: Chosen,
        /// Name or number.
        edge: String,
    },
}

impl Command {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Error> {
        match self {
            Self::Add { chosen, name, region } => {
                let enrolled = chosen.folder.store()?.enrol(chosen.tenant.as_deref(), &name, region, clock::now())?;
                out.line(enrolled.token)?;
                out.flush().map_err(|error| Error::Io("standard output".into(), error))?;
                // The token alone is on standard output, for a pipe into the edge's secrets.
                eprintln!(
                    "Edge {name:?} enrolled as worker {} in {region}. The token is the edge's secret ENROLMENTS; it is shown once.",
                    enrolled.worker.get()
                );
                Ok(())
            }
            Self::List { chosen, json } => {
                let stored = chosen.folder.store()?.find(chosen.tenant.as_deref())?;
                if json {
                    return stored.tenant.enrolments.iter().try_for_each(|edge| {
                        let [added, revoked] = [edge.added, edge.removed].map(|time| time.map(clock::format));
                        out.line(serde_json::json!({
                            "worker": edge.worker.get(), "name": edge.name, "region": edge.region.to_string(), "enrolled": added,
                            "revoked": revoked,
                        }))
                    });
                }
                let rows: Vec<_> = stored
                    .tenant
                    .enrolments
                    .iter()
                    .map(|edge| {
                        let state = edge
                            .removed
                            .map_or_else(|| "enrolled".into(), |end| format!("revoked {}", clock::format(end)));
                        [edge.worker.get().to_string(), edge.name.clone(), edge.region.to_string(), state]
                    })
                    .collect();
                out.table(["WORKER", "NAME", "REGION", "STATE"], &rows)
            }
            Self::Revoke { chosen, edge } => {
                let removed = chosen.folder.store()?.remove_edge(chosen.tenant.as_deref(), &edge, clock::now())?;
                out.line(format_args!(
                    "Edge {:?} (worker {}) is no longer enrolled.",
                    removed.name,
                    removed.worker.get()
                ))
            }
        }
    }
}
