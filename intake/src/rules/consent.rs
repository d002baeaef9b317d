//! What needs a visitor's consent, and what becomes of it without.

use firsthop_core::Consent;
use serde::Serialize;

use crate::fields::{fields, words};

/// What needs the visitor's consent, and what becomes of it without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConsentRule {
    /// Purposes that all have to be granted for events to be kept as they are.
    pub required: Vec<Purpose>,
    /// What becomes of events where one of them is not.
    pub without: Without,
    /// Purposes that `Sec-GPC: 1` (Global Privacy Control) takes back.
    pub gpc: Vec<Purpose>,
}

/// A purpose, as consent is asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// [`Consent::NECESSARY`]
    Necessary,
    /// [`Consent::ANALYTICS`]
    Analytics,
    /// [`Consent::PREFERENCES`]
    Preferences,
    /// [`Consent::MARKETING`]
    Marketing,
}

/// What becomes of events without the consent that they need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Without {
    /// They are kept as they are.
    #[default]
    Keep,
    /// They are kept without what says who it was.
    Anonymise,
    /// They are counted, and nothing of them is kept.
    Suppress,
}

fields! { ConsentRule { required, without, gpc } }

words! {
    Purpose {
        Necessary = "necessary",
        Analytics = "analytics",
        Preferences = "preferences",
        Marketing = "marketing",
    }
    Without { Keep = "keep", Anonymise = "anonymise", Suppress = "suppress" }
}

impl Default for ConsentRule {
    fn default() -> Self {
        Self { required: Vec::new(), without: Without::Keep, gpc: vec![Purpose::Marketing] }
    }
}

impl ConsentRule {
    /// What `Sec-GPC` would take back of what was granted.
    #[must_use]
    pub fn revocable(&self, granted: Consent) -> Consent {
        granted.without(granted.without(bits(&self.gpc)))
    }

    /// What becomes of events for which this was granted.
    pub(super) fn decide(&self, granted: Consent) -> Without {
        if granted.contains(bits(&self.required)) { Without::Keep } else { self.without }
    }
}

fn bits(purposes: &[Purpose]) -> Consent {
    purposes.iter().fold(Consent::NONE, |all, purpose| {
        all.with(match purpose {
            Purpose::Necessary => Consent::NECESSARY,
            Purpose::Analytics => Consent::ANALYTICS,
            Purpose::Preferences => Consent::PREFERENCES,
            Purpose::Marketing => Consent::MARKETING,
        })
    })
}

/// Whether a value of `Sec-GPC` is the signal: any but `1` is none.
pub fn is_gpc(value: Option<&str>) -> bool {
    value.is_some_and(|value| value.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consent_decides() {
        use Purpose::*;
        let both = Consent::ANALYTICS.with(Consent::MARKETING);
        for (required, without, granted, expected) in [
            (&[][..], Without::Suppress, Consent::NONE, Without::Keep),
            (&[Analytics], Without::Suppress, Consent::NONE, Without::Suppress),
            (&[Analytics], Without::Anonymise, Consent::NECESSARY, Without::Anonymise),
            (&[Analytics], Without::Keep, Consent::NONE, Without::Keep),
            (&[Analytics], Without::Suppress, Consent::ANALYTICS, Without::Keep),
            (&[Analytics, Marketing], Without::Suppress, Consent::ANALYTICS, Without::Suppress),
            (&[Analytics, Marketing], Without::Suppress, both, Without::Keep),
        ] {
            let rule = ConsentRule { required: required.to_vec(), without, ..ConsentRule::default() };
            assert_eq!(rule.decide(granted), expected, "{rule:?} {granted:?}");
        }
    }

    #[test]
    fn gpc_takes_back_what_the_rule_says() {
        let all = Consent::from_bits(0b1111);
        for (gpc, granted, revocable) in [
            (&[Purpose::Marketing][..], all, Consent::MARKETING),
            (&[Purpose::Marketing], Consent::ANALYTICS, Consent::NONE),
            (&[Purpose::Marketing, Purpose::Analytics], all, Consent::ANALYTICS.with(Consent::MARKETING)),
            (&[], all, Consent::NONE),
        ] {
            let rule = ConsentRule { gpc: gpc.to_vec(), ..ConsentRule::default() };
            assert_eq!(rule.revocable(granted), revocable, "{gpc:?} {granted:?}");
        }
        for (value, expected) in [
            (Some("1"), true),
            (Some(" 1 "), true),
            (Some("0"), false),
            (Some("true"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(is_gpc(value), expected, "{value:?}");
        }
    }
}
