//! What empties quarantine, in the writer's thread: replay and discard.

use std::{borrow::Cow, collections::BTreeMap};

use firsthop_core::{Timestamp, WorkerId};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::{CONFLICT, Entry, Quarantine, Room, cost, hash, is_blank};
use crate::journal::{
    Journal, Unavailable,
    arrival::{Arrival, SetAside},
    counters::{At, Batch},
    ledger::{Claim, hop_of, untold},
    store::{Doubt, Tables},
    writer::is_damage,
};

/// An entry that was judged again.
#[derive(Debug)]
pub(crate) struct Judged {
    pub(crate) id: i64,
    /// The reason that it had then: with another it is no longer the same entry.
    pub(crate) reason: String,
    pub(crate) now: Sentence,
}

/// What becomes of an entry.
#[derive(Debug)]
pub(crate) enum Sentence {
    /// It is refused again, for this reason.
    Stays(Cow<'static, str>),
    /// Frames, and what of it is still refused.
    Leaves(Vec<Arrival>, Vec<SetAside>),
    /// It contradicted something. What it `said` is compared again; of what is new of it now, something else may be `kept`.
    Compared { said: Box<Arrival>, kept: Box<Arrival> },
}

/// What came of replaying some entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replayed {
    /// Entries that were looked at.
    pub(crate) entries: u64,
    /// Of those, how many left.
    pub(crate) left: u64,
    /// Events that are stored now.
    pub(crate) stored: u64,
    /// Events that were stored already.
    pub(crate) duplicate: u64,
    /// Entries that stay or that took their place, by their reason now.
    pub(crate) stay: BTreeMap<String, u64>,
}

/// What was discarded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Discarded {
    pub(crate) entries: u64,
    pub(crate) events: u64,
    pub(crate) bytes: u64,
}

/// Who discards, when and why.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) now: Timestamp,
    pub(crate) who: String,
    pub(crate) why: String,
}

impl std::ops::AddAssign for Replayed {
    fn add_assign(&mut self, other: Self) {
        self.entries += other.entries;
        self.left += other.left;
        self.stored += other.stored;
        self.duplicate += other.duplicate;
        for (reason, entries) in other.stay {
            *self.stay.entry(reason).or_default() += entries;
        }
    }
}

impl std::ops::AddAssign for Discarded {
    fn add_assign(&mut self, other: Self) {
        self.entries += other.entries;
        self.events += other.events;
        self.bytes += other.bytes;
    }
}

impl Journal {
    /// Lets entries leave, each in the transaction that stores its events; those that are refused again stay. Blocks.
    pub(crate) fn replay(&self, judged: Vec<Judged>, now: Timestamp) -> Result<Replayed, Unavailable> {
        let size = judged.iter().map(Judged::size).sum();
        self.change(size, move |connection, tables, counts| {
            let mut replayed = Replayed::default();
            for judged in &judged {
                replayed += replay(connection, tables, counts, judged, now)?;
            }
            Ok(replayed)
        })
    }

    /// Throws entries away, and keeps a trace of each. Blocks.
    pub(crate) fn discard(&self, ids: Vec<i64>, note: Note) -> Result<Discarded, Unavailable> {
        self.change(0, move |connection, tables, counts| {
            let mut discarded = Discarded::default();
            for id in &ids {
                discarded += discard(connection, tables, counts, *id, &note)?;
            }
            Ok(discarded)
        })
    }
}

impl Journal {
    /// Overwrites what entries say where it stands, before they are taken out. Returns the hop of each that is there: its body said it.
    /// Blocks.
    pub(in crate::journal) fn blank(&self, ids: Vec<i64>, now: Timestamp) -> Result<Vec<(i64, WorkerId)>, Unavailable> {
        self.change(0, move |connection, _, _| {
            let mut blank = connection.prepare_cached(
                "UPDATE quarantine SET body = zeroblob(LENGTH(body)), annotation = zeroblob(LENGTH(annotation)) WHERE id = ?1",
            )?;
            let mut hops = Vec::with_capacity(ids.len());
            for id in &ids {
                let Some(row) = Row::load(connection, *id, now)? else { continue };
                if let Some(claim) = row.claim {
                    claim.settle(connection, row.at)?;
                }
                blank.execute([id])?;
                hops.push((*id, row.at.hop));
            }
            Ok(hops)
        })
    }

    /// Takes entries that are blank out for good, without a trace but their count: they named a person who is erased. Returns how many
    /// there were. Blocks.
    pub(in crate::journal) fn take_out(
        &self,
        entries: Vec<(i64, WorkerId)>,
        now: Timestamp,
    ) -> Result<u64, Unavailable> {
        self.change(0, move |connection, tables, counts| {
            let mut taken = 0;
            for (id, hop) in &entries {
                let Some(mut row) = Row::load(connection, *id, now)? else { continue };
                row.at.hop = *hop;
                tables.quarantine.remove(connection, *id, &row)?;
                counts.add(row.at, outcome(&row.reason), row.reason.clone(), -row.events, 0);
                if !is_damage(&row.reason) {
                    // Thrown away from quarantine: what is counted as erased had been stored.
                    counts.add(row.at, "discarded", row.reason.clone(), row.events, 1);
                }
                taken += 1;
            }
            Ok(taken)
        })
    }
}

impl Judged {
    fn size(&self) -> usize {
        match &self.now {
            Sentence::Stays(_) => 0,
            Sentence::Leaves(arrivals, _) => arrivals.iter().map(Arrival::size).sum(),
            Sentence::Compared { said, kept } => said.size() + kept.size(),
        }
    }
}

/// What the writer has to know of an entry to take it out.
struct Row {
    reason: String,
    at: At,
    events: i64,
    times: i64,
    first_ms: i64,
    vouched: bool,
    hash: Vec<u8>,
    /// What it claims now, and what it would for a reason that lets it.
    claim: Option<Claim>,
    says: Option<Claim>,
    bytes: u64,
    cost: u64,
    blank: bool,
}

impl Row {
    /// With the place at which its correction is counted.
    fn load(connection: &Connection, id: i64, now: Timestamp) -> rusqlite::Result<Option<Self>> {
        connection
            .prepare_cached(
                "SELECT reason, region, events, times, first_ms, vouched, annotation, body, hash FROM quarantine WHERE id = ?1",
            )?
            .query_row([id], |row| {
                let body = row.get_ref(7)?.as_blob()?;
                let region = row.get_ref(1)?.as_str()?.parse().unwrap_or_default();
                Ok(Self {
                    reason: row.get(0)?,
                    at: At { time: now, region, hop: hop_of(body) },
                    events: row.get(2)?,
                    times: row.get(3)?,
                    first_ms: row.get(4)?,
                    vouched: row.get(5)?,
                    hash: row.get(8)?,
                    claim: Claim::of_entry(row.get_ref(0)?.as_str()?, body, row.get(5)?),
                    says: Claim::of(body, row.get(5)?),
                    bytes: body.len() as u64,
                    blank: is_blank(body, row.get_ref(8)?.as_blob()?),
                    cost: cost(body, row.get_ref(6)?.as_blob_or_null()?),
                })
            })
            .optional()
    }
}

/// Events that came into quarantine with a reason, or left it. What comes and goes in one step is no movement: a counter that only grows
/// would count it.
#[derive(Default)]
struct Moves(BTreeMap<String, i64>);

impl Moves {
    fn add(&mut self, reason: &str, events: i64) {
        *self.0.entry(reason.to_owned()).or_default() += events;
    }

    fn count(self, at: At, counts: &mut Batch) {
        for (reason, events) in self.0 {
            counts.add(at, outcome(&reason), reason, events, 0);
        }
    }
}

/// What is counted of events in quarantine: whole ones, or those that were damaged on the way and come again.
fn outcome(reason: &str) -> &'static str {
    if is_damage(reason) { "damaged" } else { "quarantined" }
}

impl Quarantine {
    fn remove(&mut self, connection: &Connection, id: i64, row: &Row) -> rusqlite::Result<()> {
        connection.prepare_cached("DELETE FROM quarantine WHERE id = ?1")?.execute([id])?;
        self.bytes -= row.cost;
        self.unvouched -= if row.vouched { 0 } else { row.cost };
        self.room = Room::Enough;
        self.write(connection)
    }

    /// Puts back what came out of an entry a moment ago, whatever the bound says: the room was its own. Says whether it is the same
    /// entry still, under its id.
    fn put_back(
        &mut self,
        connection: &Connection,
        moves: &mut Moves,
        id: i64,
        row: &Row,
        entry: &Entry<'_>,
    ) -> rusqlite::Result<bool> {
        let hash = hash(entry.body);
        if self.again(connection, &hash, row.first_ms)? {
            // The same bytes are the same events, and those are counted.
            return Ok(false);
        }
        let same = hash == *row.hash;
        self.insert(connection, same.then_some(id), &hash, entry)?;
        if same {
            connection
                .prepare_cached("UPDATE quarantine SET times = ?2, last_ms = ?3 WHERE id = ?1")?
                .execute(params![id, row.times, row.at.time.as_millis() as i64])?;
        }
        moves.add(entry.reason, entry.events.into());
        Ok(same)
    }
}

pub(in crate::journal) fn replay(
    connection: &Connection,
    tables: &mut Tables,
    counts: &mut Batch,
    judged: &Judged,
    now: Timestamp,
) -> rusqlite::Result<Replayed> {
    let mut replayed = Replayed::default();
    // Gone, about to be erased, or another by now: somebody else was here.
    let row = Row::load(connection, judged.id, now)?;
    let Some(row) = row.filter(|row| row.reason == judged.reason && !row.blank) else { return Ok(replayed) };
    replayed.entries = 1;
    let (arrivals, refused): (Vec<(&Arrival, &Arrival)>, &[SetAside]) = match &judged.now {
        Sentence::Stays(reason) => {
            // A conflict is some of its frame's events. As anything else it would be all of them.
            let reason = if row.reason == CONFLICT { CONFLICT } else { reason };
            let mut moves = Moves::default();
            moves.add(&row.reason, -row.events);
            moves.add(reason, row.events);
            moves.count(row.at, counts);
            connection
                .prepare_cached("UPDATE quarantine SET reason = ?2, last_ms = MAX(last_ms, ?3) WHERE id = ?1")?
                .execute(params![judged.id, reason, now.as_millis() as i64])?;
            // What was thought to come again is here to stay.
            if is_damage(&row.reason)
                && !is_damage(reason)
                && let Some(claim) = row.says
            {
                claim.note(connection, row.at)?;
            }
            replayed.stay.insert(reason.to_string(), 1);
            return Ok(replayed);
        }
        Sentence::Leaves(arrivals, refused) => (arrivals.iter().map(|arrival| (arrival, arrival)).collect(), refused),
        Sentence::Compared { said, kept } => (vec![(said, kept)], &[]),
    };
    tables.quarantine.remove(connection, judged.id, &row)?;
    let mut moves = Moves::default();
    moves.add(&row.reason, -row.events);
    let was_conflict = row.reason == CONFLICT;
    let doubt = if was_conflict { Doubt::Other } else { Doubt::Same };
    let mut stay: Vec<(Cow<'_, str>, bool)> = Vec::new();
    for (said, arrival) in arrivals {
        let before = (arrival.header.source, arrival.header.first_seq);
        let untold = untold(connection, &tables.seen, before, arrival.is_trusted(), arrival.given_up())?;
        let mut verdict = tables.admit_as(connection, said, arrival, doubt, untold)?;
        let mut conflicts = verdict.conflict;
        if was_conflict {
            // What else its frame has was counted when it came: only what was in conflict can have become something else.
            let left = u32::try_from(row.events).unwrap_or(0).saturating_sub(verdict.stored + verdict.suppressed);
            conflicts = conflicts.min(left);
            verdict.duplicate = left - conflicts;
        }
        let dropped = if verdict.stored + verdict.suppressed > 0 { untold } else { 0 };
        // In the hour in which it is decided, for the hop whose frame it is.
        let at = At { time: now, ..arrival.at };
        for (outcome, events) in [
            ("stored", verdict.stored),
            ("duplicate", verdict.duplicate),
            ("suppressed", verdict.suppressed),
            ("dropped", dropped),
        ] {
            counts.add(at, outcome, "", events.into(), i64::from(events > 0));
        }
        replayed.stored += u64::from(verdict.stored);
        replayed.duplicate += u64::from(verdict.duplicate);
        if verdict.conflict > 0 {
            let entry = Entry {
                received_ms: row.first_ms,
                reason: CONFLICT,
                region: row.at.region.as_str(),
                events: conflicts.try_into().unwrap_or(u16::MAX),
                // To the byte: what rules took out of it would be nowhere.
                annotation: said.annotation.as_deref(),
                body: &said.body,
                vouched: true,
                request: None,
            };
            stay.push((CONFLICT.into(), tables.quarantine.put_back(connection, &mut moves, judged.id, &row, &entry)?));
        }
    }
    for entry in refused {
        let entry = Entry {
            received_ms: row.first_ms,
            reason: &entry.reason,
            region: row.at.region.as_str(),
            events: entry.events,
            annotation: entry.annotation.as_deref(),
            body: &entry.body,
            vouched: entry.vouched,
            request: entry.request.as_ref(),
        };
        stay.push((
            entry.reason.to_owned().into(),
            tables.quarantine.put_back(connection, &mut moves, judged.id, &row, &entry)?,
        ));
    }
    moves.count(row.at, counts);
    replayed.left = u64::from(!stay.iter().any(|(_, same)| *same));
    for (reason, _) in stay {
        *replayed.stay.entry(reason.into_owned()).or_default() += 1;
    }
    Ok(replayed)
}

pub(in crate::journal) fn discard(
    connection: &Connection,
    tables: &mut Tables,
    counts: &mut Batch,
    id: i64,
    note: &Note,
) -> rusqlite::Result<Discarded> {
    let Some(row) = Row::load(connection, id, note.now)? else { return Ok(Discarded::default()) };
    connection
        .prepare_cached(
            "INSERT INTO discards
             SELECT id, hash, first_ms, last_ms, times, reason, region, events, vouched, LENGTH(body), ?2, ?3, ?4
             FROM quarantine WHERE id = ?1",
        )?
        .execute(params![id, note.now.as_millis() as i64, note.who, note.why])?;
    tables.quarantine.remove(connection, id, &row)?;
    counts.add(row.at, outcome(&row.reason), row.reason.clone(), -row.events, 0);
    // What was damaged on the way has come again, whole: its end is told there. Unless it has not, which its numbers say if they are sure.
    let ended = match row.claim {
        Some(claim) if is_damage(&row.reason) => {
            tables.seen.missing(connection, claim.source, claim.first, claim.last)?
        }
        _ if is_damage(&row.reason) => 0,
        _ => row.events,
    };
    counts.add(row.at, "discarded", row.reason.clone(), ended, i64::from(ended > 0));
    if let Some(claim) = row.claim {
        claim.settle(connection, row.at)?;
    }
    Ok(Discarded { entries: 1, events: row.events as u64, bytes: row.bytes })
}
