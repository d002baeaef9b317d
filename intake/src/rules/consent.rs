//! What needs a visitor's consent, and what becomes of it without.

use firsthop_core::Consent;
use serde::Serialize;

use super::{MAX_ENTRIES, RulesError, check_list};
use crate::{
    fields::{fields, words},
    segment::members::Members,
};

/// What needs the visitor's consent, and what becomes of it without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConsentRule {
    /// Purposes that all have to be granted for events to be kept as they are.
    pub required: Vec<Purpose>,
    /// What becomes of events where one of them is not.
    pub without: Without,
    /// Purposes that `Sec-GPC: 1` (Global Privacy Control) takes back.
    pub gpc: Vec<Purpose>,
    /// What stands for each purpose where another vendor's SDK says what was granted.
    #[serde(skip_serializing_if = "Categories::is_default")]
    pub categories: Categories,
}

/// By which of a consent platform's categories a purpose is granted: where at least one of them is named, and each that is named is granted.
/// Letters count in either case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Categories {
    /// For [`Purpose::Necessary`].
    pub necessary: Vec<String>,
    /// For [`Purpose::Analytics`].
    pub analytics: Vec<String>,
    /// For [`Purpose::Preferences`].
    pub preferences: Vec<String>,
    /// For [`Purpose::Marketing`].
    pub marketing: Vec<String>,
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

fields! {
    ConsentRule { required, without, gpc, categories }
    Categories { necessary, analytics, preferences, marketing }
}

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
        let categories = Categories::default();
        Self { required: Vec::new(), without: Without::Keep, gpc: vec![Purpose::Marketing], categories }
    }
}

/// Our own names, those of Segment's documentation, and the groups that OneTrust begins with.
impl Default for Categories {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            necessary: names(&["Necessary", "C0001"]),
            analytics: names(&["Analytics", "C0002"]),
            preferences: names(&["Preferences", "Functional", "C0003"]),
            marketing: names(&["Marketing", "Advertising", "C0004"]),
        }
    }
}

impl Categories {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    fn all(&self) -> [(Purpose, &'static str, &[String]); 4] {
        [
            (Purpose::Necessary, "consent.categories.necessary", &self.necessary),
            (Purpose::Analytics, "consent.categories.analytics", &self.analytics),
            (Purpose::Preferences, "consent.categories.preferences", &self.preferences),
            (Purpose::Marketing, "consent.categories.marketing", &self.marketing),
        ]
    }
}

impl ConsentRule {
    pub(super) fn check(&self) -> Result<(), RulesError> {
        self.categories.all().into_iter().try_for_each(|(_, at, list)| check_list(at, list, "a name", |_| true))
    }

    /// What an object such as `{"categoryPreferences":{"Analytics":true,"Advertising":false}}` grants: Segment's `context.consent`. Nothing, if it is
    /// no such object, or names more categories than a rule can.
    #[must_use]
    pub fn granted(&self, json: &str) -> Consent {
        let said = || Members::parse(Members::parse(json)?.get("categoryPreferences").ok()??);
        let said = said().filter(|said| said.0.len() <= MAX_ENTRIES).unwrap_or_default();
        let grants = |names: &[String]| {
            let named = |category: &str| names.iter().any(|name| name.eq_ignore_ascii_case(category));
            let mut values = said.0.iter().filter(|(category, _)| named(category)).map(|(_, value)| *value).peekable();
            values.peek().is_some() && values.all(|value| value == "true")
        };
        let granted = self.categories.all().into_iter().filter(|(.., names)| grants(names));
        bits(&granted.map(|(purpose, ..)| purpose).collect::<Vec<_>>())
    }

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
    fn categories_grant_purposes() {
        use Purpose::*;
        let own = Categories {
            analytics: vec!["Statistics".into(), "Both".into()],
            marketing: vec!["Both".into()],
            ..Categories::default()
        };
        let own = ConsentRule { categories: own, ..ConsentRule::default() };
        let none = Categories { analytics: Vec::new(), ..Categories::default() };
        let none = ConsentRule { categories: none, ..ConsentRule::default() };
        let many = format!("{{\"Analytics\":true{}}}", r#","x":true"#.repeat(MAX_ENTRIES));
        let default = ConsentRule::default();
        for (rule, said, granted) in [
            // Segment's own example.
            (
                &default,
                r#"{"Advertising":true,"Analytics":false,"Functional":true,"DataSharing":false}"#,
                &[Marketing, Preferences][..],
            ),
            (&default, r#"{"C0001":true,"C0002":true,"C0003":false,"C0004":false}"#, &[Necessary, Analytics]),
            (
                &default,
                r#"{"necessary":true,"ANALYTICS":true,"Preferences":true,"marketing":true}"#,
                &[Necessary, Analytics, Preferences, Marketing],
            ),
            // What is not named is not granted, and what is not true is not.
            (&default, "{}", &[]),
            (&default, "[]", &[]),
            (&default, r#"{"Statistics":true,"Analytic":true,"":true}"#, &[]),
            (&default, r#"{"Analytics":"true","Advertising":1,"Functional":null,"C0001":[true]}"#, &[]),
            (&default, r#"{"Analytics":true,"C0002":false}"#, &[]),
            (&default, r#"{"Analytics":true,"Analytics":false}"#, &[]),
            (&default, r#"{"An\u0061lytics": true }"#, &[Analytics]),
            (&default, &many, &[]),
            (&own, r#"{"Analytics":true,"Statistics":true}"#, &[Analytics]),
            (&own, r#"{"Both":true}"#, &[Analytics, Marketing]),
            (&own, r#"{"Both":false,"Statistics":true,"Functional":true}"#, &[Preferences]),
            (&none, r#"{"Analytics":true,"Advertising":true}"#, &[Marketing]),
        ] {
            let json = format!("{{\"categoryPreferences\": {said},\"other\":1}}");
            assert_eq!(rule.granted(&json), bits(granted), "{said}");
        }
        for json in [
            "null",
            "true",
            "[]",
            "{}",
            r#""Analytics""#,
            r#"{"Analytics":true}"#,
            r#"{"categoryPreferences":null}"#,
            r#"{"categoryPreferences":["Analytics"]}"#,
            r#"{"categoryPreferences":{"Analytics":true},"categoryPreferences":{"Analytics":true}}"#,
            r#"{"categoryPreference":{"Analytics":true}}"#,
        ] {
            assert_eq!(default.granted(json), Consent::NONE, "{json}");
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
