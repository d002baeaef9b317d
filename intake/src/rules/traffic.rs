//! Who was at the other end: a mark, never a reason to drop anything.

use firsthop_core::{AgentClass, Traffic};
use serde::Serialize;

use super::{RulesError, check_list};
use crate::{Facts, fields::fields};

/// Who else is a robot: parts of user agents, in small letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TrafficRule {
    /// Robots, such as one's own monitoring.
    pub bots: Vec<String>,
    /// Agents of an AI's.
    pub ai_agents: Vec<String>,
    /// Scanners.
    pub scanners: Vec<String>,
}

fields! { TrafficRule { bots, ai_agents, scanners } }

/// What agents of an AI's call themselves, in small letters.
const AI_AGENTS: Names<30> = Names::new([
    "ai2bot",
    "amazonbot",
    "anthropic-ai",
    "applebot-extended",
    "bytespider",
    "ccbot",
    "chatgpt-user",
    "claude-searchbot",
    "claude-user",
    "claude-web",
    "claudebot",
    "cohere-ai",
    "diffbot",
    "duckassistbot",
    "gemini-deep-research",
    "google-agent",
    "google-cloudvertexbot",
    "gptbot",
    "imagesiftbot",
    "meta-externalagent",
    "meta-externalfetcher",
    "mistralai-user",
    "novaact",
    "oai-searchbot",
    "omgili",
    "perplexity-user",
    "perplexitybot",
    "petalbot",
    "timpibot",
    "youbot",
]);
/// The same of what looks for weaknesses.
const SCANNERS: Names<31> = Names::new([
    "acunetix",
    "arachni",
    "burpcollaborator",
    "censysinspect",
    "detectify",
    "dirbuster",
    "expanse",
    "feroxbuster",
    "ffuf",
    "gobuster",
    "httpx",
    "internet-measurement",
    "internetmeasurement",
    "l9explore",
    "l9tcpid",
    "leakix",
    "masscan",
    "nessus",
    "netcraftsurveyagent",
    "netsparker",
    "nikto",
    "nmap",
    "nuclei",
    "odin",
    "openvas",
    "paloaltonetworks",
    "qualys",
    "shodan",
    "sqlmap",
    "wpscan",
    "zgrab",
]);

/// Names in their order, to be found by their initials: every request is asked for all of them.
struct Names<const N: usize> {
    names: [&'static str; N],
    /// Where those with an initial begin, from `a` on.
    from: [u8; 27],
}

impl<const N: usize> Names<N> {
    const fn new(names: [&'static str; N]) -> Self {
        let (mut from, mut at, mut initial) = ([0; 27], 0, 0);
        while initial < 26 {
            from[initial] = at as u8;
            while at < N && names[at].as_bytes()[0] == b'a' + initial as u8 {
                at += 1;
            }
            initial += 1;
        }
        assert!(at == N && N < 256, "in their order, and a small letter first");
        from[26] = at as u8;
        Self { names, from }
    }

    /// Whether a user agent has one of these as a word, or what begins like one.
    fn are_in(&self, lower: &str) -> bool {
        let mut before = b' ';
        lower.bytes().enumerate().any(|(at, byte)| {
            let begins = !before.is_ascii_alphanumeric();
            before = byte;
            begins && byte.is_ascii_lowercase() && {
                let initial = usize::from(byte - b'a');
                let (from, to) = (usize::from(self.from[initial]), usize::from(self.from[initial + 1]));
                self.names[from..to].iter().any(|name| lower.as_bytes()[at..].starts_with(name.as_bytes()))
            }
        })
    }
}

/// The verdict on a request whose class is known.
pub(crate) fn verdict(facts: &Facts<'_>, agent: AgentClass, lower: &str) -> Traffic {
    // `prefetch`, `prefetch;prerender`, …: a structured item whose parameters do not matter here.
    let purpose = facts.sec_purpose.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if SCANNERS.are_in(lower) {
        Traffic::Scanner
    } else if AI_AGENTS.are_in(lower) {
        Traffic::AiAgent
    } else if agent == AgentClass::Robot {
        Traffic::Bot
    } else if purpose.eq_ignore_ascii_case("prefetch") {
        Traffic::Prefetch
    } else if matches!(agent, AgentClass::Desktop | AgentClass::Phone | AgentClass::Tablet | AgentClass::Tv)
        && facts.origin.is_some()
    {
        Traffic::Human
    } else {
        Traffic::Unknown
    }
}

impl TrafficRule {
    pub(super) fn check(&self) -> Result<(), RulesError> {
        let is_token =
            |text: &str| text.len() >= 3 && !text.bytes().any(|b| b.is_ascii_uppercase() || b.is_ascii_control());
        for (at, list) in
            [("traffic.bots", &self.bots), ("traffic.ai_agents", &self.ai_agents), ("traffic.scanners", &self.scanners)]
        {
            check_list(at, list, "3 to 128 characters, in small letters", is_token)?;
        }
        Ok(())
    }

    /// The verdict by the tenant's own lists, if one of them has the user agent.
    pub(super) fn own(&self, user_agent: Option<&str>) -> Option<Traffic> {
        let lists =
            [(&self.scanners, Traffic::Scanner), (&self.ai_agents, Traffic::AiAgent), (&self.bots, Traffic::Bot)];
        if lists.iter().all(|(list, _)| list.is_empty()) {
            return None;
        }
        let lower = user_agent?.to_ascii_lowercase();
        lists.into_iter().find(|(list, _)| list.iter().any(|token| lower.contains(token))).map(|(_, traffic)| traffic)
    }
}

#[cfg(test)]
mod tests {
    use firsthop_core::Timestamp;

    use super::*;
    use crate::annotate::annotate;

    const CHROME: &str =
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36";

    fn facts(user_agent: &str) -> Facts<'_> {
        Facts {
            user_agent: Some(user_agent),
            origin: Some("https://shop.example"),
            ..Facts::at(Timestamp::from_millis(0))
        }
    }

    #[test]
    fn traffic_is_marked() {
        let purpose = |sec_purpose| Facts { sec_purpose: Some(sec_purpose), ..facts(CHROME) };
        for (facts, expected) in [
            (facts(CHROME), Traffic::Human),
            (Facts { origin: None, ..facts(CHROME) }, Traffic::Unknown),
            (facts("curl/8.5.0"), Traffic::Unknown),
            (facts(""), Traffic::Unknown),
            (purpose("prefetch"), Traffic::Prefetch),
            (purpose("prefetch;prerender"), Traffic::Prefetch),
            (purpose("prefetch; anonymous-client-ip"), Traffic::Prefetch),
            (purpose("prefetching"), Traffic::Human),
            (purpose(""), Traffic::Human),
            (facts("AdsBot-Google (+http://www.google.com/adsbot.html)"), Traffic::Bot),
            (facts("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"), Traffic::Bot),
            (
                facts(
                    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/143.0.0.0",
                ),
                Traffic::Bot,
            ),
            (
                facts(
                    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
                ),
                Traffic::AiAgent,
            ),
            (
                facts(
                    "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko); compatible; ChatGPT-User/1.0; +https://openai.com/bot",
                ),
                Traffic::AiAgent,
            ),
            (facts("Mozilla/5.0 (compatible; ClaudeBot/1.0; +claudebot@anthropic.com)"), Traffic::AiAgent),
            (
                facts("Mozilla/5.0 (compatible; PerplexityBot/1.0; +https://perplexity.ai/perplexitybot)"),
                Traffic::AiAgent,
            ),
            (facts("sqlmap/1.7.2#stable (https://sqlmap.org)"), Traffic::Scanner),
            (
                facts("Mozilla/5.0 (compatible; Nmap Scripting Engine; https://nmap.org/book/nse.html)"),
                Traffic::Scanner,
            ),
            (facts("Mozilla/5.0 (compatible; CensysInspect/1.1; +https://about.censys.io/)"), Traffic::Scanner),
            (facts("Mozilla/5.0 zgrab/0.x"), Traffic::Scanner),
            // No word of its own.
            (facts("MyProdinfo/1.0"), Traffic::Unknown),
        ] {
            assert_eq!(annotate(&facts).traffic, expected, "{facts:?}");
        }
    }

    #[test]
    fn a_tenants_own_lists() {
        let rule =
            TrafficRule { bots: vec!["shopwatch".into()], scanners: vec!["redteam/".into()], ..TrafficRule::default() };
        for (agent, expected) in [
            (Some("ShopWatch 2"), Some(Traffic::Bot)),
            (Some("Mozilla/5.0 RedTeam/1"), Some(Traffic::Scanner)),
            (Some(CHROME), None),
            (None, None),
        ] {
            assert_eq!(rule.own(agent), expected, "{agent:?}");
        }
        assert_eq!(TrafficRule::default().own(Some("shopwatch")), None);
    }
}
