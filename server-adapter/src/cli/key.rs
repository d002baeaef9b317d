//! `firsthop key`

use std::time::Duration;

use clap::Subcommand;
use firsthop_core::{Timestamp, limits::ROOT_GRACE_MS};

use super::{Chosen, out::Out};
use crate::{Error, clock, settings::Span};

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
    /// Show the roots: how old, and how long they are in force.
    List {
        #[command(flatten)]
        chosen: Chosen,
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
            Self::List { chosen } => {
                let stored = chosen.folder.store()?.find(chosen.tenant.as_deref())?;
                let current = stored.keys.ring::<{ firsthop_intake::ROOTS }>(now)?.current(now).map(|(id, _)| id).ok();
                let rows: Vec<_> = stored
                    .keys
                    .roots
                    .iter()
                    .map(|root| {
                        let state = match root.until {
                            _ if current == Some(root.id) => "signs",
                            Some(until) if until <= now => "ended",
                            _ if root.from > now => "to come",
                            _ => "verifies",
                        };
                        [
                            root.id.get().to_string(),
                            state.to_owned(),
                            clock::format(root.from),
                            age(root.from, now),
                            root.until.map_or_else(|| "-".into(), clock::format),
                        ]
                    })
                    .collect();
                out.table(["ROOT", "STATE", "FROM", "AGE", "UNTIL"], &rows)
            }
        }
    }
}

fn age(from: Timestamp, now: Timestamp) -> String {
    let hours = now.as_millis().saturating_sub(from.as_millis()) / 3_600_000;
    if hours < 48 { format!("{hours}h") } else { format!("{}d", hours / 24) }
}
