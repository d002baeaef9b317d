//! The spool: what keeps frames on disk while the server is away, and hands them over when it is back.
//!
//! ```text
//!  forward ──► behind: does anything of this source wait? ──no──► server ──► acknowledged
//!                │ yes, or the server is known to be away           │ away
//!                ▼                                                  ▼
//!              object: a table in a Durable Object  ◄────────────  take
//!                └── alarm ──► deliver: in order per source, sources side by side ──► server
//! ```
//!
//! Each tenant has a few objects, and a source is always in the same one. An isolate asks one of them before it forwards only where that
//! object may have something: with the first frame, and from a failure on until the object says that it is empty. While the server
//! answers, the spool costs nothing.
//!
//! So a source keeps its order as far as its frames come to isolates that have met with the failure, or have begun since. One that has been told before that
//! the object is empty, and meets with no failure itself, does not hear of what another one has left there, and its frame is sooner: stored once as all
//! others, with a number that says where it belongs. To know better it would have to ask with each frame, a call to an object for each request.

mod deliver;
mod object;
mod report;
mod table;

use firsthop_core::{SourceId, TenantId};
use firsthop_intake::fields::Read as _;

pub(crate) use self::report::Report;
use crate::{edge::Edge, lease::Enrolled, upstream::Answer};

/// What an isolate knows of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing yet: it may have kept something since before this isolate was.
    #[default]
    Nothing,
    /// It had nothing when it was asked, and this isolate has given it nothing since.
    Empty,
    /// It had something when it was asked last.
    Holding,
}

/// Whether the spool has taken a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is on disk.
    Yes,
    /// It was there before: this is a retry.
    Again,
    /// No: nothing of its source waits, it may go to the server.
    No,
    /// No: there is no more room, for anybody or for this one's part.
    Full,
    /// No: nobody here can say who sent it. What waits, or the server's absence, would have it wait.
    Unchecked,
    /// Nobody knows. What waits may go first, so the sender has to keep this.
    Unknown,
}

/// Why a frame is left with the spool though nothing of its source waits there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The server is away: others do not have to try it.
    Away,
    /// It will not pass, while others may.
    Itself,
}

/// How a shard answers: by status.
mod status {
    pub(super) const TAKEN: u16 = 202;
    pub(super) const AGAIN: u16 = 208;
    pub(super) const CLEAR: u16 = 204;
    pub(super) const EMPTY: u16 = 205;
    pub(super) const UNCHECKED: u16 = 403;
    pub(super) const FULL: u16 = 507;
}

/// The part of a tenant's spool that has what there is of one source.
pub(crate) struct Shard<'a> {
    edge: &'a Edge,
    enrolled: &'a Enrolled,
    number: u32,
}

impl<'a> Shard<'a> {
    /// Where what there is of a source belongs.
    pub(crate) fn of(edge: &'a Edge, enrolled: &'a Enrolled, source: SourceId) -> Self {
        // The last bytes of an id are random; the first ones of a page's are its clock.
        let number = (source.as_u128() % u128::from(edge.config.spool.shards)) as u32;
        Self { edge, enrolled, number }
    }

    /// Leaves an envelope with the spool if something of its source waits there, or if the server is known to be away.
    pub(crate) async fn behind(&self, envelope: &[u8]) -> Taken {
        let known = self.known().get();
        if known == Known::Empty {
            return Taken::No;
        }
        match self.post("/behind", envelope).await {
            // To refuse what the server might take, because the spool cannot say whether it has something, would be to fail for nothing;
            // but where it is known to have something, order counts.
            Taken::Unknown if known == Known::Nothing => Taken::No,
            taken => taken,
        }
    }

    /// Leaves an envelope with the spool. Whoever did not take it has said this, if anything.
    pub(crate) async fn take(&self, why: Why, envelope: &[u8], answer: Option<&Answer>) -> Taken {
        self.known().set(Known::Holding);
        let asked = answer.and_then(Answer::asked).unwrap_or_default();
        let path = match why {
            Why::Away => "take",
            Why::Itself => "keep",
        };
        self.post(&format!("/{path}?{asked}"), envelope).await
    }

    fn known(&self) -> &std::cell::Cell<Known> {
        &self.enrolled.spools[self.number as usize]
    }

    async fn post(&self, path: &str, envelope: &[u8]) -> Taken {
        let name = name_of(self.enrolled.tenant, self.number);
        let Some(answer) = self.edge.spools.post(&name, path, Some(envelope)).await else { return Taken::Unknown };
        let (taken, known) = match answer.status {
            status::TAKEN => (Taken::Yes, Known::Holding),
            status::AGAIN => (Taken::Again, Known::Holding),
            status::CLEAR => (Taken::No, Known::Holding),
            status::EMPTY => (Taken::No, Known::Empty),
            status::UNCHECKED => (Taken::Unchecked, Known::Holding),
            status::FULL => (Taken::Full, Known::Holding),
            _ => return Taken::Unknown,
        };
        self.known().set(known);
        taken
    }
}

/// What a shard says of itself. Nothing if it does not answer.
pub(crate) async fn report(edge: &Edge, tenant: TenantId, shard: u32) -> Option<Report> {
    let answer = edge.spools.post(&name_of(tenant, shard), "/status", None).await?;
    Report::read(answer.text()?).ok()
}

/// The name of a tenant's shard.
pub(crate) fn name_of(tenant: TenantId, shard: u32) -> String {
    format!("{tenant}/{shard}")
}
