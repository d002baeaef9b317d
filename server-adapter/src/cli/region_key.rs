//! `firsthop region-key`

use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use firsthop_core::{Region, RegionKeyId, Timestamp};
use firsthop_intake::document::{Kind, RegionKeys};
use serde_json::json;

use super::{Chosen, out::Out, tenant::region};
use crate::{
    Error, clock,
    settings::Span,
    tenants::{RegionKeyPair, StoredTenant},
};

/// How long a key is published after the next one has begun.
const OVERLAP: Duration = Duration::from_secs(30 * 24 * 3600);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a key pair that frames for a region are sealed to. It is published at once, and used a little later.
    #[command(visible_alias = "rotate")]
    New {
        #[command(flatten)]
        chosen: Chosen,
        /// Who can open what is sealed to it: two capitals. Not needed if the tenant has a region.
        #[arg(long, value_parser = region)]
        region: Option<Region>,
        /// How long until it is used. The default is nothing for a region's first key, and a day for a later one, so that all producers
        /// have heard of it by then.
        #[arg(long)]
        lead: Option<Span>,
        /// How long the keys before it are published once it is used: for pages that were built with them.
        #[arg(long, default_value_t = Span(OVERLAP))]
        overlap: Span,
    },
    /// Show a tenant's region keys. Never a private half.
    List {
        #[command(flatten)]
        chosen: Chosen,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// End a key: it is published no longer. Its private half stays, for what was sealed to it.
    Retire {
        #[command(flatten)]
        chosen: Chosen,
        /// Its number.
        key: u32,
    },
    /// Print what a page is built with, so that it seals to keys that nobody on the way can swap.
    Config {
        #[command(flatten)]
        chosen: Chosen,
        /// Only of this region.
        #[arg(long, value_parser = region)]
        region: Option<Region>,
        /// In which form.
        #[arg(long, value_enum, default_value_t = Form::Js)]
        form: Form,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// Two options for the page's script.
    Js,
    /// The list as JSON.
    Json,
    /// The signed list, as it is published: for `firsthop verify --document`.
    Signed,
}

impl Command {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Error> {
        let now = clock::now();
        match self {
            Self::New { chosen, region, lead, overlap } => {
                let store = chosen.folder.store()?;
                let lead = lead.map(|lead| lead.0);
                let (stored, key) = store.add_region_key(chosen.tenant.as_deref(), region, lead, overlap.0, now)?;
                store.documents(stored.tenant.id, now)?;
                let (id, region, from) = (key.id.get(), key.region, clock::format(key.from));
                out.line(format_args!(
                    "Region key {id} of {region} is published, and producers seal to it from {from}."
                ))?;
                let others =
                    stored.keys.region_keys.iter().filter(|other| other.region == region && other.id != key.id);
                for other in others.filter(|other| other.is_published(now)) {
                    let until = other.until.map(clock::format).unwrap_or_default();
                    out.line(format_args!("Region key {} is published until {until}.", other.id.get()))?;
                }
                out.line("Pages learn of it from what `firsthop region-key config` prints.")
            }
            Self::List { chosen, json } => {
                let stored = chosen.folder.store()?.find(chosen.tenant.as_deref())?;
                if json {
                    return stored.keys.region_keys.iter().try_for_each(|key| {
                        out.line(json!({
                            "key": key.id.get(), "region": key.region.to_string(), "state": state(&stored, key, now),
                            "from": clock::format(key.from), "until": key.until.map(clock::format),
                            "public": crate::ledger::hex(&key.published().public),
                        }))
                    });
                }
                let time = |time: Option<Timestamp>| time.map_or_else(|| "-".into(), clock::format);
                let rows: Vec<_> = stored
                    .keys
                    .region_keys
                    .iter()
                    .map(|key| {
                        let public = crate::ledger::hex(&key.published().public);
                        let state = state(&stored, key, now).to_owned();
                        [
                            key.id.get().to_string(),
                            key.region.to_string(),
                            state,
                            time(Some(key.from)),
                            time(key.until),
                            public,
                        ]
                    })
                    .collect();
                out.table(["KEY", "REGION", "STATE", "FROM", "UNTIL", "PUBLIC HALF"], &rows)
            }
            Self::Retire { chosen, key } => {
                let store = chosen.folder.store()?;
                let (stored, ended) = store.retire_region_key(chosen.tenant.as_deref(), RegionKeyId::new(key), now)?;
                store.documents(stored.tenant.id, now)?;
                out.line(format_args!("Region key {key} of {} is published no longer.", ended.region))?;
                if current(&stored, ended.region, now).is_none() {
                    out.line(format_args!(
                        "No key of {} is left to seal to: a page that seals gives its events up, and counts them, until there is one.",
                        ended.region
                    ))?;
                }
                Ok(())
            }
            Self::Config { chosen, region, form } => config(&chosen, region, form, now, out),
        }
    }
}

fn config(chosen: &Chosen, region: Option<Region>, form: Form, now: Timestamp, out: &mut Out) -> Result<(), Error> {
    let store = chosen.folder.store()?;
    let stored = store.find(chosen.tenant.as_deref())?;
    let mut keys = stored.keys.published(now);
    keys.retain(|key| region.is_none_or(|region| region == key.region));
    if keys.is_empty() {
        return Err(Error::tenant("there is no such region key; `firsthop region-key new` makes one"));
    }
    if form == Form::Signed {
        let documents = store.documents(stored.tenant.id, now)?;
        let signed = documents.of(Kind::RegionKeys).ok_or_else(|| Error::tenant("nothing is published"))?;
        return out.line(json!(signed));
    }
    let region = keys[0].region;
    if form == Form::Json {
        return out.line(json!(RegionKeys { keys }));
    }
    if let Some(other) = keys.iter().find(|key| key.region != region) {
        let other = other.region;
        return Err(Error::tenant(format!("a page is for one region: say --region, such as {region} or {other}")));
    }
    out.line("// Options of the sealed SDK's load(). Public: they may stand in the page.")?;
    out.line(format_args!("region: {:?},", region.as_str()))?;
    out.line(format_args!("regionKeys: {},", json!(RegionKeys { keys })))
}

/// What is sealed to now.
pub(super) fn current(stored: &StoredTenant, region: Region, now: Timestamp) -> Option<RegionKeyId> {
    RegionKeys { keys: stored.keys.published(now) }.current(region, now).map(|key| key.id)
}

/// What a region key is good for at a moment.
pub(super) fn state(stored: &StoredTenant, key: &RegionKeyPair, now: Timestamp) -> &'static str {
    match key.until {
        Some(until) if until <= now => "ended",
        _ if key.from > now => "to come",
        _ if current(stored, key.region, now) == Some(key.id) => "seals",
        _ => "published",
    }
}
