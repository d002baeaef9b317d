//! What a list of places may name.

use std::{fmt, str::FromStr};

use firsthop_core::{Error, Region};
use serde::{Serialize, Serializer};

use super::{
    place::{Continent, Country, Place},
    tables,
};
use crate::fields::{Fault, Read, parsed};

const EU: [u8; 2] = *b"EU";
const US: [u8; 2] = *b"US";
/// Asia-Pacific. No country has this code.
const AP: [u8; 2] = *b"AP";

/// A part of the world, as policies write it.
///
/// | text | what it is |
/// |---|---|
/// | `DE` | a country by its ISO 3166-1 code, and nothing that has a code of its own; `XK` is Kosovo |
/// | `EU` | the 27 members of the European Union, with those of their territories to which its law applies and which have codes of their own: `AX`, `GF`, `GP`, `MF`, `MQ`, `RE`, `YT`. Not the overseas countries (`NC`, `PF`, `GL`, `AW`, …), where it does not |
/// | `US` | the United States with `AS`, `GU`, `MP`, `PR`, `UM`, `VI` |
/// | `AP` or `APAC` | Asia-Pacific: East, South-East and South Asia (without Afghanistan and Iran) and Oceania |
/// | `EEA` | the EU with Iceland, Liechtenstein and Norway |
/// | `africa`, `antarctica`, `asia`, `europe`, `north-america`, `oceania`, `south-america` | a continent |
/// | `*` | anywhere, also where nobody knows where |
/// | another code | the region of the policy with this code |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Area {
    /// `*`
    Anywhere,
    /// A country, a built-in region, or a region of the policy.
    Code(Region),
    /// `EEA`
    EconomicArea,
    /// A continent.
    Continent(Continent),
}

impl Area {
    /// Whether it means something without a policy.
    pub(super) fn is_built_in(&self) -> bool {
        match self {
            Self::Code(code) => matches!(*code.as_bytes(), EU | AP) || Country::of(*code).is_some(),
            _ => true,
        }
    }

    /// Whether a place lies in it for certain. A code means what is built in.
    #[must_use]
    pub fn holds(&self, place: Place) -> bool {
        let country = match place {
            Place::Country(country) => Some(country),
            Place::Region(region) => Country::of(region),
            _ => None,
        };
        match self {
            Self::Anywhere => true,
            Self::Code(code) => match *code.as_bytes() {
                EU => is_union(place) || country.is_some_and(|country| country.is_in(tables::UNION)),
                AP => {
                    place == Place::Continent(Continent::Oceania)
                        || place == Place::Region(*code)
                        || country.is_some_and(is_pacific)
                }
                US => country.is_some_and(|country| country.is_in(tables::UNITED_STATES)),
                code => country.is_some_and(|country| country.as_bytes() == code),
            },
            Self::EconomicArea => {
                is_union(place)
                    || country
                        .is_some_and(|country| country.is_in(tables::UNION) || country.is_in(tables::ECONOMIC_AREA))
            }
            Self::Continent(continent) => {
                place == Place::Continent(*continent)
                    || country.is_some_and(|country| country.continent() == *continent)
            }
        }
    }
}

/// Somewhere in the European Union, without a country.
fn is_union(place: Place) -> bool {
    matches!(place, Place::Union) || matches!(place, Place::Region(region) if *region.as_bytes() == EU)
}

fn is_pacific(country: Country) -> bool {
    country.continent() == Continent::Oceania || country.is_in(tables::PACIFIC_ASIA)
}

impl FromStr for Area {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Ok(match text {
            "*" => Self::Anywhere,
            "EEA" => Self::EconomicArea,
            "APAC" => Self::Code(Region::new(AP)?),
            _ => match Continent::ALL.into_iter().find(|continent| continent.as_str() == text) {
                Some(continent) => Self::Continent(continent),
                None => match text.parse()? {
                    Region::ANY => return Err(Error::Region),
                    code => Self::Code(code),
                },
            },
        })
    }
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anywhere => f.write_str("*"),
            Self::EconomicArea => f.write_str("EEA"),
            Self::Code(code) => code.fmt(f),
            Self::Continent(continent) => f.write_str(continent.as_str()),
        }
    }
}

impl Serialize for Area {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Read for Area {
    fn read(json: &str) -> Result<Self, Fault> {
        parsed(
            json,
            "a place is the code of a country or region in capitals (DE, EU), EEA, APAC, a continent (north-america), or *",
        )
    }
}
