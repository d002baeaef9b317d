//! The region gate: what this edge may do with a request, decided before its payload is read.

use std::rc::Rc;

use worker::{Context, js_sys::Uint8Array};

use firsthop_core::{Flags, HEADER_LEN, Header, Region, WriteKey};
use firsthop_intake::{
    Problem, Refusal,
    policy::{Arriving, Policy, RegionPolicy, Step, gate},
    segment,
};

use crate::{
    arrival::Arrival,
    edge::Edge,
    hop::Failure,
    lease::{Enrolled, Want},
    platform::now,
};

/// What the gate allows.
#[derive(PartialEq, Eq)]
pub(crate) enum Passage {
    /// To read it here.
    Process,
    /// To pass it on unread.
    Forward(Onward),
}

/// Where to: a region of a policy.
pub(crate) struct Onward {
    policy: Rc<Policy>,
    pub(crate) region: Region,
}

impl Onward {
    /// The region's host, to put a path behind.
    pub(crate) fn host(&self) -> &str {
        self.policy.region(self.region).and_then(RegionPolicy::address).unwrap_or_default()
    }
}

impl PartialEq for Onward {
    fn eq(&self, other: &Self) -> bool {
        (self.region, self.host()) == (other.region, other.host())
    }
}

impl Eq for Onward {}

/// Decides on a native frame by its fixed header. What has none that can be read is nobody's, and is told so where it is read.
pub(crate) async fn frame(
    edge: &Rc<Edge>,
    ctx: &Context,
    arrival: &Arrival<'_>,
    body: &Uint8Array,
) -> Result<Passage, Failure> {
    let mut buffer = [0; HEADER_LEN];
    let length = HEADER_LEN.min(body.length() as usize);
    body.subarray(0, length as u32).copy_to(&mut buffer[..length]);
    let Ok(header) = Header::peek(&buffer[..length]) else { return Ok(Passage::Process) };
    match edge.enrolled(header.tenant) {
        Some(enrolled) => {
            let is_sealed = header.flags.contains(Flags::SEALED);
            decide(edge, ctx, arrival, enrolled, (header.region, is_sealed)).await
        }
        None => Ok(Passage::Process),
    }
}

/// What stands in for a header where there is none: no vendor's format names a region, and none is sealed.
const BARE: (Region, bool) = (Region::ANY, false);

/// Decides on a request in a vendor's format. It is the tenant's whose write key stands in `Authorization`; to look for one in the body
/// would be to read it. Without one, what all tenants of this edge would say must be the same. A tenant whose enrolment has ended has no
/// say in that, like one that never had any: what is still sent for it is refused where its key is read.
pub(crate) async fn vendor(edge: &Rc<Edge>, ctx: &Context, arrival: &Arrival<'_>) -> Result<Passage, Failure> {
    let key = segment::key_in_header(&arrival.facts(now()));
    if let Some(key) = key.as_ref().and_then(|key| WriteKey::parse(key).ok()) {
        return match edge.enrolled(key.tenant()) {
            Some(enrolled) => decide(edge, ctx, arrival, enrolled, BARE).await,
            None => Ok(Passage::Process),
        };
    }
    let mut decided = None;
    for enrolled in edge.tenants() {
        if enrolled.has_ended() {
            edge.renew(ctx, enrolled, Want::Documents);
            continue;
        }
        let other = decide(edge, ctx, arrival, enrolled, BARE).await;
        // It may be this call that has brought it to light.
        if enrolled.has_ended() {
            continue;
        }
        decided = match (decided, other) {
            // What cannot be decided yet may be later.
            (_, Err(failure)) if failure.passes() => return Err(failure),
            (None, other) => Some(other),
            (Some(Ok(one)), Ok(other)) if one == other => Some(Ok(one)),
            (Some(Err(failure)), Err(_)) => Some(Err(failure)),
            _ => {
                let why = "send the write key in Authorization: without it nobody may read whose this is";
                return Err(Problem::new(Refusal::WrongRegion).with_detail(why).into());
            }
        };
    }
    decided.unwrap_or_else(|| Err(Refusal::Unavailable.into()))
}

async fn decide(
    edge: &Rc<Edge>,
    ctx: &Context,
    arrival: &Arrival<'_>,
    enrolled: &Enrolled,
    (region, is_sealed): (Region, bool),
) -> Result<Passage, Failure> {
    let fail = |problem| Failure::of(problem, enrolled.tenant);
    let policy = edge.policy(enrolled).await.map_err(fail)?;
    let standing = &arrival.standing;
    // On Cloudflare, as whoever has set a jurisdiction says, there is always a point of presence. A request that comes from another Worker
    // does not tell which, and so stands nowhere; elsewhere there is no such thing.
    let hop = edge.hop(standing.colo.or(edge.config.jurisdiction.is_some().then_some(None)));
    // Where nothing may be read there is no use for keys: those of before, if the policy was another one, end with their hour.
    let has_use = enrolled.has_keys() && hop.may_read(policy.as_deref());
    edge.renew(ctx, enrolled, if has_use { Want::Keys } else { Want::Documents });
    let Some(policy) = policy else {
        // Nothing to look for: a frame for another region is refused where its header is checked.
        return Ok(Passage::Process);
    };
    let arriving = Arriving { region, is_sealed, visitor: standing.visitor, forwarded: standing.forwarded };
    match gate(Some(&policy), &hop, &arriving) {
        Step::Process => Ok(Passage::Process),
        Step::Forward { region, .. } => Ok(Passage::Forward(Onward { policy, region })),
        Step::Refuse(refusal) => Err(fail(refusal.into())),
    }
}
