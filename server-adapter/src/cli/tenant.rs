//! `firsthop tenant`

use clap::Subcommand;
use firsthop_core::Region;

use super::{Folder, out::Out};
use crate::{Error, clock};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a tenant, with a root key and a write key.
    Add {
        #[command(flatten)]
        folder: Folder,
        /// For people; may change later.
        name: String,
        /// Where its data may be read: two capitals, or -- for anywhere.
        #[arg(long, default_value = "--", allow_hyphen_values = true, value_parser = region)]
        region: Region,
        /// A page's origin that may write: https://shop.example, https://*.example.com, or * for all. Repeat for more.
        #[arg(long = "origin", default_value = "*")]
        origins: Vec<String>,
    },
    /// Show all tenants and their write keys.
    List {
        #[command(flatten)]
        folder: Folder,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Give a tenant another name. Its id and its keys stay.
    Rename {
        #[command(flatten)]
        folder: Folder,
        /// Name or id.
        tenant: String,
        /// The new name.
        name: String,
    },
}

pub(super) fn region(text: &str) -> Result<Region, String> {
    text.parse().map_err(|error: firsthop_core::Error| error.to_string())
}

impl Command {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Error> {
        match self {
            Self::Add { folder, name, region, origins } => {
                let stored = folder.store()?.add(&name, region, &origins, clock::now())?;
                out.line(format_args!("Tenant {name:?} made: id {}, region {region}.", stored.tenant.id))?;
                out.line(format_args!("Write key: {}", stored.tenant.write_keys[0]))?;
                out.line(format_args!("Settings:  {}", stored.folder.join("tenant.toml").display()))
            }
            Self::List { folder, json: true } => folder.store()?.all()?.iter().try_for_each(|stored| {
                let tenant = &stored.tenant;
                let edges = tenant.enrolments.iter().filter(|edge| edge.removed.is_none()).count();
                out.line(serde_json::json!({
                    "name": tenant.name, "id": tenant.id.to_string(), "region": tenant.region.to_string(), "origins": tenant.origins,
                    "edges": edges, "writeKeys": tenant.write_keys,
                }))
            }),
            Self::List { folder, json: false } => {
                let rows: Vec<_> = folder.store()?.all()?.into_iter().map(|stored| row(&stored.tenant)).collect();
                out.table(["NAME", "ID", "REGION", "ORIGINS", "EDGES", "WRITE KEYS"], &rows)
            }
            Self::Rename { folder, tenant, name } => {
                let stored = folder.store()?.rename(&tenant, &name)?;
                out.line(format_args!("Tenant {} is now called {name:?}.", stored.tenant.id))
            }
        }
    }
}

fn row(tenant: &crate::tenants::TenantFile) -> [String; 6] {
    let edges = tenant.enrolments.iter().filter(|edge| edge.removed.is_none()).count();
    [
        tenant.name.clone(),
        tenant.id.to_string(),
        tenant.region.to_string(),
        tenant.origins.join(" "),
        edges.to_string(),
        tenant.write_keys.join(" "),
    ]
}
