//! `firsthop key`

use std::time::Duration;

use clap::Subcommand;
use firsthop_core::{Timestamp, limits::ROOT_GRACE_MS};
use serde::{Serialize, Serializer};

use super::{Chosen, out::Out};
use crate::{Error, clock, settings::Span, tenants::StoredTenant};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a new root. The one before verifies for a while longer, so that nothing on its way is refused.
    Rotate {
        #[command(flatten)]
        chosen: Chosen,
        /// For how long the old root still verifies. The default is as long as a frame may be on its way.
        #[arg(long, default_value_t = Span(Duration::from_millis(ROOT_GRACE_MS)))]
        grace: Span,
    },
    /// Print the public half of the key that signs the ledger, in hex: for who checks `firsthop verify --ledger`.
    Ledger {
        #[command(flatten)]
        chosen: Chosen,
    },
    /// Print the public half of the key that signs documents, in hex: for who checks `firsthop verify --document`.
    Document {
        #[command(flatten)]
        chosen: Chosen,
    },
    /// Show roots, region keys, write keys and enrolled edges: how old, and how long they are in force. Never a secret.
    List {
        #[command(flatten)]
        chosen: Chosen,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
}

impl Command {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Error> {
        let now = clock::now();
        match self {
            Self::Rotate { chosen, grace } => {
                let stored = chosen.folder.store()?.rotate(chosen.tenant.as_deref(), grace.0, now)?;
                let last = stored.keys.roots.len() - 1;
                out.line(format_args!("Root {} signs from now on.", stored.keys.roots[last].id.get()))?;
                for root in stored.keys.roots[..last].iter().filter(|root| root.until.is_some_and(|until| now < until))
                {
                    let until = root.until.map(clock::format).unwrap_or_default();
                    out.line(format_args!("Root {} verifies until {until}.", root.id.get()))?;
                }
                Ok(())
            }
            Self::Ledger { chosen } => {
                let store = chosen.folder.store()?;
                let id = store.find(chosen.tenant.as_deref())?.tenant.id;
                out.line(crate::ledger::hex(store.ledger_key(id)?.public().as_bytes()))
            }
            Self::Document { chosen } => {
                let store = chosen.folder.store()?;
                let id = store.find(chosen.tenant.as_deref())?.tenant.id;
                out.line(crate::ledger::hex(store.document_key(id)?.public().as_bytes()))
            }
            Self::List { chosen, json } => {
                let stored = chosen.folder.store()?.find(chosen.tenant.as_deref())?;
                let keys = keys(&stored, now)?;
                if json {
                    return out.line(serde_json::json!({ "tenant": stored.tenant.id.to_string(), "keys": keys }));
                }
                let time = |time: Option<Timestamp>| time.map_or_else(|| "-".into(), clock::format);
                let rows: Vec<_> = keys
                    .iter()
                    .map(|key| {
                        let age = key.from.map_or_else(|| "-".into(), |from| age(from, now));
                        [key.kind.into(), key.id.clone(), key.state.into(), time(key.from), age, time(key.until)]
                    })
                    .collect();
                out.table(["KIND", "KEY", "STATE", "FROM", "AGE", "UNTIL"], &rows)
            }
        }
    }
}

/// One key, and no secret of it.
#[derive(Serialize)]
struct Key {
    /// `root`, `region`, `write` or `edge`.
    kind: &'static str,
    /// A root's number, a region key's number and region, the write key, which is public, or an edge's number and name.
    id: String,
    state: &'static str,
    /// Since when it is in force, if that is known.
    #[serde(serialize_with = "text")]
    from: Option<Timestamp>,
    /// Until when.
    #[serde(serialize_with = "text")]
    until: Option<Timestamp>,
    #[serde(rename = "ageSeconds")]
    age: Option<u64>,
    /// Less than nothing once it has ended.
    #[serde(rename = "expiresSeconds")]
    expires: Option<i64>,
}

fn text<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(clock::format).serialize(serializer)
}

fn keys(stored: &StoredTenant, now: Timestamp) -> Result<Vec<Key>, Error> {
    let current = stored.keys.ring::<{ firsthop_intake::ROOTS }>(now)?.current(now).map(|(id, _)| id).ok();
    let roots = stored.keys.roots.iter().map(|root| {
        let state = match root.until {
            _ if current == Some(root.id) => "signs",
            Some(until) if until <= now => "ended",
            _ if root.from > now => "to come",
            _ => "verifies",
        };
        ("root", root.id.get().to_string(), state, Some(root.from), root.until)
    });
    let regions = stored.keys.region_keys.iter().map(|key| {
        let state = super::region_key::state(stored, key, now);
        ("region", format!("{} {}", key.id.get(), key.region), state, Some(key.from), key.until)
    });
    let write = stored.tenant.write_keys.iter().map(|key| ("write", key.clone(), "in force", None, None));
    let edges = stored.tenant.enrolments.iter().map(|edge| {
        let state = if edge.removed.is_some_and(|end| end <= now) { "revoked" } else { "enrolled" };
        ("edge", format!("{} {}", edge.worker.get(), edge.name), state, edge.added, edge.removed)
    });
    let seconds = |from: Timestamp, to: Timestamp| (to.as_millis() as i64 - from.as_millis() as i64) / 1000;
    let key = |(kind, id, state, from, until): (_, _, _, Option<Timestamp>, Option<Timestamp>)| Key {
        age: from.map(|from| seconds(from, now).max(0) as u64),
        expires: until.map(|until| seconds(now, until)),
        kind,
        id,
        state,
        from,
        until,
    };
    Ok(roots.chain(regions).chain(write).chain(edges).map(key).collect())
}

fn age(from: Timestamp, now: Timestamp) -> String {
    let hours = now.as_millis().saturating_sub(from.as_millis()) / 3_600_000;
    if hours < 48 { format!("{hours}h") } else { format!("{}d", hours / 24) }
}
