//! How a visitor came to a page: by the host of the page before it.

use std::borrow::Cow;

use firsthop_core::ReferrerClass;
use serde::Serialize;

use super::{RulesError, check_list, page::Found};
use crate::fields::fields;

/// Which sites are of which class, besides those that everybody knows. A host means itself and what is below it; one that ends in a dot, under
/// any ending (`google.`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReferrerRule {
    /// One's own sites. The page's own host is one of them in any case.
    pub internal: Vec<String>,
    /// Search engines.
    pub search: Vec<String>,
    /// Social networks.
    pub social: Vec<String>,
    /// Mail readers.
    pub email: Vec<String>,
    /// AI assistants.
    pub ai_assistant: Vec<String>,
}

fields! { ReferrerRule { internal, search, social, email, ai_assistant } }

/// Those that everybody knows, between spaces. What is read first decides: a mail reader may live below a search engine.
const KNOWN: [(ReferrerClass, &str); 4] = [
    (
        ReferrerClass::AiAssistant,
        "chatgpt.com chat.openai.com claude.ai perplexity.ai gemini.google.com bard.google.com copilot.microsoft.com \
         copilot.com chat.mistral.ai chat.deepseek.com deepseek.com grok.com meta.ai you.com poe.com phind.com duck.ai",
    ),
    (
        ReferrerClass::Email,
        "mail.google.com com.google.android.gm outlook.live.com outlook.office.com outlook.office365.com mail.yahoo. \
         mail.proton.me mail.aol.com mail.ru mail.zoho.com webmail.gmx.net navigator.gmx.net navigator.web.de \
         webmail.freenet.de mail.bluewin.ch mail.163.com",
    ),
    (
        ReferrerClass::Search,
        "google. googleapis.com com.google.android.googlequicksearchbox bing.com duckduckgo.com search.yahoo. yahoo.com \
         yandex. ya.ru baidu.com ecosia.org qwant.com startpage.com search.brave.com kagi.com swisscows.com mojeek.com \
         seznam.cz naver.com sogou.com so.com ask.com aol.com",
    ),
    (
        ReferrerClass::Social,
        "facebook.com fb.com fb.me instagram.com threads.net threads.com t.co x.com twitter.com linkedin.com lnkd.in \
         com.linkedin.android reddit.com com.reddit.frontpage pinterest. tiktok.com youtube.com youtu.be snapchat.com \
         whatsapp.com telegram.org t.me discord.com mastodon.social bsky.app vk.com weibo.com quora.com xing.com \
         tumblr.com news.ycombinator.com",
    ),
];

impl ReferrerRule {
    pub(super) fn check(&self) -> Result<(), RulesError> {
        let is_host = |host: &str| {
            host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
                && !host.starts_with('.')
                && host.contains('.')
        };
        for (at, list) in [
            ("referrer.internal", &self.internal),
            ("referrer.search", &self.search),
            ("referrer.social", &self.social),
            ("referrer.email", &self.email),
            ("referrer.ai_assistant", &self.ai_assistant),
        ] {
            check_list(at, list, "a host in small letters, such as shop.example", is_host)?;
        }
        Ok(())
    }

    /// The class of a visit that began on `url`, coming from `referrer`; `found` is what the URL says.
    pub(super) fn class(&self, url: Option<&str>, referrer: Option<&str>, found: &Found<'_>) -> ReferrerClass {
        let referrer = referrer.filter(|referrer| !referrer.is_empty());
        if url.is_none() && referrer.is_none() {
            return ReferrerClass::Unknown;
        }
        let host = referrer.and_then(host_of);
        let own = |host: &str| {
            url.and_then(host_of).is_some_and(|page| without_www(&page) == without_www(host))
                || listed(&self.internal, host)
        };
        if host.as_deref().is_some_and(own) {
            return ReferrerClass::Internal;
        }
        if found.clicked || found.parameters.iter().any(Option::is_some) {
            let medium = found.parameters[1].as_deref().unwrap_or_default();
            let by_mail =
                ["email", "e-mail", "mail", "newsletter"].iter().any(|mail| medium.eq_ignore_ascii_case(mail));
            return if by_mail { ReferrerClass::Email } else { ReferrerClass::Campaign };
        }
        let Some(host) = host else {
            return if referrer.is_some() { ReferrerClass::Other } else { ReferrerClass::Direct };
        };
        let own = [
            (ReferrerClass::AiAssistant, &self.ai_assistant),
            (ReferrerClass::Email, &self.email),
            (ReferrerClass::Search, &self.search),
            (ReferrerClass::Social, &self.social),
        ];
        if let Some((class, _)) = own.into_iter().find(|(_, hosts)| listed(hosts, &host)) {
            return class;
        }
        let known = KNOWN.into_iter().find(|(_, hosts)| hosts.split_whitespace().any(|known| is_below(known, &host)));
        known.map_or(ReferrerClass::Other, |(class, _)| class)
    }
}

fn listed(hosts: &[String], host: &str) -> bool {
    hosts.iter().any(|known| is_below(known, host))
}

/// Whether a host is the known one, or below it.
fn is_below(known: &str, host: &str) -> bool {
    // From the end of the name, or from its beginning where any ending is good: at most two labels of it.
    let Some(name) = known.strip_suffix('.') else {
        return host.strip_suffix(known).is_some_and(|before| before.is_empty() || before.ends_with('.'));
    };
    host.match_indices(name).any(|(at, _)| {
        let (before, after) = (&host[..at], &host[at + name.len()..]);
        let begins = before.is_empty() || before.ends_with('.');
        begins && after.starts_with('.') && (1..=2).contains(&after.matches('.').count())
    })
}

fn without_www(host: &str) -> &str {
    host.strip_prefix("www.").unwrap_or(host)
}

/// The host of a URL, in small letters. None if it has none.
fn host_of(url: &str) -> Option<Cow<'_, str>> {
    // By bytes: asked of every frame, and to search a text for a text costs more than a host is long.
    let (_, rest) = url.split_at(url.as_bytes().windows(3).position(|bytes| bytes == b"://")? + 3);
    let authority = before(rest, |byte| matches!(byte, b'/' | b'?' | b'#'));
    let host = authority.bytes().rposition(|byte| byte == b'@').map_or(authority, |at| &authority[at + 1..]);
    let host = if host.starts_with('[') { host } else { before(host, |byte| byte == b':') };
    // Longer is no name of a host.
    if host.is_empty() || host.len() > 253 {
        return None;
    }
    let host = host.trim_end_matches('.');
    let is_small = !host.bytes().any(|byte| byte.is_ascii_uppercase());
    Some(if is_small { Cow::Borrowed(host) } else { Cow::Owned(host.to_ascii_lowercase()) })
}

/// What stands before the first such byte, which is an ASCII one.
fn before(text: &str, is_end: impl Fn(u8) -> bool) -> &str {
    text.bytes().position(is_end).map_or(text, |at| &text[..at])
}

#[cfg(test)]
mod tests {
    use firsthop_core::Consent;

    use super::*;
    use crate::rules::CampaignRule;

    #[test]
    fn classes_of_visits() {
        use ReferrerClass::*;
        let page = Some("https://www.shop.example/p");
        let rule = ReferrerRule {
            internal: vec!["brand.example".into()],
            search: vec!["findit.example".into()],
            ..ReferrerRule::default()
        };
        for (url, referrer, class) in [
            (None, None, Unknown),
            (page, None, Direct),
            (page, Some(""), Direct),
            (page, Some("https://shop.example/"), Internal),
            (page, Some("https://WWW.SHOP.example:443/x"), Internal),
            (page, Some("https://blog.brand.example/"), Internal),
            (page, Some("https://otherbrand.example/"), Other),
            (page, Some("https://www.google.com/"), Search),
            (page, Some("https://www.google.co.uk/search?q=x"), Search),
            (page, Some("https://google.evil.example.com.test/"), Other),
            (page, Some("https://notgoogle.com/"), Other),
            (page, Some("https://findit.example/"), Search),
            (page, Some("android-app://com.google.android.googlequicksearchbox/"), Search),
            (page, Some("https://mail.google.com/"), Email),
            (page, Some("android-app://com.google.android.gm/"), Email),
            (page, Some("https://de.search.yahoo.com/"), Search),
            (page, Some("https://l.facebook.com/l.php"), Social),
            (page, Some("https://t.co/abc"), Social),
            (page, Some("https://chatgpt.com/"), AiAssistant),
            (page, Some("https://gemini.google.com/app"), AiAssistant),
            (page, Some("https://www.perplexity.ai/search"), AiAssistant),
            (page, Some("https://user:pw@news.example:8443/a"), Other),
            (page, Some("about:blank"), Other),
            (None, Some("https://bing.com/"), Search),
            (Some("https://shop.example/?utm_source=x"), None, Campaign),
            (Some("https://shop.example/?utm_source=x"), Some("https://www.google.com/"), Campaign),
            (Some("https://shop.example/?utm_source=x&utm_medium=Email"), None, Email),
            (Some("https://shop.example/?gclid=x"), Some("https://www.google.com/"), Campaign),
            (Some("https://shop.example/?utm_source=x"), Some("https://shop.example/"), Internal),
        ] {
            let found = CampaignRule::default().read(url.unwrap_or_default(), Consent::NONE);
            assert_eq!(rule.class(url, referrer, &found), class, "{url:?} {referrer:?}");
        }
    }
}
