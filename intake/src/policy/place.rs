//! Where a hop stands, and where a visitor is, by what the platform says.

use std::fmt;

use firsthop_core::Region;

use super::tables;

/// Where something is, as exactly as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Nobody knows: it is inside of nothing but “anywhere”.
    Unknown,
    /// In this country.
    Country(Country),
    /// Somewhere in the European Union.
    Union,
    /// Somewhere on this continent.
    Continent(Continent),
    /// Somewhere in this region, by the word of the operator.
    Region(Region),
}

impl Place {
    /// Where a visitor is. The country decides, and what is coarser only where there is none: `XX` is not known, `T1` is Tor.
    #[must_use]
    pub fn visitor(country: Option<&str>, continent: Option<&str>, is_union: bool) -> Self {
        if let Some(country) = country.and_then(Country::parse) {
            return Self::Country(country);
        }
        match continent.and_then(Continent::parse) {
            _ if is_union => Self::Union,
            Some(continent) => Self::Continent(continent),
            None => Self::Unknown,
        }
    }

    /// Where a point of presence stands: the country of the airport whose code it is called by, in capitals. A code that is not in the table
    /// is a place that nobody knows.
    #[must_use]
    pub fn colo(code: &str) -> Self {
        // `DE DUS FRA …` a line: a code is three letters behind a space.
        let is_code = code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase());
        let mut lines = tables::COLOS.lines().filter(|_| is_code);
        lines
            .find(|line| line.split(' ').skip(1).any(|colo| colo == code))
            .and_then(|line| Country::parse(line.split(' ').next()?))
            .map_or(Self::Unknown, Self::Country)
    }
}

/// A country that is in the table: ISO 3166-1 alpha-2, and `XK` for Kosovo.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Country([u8; 2]);

impl Country {
    /// Reads a code, in capitals. None: no country has it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::known(text.as_bytes().try_into().ok()?)
    }

    /// The country whose code a region has.
    #[must_use]
    pub fn of(region: Region) -> Option<Self> {
        Self::known(*region.as_bytes())
    }

    fn known(code: [u8; 2]) -> Option<Self> {
        let country = Self(code);
        tables::CONTINENTS.iter().any(|(_, countries)| country.is_in(countries)).then_some(country)
    }

    /// The two letters.
    #[must_use]
    pub const fn as_bytes(self) -> [u8; 2] {
        self.0
    }

    /// Where it is.
    #[must_use]
    pub fn continent(self) -> Continent {
        let found = tables::CONTINENTS.iter().find(|(_, countries)| self.is_in(countries));
        // A country is only made from the table.
        found.map_or(Continent::Antarctica, |(continent, _)| *continent)
    }

    /// Whether it is in a list of codes, two letters each.
    pub(super) fn is_in(self, list: &str) -> bool {
        list.as_bytes().chunks_exact(2).any(|code| code == self.0)
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.0).unwrap_or("??"))
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Country({self})")
    }
}

/// A continent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "they say it")]
pub enum Continent {
    Africa,
    Antarctica,
    Asia,
    Europe,
    NorthAmerica,
    Oceania,
    SouthAmerica,
}

impl Continent {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Africa,
        Self::Antarctica,
        Self::Asia,
        Self::Europe,
        Self::NorthAmerica,
        Self::Oceania,
        Self::SouthAmerica,
    ];

    /// Reads the platform's code: `EU` is Europe here.
    #[must_use]
    pub fn parse(code: &str) -> Option<Self> {
        Some(match code {
            "AF" => Self::Africa,
            "AN" => Self::Antarctica,
            "AS" => Self::Asia,
            "EU" => Self::Europe,
            "NA" => Self::NorthAmerica,
            "OC" => Self::Oceania,
            "SA" => Self::SouthAmerica,
            _ => return None,
        })
    }

    /// As a policy writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Africa => "africa",
            Self::Antarctica => "antarctica",
            Self::Asia => "asia",
            Self::Europe => "europe",
            Self::NorthAmerica => "north-america",
            Self::Oceania => "oceania",
            Self::SouthAmerica => "south-america",
        }
    }
}
