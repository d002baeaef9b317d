//! What is missing: numbers that a source has given, and that nobody has.
//!
//! ```text
//!  seen, in its order ─┐
//!  runs not settled ───┼─► by source, by number ──► a gap? no: next source                       one row of `seen`
//!  claims ─────────────┘                            └─ yes: who proves it, when, what was dropped   its frames' rows, once
//! ```
//!
//! A number proves all before it, if somebody answers for it: a session's signature. What nobody answers for may be made up, so the
//! gaps that only such numbers prove are told apart.
//!
//! What a frame says its source gave up had numbers before the frame's own, and explains as many gaps there. What is not signed explains
//! none that a signature proves: anybody could hide a loss by it. But for what comes before the first signed number, of which no session
//! ever answered. Nor does quarantine have such a number, if nobody answers for the entry: it is doubtful.
//!
//! The memory that this needs is bounded, whatever is stored: runs that have not settled, and of one source at a time its first gaps.

use std::{collections::BTreeSet, iter::Peekable};

use firsthop_core::{Epoch, Flags, Region, SourceId, Timestamp};
use rusqlite::{Connection, Row, Rows, Statement, params, types::ValueRef};

use super::{
    super::{
        seen::{Loading, Run, Seen},
        store::open_frame,
    },
    claims::{Trust, hop_of},
    given_up,
    walk::{Evidence, Missing, Place, Walk},
};

/// A walk through all sources, which can be interrupted between two.
#[derive(Debug)]
pub(crate) struct Scan {
    young: Loading,
    /// The last source that is done.
    after: Option<SourceId>,
    /// Events that are noted as seen, so far.
    pub(crate) noted: u64,
}

/// Some numbers of a source, and how they are known.
#[derive(Clone, Copy, Debug)]
struct Piece {
    source: SourceId,
    first: u64,
    last: u64,
    known: Known,
}

#[derive(Clone, Copy, Debug)]
enum Known {
    /// Stored, with this frame.
    Frame(i64),
    /// Claimed.
    Claim { trust: Trust, received: Timestamp, region: Region, hop: u32 },
}

impl Known {
    /// Whether it has its numbers, and not only says so.
    const fn is_sure(self) -> bool {
        !matches!(self, Self::Claim { trust: Trust::Nobody, .. })
    }
}

impl Scan {
    /// From the first source on.
    pub(crate) fn begin(connection: &Connection) -> rusqlite::Result<Self> {
        Ok(Self { young: Loading::begin(connection)?, after: None, noted: 0 })
    }

    /// Goes on for about so many rows: reads which runs have not settled, then tells what each source misses. Says whether all sources
    /// are done.
    pub(crate) fn step(
        &mut self,
        connection: &Connection,
        rows: u64,
        mut each: impl FnMut(Missing),
    ) -> rusqlite::Result<bool> {
        if !self.young.go_on(connection, rows)? {
            return Ok(false);
        }
        let young = &self.young.seen;
        let mut statements = Statements::new(connection, "source > ?1")?;
        let mut look = Look::new(connection)?;
        let begin = self.after.map_or(Vec::new(), |source| source.as_bytes().to_vec());
        let mut pieces = statements.pieces(&begin, young.young_after(self.after))?.peekable();
        let mut done = 0;
        while let Some(head) = pieces.peek() {
            let source = match head {
                Ok(piece) => piece.source,
                Err(_) => return pieces.next().transpose().map(|_| false),
            };
            if done >= rows {
                return Ok(false);
            }
            let (mut next, mut gap) = (0, false);
            while let Some(piece) = pieces.next_if(|piece| piece.as_ref().map_or(true, |piece| piece.source == source))
            {
                let piece = piece?;
                if piece.known.is_sure() {
                    gap |= piece.first > next;
                    next = next.max(piece.last + 1);
                }
                if let Known::Frame(_) = piece.known {
                    self.noted += piece.last - piece.first + 1;
                }
                done += 1;
            }
            if gap {
                look.at(source, young, &mut each)?;
            }
            self.after = Some(source);
        }
        Ok(true)
    }
}

/// Of so many events that a source says it gave up before this number, how many no stored frame has told of: as many as are missing there and that nothing
/// explains. What a refused frame had to tell is told again by the source's next, so a replay of the refused one may have nothing new in it.
///
/// Where a signature holds for what says so, only what is signed has told before.
#[cfg(feature = "cli")]
pub(in super::super) fn untold(
    connection: &Connection,
    young: &Seen,
    (source, before): (SourceId, u64),
    trusted: bool,
    given_up: u32,
) -> rusqlite::Result<u32> {
    if given_up == 0 {
        return Ok(0);
    }
    let mut look = Look::new(connection)?;
    let (mut told, mut next, mut missing, mut missing_before) = (BTreeSet::new(), 0_u64, 0_u64, 0_u64);
    let mut explained = 0_u64;
    let of_source = young.young_of(source);
    for piece in look.statements.pieces(source.as_bytes(), of_source)? {
        let piece = piece?;
        if !piece.known.is_sure() {
            continue;
        }
        missing += piece.first.saturating_sub(next);
        missing_before += piece.first.min(before).saturating_sub(next);
        next = next.max(piece.last + 1);
        if let Known::Frame(id) = piece.known
            && let Some(evidence) = frame(&mut look.frames, &mut look.bodies, id, &mut told)?
            && (evidence.trusted || !trusted && evidence.proves)
        {
            explained = explained.saturating_add(evidence.given_up).min(missing);
        }
    }
    missing_before += before.saturating_sub(next);
    let untold = missing_before.saturating_sub(explained).min(given_up.into());
    Ok(u32::try_from(untold).unwrap_or(given_up))
}

/// The two tables, asked for the same sources.
struct Statements<'c> {
    seen: Statement<'c>,
    claims: Statement<'c>,
}

impl<'c> Statements<'c> {
    fn new(connection: &'c Connection, which: &str) -> rusqlite::Result<Self> {
        Ok(Self {
            seen: connection
                .prepare(&format!("SELECT source, first, last, frame FROM seen WHERE {which} ORDER BY source, first"))?,
            claims: connection.prepare(&format!(
                "SELECT source, first, last, trust, received_ms, region, hop FROM claims WHERE {which} ORDER BY source, first"
            ))?,
        })
    }

    fn pieces<'s>(
        &'s mut self,
        source: &[u8],
        young: impl Iterator<Item = (SourceId, Run)> + 's,
    ) -> rusqlite::Result<impl Iterator<Item = rusqlite::Result<Piece>> + 's> {
        let seen = read(self.seen.query(params![source])?, |row| {
            let known = Known::Frame(row.get(3)?);
            Ok(Piece { source: SourceId::new(row.get(0)?), first: number(row, 1)?, last: number(row, 2)?, known })
        });
        let claims = read(self.claims.query(params![source])?, |row| {
            let known = Known::Claim {
                trust: Trust::of_column(row.get(3)?),
                received: Timestamp::from_millis(number(row, 4)?),
                region: region(row, 5)?,
                hop: row.get(6)?,
            };
            Ok(Piece { source: SourceId::new(row.get(0)?), first: number(row, 1)?, last: number(row, 2)?, known })
        });
        let young = young.map(|(source, Run { first, last, frame, .. })| {
            Ok(Piece { source, first, last, known: Known::Frame(frame) })
        });
        Ok(merge(once_each(merge(seen, young)), claims))
    }
}

fn number(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    // A negative one is damage, which `firsthop verify` tells.
    row.get::<_, i64>(index).map(|number| number.max(0) as u64)
}

fn region(row: &Row<'_>, index: usize) -> rusqlite::Result<Region> {
    Ok(row.get_ref(index)?.as_str().ok().and_then(|text| text.parse().ok()).unwrap_or_default())
}

fn read<'s>(
    mut rows: Rows<'s>,
    piece: impl Fn(&Row<'_>) -> rusqlite::Result<Piece> + 's,
) -> impl Iterator<Item = rusqlite::Result<Piece>> + 's {
    std::iter::from_fn(move || rows.next().and_then(|row| row.map(&piece).transpose()).transpose())
}

type Read = rusqlite::Result<Piece>;

/// Two in order to one in order. An error comes first.
fn merge(a: impl Iterator<Item = Read>, b: impl Iterator<Item = Read>) -> impl Iterator<Item = Read> {
    let (mut a, mut b): (Peekable<_>, Peekable<_>) = (a.peekable(), b.peekable());
    let place = |read: &Read| read.as_ref().ok().map(|piece| (piece.source, piece.first));
    std::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some(first), Some(second)) if place(second) < place(first) => b.next(),
        (Some(_), _) => a.next(),
        (None, _) => b.next(),
    })
}

/// Without what comes twice in a row: a run that is settling stands in both places.
fn once_each(pieces: impl Iterator<Item = Read>) -> impl Iterator<Item = Read> {
    let mut last = None;
    pieces.filter(move |read| match read {
        Ok(piece) => last.replace((piece.source, piece.first)) != Some((piece.source, piece.first)),
        Err(_) => true,
    })
}

/// A second look, at a source that has gaps.
struct Look<'c> {
    statements: Statements<'c>,
    frames: Statement<'c>,
    bodies: Statement<'c>,
}

impl<'c> Look<'c> {
    fn new(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            statements: Statements::new(connection, "source = ?1")?,
            frames: connection
                .prepare("SELECT received_ms, region, hop, trust, dropped, ids, accepted FROM frames WHERE id = ?1")?,
            bodies: connection.prepare("SELECT body FROM frames WHERE id = ?1")?,
        })
    }

    fn at(&mut self, source: SourceId, young: &Seen, each: &mut impl FnMut(Missing)) -> rusqlite::Result<()> {
        let mut walk = Walk::default();
        // Frames with several pieces here that have told what was given up.
        let mut told = BTreeSet::new();
        let of_source = young.young_of(source);
        for piece in self.statements.pieces(source.as_bytes(), of_source)? {
            let piece = piece?;
            let evidence = match piece.known {
                Known::Claim { trust, received, region, hop } => Evidence {
                    doubtful: trust == Trust::Nobody,
                    proves: trust == Trust::Session,
                    trusted: trust == Trust::Session,
                    received,
                    place: Place { hour: Epoch::at(received).get(), region, hop },
                    given_up: 0,
                },
                Known::Frame(id) => match frame(&mut self.frames, &mut self.bodies, id, &mut told)? {
                    Some(evidence) => evidence,
                    None => continue,
                },
            };
            walk.pass(piece.first, piece.last, &evidence);
        }
        walk.finish(source, each);
        Ok(())
    }
}

/// What a stored frame proves. None: its row is gone, which `firsthop verify` tells.
fn frame(
    frames: &mut Statement<'_>,
    bodies: &mut Statement<'_>,
    id: i64,
    told: &mut BTreeSet<i64>,
) -> rusqlite::Result<Option<Evidence>> {
    let mut rows = frames.query([id])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let received = Timestamp::from_millis(number(row, 0)?);
    let (hop, trusted, dropped) = match (row.get(2)?, row.get(3)?, row.get::<_, Option<u32>>(4)?) {
        (Some(hop), Some(trusted), Some(dropped)) => (hop, trusted, dropped),
        _ => from_body(bodies, id)?,
    };
    // A frame that a hop has made of another vendor's events is numbered by that hop: its numbers prove nothing.
    let foreign = row.get::<_, i64>(5)? > 0;
    let proves = trusted || !foreign;
    let in_one_piece = !foreign && row.get_ref(6)? == ValueRef::Null;
    let tells = dropped > 0 && (in_one_piece || told.insert(id));
    Ok(Some(Evidence {
        doubtful: false,
        proves,
        trusted,
        received,
        place: Place { hour: Epoch::at(received).get(), region: region(row, 1)?, hop },
        given_up: if tells { given_up(dropped, trusted).into() } else { 0 },
    }))
}

/// First hop, trust and what was dropped, of a row that was written before it had columns for that.
fn from_body(bodies: &mut Statement<'_>, id: i64) -> rusqlite::Result<(u32, bool, u32)> {
    bodies.query_row([id], |row| {
        let body = row.get_ref(0)?.as_blob()?;
        let header = open_frame(body).map(|(_, frame)| *frame.header());
        Ok(match header {
            Ok(header) => (hop_of(body).get(), header.flags.contains(Flags::TRUST), header.dropped),
            Err(_) => (0, false, 0),
        })
    })
}
