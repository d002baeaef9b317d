//! What a tenant wants done with its events at the first hop that may read them.
//!
//! ```text
//!            request: user agent, hints, Sec-GPC, place          frame: consent, page, properties
//!                         │                                              │
//!  agent, traffic ────────┤              consent ── keep ────────────────┤
//!  place (precision) ─────┤                │  └──── anonymise ───────────┤ redact: the same numbers, other content
//!                         ▼                └─────── suppress ────────────┤
//!                   Annotation, Notes ◄── page, referrer, clock ─────────┘
//! ```
//!
//! Rules are data: they stand in the tenant's file at the server and go to its edges with the policy, and both apply them by
//! [`apply`]. Where nobody has set any, what a frame says is stored as it came, and a browser's `Sec-GPC` takes consent to marketing back.
//!
//! ```
//! use firsthop_intake::rules::Rules;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let rules: Rules = serde_json::from_str(
//!     r#"{"consent": {"required": ["analytics"], "without": "suppress"}, "properties": {"deny": ["card"], "hash": ["customer.email"]}}"#,
//! )?;
//! rules.check()?;
//! assert!(rules.hashes() && rules.fingerprint() != 0);
//! assert_eq!(Rules::default().fingerprint(), 0);
//! # Ok(())
//! # }
//! ```

pub(crate) mod agent;
mod apply;
mod clock;
mod consent;
mod page;
mod place;
mod redact;
mod referrer;
pub(crate) mod traffic;
mod values;

use std::{fmt, sync::LazyLock};

use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

use crate::fields::{self, Fault, Others, Read, optional, words};

pub use self::{
    apply::{Applied, apply, unread},
    clock::ClockRule,
    consent::{Categories, ConsentRule, Purpose, Without, is_gpc},
    page::{CampaignRule, KeepClickIds},
    place::{PlaceRule, Precision},
    referrer::ReferrerRule,
    traffic::TrafficRule,
    values::{IdRule, IdsRule, ValuesRule},
};

/// Most entries of one list.
pub const MAX_ENTRIES: usize = 64;
/// Longest entry, in bytes.
pub const MAX_ENTRY: usize = 128;

/// What is done with a tenant's events. The default is what is done where nobody has said anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rules {
    /// What needs the visitor's consent, and what becomes of it without.
    pub consent: ConsentRule,
    /// How exactly it is noted where a request came from.
    pub place: PlaceRule,
    /// Who else is a robot.
    pub traffic: TrafficRule,
    /// What is noted of a page's URL.
    pub campaign: CampaignRule,
    /// Which sites are of which class.
    pub referrer: ReferrerRule,
    /// From when on two clocks are told to differ.
    pub clock: ClockRule,
    /// What stands for a visit that the producer does not name.
    pub session: SessionRule,
    /// Who did it.
    pub ids: IdsRule,
    /// What events say of themselves.
    pub properties: ValuesRule,
    /// What `identify` and `group` say of users and groups.
    pub traits: ValuesRule,
    /// What of an event's context has no field of its own: `extra`, where other SDKs' context stands under its own names.
    pub context: ValuesRule,
    /// Another number, other hashes.
    pub hash_generation: u32,
    #[serde(skip)]
    fingerprint: u32,
}

/// Rules as a server writes them, which writes none that are the default.
impl Read for Rules {
    fn read(json: &str) -> Result<Self, Fault> {
        let mut rules = Self { fingerprint: fingerprint(json.as_bytes()), ..Self::default() };
        fields::fill(
            json,
            Others::Refused,
            &mut [
                optional("consent", &mut rules.consent),
                optional("place", &mut rules.place),
                optional("traffic", &mut rules.traffic),
                optional("campaign", &mut rules.campaign),
                optional("referrer", &mut rules.referrer),
                optional("clock", &mut rules.clock),
                optional("session", &mut rules.session),
                optional("ids", &mut rules.ids),
                optional("properties", &mut rules.properties),
                optional("traits", &mut rules.traits),
                optional("context", &mut rules.context),
                optional("hash_generation", &mut rules.hash_generation),
            ],
        )?;
        Ok(rules)
    }
}

/// Rules as people write them.
impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        fields::deserialize(deserializer).map(Self::settled)
    }
}

words! { SessionRule { None = "none", Source = "source" } }

fn fingerprint(json: &[u8]) -> u32 {
    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(json).into();
    u32::from_le_bytes([a, b, c, d])
}

/// What stands for a visit that the producer does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionRule {
    /// Nothing.
    #[default]
    None,
    /// The source: of a page, that is one load of it, or one life of an application on one page.
    Source,
}

/// Where nobody has set any.
static NONE: LazyLock<Rules> = LazyLock::new(Rules::default);

impl Rules {
    /// What holds where nobody has set any.
    #[must_use]
    pub fn none() -> &'static Self {
        &NONE
    }

    /// Checks what reading cannot: bounds, and whether every entry means something.
    ///
    /// # Errors
    /// The first fault, with where it is.
    pub fn check(&self) -> Result<(), RulesError> {
        self.consent.check()?;
        self.traffic.check()?;
        self.campaign.check()?;
        self.referrer.check()?;
        self.clock.check()?;
        self.properties.check("properties")?;
        self.traits.check("traits")?;
        self.context.check("context")
    }

    /// Which rules these are: the first 4 bytes, little-endian, of the SHA-256 of their JSON; 0 for the default.
    #[must_use]
    pub const fn fingerprint(&self) -> u32 {
        self.fingerprint
    }

    /// With the fingerprint of the text that a server writes.
    pub(crate) fn settled(mut self) -> Self {
        self.fingerprint = 0;
        if self != *Self::none() {
            self.fingerprint = fingerprint(&serde_json::to_vec(&self).unwrap_or_default());
        }
        self
    }

    /// Whether they replace anything by its hash, for which there must be a key.
    #[must_use]
    pub fn hashes(&self) -> bool {
        [&self.properties, &self.traits, &self.context].into_iter().any(|values| !values.hash.is_empty())
            || [self.ids.user, self.ids.anonymous].contains(&IdRule::Hash)
    }
}

/// What is wrong with rules, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesError {
    at: &'static str,
    entry: Option<String>,
    what: &'static str,
}

impl RulesError {
    const fn new(at: &'static str, what: &'static str) -> Self {
        Self { at, entry: None, what }
    }

    fn of(at: &'static str, entry: &str, what: &'static str) -> Self {
        Self { at, entry: Some(entry.chars().take(MAX_ENTRY).collect()), what }
    }
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rules: {}: ", self.at)?;
        if let Some(entry) = &self.entry {
            write!(f, "{entry:?}: ")?;
        }
        f.write_str(self.what)
    }
}

impl std::error::Error for RulesError {}

/// A list of entries that are each of a form.
fn check_list(
    at: &'static str,
    list: &[String],
    form: &'static str,
    is_good: impl Fn(&str) -> bool,
) -> Result<(), RulesError> {
    if list.len() > MAX_ENTRIES {
        return Err(RulesError::new(at, "at most 64 entries"));
    }
    match list.iter().find(|entry| entry.is_empty() || entry.len() > MAX_ENTRY || !is_good(entry)) {
        Some(entry) => Err(RulesError::of(at, entry, form)),
        None => Ok(()),
    }
}

/// As much of a text as fits, whole characters only.
fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Rules that say something in every field. A field that is added does not compile until it says something here.
    pub(crate) fn full() -> Rules {
        let texts = |text: &str| vec![text.to_owned(), "\u{e9}\"x".to_owned()];
        let values = |text| ValuesRule { allow: Some(texts(text)), deny: texts(text), hash: texts(text) };
        let rules = Rules {
            consent: ConsentRule {
                required: vec![Purpose::Necessary, Purpose::Analytics],
                without: Without::Suppress,
                gpc: vec![Purpose::Preferences, Purpose::Marketing],
                categories: Categories {
                    necessary: texts("n"),
                    analytics: texts("o"),
                    preferences: texts("p"),
                    marketing: texts("q"),
                },
            },
            place: PlaceRule { precision: Precision::City, network: false },
            traffic: TrafficRule { bots: texts("a"), ai_agents: texts("b"), scanners: texts("c") },
            campaign: CampaignRule {
                parameters: texts("d"),
                click_ids: texts("e"),
                keep_click_ids: KeepClickIds::Never,
                cut_click_ids: true,
            },
            referrer: ReferrerRule {
                internal: texts("f"),
                search: texts("g"),
                social: texts("h"),
                email: texts("i"),
                ai_assistant: texts("j"),
            },
            clock: ClockRule { from_ms: u64::MAX, up_to_ms: 7 },
            session: SessionRule::Source,
            ids: IdsRule { user: IdRule::Hash, anonymous: IdRule::Remove },
            properties: values("k"),
            traits: values("l"),
            context: values("m"),
            hash_generation: u32::MAX,
            fingerprint: 0,
        };
        rules.settled()
    }

    fn read(json: &str) -> Result<Rules, String> {
        let rules: Rules = serde_json::from_str(json).map_err(|error| error.to_string())?;
        rules.check().map(|()| rules).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let many = format!("{{\"properties\":{{\"deny\":[{}]}}}}", vec!["\"a\""; 65].join(","));
        let long = format!("{{\"properties\":{{\"deny\":[\"{}\"]}}}}", "a".repeat(129));
        for (json, part) in [
            (r#"{"propertys":{}}"#, "unknown field `propertys`"),
            (r#"{"consent":{"require":[]}}"#, "unknown field `require`"),
            (r#"{"consent":{"required":["ads"]}}"#, "unknown variant `ads`"),
            (r#"{"consent":{"without":"drop"}}"#, "unknown variant `drop`"),
            (r#"{"consent":{"categories":{"ads":[]}}}"#, "unknown field `ads`"),
            (r#"{"consent":{"categories":{"marketing":[""]}}}"#, "rules: consent.categories.marketing"),
            (r#"{"place":{"precision":"street"}}"#, "unknown variant `street`"),
            (r#"{"session":"cookie"}"#, "unknown variant `cookie`"),
            (r#"{"ids":{"user":"encrypt"}}"#, "unknown variant `encrypt`"),
            (r#"{"properties":{"deny":["a..b"]}}"#, r#"rules: properties.deny: "a..b": names between dots"#),
            (r#"{"traits":{"hash":[""]}}"#, "rules: traits.hash: \"\""),
            (r#"{"context":{"allow":["a.b.c.d.e.f.g.h.i"]}}"#, "rules: context.allow"),
            (r#"{"campaign":{"parameters":["utm_id"]}}"#, "rules: campaign.parameters: \"utm_id\": one of"),
            (r#"{"campaign":{"click_ids":["a b"]}}"#, "rules: campaign.click_ids"),
            (
                r#"{"referrer":{"search":["https://a.example"]}}"#,
                "rules: referrer.search: \"https://a.example\": a host",
            ),
            (r#"{"traffic":{"bots":["x"]}}"#, "rules: traffic.bots: \"x\": 3 "),
            (r#"{"clock":{"from_ms":2,"up_to_ms":1}}"#, "rules: clock.up_to_ms"),
            (&many, "rules: properties.deny: at most 64 entries"),
            (&long, "rules: properties.deny"),
        ] {
            let said = read(json).expect_err(json);
            assert!(said.contains(part), "{json}: {said}");
        }
    }

    #[test]
    fn rules_survive_their_text_and_are_told_apart() {
        let texts = [
            "{}",
            r#"{"consent":{"required":["analytics","marketing"],"without":"anonymise","gpc":[]}}"#,
            r#"{"consent":{"required":["analytics","marketing"],"without":"anonymise","gpc":[],"categories":{"analytics":["S"]}}}"#,
            r#"{"place":{"precision":"city","network":false},"session":"source","hash_generation":2}"#,
            r#"{"ids":{"user":"hash"},"properties":{"allow":["a.*"],"deny":["a.b"],"hash":["a.c"]}}"#,
        ];
        let all = texts.map(|text| read(text).expect(text));
        for rules in &all {
            let json = serde_json::to_string(rules).expect("JSON");
            assert_eq!(read(&json).as_ref(), Ok(rules));
            // An edge, from the text that the server writes.
            if *rules != Rules::default() {
                assert_eq!(Rules::read(&json).as_ref(), Ok(rules));
            }
        }
        let mut prints: Vec<u32> = all.iter().map(Rules::fingerprint).collect();
        assert_eq!(prints[0], 0);
        prints.sort_unstable();
        prints.dedup();
        assert_eq!(prints.len(), all.len());
        assert_eq!(all.each_ref().map(Rules::hashes), [false, false, false, false, true]);
    }
}
