//! `firsthop quarantine`

mod show;

use std::{
    io::{IsTerminal, Write, stderr, stdin},
    path::PathBuf,
};

use clap::{Args, Subcommand};
use firsthop_core::Timestamp;
use serde_json::json;

use super::{
    Chosen, Folder,
    events::moment,
    out::{Bar, Out, harmless},
};
use crate::{
    Error, Settings, clock,
    control::{self, Control, Note, Reply},
    ingest::{Again, Today, judge},
    journal::quarantine::{CONFLICT, Discarded, Part, Reader, Replayed, Select},
    tenants::{Store, StoredTenant},
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what was set aside: the newest entries that match, and how much there is of each reason.
    List(List),
    /// Show one entry: decoded as far as it decodes, what is wrong with it and where, and what a replay would do.
    Show(show::Show),
    /// Send entries through the checks again, with the keys, origins and settings of today. What passes is stored, each event once; what
    /// does not, stays.
    Replay(Replay),
    /// Throw entries away. Their events are counted as discarded, and a line without their body stays of each.
    Discard(Discard),
}

impl Command {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Error> {
        match self {
            Self::List(command) => command.run(out),
            Self::Show(command) => command.run(out),
            Self::Replay(command) => command.run(out),
            Self::Discard(command) => command.run(out),
        }
    }
}

/// Which entries.
#[derive(Debug, Args)]
struct Filter {
    /// Only what was set aside for this reason, such as wrong-write-key; repeat for more.
    #[arg(long)]
    reason: Vec<String>,
    /// Only what came from then on: a time such as 2026-11-21T18:00 (UTC), or how long ago, such as 10m.
    #[arg(long, value_parser = moment)]
    from: Option<Timestamp>,
    /// Only what came before.
    #[arg(long, value_parser = moment)]
    to: Option<Timestamp>,
}

impl Filter {
    const fn is_any(&self) -> bool {
        !self.reason.is_empty() || self.from.is_some() || self.to.is_some()
    }

    fn select(&self, ids: &[i64]) -> Select {
        let ms = |time: Option<Timestamp>| time.map(|time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
        Select { ids: ids.to_vec(), reasons: self.reason.clone(), from_ms: ms(self.from), to_ms: ms(self.to) }
    }
}

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    folder: Folder,
    /// Name or id of a tenant; repeat for more. Without any: all.
    #[arg(long, short)]
    tenant: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// How many: the newest of those that match.
    #[arg(long, short = 'n', default_value_t = 50)]
    limit: u32,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

impl List {
    fn run(self, out: &mut Out) -> Result<(), Error> {
        let settings = self.folder.settings()?;
        for stored in Store::new(&settings.data).chosen(&self.tenant)? {
            self.tenant(&stored, &settings, out)?;
        }
        Ok(())
    }

    fn tenant(&self, stored: &StoredTenant, settings: &Settings, out: &mut Out) -> Result<(), Error> {
        let (name, path) = (&stored.tenant.name, stored.journal());
        let sql = || Error::database(&path);
        if !path.exists() {
            return if self.json { Ok(()) } else { out.line(format_args!("{name}: nothing is in quarantine")) };
        }
        let reader = Reader::open(&path)?;
        let select = self.filter.select(&[]);
        let lines = reader.newest(&select, self.limit).map_err(sql())?;
        if self.json {
            return lines.iter().try_for_each(|line| {
                out.line(json!({
                    "tenant": name, "id": line.id, "reason": line.reason, "events": line.events, "bytes": line.bytes,
                    "first": time(line.first_ms), "last": time(line.last_ms), "times": line.times,
                    "region": line.region, "vouched": line.vouched, "hash": line.hash,
                }))
            });
        }
        let sums = reader.sums(&select).map_err(sql())?;
        if sums.is_empty() {
            let nothing =
                if self.filter.is_any() { "nothing in quarantine matches" } else { "nothing is in quarantine" };
            return out.line(format_args!("{name}: {nothing}"));
        }
        let rows: Vec<_> = lines
            .iter()
            .map(|line| {
                let of = [line.times.to_string(), line.events.to_string(), line.bytes.to_string()];
                let [times, events, bytes] = of;
                let vouched = if line.vouched { "yes" } else { "no" };
                [line.id.to_string(), time(line.last_ms), line.reason.clone(), events, bytes, times, vouched.into()]
            })
            .collect();
        out.line(format_args!("{name}:"))?;
        out.table(["ID", "LAST CAME", "REASON", "EVENTS", "BYTES", "TIMES", "VOUCHED"], &rows)?;
        out.line("")?;
        let rows: Vec<_> = sums
            .iter()
            .map(|sum| [sum.reason.clone(), sum.entries.to_string(), sum.events.to_string(), sum.bytes.to_string()])
            .collect();
        out.table(["REASON", "ENTRIES", "EVENTS", "BYTES"], &rows)?;
        let (_, used) = reader.state().map_err(sql())?;
        let most = settings.quarantine;
        out.line(format_args!("{used} bytes are used; these settings allow {most}."))
    }
}

#[derive(Debug, Args)]
pub(super) struct Replay {
    #[command(flatten)]
    which: Which,
    /// Only say what would happen. Nothing changes, and no server is asked.
    #[arg(long)]
    dry_run: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct Discard {
    #[command(flatten)]
    which: Which,
    /// Why, for the trace that stays.
    #[arg(long, default_value = "", hide_default_value = true)]
    why: String,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Only say what would be thrown away.
    #[arg(long)]
    dry_run: bool,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Which entries are to change: they have to be said.
#[derive(Debug, Args)]
struct Which {
    #[command(flatten)]
    chosen: Chosen,
    #[command(flatten)]
    filter: Filter,
    /// These entries, by their numbers in the list.
    ids: Vec<i64>,
    /// All of them.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
}

/// What is meant, and how much it is.
struct Meant {
    settings: Settings,
    stored: StoredTenant,
    path: PathBuf,
    reader: Reader,
    select: Select,
    /// The last id that had been given.
    until: i64,
    entries: u64,
    events: u64,
    bytes: u64,
}

impl Which {
    fn find(&self) -> Result<Meant, Error> {
        let filter = &self.filter;
        let said = self.all
            || !self.ids.is_empty()
            || !filter.reason.is_empty()
            || filter.from.is_some()
            || filter.to.is_some();
        if !said {
            return Err(Error::settings("which entries? Say their numbers, --reason, --from, --to or --all"));
        }
        let settings = self.chosen.folder.settings()?;
        let stored = Store::new(&settings.data).find(self.chosen.tenant.as_deref())?;
        let path = stored.journal();
        let reader = Reader::open(&path)?;
        let select = self.filter.select(&self.ids);
        let (until, _) = reader.state().map_err(Error::database(&path))?;
        let sums = reader.sums(&select).map_err(Error::database(&path))?;
        let (mut entries, mut events, mut bytes) = (0, 0, 0);
        for sum in &sums {
            (entries, events, bytes) = (entries + sum.entries, events + sum.events, bytes + sum.bytes);
        }
        if entries < self.ids.len() as u64 {
            for id in &self.ids {
                if reader.item(*id).map_err(Error::database(&path))?.is_none() {
                    return Err(Error::tenant(format!(
                        "there is no entry {id} in quarantine; `firsthop quarantine list` shows them"
                    )));
                }
            }
        }
        Ok(Meant { settings, stored, path, reader, select, until, entries, events, bytes })
    }
}

impl Meant {
    /// Does it, part by part.
    fn each(
        &self,
        command: impl Fn(control::Part) -> control::Command,
        mut take: impl FnMut(Reply) -> Result<(u64, Option<i64>), Error>,
    ) -> Result<(), Error> {
        let mut control = Control::reach(&self.settings)?;
        let mut bar = Bar::new("entries");
        let (mut done, mut after) = (0, 0);
        loop {
            let tenant = self.stored.tenant.id.to_string();
            let part = control::Part { tenant, select: self.select.clone(), after, until: self.until };
            let (entries, next) = take(control.call(&command(part))?)?;
            done += entries;
            bar.show(&self.stored.tenant.name, done, self.entries);
            match next {
                Some(next) => after = next,
                None => break,
            }
        }
        bar.clear();
        Ok(())
    }
}

impl Replay {
    fn run(self, out: &mut Out) -> Result<(), Error> {
        let meant = self.which.find()?;
        let mut sum = Replayed::default();
        if self.dry_run {
            sum = self.would(&meant)?;
        } else {
            meant.each(control::Command::QuarantineReplay, |reply| match reply {
                Reply::QuarantineReplay(replayed, next) => {
                    let entries = replayed.entries;
                    sum += replayed;
                    Ok((entries, next))
                }
                other => Err(other.unexpected()),
            })?;
        }
        if self.json {
            return out.line(json!({ "dry_run": self.dry_run, "replayed": sum }));
        }
        let Replayed { entries, left, stored, duplicate, stay } = &sum;
        if self.dry_run {
            out.line(format_args!(
                "Of {entries} entries, {left} would pass the checks; their events would be stored, each once."
            ))?;
        } else {
            out.line(format_args!(
                "Of {entries} entries, {left} left quarantine: {stored} events are stored now, {duplicate} were already."
            ))?;
        }
        for (reason, entries) in stay {
            let what = if self.dry_run { "would stay" } else { "stay" };
            out.line(format_args!("{entries} {what}: {reason}"))?;
        }
        if stay.contains_key(CONFLICT) {
            out.line(
                "A conflict says something else than a stored event of the same identity. A replay does not choose between them:\n\
                 look at it with `firsthop quarantine show`, and discard it if the stored one is right.",
            )?;
        }
        Ok(())
    }

    /// What would happen, by the checks alone: what is a duplicate, the tables know.
    fn would(&self, meant: &Meant) -> Result<Replayed, Error> {
        let now = clock::now();
        let rooted = meant.stored.tenant.account(&meant.stored.keys, now)?;
        let today = Today { rooted: &rooted, file: &meant.stored.tenant, keys: &meant.stored.keys };
        let mut sum = Replayed::default();
        let mut part = Part { after: 0, until: meant.until, entries: 1000, bytes: u64::MAX };
        let sql = || Error::database(&meant.path);
        loop {
            let ids = meant.reader.part(&meant.select, part).map_err(sql())?;
            let Some(last) = ids.last() else { return Ok(sum) };
            part.after = *last;
            for id in ids {
                let Some(item) = meant.reader.item(id).map_err(sql())? else { continue };
                sum.entries += 1;
                let mut stays = |reason: &str| *sum.stay.entry(reason.to_owned()).or_default() += 1;
                match judge(&item, today, now) {
                    Again::Refused(problem) => stays(problem.code()),
                    Again::Compare { .. } => stays(CONFLICT),
                    Again::Good(_, refused) => {
                        refused.iter().for_each(|entry| stays(&entry.reason));
                        sum.left += 1;
                    }
                }
            }
        }
    }
}

impl Discard {
    fn run(self, out: &mut Out) -> Result<(), Error> {
        if self.why.len() > WHY {
            return Err(Error::settings(format!("--why: at most {WHY} bytes")));
        }
        let meant = self.which.find()?;
        let Meant { entries, events, bytes, .. } = meant;
        let what =
            format!("{entries} entries of tenant {:?} ({events} events, {bytes} bytes)", meant.stored.tenant.name);
        let mut sum = Discarded::default();
        if self.dry_run {
            sum = Discarded { entries, events, bytes };
        } else if entries > 0 {
            if !self.yes {
                confirm(&format!("Throw away {what}? There is no way back. [y/N] "))?;
            }
            let note = Note { who: who(), why: self.why.clone() };
            meant.each(
                |part| control::Command::QuarantineDiscard(part, note.clone()),
                |reply| match reply {
                    Reply::QuarantineDiscard(discarded, next) => {
                        let entries = discarded.entries;
                        sum += discarded;
                        Ok((entries, next))
                    }
                    other => Err(other.unexpected()),
                },
            )?;
        }
        if self.json {
            return out.line(json!({ "dry_run": self.dry_run, "discarded": sum }));
        }
        if self.dry_run {
            return out.line(format_args!("Would throw away {what}."));
        }
        let Discarded { entries, events, bytes } = sum;
        out.line(format_args!("{entries} entries are discarded: {events} events, {bytes} bytes."))
    }
}

/// Longest reason of a discard.
const WHY: usize = 500;

/// Asks a person. An error if that is not a yes, or if there is nobody.
fn confirm(question: &str) -> Result<(), Error> {
    if !stdin().is_terminal() {
        return Err(Error::settings("nobody is there to ask: say --yes"));
    }
    let mut answer = String::new();
    // A question that cannot be shown is answered with no.
    let asked =
        write!(stderr(), "{question}").and_then(|()| stderr().flush()).and_then(|()| stdin().read_line(&mut answer));
    match asked {
        Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Error::settings("nothing is thrown away")),
    }
}

/// Who gives the command, by the system's word.
fn who() -> String {
    let said =
        ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|who| !who.is_empty()));
    said.map_or_else(|| "unknown".into(), |who| harmless(&who).chars().take(64).collect())
}

fn time(ms: i64) -> String {
    clock::format(Timestamp::from_millis(ms as u64))
}
