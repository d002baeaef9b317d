//! `firsthop reconcile`

use clap::{Args, CommandFactory, error::ErrorKind};
use firsthop_core::Timestamp;
use serde_json::{Value, json};

use super::{Chosen, events::moment, out::Out};
use crate::{
    Error, clock,
    ledger::{Balance, Figures, Gap, Key, Scope, State, reconcile},
    settings::Span,
    tenants::Store,
};

#[derive(Debug, Args)]
pub(super) struct Reconcile {
    #[command(flatten)]
    chosen: Chosen,
    /// Only from this hour on: a time such as 2026-11-21T18:00 (UTC), or how long ago, such as 24h.
    #[arg(long, value_parser = moment)]
    from: Option<Timestamp>,
    /// Only up to this hour, without it.
    #[arg(long, value_parser = moment)]
    to: Option<Timestamp>,
    /// How long what is missing is taken to be on its way, after its source was last heard of [default: the setting
    /// `ledger_grace`, 1d]
    #[arg(long)]
    grace: Option<Span>,
    /// A line for each hour.
    #[arg(long)]
    hours: bool,
    /// How many gaps of each kind to name.
    #[arg(long, short = 'n', default_value_t = 100)]
    limit: usize,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

impl Reconcile {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Error> {
        let settings = self.chosen.folder.settings()?;
        let stored = Store::new(settings.data).find(self.chosen.tenant.as_deref())?;
        let name = &stored.tenant.name;
        if !stored.journal().exists() {
            return Err(Error::Tenant(format!("{name}: no journal yet: it comes with `firsthop serve`")));
        }
        if let (Some(from), Some(to)) = (self.from, self.to)
            && to <= from
        {
            super::Cli::command().error(ErrorKind::ValueValidation, "--to must be after --from").exit();
        }
        let scope = Scope {
            from: self.from,
            to: self.to,
            grace: self.grace.unwrap_or(settings.ledger_grace).0,
            limit: self.limit,
            hours: self.hours,
            ..Scope::at(clock::now())
        };
        let balance = reconcile(&stored, &scope)?;
        if self.json {
            out.line(as_json(name, &balance, &scope))?;
        } else {
            show(name, &balance, &scope, out)?;
        }
        if balance.holds() {
            return Ok(());
        }
        let Figures { unaccounted, doubtful, .. } = balance.total;
        let doubtful = match doubtful {
            0 => String::new(),
            _ => format!(
                "; {doubtful} are only in quarantine, in entries that nobody answers for: `firsthop quarantine replay` once their key is back, \
                 or `discard`, settles them"
            ),
        };
        let tables = if balance.faults.is_empty() { "" } else { "; the tables contradict each other" };
        Err(Error::Unbalanced(format!("{name}: {unaccounted} events are unaccounted for{doubtful}{tables}")))
    }
}

const COLUMNS: [&str; 13] = [
    "HOUR",
    "REGION",
    "HOP",
    "ISSUED",
    "STORED",
    "SUPPRESSED",
    "DROPPED",
    "QUARANTINED",
    "DISCARDED",
    "ERASED",
    "IN FLIGHT",
    "UNACCOUNTED",
    "DUPLICATE",
];

fn show(name: &str, balance: &Balance, scope: &Scope, out: &mut Out) -> Result<(), Error> {
    let until = |time: Option<Timestamp>, none: &str| time.map_or_else(|| none.to_owned(), hour);
    let span = match (scope.from, scope.to) {
        (None, None) => "all hours".to_owned(),
        (from, to) => format!("from {} to {}", until(from, "the first hour"), until(to, "now")),
    };
    let grace = clock::format_duration(scope.grace);
    out.line(format_args!("{name}: {span}, as of {}; grace {grace}", clock::format(scope.now)))?;
    out.line("")?;
    let lines = balance.lines.iter().map(|(key, figures)| line(Some(key), figures));
    let rows: Vec<_> = lines.chain([line(None, &balance.total)]).collect();
    out.table(COLUMNS, &rows)?;
    out.line("")?;
    for (reason, events) in balance.total.quarantined.iter().filter(|(_, events)| **events != 0) {
        out.line(format_args!("in quarantine as {reason}: {events}"))?;
    }
    if balance.total.outcome("damaged") > 0 {
        let damaged = balance.total.outcome("damaged");
        out.line(format_args!("damaged on the way, for their senders to send again: {damaged}"))?;
    }
    for (state, says) in [
        (State::InFlight, "in flight"),
        (State::Unaccounted, "UNACCOUNTED FOR"),
        (State::Doubtful, "ONLY IN QUARANTINE, where nobody answers for them, in no sum"),
        (State::Untrusted, "missing from sources that no session vouches for, in no sum"),
    ] {
        gaps(balance, state, says, out)?;
    }
    for fault in &balance.faults {
        out.line(format_args!("FAULT: {fault}"))?;
    }
    out.line(if balance.holds() {
        "Every event of a trusted source has its outcome, or is in flight."
    } else {
        "The balance does not close."
    })
}

fn gaps(balance: &Balance, state: State, says: &str, out: &mut Out) -> Result<(), Error> {
    let Some(gaps) = balance.gaps.get(&state) else { return Ok(()) };
    out.line(format_args!("{says}: {} events of {} sources, in {} gaps", gaps.events, gaps.sources, gaps.count))?;
    for gap in &gaps.named {
        let Gap { source, first, last, place, heard, given_up, .. } = gap;
        let numbers = if first == last { first.to_string() } else { format!("{first}-{last}") };
        let (hour, heard) = (place.hour.map(hour).unwrap_or_default(), clock::format(*heard));
        let gave_up = if *given_up > 0 { format!("; it gave up {given_up}") } else { String::new() };
        let at = format!("{} hop {} in {hour}", place.region, place.hop);
        out.line(format_args!("  {source}/{numbers}  {at}, last heard of {heard}{gave_up}"))?;
    }
    let more = gaps.count - gaps.named.len() as u64;
    if more > 0 { out.line(format_args!("  and {more} gaps more (--limit)")) } else { Ok(()) }
}

fn line(key: Option<&Key>, figures: &Figures) -> [String; COLUMNS.len()] {
    let outcome = |name| figures.outcome(name).to_string();
    [
        key.map_or_else(|| "all".to_owned(), |key| key.hour.map_or_else(|| "-".to_owned(), hour)),
        key.map_or_else(String::new, |key| key.region.to_string()),
        key.map_or_else(String::new, |key| key.hop.to_string()),
        figures.issued().to_string(),
        outcome("stored"),
        outcome("suppressed"),
        outcome("dropped"),
        figures.all_quarantined().to_string(),
        outcome("discarded"),
        outcome("erased"),
        figures.in_flight.to_string(),
        figures.unaccounted.to_string(),
        outcome("duplicate"),
    ]
}

/// `2026-11-21T18`
fn hour(time: Timestamp) -> String {
    clock::format(time)[..13].to_owned()
}

fn as_json(name: &str, balance: &Balance, scope: &Scope) -> Value {
    let lines: Vec<_> = balance
        .lines
        .iter()
        .map(|(key, line)| {
            let mut value = figures(line);
            value["hour"] = key.hour.map(clock::format).into();
            value["region"] = key.region.to_string().into();
            value["hop"] = key.hop.into();
            value
        })
        .collect();
    let gaps: serde_json::Map<_, _> = [State::InFlight, State::Unaccounted, State::Doubtful, State::Untrusted]
        .into_iter()
        .map(|state| {
            let gaps = balance.gaps.get(&state).cloned().unwrap_or_default();
            let named: Vec<_> = gaps.named.iter().map(gap).collect();
            let value = json!({ "sources": gaps.sources, "events": gaps.events, "count": gaps.count, "named": named });
            (state.as_str().to_owned(), value)
        })
        .collect();
    json!({
        "tenant": name,
        "from": scope.from.map(clock::format),
        "to": scope.to.map(clock::format),
        "at": clock::format(scope.now),
        "grace_seconds": scope.grace.as_secs(),
        "balanced": balance.holds(),
        "total": figures(&balance.total),
        "lines": lines,
        "gaps": gaps,
        "faults": balance.faults,
    })
}

fn figures(figures: &Figures) -> Value {
    json!({
        "issued": figures.issued(),
        "stored": figures.outcome("stored"),
        "suppressed": figures.outcome("suppressed"),
        "dropped": figures.outcome("dropped"),
        "quarantined": figures.quarantined,
        "discarded": figures.outcome("discarded"),
        "erased": figures.outcome("erased"),
        "in_flight": figures.in_flight,
        "unaccounted": figures.unaccounted,
        "duplicate": figures.outcome("duplicate"),
        "damaged": figures.outcome("damaged"),
        "doubtful": figures.doubtful,
        "untrusted": figures.untrusted,
    })
}

fn gap(gap: &Gap) -> Value {
    json!({
        "source": gap.source.to_string(),
        "first": gap.first,
        "last": gap.last,
        "hour": gap.place.hour.map(clock::format),
        "region": gap.place.region.to_string(),
        "hop": gap.place.hop,
        "heard": clock::format(gap.heard),
        "given_up": gap.given_up,
    })
}
