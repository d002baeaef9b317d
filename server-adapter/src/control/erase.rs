//! Erasing a person, a part at a time.

use std::{thread, time::Duration};

use super::wire::{Erasure, Reply, Step};
use crate::{
    Error, Server, clock,
    journal::{Found, Subject, scrub},
    sink::{
        self,
        erase::{Rows, Walk},
    },
    tenants::Store,
};

/// How long one part waits for what stands in its way. Who gives the command asks again.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) fn erase(server: &Server, erasure: &Erasure) -> Result<Reply, Error> {
    let stored = Store::new(&server.settings().data).find(Some(&erasure.tenant))?;
    let live =
        server.inner.tenants.find(stored.tenant.id).map(|found| found.live).ok_or_else(|| {
            Error::tenant(format!("tenant {:?} is not open: see the server's log", stored.tenant.name))
        })?;
    let (journal, table, records, now) = (stored.journal(), stored.events(), stored.sinks(), clock::now());
    let walk = if erasure.only_look { Walk::Look } else { Walk::Blank };
    let subject = Subject { user: erasure.user.clone(), anonymous: erasure.anonymous.clone() };
    if subject.ids().any(str::is_empty) || subject.ids().next().is_none() {
        return Err(Error::tenant("whom? An id is not empty"));
    }
    let mut found = Found::default();
    // What was delivered and is not in the journal any more is known by its rows alone.
    let gone = |events, sum: &mut u64| -> Result<(), Error> {
        *sum += live.journal.erase_delivered(&journal, events, erasure.only_look, now)?;
        Ok(())
    };
    let next = match erasure.step {
        Step::Begin => match live.journal.settle(&journal)? {
            Some(until) => Some(Step::Frames { after: 0, until, waits: false }),
            None => Some(Step::Begin),
        },
        Step::Frames { after, until, .. } => {
            // What a sink has yet to get stays until it has got it.
            let confirmed = if erasure.undelivered || erasure.only_look { until } else { live.sinks.confirmed() };
            if after >= until {
                Some(Step::Quarantine)
            } else if confirmed <= after {
                thread::sleep(PAUSE);
                Some(Step::Frames { after, until, waits: true })
            } else {
                let range = (after, until.min(confirmed));
                let (part, after) = live.journal.erase_frames(&journal, &subject, range, erasure.only_look, now)?;
                found = part;
                Some(Step::Frames { after, until, waits: false })
            }
        }
        Step::Quarantine => {
            found = live.journal.erase_quarantine(&journal, &subject, erasure.only_look, now)?;
            Some(Step::Table { after: 0 })
        }
        Step::Table { after } => {
            let first = |events| gone(events, &mut found.events);
            let (rows, next) = sink::erase::erase(&table, Rows::Events, &subject, after, walk, first)?;
            found.rows = rows;
            next.map(|after| Step::Table { after }).or(Some(Step::Dead { after: 0 }))
        }
        Step::Dead { after } => {
            // What has a row besides was counted there, and is not there to be erased twice.
            let first = |events| if erasure.only_look { Ok(()) } else { gone(events, &mut found.events) };
            let (rows, next) = sink::erase::erase(&records, Rows::Dead, &subject, after, walk, first)?;
            found.letters = rows;
            let then = (!erasure.only_look).then_some(Step::TableAgain { after: 0 });
            next.map(|after| Step::Dead { after }).or(then)
        }
        Step::TableAgain { after } => {
            let next = sink::erase::erase(&table, Rows::Events, &subject, after, Walk::Delete, |_| Ok(()))?.1;
            next.map(|after| Step::TableAgain { after }).or(Some(Step::DeadAgain { after: 0 }))
        }
        Step::DeadAgain { after } => {
            let next = sink::erase::erase(&records, Rows::Dead, &subject, after, Walk::Delete, |_| Ok(()))?.1;
            next.map(|after| Step::DeadAgain { after }).or(Some(Step::Tails))
        }
        Step::Tails => {
            for spec in &stored.tenant.sinks {
                sink::erase_kept(spec, &stored.folder, &subject)?;
            }
            Some(Step::Scrub)
        }
        Step::Scrub => {
            live.journal.seals().forget();
            if scrub(&journal)? && scrub(&table)? && scrub(&records)? {
                None
            } else {
                thread::sleep(PAUSE);
                Some(Step::Scrub)
            }
        }
    };
    if next.is_none() && !erasure.only_look {
        tracing::info!(tenant = %live.id, "erased a person");
    }
    Ok(Reply::Erase(found, next))
}
