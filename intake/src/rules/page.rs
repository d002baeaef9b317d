//! What a page's URL says of how the visitor came to it: campaign parameters, and advertisers' ids of the click.

use std::borrow::Cow;

use firsthop_core::{
    Campaign, Consent, Effects,
    limits::{MAX_CLICK_ID, MAX_PARAMETER},
};
use serde::Serialize;

use super::{RulesError, check_list, cut};
use crate::fields::{fields, words};

/// What is noted of a page's URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CampaignRule {
    /// Which of the five `utm_` parameters are noted.
    pub parameters: Vec<String>,
    /// Parameters that say which click it was: an id for a person, at the advertiser's.
    pub click_ids: Vec<String>,
    /// When one of them is noted.
    pub keep_click_ids: KeepClickIds,
    /// Whether they are cut out of the URL and the referrer where they may not be kept.
    pub cut_click_ids: bool,
}

/// When a click id may be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeepClickIds {
    /// Never.
    Never,
    /// Where the visitor has granted marketing, and has not taken it back.
    #[default]
    Consented,
    /// Always.
    Always,
}

/// The parameters of campaigns, as `Campaign` has them.
const UTM: [&str; 5] = ["utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content"];
/// Click ids of Google, Meta, Microsoft, TikTok, X, LinkedIn, Pinterest, Snap, Reddit, Yandex, Instagram, Mailchimp, Impact.
const CLICK_IDS: [&str; 16] = [
    "gclid",
    "gbraid",
    "wbraid",
    "dclid",
    "fbclid",
    "msclkid",
    "ttclid",
    "twclid",
    "li_fat_id",
    "epik",
    "ScCid",
    "rdt_cid",
    "yclid",
    "igshid",
    "mc_eid",
    "irclickid",
];
/// Parameters of a URL that are looked at.
const MAX_PAIRS: usize = 128;

fields! { CampaignRule { parameters, click_ids, keep_click_ids, cut_click_ids } }
words! { KeepClickIds { Never = "never", Consented = "consented", Always = "always" } }

impl Default for CampaignRule {
    fn default() -> Self {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.into()).collect();
        Self {
            parameters: texts(&UTM),
            click_ids: texts(&CLICK_IDS),
            keep_click_ids: KeepClickIds::Consented,
            cut_click_ids: false,
        }
    }
}

/// What a URL says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found<'a> {
    pub(super) parameters: [Option<Cow<'a, str>>; 5],
    /// `name=id`, if it may be kept.
    pub(super) click_id: Option<String>,
    /// Whether there is one, kept or not.
    pub(super) clicked: bool,
}

impl Found<'_> {
    pub(super) fn campaign(&self) -> Option<Campaign<'_>> {
        let [source, medium, name, term, content] =
            self.parameters.each_ref().map(|text| text.as_deref().map(|text| cut(text, MAX_PARAMETER)));
        Some(Campaign { source, medium, name, term, content }).filter(|campaign| *campaign != Campaign::default())
    }
}

impl CampaignRule {
    pub(super) fn check(&self) -> Result<(), RulesError> {
        let form = "one of utm_source, utm_medium, utm_campaign, utm_term, utm_content";
        check_list("campaign.parameters", &self.parameters, form, |name| UTM.contains(&name))?;
        let is_name =
            |name: &str| name.len() <= 32 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        check_list("campaign.click_ids", &self.click_ids, "up to 32 letters, digits, `_`, `-`, `.`", is_name)
    }

    pub(super) fn may_keep_click_ids(&self, granted: Consent) -> bool {
        match self.keep_click_ids {
            KeepClickIds::Never => false,
            KeepClickIds::Consented => granted.contains(Consent::MARKETING),
            KeepClickIds::Always => true,
        }
    }

    /// What a URL says.
    pub(super) fn read<'a>(&self, url: &'a str, granted: Consent) -> Found<'a> {
        let mut found = Found::default();
        let Some(query) = query_of(url) else { return found };
        for pair in query.split('&').take(MAX_PAIRS) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if value.is_empty() {
                continue;
            }
            if let Some(at) = UTM.iter().position(|utm| *utm == name) {
                if found.parameters[at].is_none() && self.parameters.iter().any(|allowed| allowed == name) {
                    found.parameters[at] = Some(decode(value));
                }
            } else if self.is_click_id(name) {
                found.clicked = true;
                let id = format!("{name}={}", decode(value));
                // Half an id is none.
                if found.click_id.is_none() && self.may_keep_click_ids(granted) && id.len() <= MAX_CLICK_ID {
                    found.click_id = Some(id);
                }
            }
        }
        found
    }

    /// A URL without click ids. None if it has none.
    pub(super) fn cut<'a>(&self, url: &'a str) -> Option<Cow<'a, str>> {
        let query = query_of(url)?;
        let is_one = |pair: &&str| self.is_click_id(pair.split_once('=').map_or(pair, |(name, _)| name));
        query.split('&').find(is_one)?;
        let start = query.as_ptr().addr() - url.as_ptr().addr();
        let (before, after) = (&url[..start], &url[start + query.len()..]);
        let kept: Vec<&str> = query.split('&').filter(|pair| !is_one(pair)).collect();
        // Without the question mark where nothing is left behind it.
        let before = if kept.is_empty() { before.trim_end_matches('?') } else { before };
        Some(format!("{before}{}{after}", kept.join("&")).into())
    }

    fn is_click_id(&self, name: &str) -> bool {
        self.click_ids.iter().any(|id| id.eq_ignore_ascii_case(name))
    }
}

/// What is left of URLs.
#[derive(Clone, Copy)]
pub(super) struct Urls<'r> {
    /// Nothing that may name somebody.
    pub(super) bare: bool,
    /// No click ids, by this rule.
    pub(super) cut: Option<&'r CampaignRule>,
}

impl Urls<'_> {
    pub(super) fn of<'a>(self, url: &'a str, effects: &mut Effects) -> Cow<'a, str> {
        if self.bare {
            return Cow::Borrowed(bare(url));
        }
        let cut = self.cut.and_then(|rule| rule.cut(url));
        if cut.is_some() {
            *effects = effects.with(Effects::CUT_CLICK_IDS);
        }
        cut.unwrap_or(Cow::Borrowed(url))
    }

    /// The same of a text, if it is one: whole, or from its path or its query on.
    pub(super) fn in_text<'a>(self, text: &'a str, effects: &mut Effects) -> Cow<'a, str> {
        let is_url = text.starts_with(['/', '?']) || text.contains("://");
        if is_url && !text.contains(' ') { self.of(text, effects) } else { Cow::Borrowed(text) }
    }
}

/// A URL without what may name somebody: query and fragment.
fn bare(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

fn query_of(url: &str) -> Option<&str> {
    let (_, query) = url.split('#').next()?.split_once('?')?;
    Some(query)
}

/// A value of a query, as forms write it.
fn decode(value: &str) -> Cow<'_, str> {
    if !value.contains(['%', '+']) {
        return Cow::Borrowed(value);
    }
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |byte: u8| char::from(byte).to_digit(16);
        let escaped = match tail {
            [high, low, after @ ..] if *first == b'%' => {
                hex(*high).zip(hex(*low)).map(|(h, l)| ((h * 16 + l) as u8, after))
            }
            _ => None,
        };
        let (byte, after) = escaped.unwrap_or((if *first == b'+' { b' ' } else { *first }, tail));
        bytes.push(byte);
        rest = after;
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn campaigns_in_urls() {
        let rule = CampaignRule::default();
        for (url, expected) in [
            ("https://shop.example/", [None; 5]),
            ("https://shop.example/?q=utm_source", [None; 5]),
            ("https://shop.example/#?utm_source=x", [None; 5]),
            ("https://shop.example/?utm_source=&utm_medium", [None; 5]),
            ("https://shop.example/?utm_source=a&utm_source=b#utm_term=c", [Some("a"), None, None, None, None]),
            (
                "/p?x=1&utm_source=news%20letter&utm_medium=email&utm_campaign=a+b&utm_term=%C3%BC&utm_content=%zz%",
                [Some("news letter"), Some("email"), Some("a b"), Some("ü"), Some("%zz%")],
            ),
        ] {
            let found = rule.read(url, Consent::NONE);
            assert_eq!(found.parameters.each_ref().map(Option::as_deref), expected, "{url}");
        }
        let only = CampaignRule { parameters: vec!["utm_medium".into()], ..CampaignRule::default() };
        let found = only.read("?utm_source=a&utm_medium=b", Consent::NONE);
        assert_eq!(found.campaign(), Some(Campaign { medium: Some("b"), ..Campaign::default() }));
        let long = format!("?utm_term={}", "ü".repeat(100));
        assert_eq!(
            rule.read(&long, Consent::NONE).campaign().and_then(|campaign| campaign.term).map(str::len),
            Some(96)
        );
        let many = "?".to_owned() + &"a=b&".repeat(200) + "utm_term=c";
        assert_eq!(rule.read(&many, Consent::NONE).campaign(), None);
    }

    #[test]
    fn click_ids_need_what_the_rule_says() {
        use KeepClickIds::*;
        let (url, no) = ("https://shop.example/?utm_source=g&gclid=Cj0%2B", Consent::ANALYTICS);
        for (keep, granted, kept) in [
            (Never, Consent::MARKETING, false),
            (Consented, no, false),
            (Consented, Consent::MARKETING, true),
            (Always, no, true),
        ] {
            let rule = CampaignRule { keep_click_ids: keep, ..CampaignRule::default() };
            let found = rule.read(url, granted);
            assert!(found.clicked);
            assert_eq!(found.click_id.as_deref(), kept.then_some("gclid=Cj0+"), "{keep:?} {granted:?}");
        }
        let own = CampaignRule { click_ids: vec!["partner".into()], keep_click_ids: Always, ..CampaignRule::default() };
        assert_eq!(own.read("?gclid=1&partner=2", no).click_id.as_deref(), Some("partner=2"));
        assert_eq!(own.read(&format!("?partner={}", "x".repeat(300)), no).click_id, None);
    }

    #[test]
    fn click_ids_are_cut_out_and_nothing_else() {
        let rule = CampaignRule::default();
        for (url, expected) in [
            ("https://shop.example/p", None),
            ("https://shop.example/p?a=1#gclid=2", None),
            ("https://shop.example/p?gclid=1", Some("https://shop.example/p")),
            ("https://shop.example/p?GCLID=1#top", Some("https://shop.example/p#top")),
            ("https://shop.example/p?a=1&fbclid=x&b=%20&gclid#top", Some("https://shop.example/p?a=1&b=%20#top")),
            ("?fbclid=1&&a", Some("?&a")),
        ] {
            assert_eq!(rule.cut(url).as_deref(), expected, "{url}");
        }
        assert_eq!(bare("https://a.example/p?q#f"), "https://a.example/p");
        assert_eq!(bare("https://a.example/p#f?q"), "https://a.example/p");
    }
}
