//! `firsthop erase`

use std::{
    io::{IsTerminal, stdin},
    time::{Duration, Instant},
};

use clap::{ArgGroup, Args};

use super::{Chosen, out::Out};
use crate::{
    Error,
    control::{Command, Control, Erasure, Reply, Step},
    journal::Found,
};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("whom").required(true).multiple(true).args(["user", "anonymous"])))]
pub(super) struct Erase {
    #[command(flatten)]
    chosen: Chosen,
    /// The person's user id. Give both ids if you have both: events from before a login have only the anonymous one.
    #[arg(long)]
    user: Option<String>,
    /// The anonymous id that the person had before.
    #[arg(long)]
    anonymous: Option<String>,
    /// Only say what there is.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Erase also what a sink has not got yet, and will then never get.
    #[arg(long)]
    undelivered: bool,
}

/// How long to wait for a sink that has something yet to get, or a reader that holds on to the log.
const PATIENCE: Duration = Duration::from_secs(30);

impl Erase {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Error> {
        let settings = self.chosen.folder.settings()?;
        let stored = self.chosen.folder.store()?.find(self.chosen.tenant.as_deref())?;
        let mut control = Control::reach(&settings)?;
        let mut erasure = Erasure {
            tenant: stored.tenant.id.to_string(),
            user: self.user.clone(),
            anonymous: self.anonymous.clone(),
            only_look: true,
            undelivered: self.undelivered,
            step: Step::Begin,
        };
        let name = &stored.tenant.name;
        if self.dry_run || !self.yes {
            let found = walk(&mut control, &erasure)?;
            out.line(format_args!("{name}: {}", told(&found)))?;
            out.flush().map_err(|error| Error::Io("standard output".into(), error))?;
            if self.dry_run {
                return Ok(());
            }
            if !stdin().is_terminal() {
                return Err(Error::Tenant("nothing was erased: give --yes to erase without being asked".into()));
            }
            eprint!("Erase all of it, for good? [y/N] ");
            let mut answer = String::new();
            stdin().read_line(&mut answer).map_err(|error| Error::Io("standard input".into(), error))?;
            if !matches!(answer.trim(), "y" | "Y" | "yes") {
                return Err(Error::Tenant("nothing was erased".into()));
            }
        }
        erasure.only_look = false;
        let found = walk(&mut control, &erasure)?;
        out.line(format_args!("{name}: erased {}", told(&found)))?;
        out.line("What was delivered elsewhere, and every backup from before, still has it.")
    }
}

fn told(found: &Found) -> String {
    let Found { frames, events, entries, rows, letters, closed } = found;
    let told = format!(
        "{events} stored events in {frames} frames, {rows} rows of the events table, {entries} entries in quarantine, {letters} dead \
         letters"
    );
    if *closed == 0 {
        return told;
    }
    format!(
        "{told}. {closed} frames or entries in quarantine are sealed and do not open with the region keys that are here, so nobody can say whom \
         they name: once the keys are back in keys.toml, give the command again"
    )
}

/// All parts of it, one after the other.
fn walk(control: &mut Control, erasure: &Erasure) -> Result<Found, Error> {
    let (mut erasure, mut found) = (erasure.clone(), Found::default());
    let mut moved = Instant::now();
    loop {
        let (part, next) = match control.call(&Command::Erase(erasure.clone()))? {
            Reply::Erase(part, next) => (part, next),
            other => return Err(other.unexpected()),
        };
        found += part;
        let Some(next) = next else { return Ok(found) };
        let stands = next == erasure.step || matches!(next, Step::Frames { waits: true, .. });
        if !stands {
            moved = Instant::now();
        } else if moved.elapsed() > PATIENCE {
            let why = match next {
                Step::Frames { after, .. } => format!(
                    "up to frame {after} it is erased; a sink has not got what comes then (`firsthop_sink_lag_frames` in /metrics says which). \
                     Give the command again once it has, or with --undelivered, and it will never get it"
                ),
                Step::Scrub => "it is erased, but a reader such as a backup holds on to the database's log, where bytes of it may be \
                     left. Give the command again once that has ended"
                    .into(),
                _ => "the journal is too busy to begin. Give the command again".into(),
            };
            return Err(Error::Fault(why));
        }
        erasure.step = next;
    }
}
