//! `firsthop schema`

use clap::Args;
use firsthop_core::Timestamp;
use serde_json::json;

use super::{
    Folder,
    out::{Out, harmless},
};
use crate::{
    Error, clock,
    journal::shapes::{self, Named, Seen, Type},
    tenants::StoredTenant,
};

#[derive(Debug, Args)]
pub(super) struct Schema {
    #[command(flatten)]
    folder: Folder,
    /// Name or id of a tenant; repeat for more. Without any: all.
    #[arg(long, short)]
    tenant: Vec<String>,
    /// Only events of this name.
    #[arg(long)]
    event: Option<String>,
    /// One JSON object for each name, a line each.
    #[arg(long)]
    json: bool,
}

impl Schema {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Error> {
        self.folder.store()?.chosen(&self.tenant)?.iter().try_for_each(|stored| self.tenant(stored, out))
    }

    fn tenant(&self, stored: &StoredTenant, out: &mut Out) -> Result<(), Error> {
        let name = &stored.tenant.name;
        let Some((shapes, state)) = shapes::read(&stored.shapes())? else {
            return if self.json {
                Ok(())
            } else {
                out.line(format_args!("{name}: no events have been looked at yet"))
            };
        };
        let mut names: Vec<_> =
            shapes.each().filter(|(_, name, _)| self.event.as_ref().is_none_or(|event| event == name)).collect();
        names.sort_unstable_by_key(|(kind, name, _)| (*kind as u8, *name));
        if self.json {
            for (kind, event, named) in names {
                out.line(to_json(name, kind.as_str(), event, named))?;
            }
            return Ok(());
        }
        if names.is_empty() {
            return out.line(format_args!("{name}: no events of that name have been looked at"));
        }
        for (kind, event, named) in names {
            let Seen { first_ms, last_ms, events, .. } = named.seen;
            let (first, last) = (time(first_ms), time(last_ms));
            let event = harmless(event);
            out.line(format_args!("{name}: {} {event:?}: {events} events from {first} to {last}", kind.as_str()))?;
            let rows: Vec<_> = rows(named)
                .into_iter()
                .map(|(path, of, seen, differs)| {
                    let note = if differs { "differs" } else { "" };
                    let (first, last) = (time(seen.first_ms), time(seen.last_ms));
                    [harmless(path), of.as_str().into(), seen.events.to_string(), first, last, note.into()]
                })
                .collect();
            out.table(["PROPERTY", "TYPE", "EVENTS", "FIRST SEEN", "LAST SEEN", ""], &rows)?;
            out.line("")?;
        }
        let over = state.overflow;
        if over.names + over.paths > 0 {
            out.line(format_args!(
                "Over the bounds: {} events of more names than are kept, {} with more, longer or deeper properties.",
                over.names, over.paths
            ))?;
        }
        if state.skipped > 0 {
            out.line(format_args!(
                "{} frames were passed over, when more came than could be looked at.",
                state.skipped
            ))?;
        }
        Ok(())
    }
}

/// Each property, a row for each of its types, in order; and whether there is another type that contradicts it.
fn rows(named: &Named) -> Vec<(&str, Type, Seen, bool)> {
    let mut rows = Vec::new();
    for (path, types) in &named.paths {
        let known: Vec<Type> = Type::ALL.into_iter().filter(|of| types[*of as usize].events > 0).collect();
        for of in &known {
            let differs = known.iter().any(|other| other.contradicts(*of));
            rows.push((&**path, *of, types[*of as usize], differs));
        }
    }
    rows.sort_unstable_by_key(|(path, of, ..)| (*path, *of));
    rows
}

fn to_json(tenant: &str, kind: &str, event: &str, named: &Named) -> serde_json::Value {
    let seen = |seen: Seen| json!({ "events": seen.events, "first": time(seen.first_ms), "last": time(seen.last_ms) });
    let mut properties = serde_json::Map::new();
    for (path, of, at, _) in rows(named) {
        properties.entry(path).or_insert_with(|| json!({}))[of.as_str()] = seen(at);
    }
    json!({ "tenant": tenant, "kind": kind, "event": event, "seen": seen(named.seen), "properties": properties })
}

fn time(ms: i64) -> String {
    clock::format(Timestamp::from_millis(ms as u64))
}
