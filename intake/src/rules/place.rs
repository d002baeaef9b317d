//! Where a request came from, as exactly as the tenant wants it and no more.

use firsthop_core::{Annotation, Network, limits::MAX_NOTE};
use serde::Serialize;

use super::cut;
use crate::{
    Facts,
    fields::{fields, words},
};

/// How exactly it is noted where a request came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlaceRule {
    /// Of the place.
    pub precision: Precision,
    /// Whether the network is noted too: never more of an address than its first 24 bits, or 48.
    pub network: bool,
}

/// Each with those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Nothing, not even at which data centre the request came in.
    None,
    /// The country.
    #[default]
    Country,
    /// The state, canton or province.
    Subdivision,
    /// The city.
    City,
}

fields! { PlaceRule { precision, network } }
words! { Precision { None = "none", Country = "country", Subdivision = "subdivision", City = "city" } }

impl Default for PlaceRule {
    fn default() -> Self {
        Self { precision: Precision::default(), network: true }
    }
}

impl PlaceRule {
    /// Takes out of an annotation what is not to be noted.
    pub fn limit(&self, annotation: &mut Annotation<'_>) {
        if self.precision < Precision::Country {
            (annotation.country, annotation.pop) = ("", "");
        }
        if !self.network {
            annotation.network = Network::Unknown;
        }
    }

    /// Subdivision and city.
    pub(super) fn details<'a>(&self, facts: &Facts<'a>) -> (&'a str, &'a str) {
        let up_to = |precision, text: Option<&'a str>| text.filter(|_| self.precision >= precision).unwrap_or_default();
        let subdivision = up_to(Precision::Subdivision, facts.subdivision);
        let is_code = (1..=3).contains(&subdivision.len()) && subdivision.bytes().all(|b| b.is_ascii_alphanumeric());
        let city = cut(up_to(Precision::City, facts.city), MAX_NOTE);
        (if is_code { subdivision } else { "" }, if city.chars().any(char::is_control) { "" } else { city })
    }
}

#[cfg(test)]
mod tests {
    use firsthop_core::Timestamp;

    use super::*;

    #[test]
    fn no_more_than_is_wanted() {
        use Precision::*;
        let facts = Facts { subdivision: Some("ZH"), city: Some("Zürich"), ..Facts::at(Timestamp::from_millis(0)) };
        let annotation =
            Annotation { country: "CH", pop: "ZRH", network: Network::V4([192, 0, 2]), ..Annotation::default() };
        for (precision, network, expected) in [
            (None, false, ("", "", "", "", false)),
            (None, true, ("", "", "", "", true)),
            (Country, true, ("CH", "ZRH", "", "", true)),
            (Country, false, ("CH", "ZRH", "", "", false)),
            (Subdivision, true, ("CH", "ZRH", "ZH", "", true)),
            (City, true, ("CH", "ZRH", "ZH", "Zürich", true)),
        ] {
            let rule = PlaceRule { precision, network };
            let mut limited = annotation;
            rule.limit(&mut limited);
            let (subdivision, city) = rule.details(&facts);
            let known = limited.network != Network::Unknown;
            assert_eq!((limited.country, limited.pop, subdivision, city, known), expected, "{rule:?}");
        }
    }

    #[test]
    fn what_is_no_name_is_none() {
        let long = "é".repeat(40);
        let rule = PlaceRule { precision: Precision::City, network: true };
        for (subdivision, city, expected) in [
            ("ENG", "London", ("ENG", "London")),
            ("Bavaria", "", ("", "")),
            ("<b>", "a\nb", ("", "")),
            ("", &long, ("", &long[..64])),
        ] {
            let facts =
                Facts { subdivision: Some(subdivision), city: Some(city), ..Facts::at(Timestamp::from_millis(0)) };
            assert_eq!(rule.details(&facts), expected, "{subdivision} {city}");
        }
    }
}
