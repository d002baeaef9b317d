//! What remains of a frame whose body was rewritten or removed.
//!
//! ```text
//!            frames                                          tombstones                          seen
//!  erased    body: the frame with those events blank,        which; what the others said         as it was: a retry does not
//!            unsigned, and as long as it was                                                     bring anybody back
//!  removed   body: empty                                     what all of them said               as it was
//! ```
//!
//! So a repeat is still told from a conflict: the same bytes by their hash, other bytes event by event. Of an erased event
//! nothing is kept but that it was there: whatever comes with its identity is the same again.

use firsthop_core::{
    Alg, Context, Error, Event, Flags, Frame, FrameWriter, Header, Notes, Properties, PropertiesWriter, Region,
    Timestamp, Unsigned, Value, WorkerId,
};
use firsthop_intake::{RegionSecrets, content_digest};
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::{
    arrival::{NO_DIGEST, Noted, foreign_of, is_suppressed, is_trusted},
    ledger::hop_of,
    quarantine,
    schema::{LedgerColumns, RowSum, row_sum},
    sealed::Readable,
    store::{Accepted, open_body},
};

/// What is kept of an event: enough to tell a repeat from a conflict.
pub(super) type Brief = [u8; 8];
/// Of an erased event.
const ERASED: Brief = [0; 8];

#[derive(Clone, Debug)]
pub(super) struct Tombstone {
    /// A bit for each event.
    erased: Option<Vec<u8>>,
    /// A bit for each event that had an id of another vendor's.
    foreign: Option<Vec<u8>>,
    /// Of the producer's bytes.
    hash: [u8; 16],
    briefs: Vec<u8>,
    /// As it is stored, to be compared with [`sum`](Self::sum).
    stored_sum: Option<i64>,
}

fn bit(bits: Option<&[u8]>, index: usize) -> bool {
    bits.and_then(|bits| bits.get(index / 8)).is_some_and(|byte| byte & 1 << (index % 8) != 0)
}

fn set(bits: &mut Option<Vec<u8>>, index: usize, count: usize) {
    bits.get_or_insert_with(|| vec![0; count.div_ceil(8)])[index / 8] |= 1 << (index % 8);
}

/// What is kept of an event that said this, then.
pub(super) fn brief(digest: [u8; 16], time: Timestamp) -> Brief {
    let mut hash = Sha256::new_with_prefix(b"firsthop/tombstone/1");
    hash.update(digest);
    hash.update(time.as_millis().to_le_bytes());
    let mut brief = [0; 8];
    brief.copy_from_slice(&hash.finalize()[..8]);
    if brief == ERASED { [1; 8] } else { brief }
}

impl Tombstone {
    /// Of a frame that is whole.
    fn of(frame: &Frame<'_>) -> Result<Self, Error> {
        let (context, events) = frame.open()?;
        let (created, count) = (frame.header().created, usize::from(frame.header().count));
        let mut briefs = Vec::with_capacity(count * size_of::<Brief>());
        let mut foreign = None;
        let rewritten = frame.rewritten().is_some();
        for (index, event) in events.enumerate() {
            let event = event?;
            let said =
                || Ok::<_, Error>(brief(content_digest(&event, &event.context.apply(&context)?), event.time(created)));
            // What was written anew, too, is the same as whatever comes with its identity.
            briefs.extend(if rewritten { ERASED } else { said()? });
            if event.id.is_some() {
                set(&mut foreign, index, count);
            }
        }
        Ok(Self { erased: None, foreign, hash: quarantine::hash(frame.bytes()), briefs, stored_sum: None })
    }

    /// Of a frame that nobody can open any more: by its bytes it is known again, and whatever else comes under its numbers is a repeat.
    /// `ids`: whether some of its events are known by another vendor's id. Which of them nobody knows, so each counts as one.
    fn unread(frame: &Frame<'_>, ids: bool) -> Self {
        let count = usize::from(frame.header().count);
        let foreign = ids.then(|| vec![0xff; count.div_ceil(8)]);
        let briefs = vec![0; count * size_of::<Brief>()];
        Self { erased: None, foreign, hash: quarantine::hash(frame.bytes()), briefs, stored_sum: None }
    }

    pub(super) fn load(connection: &Connection, frame: i64) -> rusqlite::Result<Option<Self>> {
        let mut statement = connection
            .prepare_cached("SELECT erased, foreign_ids, hash, digests, sum FROM tombstones WHERE frame = ?1")?;
        statement
            .query_row([frame], |row| {
                Ok(Self {
                    erased: row.get(0)?,
                    foreign: row.get(1)?,
                    hash: row.get(2)?,
                    briefs: row.get(3)?,
                    stored_sum: row.get(4)?,
                })
            })
            .optional()
    }

    /// Whether the row and this are as they were written.
    pub(super) fn is_intact(&self, row: &RowSum<'_>) -> bool {
        self.stored_sum == Some(self.sum(row))
    }

    /// Whether the event at this place was stored with this frame, and erased since.
    pub(super) fn is_erased(&self, index: usize) -> bool {
        bit(self.erased.as_deref(), index)
    }

    pub(super) fn is_foreign(&self, index: usize) -> bool {
        bit(self.foreign.as_deref(), index)
    }

    pub(super) const fn has_erased(&self) -> bool {
        self.erased.is_some()
    }

    /// Whether these bytes are the producer's frame again.
    pub(super) fn is_of(&self, bytes: &[u8]) -> bool {
        self.hash == quarantine::hash(bytes)
    }

    /// Whether the event at this place may have been this one. None: there is no such place.
    pub(super) fn may_be(&self, index: usize, brief: Option<Brief>) -> Option<bool> {
        let known = self.briefs.as_chunks::<8>().0.get(index)?;
        Some(*known == ERASED || Some(*known) == brief)
    }

    /// Forgets the event at this place; `stored`: it was stored with this frame, and did not come with another before.
    fn erase(&mut self, index: usize, stored: bool) {
        let count = self.briefs.len() / size_of::<Brief>();
        let erased = self.erased.get_or_insert_with(|| vec![0; count.div_ceil(8)]);
        if stored {
            erased[index / 8] |= 1 << (index % 8);
        }
        self.briefs.as_chunks_mut::<8>().0[index] = ERASED;
    }

    /// Whether nothing is known of what the event at this place said.
    fn has_forgotten(&self, index: usize) -> bool {
        self.briefs.as_chunks::<8>().0.get(index) == Some(&ERASED)
    }

    /// CRC-32 of the frame's row as it is now, and of this. `frames.sum` stays what it was: by it a sink knows where it is.
    fn sum(&self, row: &RowSum<'_>) -> i64 {
        let bits = |bits: &Option<Vec<u8>>| bits.as_ref().map_or(-1, |bits| bits.len() as i64).to_le_bytes();
        firsthop_core::crc32(&[
            &row_sum(row).to_le_bytes(),
            &bits(&self.erased),
            self.erased.as_deref().unwrap_or_default(),
            &bits(&self.foreign),
            self.foreign.as_deref().unwrap_or_default(),
            &self.hash,
            &self.briefs,
        ])
        .into()
    }

    fn write(&self, connection: &Connection, row: &Row) -> rusqlite::Result<()> {
        connection
            .prepare_cached("INSERT OR REPLACE INTO tombstones VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![row.id, self.erased, self.foreign, self.hash, self.briefs, self.sum(&row.columns())])?;
        Ok(())
    }
}

/// A row of `frames`.
struct Row {
    id: i64,
    received_ms: i64,
    source: Vec<u8>,
    batch_seq: i64,
    first_seq: i64,
    count: u16,
    ids: i64,
    region: String,
    annotation: Option<Vec<u8>>,
    accepted: Accepted,
    ledger: Option<LedgerColumns>,
    body: Vec<u8>,
}

impl Row {
    fn load(connection: &Connection, id: i64) -> rusqlite::Result<Option<Self>> {
        let mut statement = connection.prepare_cached(
            "SELECT received_ms, source, batch_seq, first_seq, count, ids, region, annotation, accepted, hop, trust, dropped, body
             FROM frames WHERE id = ?1",
        )?;
        statement
            .query_row([id], |row| {
                Ok(Self {
                    id,
                    received_ms: row.get(0)?,
                    source: row.get(1)?,
                    batch_seq: row.get(2)?,
                    first_seq: row.get(3)?,
                    count: row.get(4)?,
                    ids: row.get(5)?,
                    region: row.get(6)?,
                    annotation: row.get(7)?,
                    accepted: Accepted::from_column(row.get_ref(8)?.as_blob_or_null()?),
                    ledger: match (row.get(9)?, row.get(10)?, row.get(11)?) {
                        (Some(hop), Some(trust), Some(dropped)) => Some(LedgerColumns { hop, trust, dropped }),
                        _ => None,
                    },
                    body: row.get(12)?,
                })
            })
            .optional()
    }

    fn columns(&self) -> RowSum<'_> {
        RowSum {
            id: self.id,
            received_ms: self.received_ms,
            source: &self.source,
            batch_seq: self.batch_seq,
            first_seq: self.first_seq,
            count: self.count.into(),
            ids: self.ids,
            region: &self.region,
            annotation: self.annotation.as_deref(),
            accepted: self.accepted.column(),
            ledger: self.ledger,
        }
    }

    /// Bytes that it takes in the file, but for what is always the same, and for its body.
    fn len(&self) -> usize {
        // A column's type is a number that says its length: SQLite's "record format".
        let varint = |number: usize| {
            if number < 128 {
                1
            } else if number < 16_384 {
                2
            } else {
                3
            }
        };
        let blob = |bytes: Option<&[u8]>| bytes.map_or(1, |bytes| varint(bytes.len() * 2 + 13) + bytes.len());
        let number = |number: i64| match number {
            0 | 1 => 1,
            -0x80..0x80 => 2,
            -0x8000..0x8000 => 3,
            -0x80_0000..0x80_0000 => 4,
            -0x8000_0000..0x8000_0000 => 5,
            _ => 7,
        };
        let ledger = self.ledger.map_or(3, |row| number(row.hop) + number(row.trust) + number(row.dropped));
        blob(self.annotation.as_deref()) + blob(self.accepted.column()) + ledger
    }

    /// What its columns do not say and its body does, while that is whole.
    fn note_body(&mut self, frame: &Frame<'_>) {
        let header = frame.header();
        self.ledger.get_or_insert(LedgerColumns {
            hop: hop_of(&self.body).get().into(),
            trust: is_trusted(header, frame.rewritten()).into(),
            dropped: header.dropped.into(),
        });
    }

    /// Writes a row without a body. Written in its place it would keep the page that it had; taken out and put in again it stands
    /// beside others as small.
    fn move_together(&self, connection: &Connection) -> rusqlite::Result<()> {
        let sum: i64 = connection
            .prepare_cached("SELECT sum FROM frames WHERE id = ?1")?
            .query_row([self.id], |row| row.get(0))?;
        connection.prepare_cached("DELETE FROM frames WHERE id = ?1")?.execute([self.id])?;
        let ledger = self.ledger;
        connection
            .prepare_cached(
                "INSERT INTO frames (id, received_ms, source, batch_seq, first_seq, count, ids, region, accepted, sum, body,
                     hop, trust, dropped)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, x'', ?11, ?12, ?13)",
            )?
            .execute(params![
                self.id,
                self.received_ms,
                self.source,
                self.batch_seq,
                self.first_seq,
                self.count,
                self.ids,
                self.region,
                self.accepted.column(),
                sum,
                ledger.map(|ledger| ledger.hop),
                ledger.map(|ledger| ledger.trust),
                ledger.map(|ledger| ledger.dropped),
            ])?;
        Ok(())
    }

    fn write(&self, connection: &Connection, tombstone: &Tombstone) -> rusqlite::Result<()> {
        let ledger = self.ledger;
        connection
            .prepare_cached(
                "UPDATE frames SET annotation = ?2, accepted = ?3, hop = ?4, trust = ?5, dropped = ?6, body = ?7 WHERE id = ?1",
            )?
            .execute(params![
                self.id,
                self.annotation,
                self.accepted.column(),
                ledger.map(|ledger| ledger.hop),
                ledger.map(|ledger| ledger.trust),
                ledger.map(|ledger| ledger.dropped),
                self.body,
            ])?;
        tombstone.write(connection, self)
    }
}

/// Whose events are to be erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) user: Option<String>,
    pub(crate) anonymous: Option<String>,
}

impl Subject {
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        [&self.user, &self.anonymous].into_iter().flatten().map(String::as_str)
    }

    /// Whether an event is this person's: by its context; or one that says that this person is now somebody else.
    fn has(&self, event: &Event<'_>, context: &Context<'_>) -> bool {
        let is = |said: Option<&str>, id: &Option<String>| said.is_some() && said == id.as_deref();
        let alias = event.kind == firsthop_core::EventKind::Alias && self.ids().any(|id| id == event.name);
        alias || is(context.user_id, &self.user) || is(context.anonymous_id, &self.anonymous)
    }

    /// The places of this person's events in a stored body. What cannot be read has none.
    pub(super) fn find(&self, body: &[u8], secrets: &RegionSecrets) -> Vec<usize> {
        let read = || -> Result<Vec<usize>, Error> {
            let (_, bytes) = open_body(body)?;
            let readable = Readable::parse(bytes, secrets)?;
            let (context, events) = readable.frame().open()?;
            let mut found = Vec::new();
            for (index, event) in events.enumerate() {
                let event = event?;
                if self.has(&event, &event.context.apply(&context)?) {
                    found.push(index);
                }
            }
            Ok(found)
        };
        read().unwrap_or_default()
    }

    /// The frame without this person's events: blank in their places, so that the others keep theirs. It is signed by nobody, and sealed to nobody. `size`: how
    /// long it is to be; the first blank event is filled up with what means nothing. If it cannot be that long, it is shorter.
    fn redact(
        &self,
        frame: &Frame<'_>,
        erased: &[usize],
        tombstone: &Tombstone,
        size: usize,
    ) -> Result<Vec<u8>, Error> {
        let shared = self.left_of_context(frame, erased, tombstone)?;
        let shortest = redact_with(frame, &shared, erased, 0, 0)?;
        // A text in properties brings a few bytes with it, and one more where its length needs another; a name makes up for that.
        for text in (0..size.saturating_sub(shortest.len())).rev().take(2 * NAME) {
            let longer = match redact_with(frame, &shared, erased, text, 0) {
                Ok(longer) => longer.len(),
                // More than an event may have.
                Err(_) => break,
            };
            if (0..NAME).contains(&size.wrapping_sub(longer)) {
                return redact_with(frame, &shared, erased, text, size - longer);
            }
        }
        match size.checked_sub(shortest.len()) {
            Some(name @ 1..NAME) => redact_with(frame, &shared, erased, 0, name),
            _ => Ok(shortest),
        }
    }

    /// Of the context that a frame's events share, what those that are left say by it: what each of them says itself was of the others.
    fn left_of_context<'a>(
        &self,
        frame: &Frame<'a>,
        erased: &[usize],
        tombstone: &Tombstone,
    ) -> Result<Context<'a>, Error> {
        let (shared, events) = frame.open()?;
        let mut left = Vec::new();
        for (index, event) in events.enumerate() {
            let event = event?;
            let is_gone = erased.contains(&index) || tombstone.has_forgotten(index) && is_blank(&event);
            if !is_gone {
                left.push(event.context.apply(&Context::EMPTY)?);
            }
        }
        let says = |says: fn(&Context<'_>) -> bool| !left.iter().all(says);
        let is = |said: &str, id: &Option<String>| Some(said) == id.as_deref();
        Ok(Context {
            // An event of somebody else's says so itself where the shared context says this person: nothing else is lost by it.
            user_id: shared.user_id.filter(|id| says(|own| own.user_id.is_some()) && !is(id, &self.user)),
            anonymous_id: shared
                .anonymous_id
                .filter(|id| says(|own| own.anonymous_id.is_some()) && !is(id, &self.anonymous)),
            session_id: shared.session_id.filter(|_| says(|own| own.session_id.is_some())),
            locale: shared.locale.filter(|_| says(|own| own.locale.is_some())),
            timezone: shared.timezone.filter(|_| says(|own| own.timezone.is_some())),
            user_agent: shared.user_agent.filter(|_| says(|own| own.user_agent.is_some())),
            url: shared.url.filter(|_| says(|own| own.url.is_some())),
            title: shared.title.filter(|_| says(|own| own.title.is_some())),
            referrer: shared.referrer.filter(|_| says(|own| own.referrer.is_some())),
            screen: shared.screen.filter(|_| says(|own| own.screen.is_some())),
            campaign: shared.campaign.filter(|_| says(|own| own.campaign.is_some())),
            extra: if says(|own| !own.extra.is_empty()) { shared.extra } else { Properties::EMPTY },
        })
    }
}

/// Whether an event is what stands in an erased one's place.
fn is_blank(event: &Event<'_>) -> bool {
    let is_filling = |text: &str| text.bytes().all(|byte| byte == b'-');
    is_filling(event.name)
        && event.properties.into_iter().all(|(key, _)| is_filling(key))
        && Event { name: "", properties: Properties::EMPTY, ..*event } == Event::default()
}

fn redact_with(
    frame: &Frame<'_>,
    shared: &Context<'_>,
    erased: &[usize],
    text: usize,
    name: usize,
) -> Result<Vec<u8>, Error> {
    let header = Header { flags: Flags::default(), alg: Alg::None, ..*frame.header() };
    let (_, events) = frame.open()?;
    let (text, name) = ("-".repeat(text), "-".repeat(name));
    let (mut shape, mut words) = ([0; 16], vec![0; text.len() + 16]);
    let mut filling = PropertiesWriter::new(&mut shape[..], &mut words[..]);
    if !text.is_empty() {
        filling.put("-", Value::Str(&text))?;
    }
    let mut filling = Some(Event { name: &name, properties: filling.finish()?, ..Event::default() });
    let mut buffer = vec![0; frame.bytes().len() + text.len() + 1024];
    let mut writer = FrameWriter::new(&mut buffer[..], &header)?;
    writer.context(shared)?;
    for (index, event) in events.enumerate() {
        let event = event?;
        writer.event(&if erased.contains(&index) { filling.take().unwrap_or_default() } else { event })?;
    }
    writer.finish(&Unsigned).map(<[u8]>::to_vec)
}

/// Most that the name of a blank event makes up for.
const NAME: usize = 64;

/// What was erased of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Erased {
    /// Events that had been stored, for the ledger.
    pub(super) events: u32,
    pub(super) region: Region,
    pub(super) hop: WorkerId,
}

/// Erases a person's events in one frame, in the transaction that is open. All runs of the frame must be settled.
pub(super) fn erase(
    connection: &Connection,
    id: i64,
    subject: &Subject,
    secrets: &RegionSecrets,
) -> rusqlite::Result<Option<Erased>> {
    let Some(mut row) = Row::load(connection, id)? else { return Ok(None) };
    let known = Tombstone::load(connection, id)?;
    // What is blank already is nobody's.
    let places = subject.find(&row.body, secrets);
    if places.is_empty() {
        return Ok(None);
    }
    let mut events = 0;
    let work = |row: &mut Row| -> Result<(Tombstone, Vec<_>), Error> {
        let body = std::mem::take(&mut row.body);
        let (noted, bytes) = open_body(&body)?;
        let readable = Readable::parse(bytes, secrets)?;
        let frame = readable.frame();
        let mut tombstone = known.map_or_else(|| Tombstone::of(&frame), Ok)?;
        let foreign: Vec<_> =
            foreign_of(&frame)?.into_iter().filter(|event| places.contains(&event.index.into())).collect();
        let before = row.len();
        let own = row.annotation.as_deref().map(Noted::from_bytes).transpose()?;
        if let Some(Noted { annotation, notes }) = own.or(noted) {
            // An id of a click is a person's: most likely this one's.
            let notes = notes.map(|notes| Notes { click_id: "", ..notes });
            let kept = Noted { annotation, notes }.encode()?.into();
            row.annotation = Some(kept);
        }
        row.body.clone_from(&body);
        row.note_body(&frame);
        for &place in &places {
            let stored = row.accepted.has(place);
            tombstone.erase(place, stored);
            events += u32::from(stored);
            row.accepted.clear(place, row.count);
        }
        if row.accepted.count(row.count) == 0 {
            // What was noted of the request was of theirs alone.
            row.annotation = Some(Noted::default().encode()?.into());
        }
        row.body.clear();
        // As long as the row was, it is written over where it stands. A shorter one would let the database move its neighbours
        // about, and leave copies of them where they were; and some of those are to be erased next.
        let size = (body.len() + before).saturating_sub(row.len());
        row.body = subject.redact(&frame, &places, &tombstone, size)?;
        Ok((tombstone, foreign))
    };
    let Ok((tombstone, foreign)) = work(&mut row) else {
        // It was read a moment ago: only the writing can have failed, and nothing that was read is too large to be written smaller.
        return Err(rusqlite::Error::InvalidQuery);
    };
    row.write(connection, &tombstone)?;
    let mut forget =
        connection.prepare_cached("UPDATE seen SET digest = ?3 WHERE source = ?1 AND first = 0 AND frame = ?2")?;
    for event in foreign {
        forget.execute(params![&event.source.as_bytes()[..], id, NO_DIGEST])?;
    }
    let hop = row.ledger.map_or(0, |ledger| u32::try_from(ledger.hop).unwrap_or(0));
    Ok(Some(Erased { events, region: row.region.parse().unwrap_or_default(), hop: WorkerId::new(hop) }))
}

/// Removes the bodies of frames, in the transaction that is open. All their runs must be settled. Returns how many had one, and their
/// bytes. One that cannot be read stays, for `firsthop verify` to name.
pub(super) fn remove(connection: &Connection, ids: &[i64], secrets: &RegionSecrets) -> rusqlite::Result<(u64, u64)> {
    let (mut rows, mut bytes) = (Vec::new(), 0);
    // Written over where they stand, all of them before one is moved: no copy of what they said is left behind.
    let mut blank = connection.prepare_cached("UPDATE frames SET body = zeroblob(LENGTH(body)) WHERE id = ?1")?;
    for &id in ids {
        let Some(mut row) = Row::load(connection, id)?.filter(|row| !row.body.is_empty()) else { continue };
        let known = Tombstone::load(connection, id)?;
        let size = row.body.len() as u64;
        let body = std::mem::take(&mut row.body);
        let read = || -> Result<(Tombstone, Frame<'_>), Error> {
            let (_, bytes) = open_body(&body)?;
            let frame = Frame::parse(bytes)?;
            let tombstone = match known {
                Some(known) => known,
                None => match Readable::parse(bytes, secrets) {
                    Ok(readable) => Tombstone::of(&readable.frame())?,
                    // Its key was taken away, or another has its number. Its time is over all the same.
                    Err(Error::Sealed | Error::Seal) => Tombstone::unread(&frame, row.ids > 0),
                    Err(error) => return Err(error),
                },
            };
            Ok((tombstone, frame))
        };
        let Ok((mut tombstone, frame)) = read() else {
            tracing::error!(frame = id, "a stored frame cannot be read, and is not removed");
            continue;
        };
        row.body.clone_from(&body);
        row.note_body(&frame);
        if is_suppressed(&frame) {
            // The body said that they were never stored.
            for place in 0..usize::from(row.count) {
                tombstone.erase(place, row.accepted.has(place));
                row.accepted.clear(place, row.count);
            }
        }
        (row.body, row.annotation) = (Vec::new(), None);
        blank.execute([id])?;
        bytes += size;
        rows.push((row, tombstone));
    }
    for (row, tombstone) in &rows {
        row.move_together(connection)?;
        tombstone.write(connection, row)?;
    }
    Ok((rows.len() as u64, bytes))
}
