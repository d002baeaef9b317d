//! The region gate: before anybody reads a payload, may this hop?

use firsthop_core::Region;

use super::{Place, Policy};
use crate::Refusal;

/// The header by which a hop says that it passes a body on unread. Its value is the region for which: what no header of a frame says, the
/// next hop cannot find out, since the visitor is out of its sight.
pub const FORWARDED: &str = "firsthop-forwarded";

/// A hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// For which region it has keys.
    pub serves: Region,
    /// Where it stands.
    pub place: Place,
}

impl Hop {
    /// A hop that serves a region. It stands where the point of presence does whose code the platform gives (`Some(None)`: it should give
    /// one, and does not), unless the operator answers for it: where there is no such platform, or where it keeps the host in the region.
    #[must_use]
    pub fn new(serves: Region, is_confined: bool, colo: Option<Option<&str>>) -> Self {
        let place = match colo {
            Some(colo) if !is_confined => colo.map_or(Place::Unknown, Place::colo),
            _ => Place::Region(serves),
        };
        Self { serves, place }
    }

    /// Whether it may read anything of a tenant with this policy: only then has it any use for keys.
    #[must_use]
    pub fn may_read(&self, policy: Option<&Policy>) -> bool {
        let Some(policy) = policy.filter(|policy| !policy.regions.is_empty()) else { return true };
        policy.region(self.serves).is_some_and(|region| policy.may_process(region, self.place))
    }

    /// Whether it may read anything of a tenant with this policy at any of the places where a hop that serves this region may stand.
    #[must_use]
    pub fn may_ever_read(serves: Region, is_confined: bool, policy: Option<&Policy>) -> bool {
        let Some(policy) = policy.filter(|policy| !policy.regions.is_empty()) else { return true };
        if is_confined {
            return Self::new(serves, true, None).may_read(Some(policy));
        }
        let region = policy.region(serves);
        region.is_some_and(|region| region.process.as_ref().is_none_or(|areas| !areas.is_empty()))
    }
}

/// What the gate is told of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arriving<'a> {
    /// The region in the frame's header; [`Region::ANY`] of what has none.
    pub region: Region,
    /// Whether its header says that it is sealed.
    pub is_sealed: bool,
    /// Where the visitor is.
    pub visitor: Place,
    /// The header [`FORWARDED`], if it is there: another hop has passed it on, and what the platform says of the sender is said of that hop.
    pub forwarded: Option<&'a str>,
}

/// What to do with a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Read it here.
    Process,
    /// Pass it on, unread.
    Forward {
        /// For this region: the value of [`FORWARDED`].
        region: Region,
        /// To this address, with the path it came by.
        host: &'a str,
    },
    /// Answer with this refusal; nothing of the body is kept.
    Refuse(Refusal),
}

/// Decides on a body by what stands outside its payload.
///
/// Without a policy, or with one that names no region, a hop reads what is for its own region or for any, and refuses all else. With one, what
/// names no region belongs to the visitor's, and where that is not known, or not served, to the first region of the policy.
///
/// What is not sealed, and should be, is not passed on either: it would be read on more of its way.
#[must_use]
pub fn gate<'a>(policy: Option<&'a Policy>, hop: &Hop, arriving: &Arriving<'_>) -> Step<'a> {
    let is_bare = !arriving.is_sealed && policy.is_some_and(|policy| policy.refuse_unsealed);
    match by_region(policy, hop, arriving) {
        Step::Process | Step::Forward { .. } if is_bare => Step::Refuse(Refusal::Unsealed),
        step => step,
    }
}

fn by_region<'a>(policy: Option<&'a Policy>, hop: &Hop, arriving: &Arriving<'_>) -> Step<'a> {
    // Whoever passed it on knows of a region that this hop does not, or not yet: a page that keeps its frame for a while loses nothing by that.
    let unserved = Step::Refuse(if arriving.forwarded.is_some() { Refusal::ForwardLoop } else { Refusal::WrongRegion });
    let Some(policy) = policy.filter(|policy| !policy.regions.is_empty()) else {
        let is_served = arriving.region == Region::ANY || arriving.region == hop.serves;
        return if is_served { Step::Process } else { unserved };
    };
    let Some(region) = policy.region(wanted(policy, arriving)) else { return unserved };
    if hop.serves == region.code && policy.may_process(region, hop.place) {
        return Step::Process;
    }
    match region.address() {
        // Once is enough: the hop to which a frame was passed on is the one that should read it.
        _ if arriving.forwarded.is_some() => Step::Refuse(Refusal::ForwardLoop),
        Some(host) if policy.may_forward(region, hop.place) => Step::Forward { region: region.code, host },
        _ => Step::Refuse(Refusal::WrongRegion),
    }
}

/// For which region a body is.
fn wanted(policy: &Policy, arriving: &Arriving<'_>) -> Region {
    if arriving.region != Region::ANY {
        return arriving.region;
    }
    let found = match arriving.forwarded {
        Some(said) => said.parse().ok().filter(|&code| policy.region(code).is_some()),
        None => policy.region_of(arriving.visitor),
    };
    found.or_else(|| policy.regions.first().map(|home| home.code)).unwrap_or(Region::ANY)
}
