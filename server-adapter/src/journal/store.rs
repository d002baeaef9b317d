//! One frame into the tables: which of its events are new, which were there, which contradict what was there.

use std::ops::Range;

use firsthop_core::{Envelope, Error, Flags, Frame, Header, Timestamp};
use firsthop_intake::{RegionSecrets, content_digest};
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    arrival::{Arrival, Foreign, NO_DIGEST, Noted, Verdict},
    counters::Batch,
    ledger::{Chain, Claim, Trust},
    quarantine::{CONFLICT, Entry, Kept, Quarantine},
    schema::{LedgerColumns, RowSum, row_sum},
    sealed::{Readable, Seals},
    seen::{Run, Seen},
    tombstone::{self, Tombstone},
};

/// What the writer knows besides what is in the tables.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) seen: Seen,
    pub(super) quarantine: Quarantine,
    /// The id of the last frame.
    pub(super) last_frame: i64,
    /// Where the ledger ends: hours before that take no counts.
    pub(super) chain: Chain,
    /// Refusals that quarantine had no room for, since the start.
    pub(super) overflow: u64,
    /// What opens what is sealed.
    pub(super) seals: Seals,
}

/// Which events of a frame were new with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// All of them.
    All,
    /// Those whose bits are set; the first in the lowest bit of the first byte.
    Some(Box<[u8]>),
}

impl Accepted {
    /// From the column.
    pub(crate) fn from_column(column: Option<&[u8]>) -> Self {
        column.map_or(Self::All, |bits| Self::Some(bits.into()))
    }

    pub(super) fn none(count: u16) -> Self {
        Self::Some(vec![0; usize::from(count).div_ceil(8)].into())
    }

    pub(super) fn add(&mut self, index: usize) {
        if let Self::Some(bits) = self {
            bits[index / 8] |= 1 << (index % 8);
        }
    }

    /// Whether the event at this place was new.
    pub(crate) fn has(&self, index: usize) -> bool {
        match self {
            Self::All => true,
            Self::Some(bits) => bits.get(index / 8).is_some_and(|byte| byte & 1 << (index % 8) != 0),
        }
    }

    /// How many were, of so many.
    pub(crate) fn count(&self, of: u16) -> u32 {
        match self {
            Self::All => of.into(),
            Self::Some(bits) => bits.iter().map(|byte| byte.count_ones()).sum(),
        }
    }

    /// The event at this place is no longer there.
    pub(super) fn clear(&mut self, index: usize, count: u16) {
        if *self == Self::All {
            *self = Self::none(count);
            (0..count.into()).for_each(|index| self.add(index));
        }
        if let Self::Some(bits) = self {
            bits[index / 8] &= !(1 << (index % 8));
        }
    }

    pub(super) fn column(&self) -> Option<&[u8]> {
        match self {
            Self::All => None,
            Self::Some(bits) => Some(bits),
        }
    }
}

impl Tables {
    /// Stores what is new of a frame, in the transaction that is open. What it changes here holds only if that commits.
    pub(super) fn store(
        &mut self,
        connection: &Connection,
        arrival: &Arrival,
        counts: &mut Batch,
    ) -> rusqlite::Result<Verdict> {
        let mut verdict = self.admit(connection, arrival)?;
        let mut conflicts = verdict.conflict;
        if verdict.conflict > 0 {
            let kept = self.set_aside(
                connection,
                &Entry {
                    received_ms: arrival.at.time.as_millis() as i64,
                    reason: CONFLICT,
                    region: arrival.at.region.as_str(),
                    events: verdict.conflict.try_into().unwrap_or(u16::MAX),
                    annotation: arrival.annotation.as_deref(),
                    body: &arrival.body,
                    vouched: true,
                    request: None,
                },
            )?;
            if kept != Kept::New {
                // The same bytes again are the same events, and those are counted. What is nowhere is not counted as if it were.
                conflicts = 0;
            }
            verdict.lost = kept == Kept::Full;
        }
        for (outcome, reason, events) in [
            ("stored", "", verdict.stored),
            ("suppressed", "", verdict.suppressed),
            ("duplicate", "", verdict.duplicate),
            ("quarantined", CONFLICT, conflicts),
            // Told once: a frame that comes again has nothing new in it.
            ("dropped", "", if verdict.stored + verdict.suppressed > 0 { arrival.given_up() } else { 0 }),
        ] {
            let frames = i64::from(events > 0);
            counts.add(arrival.at, outcome, reason, events.into(), frames);
        }
        Ok(verdict)
    }

    /// Stores what is new of a frame, and counts nothing.
    fn admit(&mut self, connection: &Connection, arrival: &Arrival) -> rusqlite::Result<Verdict> {
        self.admit_as(connection, arrival, arrival, Doubt::Same, arrival.header.dropped)
    }

    /// The same of a frame of which something else is kept than it `said`, which alone decides what of it is new; it tells of so many events that its source
    /// gave up.
    pub(super) fn admit_as(
        &mut self,
        connection: &Connection,
        said: &Arrival,
        arrival: &Arrival,
        doubt: Doubt,
        dropped: u32,
    ) -> rusqlite::Result<Verdict> {
        let header = &arrival.header;
        let id = self.last_frame + 1;
        let mut decision = Decision::new(header.count, doubt);
        if header.count > 0 {
            let mut known = Vec::new();
            let mut from = 0;
            for (foreign, kept) in said.foreign.iter().zip(&arrival.foreign) {
                self.decide_run(connection, said, from..foreign.index, id, &mut decision, &mut known)?;
                self.decide_foreign(connection, (foreign, kept.digest), id, &mut decision)?;
                from = foreign.index + 1;
            }
            self.decide_run(connection, said, from..header.count, id, &mut decision, &mut known)?;
            self.compare_known(connection, said, known, &mut decision)?;
        }
        let mut verdict = decision.verdict;
        if verdict.stored > 0 {
            self.insert_frame(connection, arrival, id, &decision.accepted, dropped)?;
            self.last_frame = id;
            if !arrival.foreign.is_empty() && header.flags.contains(Flags::SEALED) {
                self.seen.write_through(connection, id)?;
            }
            // What is known by another vendor's id is not known by its number.
            if !arrival.foreign.is_empty()
                && arrival.is_trusted()
                && let Some(claim) = Claim::of(arrival.frame_bytes(), true)
            {
                Claim { trust: Trust::Session, ..claim }.note(connection, arrival.at)?;
            }
        }
        if arrival.is_suppressed() {
            (verdict.stored, verdict.suppressed) = (0, verdict.stored);
        }
        Ok(verdict)
    }

    /// Sets something aside, or counts it where there is no room.
    pub(super) fn set_aside(&mut self, connection: &Connection, entry: &Entry<'_>) -> rusqlite::Result<Kept> {
        let kept = self.quarantine.put(connection, entry)?;
        self.overflow += u64::from(kept == Kept::Full);
        Ok(kept)
    }

    /// Takes what is new of neighbours that all have the frame's source, and leaves in `known` the runs of what is not.
    fn decide_run(
        &mut self,
        connection: &Connection,
        arrival: &Arrival,
        places: Range<u16>,
        id: i64,
        decision: &mut Decision,
        known: &mut Vec<Run>,
    ) -> rusqlite::Result<()> {
        if places.is_empty() {
            return Ok(());
        }
        let header = &arrival.header;
        let first = header.first_seq + u64::from(places.start);
        let last = header.first_seq + u64::from(places.end) - 1;
        let mut next = first;
        for run in self.seen.overlapping(connection, header.source, first, last)? {
            let (shared_first, shared_last) = (run.first.max(first), run.last.min(last));
            if next < shared_first {
                self.accept_run(arrival, next, shared_first - 1, id, decision);
            }
            known.push(Run { first: shared_first, last: shared_last, ..run });
            next = shared_last + 1;
        }
        if next <= last {
            self.accept_run(arrival, next, last, id, decision);
        }
        Ok(())
    }

    /// Compares events by whose numbers others are known. By stored frame: one between whose events those of others stand has many runs,
    /// and is read once.
    fn compare_known(
        &self,
        connection: &Connection,
        arrival: &Arrival,
        mut known: Vec<Run>,
        decision: &mut Decision,
    ) -> rusqlite::Result<()> {
        let Some(range) = known.first().zip(known.last()).map(|(first, last)| (first.first, last.last)) else {
            return Ok(());
        };
        known.sort_unstable_by_key(|run| (run.frame, run.first));
        let mut says = None;
        for runs in known.chunk_by(|a, b| a.frame == b.frame) {
            compare(connection, &self.seals, arrival, range, &mut says, runs, decision)?;
        }
        Ok(())
    }

    fn accept_run(&mut self, arrival: &Arrival, first: u64, last: u64, id: i64, decision: &mut Decision) {
        self.seen.insert(arrival.header.source, Run { first, last, frame: id, digest: None });
        let base = arrival.header.first_seq;
        decision.accept((first - base) as usize, (last - base) as usize);
    }

    /// Decides on an event that is known by another vendor's id. `kept`: the digest of what is kept of it.
    fn decide_foreign(
        &mut self,
        connection: &Connection,
        (foreign, kept): (&Foreign, [u8; 16]),
        id: i64,
        decision: &mut Decision,
    ) -> rusqlite::Result<()> {
        let place = usize::from(foreign.index);
        let Some(run) = self.seen.insert_foreign(connection, foreign.source, id, kept)? else {
            decision.accept(place, place);
            return Ok(());
        };
        let known = match run.digest {
            Some(digest) => Some(digest),
            None => {
                let stored = Stored::load(connection, run.frame)?;
                stored.says(0, &self.seals.get()).map(|(digest, _)| digest)
            }
        };
        if [known, Some(foreign.digest)].contains(&Some(NO_DIGEST)) {
            decision.doubt();
        } else {
            decision.repeat(known == Some(foreign.digest));
        }
        Ok(())
    }

    fn insert_frame(
        &self,
        connection: &Connection,
        arrival: &Arrival,
        id: i64,
        accepted: &Accepted,
        dropped: u32,
    ) -> rusqlite::Result<()> {
        let header = &arrival.header;
        let ledger = LedgerColumns {
            hop: arrival.at.hop.get().into(),
            trust: arrival.is_trusted().into(),
            dropped: dropped.into(),
        };
        let row = RowSum {
            id,
            received_ms: arrival.at.time.as_millis() as i64,
            source: header.source.as_bytes(),
            batch_seq: header.batch_seq as i64,
            first_seq: header.first_seq as i64,
            count: header.count.into(),
            ids: arrival.foreign.len() as i64,
            region: arrival.at.region.as_str(),
            annotation: arrival.annotation.as_deref(),
            accepted: accepted.column(),
            ledger: Some(ledger),
        };
        connection
            .prepare_cached(
                "INSERT INTO frames VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
            )?
            .execute(params![
                row.id,
                row.received_ms,
                row.source,
                row.batch_seq,
                row.first_seq,
                row.count,
                row.ids,
                row.region,
                row.annotation,
                row.accepted,
                row_sum(&row),
                &arrival.body[..],
                ledger.hop,
                ledger.trust,
                ledger.dropped,
            ])?;
        Ok(())
    }
}

/// What was decided on a frame so far.
struct Decision {
    count: u16,
    accepted: Accepted,
    verdict: Verdict,
    doubt: Doubt,
}

/// What an event of a known identity is taken for if one of the two was written anew: what else it said nobody can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// The same: its sender tries again, and rules have changed in between.
    Same,
    /// Another: it has contradicted something before, and there may be no other copy of it.
    Other,
}

impl Decision {
    fn new(count: u16, doubt: Doubt) -> Self {
        Self { count, accepted: Accepted::none(0), verdict: Verdict::default(), doubt }
    }

    /// The events at these places are new.
    fn accept(&mut self, from: usize, to: usize) {
        self.verdict.stored += (to - from + 1) as u32;
        if self.verdict.stored == u32::from(self.count) {
            self.accepted = Accepted::All;
            return;
        }
        if self.accepted == Accepted::none(0) {
            self.accepted = Accepted::none(self.count);
        }
        (from..=to).for_each(|index| self.accepted.add(index));
    }

    /// The identity is known.
    fn repeat(&mut self, same: bool) {
        if same {
            self.verdict.duplicate += 1;
        } else {
            self.verdict.conflict += 1;
        }
    }

    /// The identity is known, and nothing else.
    fn doubt(&mut self) {
        self.repeat(self.doubt == Doubt::Same);
    }
}

/// Events whose identity is known, from runs of one stored frame: the same, or others? What the frame that arrived `says` in
/// this range is computed once, and only if it is needed.
fn compare(
    connection: &Connection,
    seals: &Seals,
    arrival: &Arrival,
    range: (u64, u64),
    says: &mut Option<Says>,
    runs: &[Run],
    decision: &mut Decision,
) -> rusqlite::Result<()> {
    let Some(frame) = runs.first().map(|run| run.frame) else { return Ok(()) };
    let seqs = || runs.iter().flat_map(|run| (run.first..=run.last).map(move |seq| (seq, run.digest)));
    let bytes = arrival.frame_bytes();
    let stored = Stored::load(connection, frame)?;
    // A retry is the same bytes: nothing to decode.
    if stored.frame_bytes() == Some(bytes) {
        seqs().for_each(|_| decision.repeat(true));
        return Ok(());
    }
    // Of what was written anew, by one attempt or the other, identity is all that is left of its events; but its header is the producer's.
    // Whoever tries again sends the same frame. Another frame with these numbers is kept beside, unless rules have left nothing of it.
    if let Some(frame) = stored.frame_bytes().and_then(|bytes| Frame::parse(bytes).ok())
        && (arrival.rewritten.is_some() || frame.rewritten().is_some())
    {
        let again = arrival.is_suppressed() || is_attempt_of(&arrival.header, frame.header());
        seqs().for_each(|_| if again { decision.doubt() } else { decision.repeat(false) });
        return Ok(());
    }
    let tombstone = Tombstone::load(connection, frame)?;
    if tombstone.as_ref().is_some_and(|tombstone| tombstone.is_of(bytes)) {
        seqs().for_each(|_| decision.repeat(true));
        return Ok(());
    }
    let secrets = seals.get();
    let new = says.get_or_insert_with(|| Says::of(Some(bytes), &[range], &secrets));
    if let Some(tombstone) = tombstone {
        let first: i64 = connection
            .prepare_cached("SELECT first_seq FROM frames WHERE id = ?1")?
            .query_row([frame], |row| row.get(0))?;
        for (seq, _) in seqs() {
            let brief = new.get(seq).map(|(digest, time)| tombstone::brief(digest, time));
            decision.repeat(tombstone.may_be((seq - first as u64) as usize, brief) == Some(true));
        }
        return Ok(());
    }
    let ranges: Vec<_> = runs.iter().map(|run| (run.first, run.last)).collect();
    let known = Says::of(stored.frame_bytes(), &ranges, &secrets);
    for (seq, digest) in seqs() {
        let same = match (digest, known.get(seq), new.get(seq)) {
            (Some(known), _, Some((new, _))) => known == new,
            (None, Some(known), Some(new)) => known == new,
            _ => false,
        };
        decision.repeat(same);
    }
    Ok(())
}

/// Whether two frames of one source are one, sent twice, as far as their headers say: those stay when rules write a frame anew.
fn is_attempt_of(new: &Header, old: &Header) -> bool {
    let said = |header: &Header| (header.batch_seq, header.first_seq, header.count, header.created, header.dropped);
    said(new) == said(old)
}

#[cfg(test)]
thread_local! {
    /// Stored frames that were read to compare with.
    pub(super) static READS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// A body in the journal.
struct Stored(Option<Vec<u8>>);

impl Stored {
    fn load(connection: &Connection, frame: i64) -> rusqlite::Result<Self> {
        #[cfg(test)]
        READS.set(READS.get() + 1);
        connection
            .prepare_cached("SELECT body FROM frames WHERE id = ?1")?
            .query_row([frame], |row| row.get(0))
            .optional()
            .map(Self)
    }

    /// The producer's frame in it.
    fn frame_bytes(&self) -> Option<&[u8]> {
        self.0.as_deref().and_then(|body| open_body(body).ok()).map(|(_, frame)| frame)
    }

    fn says(&self, seq: u64, secrets: &RegionSecrets) -> Option<Said> {
        Says::of(self.frame_bytes(), &[(seq, seq)], secrets).get(seq)
    }
}

/// What a stored body holds: the producer's frame, and what the first hop noted on it if that was an edge, in an
/// envelope.
pub(crate) fn open_body(body: &[u8]) -> Result<(Option<Noted<'_>>, &[u8]), Error> {
    let frame = Frame::parse(body)?;
    Ok(out_of_envelope(&frame)?.map_or((None, body), |(noted, bytes)| (Some(noted), bytes)))
}

/// The same for one who wants the frame read, without reading it twice.
pub(crate) fn open_frame(body: &[u8]) -> Result<(Option<Noted<'_>>, Frame<'_>), Error> {
    let frame = Frame::parse(body)?;
    match out_of_envelope(&frame)? {
        None => Ok((None, frame)),
        Some((noted, bytes)) => Ok((Some(noted), Frame::parse(bytes)?)),
    }
}

/// What is in a frame that is an envelope.
fn out_of_envelope<'a>(frame: &Frame<'a>) -> Result<Option<(Noted<'a>, &'a [u8])>, Error> {
    if !frame.header().flags.contains(Flags::ENVELOPE) {
        return Ok(None);
    }
    let envelope = Envelope::open(frame)?;
    Ok(Some((Noted { annotation: envelope.annotation, notes: envelope.notes }, envelope.frame)))
}

/// What some events of a frame say: their digests, and their times, which a native producer sets once; by their numbers, in order.
#[derive(Default)]
struct Says(Vec<(u64, Said)>);

/// Digest and time of one event.
type Said = ([u8; 16], Timestamp);

impl Says {
    /// Of the events in these ranges, which are in order, as far as the frame has them.
    fn of(frame: Option<&[u8]>, ranges: &[(u64, u64)], secrets: &RegionSecrets) -> Self {
        frame.and_then(|bytes| Self::read(bytes, ranges, secrets).ok()).unwrap_or_default()
    }

    fn read(bytes: &[u8], ranges: &[(u64, u64)], secrets: &RegionSecrets) -> Result<Self, Error> {
        let readable = Readable::parse(bytes, secrets)?;
        let frame = readable.frame();
        let (context, events) = frame.open()?;
        let mut ranges = ranges.iter().peekable();
        let mut says = Vec::new();
        for (seq, event) in (frame.header().first_seq..).zip(events) {
            while ranges.next_if(|(_, last)| *last < seq).is_some() {}
            let Some((first, _)) = ranges.peek() else { break };
            let event = event?;
            if *first <= seq {
                let digest = content_digest(&event, &event.context.apply(&context)?);
                says.push((seq, (digest, event.time(frame.header().created))));
            }
        }
        Ok(Self(says))
    }

    fn get(&self, seq: u64) -> Option<Said> {
        let at = self.0.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
        Some(self.0[at].1)
    }
}
