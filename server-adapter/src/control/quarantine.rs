//! Replay and discard, a part at a time: little enough that those who wait for an acknowledgement do not notice.

use std::sync::Arc;

use super::wire::{Note, Part, Reply};
use crate::{
    Error, Server, clock,
    ingest::{Again, Today, judge},
    journal::{
        Unavailable,
        quarantine::{self, Judged, Reader, Sentence},
    },
    tenants::{Live, Store, StoredTenant},
};

/// Most of one part: entries, and bytes of their bodies.
const ENTRIES: u32 = 200;
const BYTES: u64 = 1 << 20;

/// A tenant that is open, what its files say at this moment, and its quarantine.
struct Open {
    live: Arc<Live>,
    stored: StoredTenant,
    reader: Reader,
}

impl Open {
    fn find(server: &Server, tenant: &str) -> Result<Self, Error> {
        // Read anew: a key that was added a moment ago is what a replay waits for.
        let stored = Store::new(&server.settings().data).find(Some(tenant))?;
        let found = server.inner.tenants.find(stored.tenant.id).ok_or_else(|| {
            Error::tenant(format!("tenant {:?} is not open: see the server's log", stored.tenant.name))
        })?;
        let reader = Reader::open(&stored.journal())?;
        Ok(Self { live: found.live, stored, reader })
    }

    /// The ids of the next part, and where to go on.
    fn part(&self, part: &Part) -> Result<(Vec<i64>, Option<i64>), Error> {
        let of = quarantine::Part { after: part.after, until: part.until, entries: ENTRIES, bytes: BYTES };
        let ids = self.reader.part(&part.select, of).map_err(Error::database(&self.stored.journal()))?;
        let next = ids.last().copied();
        Ok((ids, next))
    }
}

fn refused(reason: Unavailable) -> Error {
    Error::Fault(format!("{}; what was done until then stays done", reason.as_str()))
}

pub(super) fn replay(server: &Server, part: &Part) -> Result<Reply, Error> {
    let open = Open::find(server, &part.tenant)?;
    let (ids, next) = open.part(part)?;
    let now = clock::now();
    let rooted = open.stored.tenant.account(&open.stored.keys, now)?;
    let today = Today { rooted: &rooted, file: &open.stored.tenant, keys: &open.stored.keys };
    let mut judged = Vec::new();
    for id in ids {
        let item = open.reader.item(id).map_err(Error::database(&open.stored.journal()))?;
        // One that is gone meanwhile: somebody else was faster.
        let Some(item) = item else { continue };
        let now = match judge(&item, today, now) {
            Again::Good(arrivals, refused) => Sentence::Leaves(arrivals, refused),
            Again::Compare { said, kept } => Sentence::Compared { said, kept },
            Again::Refused(problem) => Sentence::Stays(problem.code().into()),
        };
        judged.push(Judged { id, reason: item.line.reason, now });
    }
    let replayed = open.live.journal.replay(judged, now).map_err(refused)?;
    tracing::info!(
        tenant = %open.live.id, entries = replayed.entries, left = replayed.left, stored = replayed.stored, "quarantine replayed"
    );
    Ok(Reply::QuarantineReplay(replayed, next))
}

pub(super) fn discard(server: &Server, part: &Part, note: &Note) -> Result<Reply, Error> {
    let open = Open::find(server, &part.tenant)?;
    let (ids, next) = open.part(part)?;
    let note = quarantine::Note { now: clock::now(), who: note.who.clone(), why: note.why.clone() };
    let discarded = open.live.journal.discard(ids, note).map_err(refused)?;
    tracing::info!(tenant = %open.live.id, entries = discarded.entries, events = discarded.events, "quarantine discarded");
    Ok(Reply::QuarantineDiscard(discarded, next))
}
