//! Which first hop may do what with a tenant's events: read them, pass them on unread, or neither.
//!
//! A policy is data. It stands in the tenant's file at the server, and goes to its edges as a signed document; both read it into these types.
//!
//! ```
//! use firsthop_intake::policy::{Place, Policy};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let policy: Policy = serde_json::from_str(
//!     r#"{"regions": [
//!         {"code": "EU", "host": "https://eu.events.example", "forward": ["*"]},
//!         {"code": "DA", "host": "https://dach.events.example", "countries": ["DE", "AT", "CH"], "process": ["DA", "EU"]}
//!     ]}"#,
//! )?;
//! policy.check()?;
//! // Somebody in Austria: a list of one's own comes before the regions that are built in.
//! assert_eq!(policy.region_of(Place::visitor(Some("AT"), Some("EU"), true)), Some("DA".parse()?));
//! assert_eq!(policy.region_of(Place::visitor(Some("FR"), Some("EU"), true)), Some("EU".parse()?));
//! // Frankfurt may read what is for the EU, and Ashburn may not.
//! let eu = policy.region("EU".parse()?).expect("it stands there");
//! assert!(policy.may_process(eu, Place::colo("FRA")));
//! assert!(!policy.may_process(eu, Place::colo("IAD")) && policy.may_forward(eu, Place::colo("IAD")));
//! # Ok(())
//! # }
//! ```

mod area;
mod gate;
mod host;
mod place;
mod tables;

use std::fmt;

use firsthop_core::Region;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    fields::{self, Fault as Unread, Others, Read, needed, optional},
    rules::{Rules, RulesError},
};

pub use self::{
    area::Area,
    gate::{Arriving, FORWARDED, Hop, Step, gate},
    host::{HostFault, base_url},
    place::{Continent, Country, Place},
};

/// Regions that a policy may have.
pub const MAX_REGIONS: usize = 32;
/// Places that one list of a region may name: every country there is fits in.
pub const MAX_AREAS: usize = 256;
/// Longest host of a region, in bytes.
pub const MAX_HOST: usize = 255;

/// What the first hops of one tenant may do. What it does not allow is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// The regions that are served: a frame for another one is refused everywhere. The first is the tenant's home: what names no region, and
    /// whose visitor is in none of them, is for it. None: each hop serves its own, as without a policy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<RegionPolicy>,
    /// Whether what is not sealed is refused, at every hop: also where it might be read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub refuse_unsealed: bool,
    /// What the first hop that may read an event does with it.
    #[serde(skip_serializing_if = "is_default")]
    pub rules: Rules,
}

fn is_default(rules: &Rules) -> bool {
    rules == Rules::none()
}

/// A policy as a server writes it.
impl Read for Policy {
    fn read(json: &str) -> Result<Self, Unread> {
        let mut policy = Self::default();
        fields::fill(
            json,
            Others::Refused,
            &mut [
                optional("regions", &mut policy.regions),
                optional("refuse_unsealed", &mut policy.refuse_unsealed),
                optional("rules", &mut policy.rules),
            ],
        )?;
        Ok(policy)
    }
}

/// A policy as people write it.
impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let policy: Self = fields::deserialize(deserializer)?;
        Ok(Self { rules: policy.rules.settled(), ..policy })
    }
}

/// One region: what belongs to it, and who may read or pass on what is meant for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RegionPolicy {
    /// What stands in the header of a frame that is for it: `EU`, `AP` (Asia-Pacific), the code of a country, or a code of one's own.
    #[serde(serialize_with = "as_text")]
    pub code: Region,
    /// Where a hop that may not read sends such a frame to: `https://eu.events.example`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What belongs to the region, where that is not what its code says ([`Area`]); a code of one's own needs it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub countries: Vec<Area>,
    /// Where a hop has to stand to read such a frame; in the region itself, if nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Vec<Area>>,
    /// Where a hop has to stand to pass such a frame on unread.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forward: Vec<Area>,
    /// Whether edges that are enrolled in the region get its private keys, and open what is sealed to it. If not, only the server does.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unseal: bool,
}

impl Read for RegionPolicy {
    fn read(json: &str) -> Result<Self, Unread> {
        let mut region = Self {
            code: Region::ANY,
            host: None,
            countries: Vec::new(),
            process: None,
            forward: Vec::new(),
            unseal: false,
        };
        fields::fill(
            json,
            Others::Refused,
            &mut [
                needed("code", &mut region.code),
                optional("host", &mut region.host),
                optional("countries", &mut region.countries),
                optional("process", &mut region.process),
                optional("forward", &mut region.forward),
                optional("unseal", &mut region.unseal),
            ],
        )?;
        Ok(region)
    }
}

impl Policy {
    /// Checks what reading cannot: bounds, hosts, and whether every region and place means something.
    ///
    /// # Errors
    /// The first fault, with where it is.
    pub fn check(&self) -> Result<(), PolicyError> {
        let fault = |fault| PolicyError { region: None, field: "regions", fault };
        if *self == Self::default() {
            return Err(fault(Fault::None));
        }
        self.rules.check().map_err(|error| PolicyError { region: None, field: "", fault: Fault::Rules(error) })?;
        if self.regions.len() > MAX_REGIONS {
            return Err(fault(Fault::TooMany(MAX_REGIONS)));
        }
        for (i, region) in self.regions.iter().enumerate() {
            self.check_region(region, &self.regions[..i]).map_err(|(field, fault)| PolicyError {
                region: Some((i, region.code)),
                field,
                fault,
            })?;
        }
        Ok(())
    }

    fn check_region(&self, region: &RegionPolicy, before: &[RegionPolicy]) -> Result<(), (&'static str, Fault)> {
        if region.code == Region::ANY {
            return Err(("code", Fault::Any));
        }
        if before.iter().any(|other| other.code == region.code) {
            return Err(("code", Fault::Twice));
        }
        if region.countries.is_empty() && !Area::Code(region.code).is_built_in() {
            return Err(("countries", Fault::NoCountries));
        }
        if let Some(host) = &region.host {
            if host.len() > MAX_HOST {
                return Err(("host", Fault::TooLong(MAX_HOST)));
            }
            base_url(host).map_err(|fault| ("host", Fault::Host(fault)))?;
        }
        let process = region.process.as_deref().unwrap_or_default();
        for (field, areas) in [("countries", &region.countries[..]), ("process", process), ("forward", &region.forward)]
        {
            if areas.len() > MAX_AREAS {
                return Err((field, Fault::TooMany(MAX_AREAS)));
            }
            // A region consists of what is built in, not of other regions, so there is nothing to go round in.
            let known = |area: &Area| {
                area.is_built_in()
                    || matches!(area, Area::Code(code) if field != "countries" && self.region(*code).is_some())
            };
            if let Some(Area::Code(code)) = areas.iter().find(|area| !known(area)) {
                return Err((field, Fault::Unknown(*code)));
            }
        }
        match (region.host.is_some(), region.forward.is_empty(), region.process.as_ref().is_some_and(Vec::is_empty)) {
            (false, false, _) => Err(("forward", Fault::NoHost)),
            (_, true, true) => Err(("process", Fault::Nobody)),
            _ => Ok(()),
        }
    }

    /// What is said of a region.
    #[must_use]
    pub fn region(&self, code: Region) -> Option<&RegionPolicy> {
        self.regions.iter().find(|region| region.code == code)
    }

    /// The region that somebody belongs to who is at a place: the first that lists it among its own `countries`, else the first whose code
    /// means it. None if it lies in no region or nobody can know in which.
    #[must_use]
    pub fn region_of(&self, place: Place) -> Option<Region> {
        let own = self.regions.iter().find(|region| !region.countries.is_empty() && region.holds(place));
        own.or_else(|| self.regions.iter().find(|region| region.countries.is_empty() && region.holds(place)))
            .map(|region| region.code)
    }

    /// Whether a hop at a place may read what is for the region.
    #[must_use]
    pub fn may_process(&self, region: &RegionPolicy, place: Place) -> bool {
        match &region.process {
            Some(areas) => self.any(areas, place),
            None => region.holds(place),
        }
    }

    /// Whether a hop at a place may pass on what is for the region: who may read it may do that.
    #[must_use]
    pub fn may_forward(&self, region: &RegionPolicy, place: Place) -> bool {
        self.any(&region.forward, place) || self.may_process(region, place)
    }

    fn any(&self, areas: &[Area], place: Place) -> bool {
        areas.iter().any(|area| match area {
            Area::Code(code) => self.region(*code).map_or_else(|| area.holds(place), |region| region.holds(place)),
            area => area.holds(place),
        })
    }
}

impl RegionPolicy {
    /// The host, to put a path behind.
    #[must_use]
    pub fn address(&self) -> Option<&str> {
        Some(self.host.as_deref()?.trim_end_matches('/'))
    }

    /// Whether a place belongs to the region for certain.
    fn holds(&self, place: Place) -> bool {
        if place == Place::Region(self.code) {
            return true;
        }
        match &self.countries[..] {
            [] => Area::Code(self.code).holds(place),
            countries => countries.iter().any(|area| area.holds(place)),
        }
    }
}

/// What is wrong with a policy, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    region: Option<(usize, Region)>,
    field: &'static str,
    fault: Fault,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    None,
    TooMany(usize),
    TooLong(usize),
    Any,
    Twice,
    NoCountries,
    Host(HostFault),
    Unknown(Region),
    NoHost,
    Nobody,
    Rules(RulesError),
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("policy: ")?;
        if let Fault::Rules(error) = &self.fault {
            return error.fmt(f);
        }
        if let Some((index, code)) = self.region {
            write!(f, "regions[{index}] ({code}): ")?;
        }
        write!(f, "{}: ", self.field)?;
        match &self.fault {
            Fault::None => f.write_str("at least one, or leave the policy out"),
            Fault::TooMany(most) => write!(f, "at most {most}"),
            Fault::TooLong(most) => write!(f, "at most {most} bytes"),
            Fault::Any => f.write_str("“--” is any region: name one"),
            Fault::Twice => f.write_str("stands twice"),
            Fault::NoCountries => f.write_str("no country has this code: say what belongs to it"),
            Fault::Host(fault) => fault.fmt(f),
            Fault::Unknown(code) => write!(f, "{code} is no country, nor a region that is known here"),
            Fault::NoHost => f.write_str("the region needs a host to be passed on to"),
            Fault::Rules(error) => error.fmt(f),
            Fault::Nobody => {
                f.write_str("nobody may read or pass on what is for the region: leave it out, or say who may")
            }
        }
    }
}

impl std::error::Error for PolicyError {}

fn as_text<S: Serializer>(region: &Region, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(region.as_str())
}

#[cfg(test)]
mod tests;
