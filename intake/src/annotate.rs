//! What a hop notes on a request: where it came from, and what kind of client sent it.

use firsthop_core::{AgentClass, Annotation, Traffic, Trust};

use crate::{Facts, Problem, Refusal};

/// The annotation of a request, before it is known who answers for it.
pub(crate) fn annotate<'a>(facts: &Facts<'a>) -> Annotation<'a> {
    let agent = agent_class(facts);
    Annotation {
        received_ms: facts.now.as_millis(),
        pop: short(facts.pop, 3..=8),
        country: short(facts.country, 2..=2),
        network: facts.network,
        agent,
        traffic: traffic(facts, agent),
        trust: Trust::Unchecked,
        refused: "",
    }
}

/// Bodies are read as they come: a decompressor here would be a bomb's fuse, and neither our SDK nor Segment's needs it.
pub(crate) fn check_encoding(facts: &Facts<'_>) -> Result<(), Problem> {
    match facts.content_encoding.map(str::trim) {
        None | Some("") => Ok(()),
        Some(encoding) if encoding.eq_ignore_ascii_case("identity") => Ok(()),
        Some(_) => Err(Refusal::ContentEncoding.into()),
    }
}

/// Codes are letters and digits of a known length; anything else is not one.
fn short(code: Option<&str>, len: std::ops::RangeInclusive<usize>) -> &str {
    code.filter(|code| len.contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric())).unwrap_or_default()
}

/// What declares itself a robot, lower case. Each must stand at the end of a word, so that a phone called Cubot or a
/// word like "robotics" does not match; what follows may be a version or a separator.
const ROBOTS: &[&str] = &[
    "bot",
    "robot",
    "crawler",
    "crawling",
    "spider",
    "slurp",
    "mediapartners-google",
    "google-read-aloud",
    "apis-google",
    "feedfetcher-google",
    "bingpreview",
    "facebookexternalhit",
    "facebookcatalog",
    "meta-externalagent",
    "whatsapp",
    "ia_archiver",
    "archive.org_bot",
    "chrome-lighthouse",
    "headlesschrome",
    "phantomjs",
    "pingdom",
    "statuscake",
    "gtmetrix",
    "site24x7",
    "checkly",
    "yandex.com/bots",
    "baiduspider",
    "bytespider",
    "chatgpt-user",
    "perplexity-user",
    "claude-user",
    "embedly",
    "quora link preview",
    "skypeuripreview",
    "vkshare",
    "w3c_validator",
];

/// Words that end in a robot's token and are none.
const NO_ROBOTS: &[&str] = &["cubot"];

/// How HTTP libraries and server-side SDKs begin, or name themselves, lower case.
const LIBRARIES: &[&str] = &[
    "analytics-",
    "analytics.",
    "apache-httpclient",
    "axios",
    "curl",
    "deno",
    "dart",
    "faraday",
    "go-http-client",
    "got",
    "guzzlehttp",
    "http.rb",
    "httpie",
    "insomnia",
    "java",
    "k6",
    "libwww-perl",
    "node",
    "node-fetch",
    "okhttp",
    "php",
    "postmanruntime",
    "python",
    "python-requests",
    "python-urllib",
    "reqwest",
    "ruby",
    "rudder-",
    "segment",
    "undici",
    "wget",
    "wrk",
];

/// The class of a client, by its client hints where it sends them, otherwise by its user agent.
pub(crate) fn agent_class(facts: &Facts<'_>) -> AgentClass {
    let agent = facts.user_agent.unwrap_or_default().trim().to_ascii_lowercase();
    if ROBOTS.iter().any(|token| declares(&agent, token)) {
        return AgentClass::Robot;
    }
    if !agent.starts_with("mozilla/") && LIBRARIES.iter().any(|library| begins(&agent, library)) {
        return AgentClass::Library;
    }
    let android = facts.ch_platform.is_some_and(|platform| platform.trim_matches('"').eq_ignore_ascii_case("android"));
    match facts.ch_mobile.map(str::trim) {
        Some("?1") => return AgentClass::Phone,
        Some("?0") if android => return AgentClass::Tablet,
        Some("?0") => return AgentClass::Desktop,
        _ => {}
    }
    let has = |token: &str| agent.contains(token);
    if has("ipad") || has("tablet") || has("playbook") || has("kindle") || has("silk/") {
        AgentClass::Tablet
    } else if has("iphone") || has("ipod") || has("windows phone") {
        AgentClass::Phone
    } else if has("smart-tv") || has("smarttv") || has("apple tv") || has("googletv") || has("web0s") || has("tizen") {
        AgentClass::Unknown
    } else if has("android") || has("mobi") {
        // Android says "Mobile" on phones only.
        if has("mobi") { AgentClass::Phone } else { AgentClass::Tablet }
    } else if has("windows nt") || has("macintosh") || has("x11;") || has("cros ") {
        AgentClass::Desktop
    } else {
        AgentClass::Unknown
    }
}

fn traffic(facts: &Facts<'_>, agent: AgentClass) -> Traffic {
    // `prefetch`, `prefetch;prerender`, …: a structured item whose parameters do not matter here.
    let purpose = facts.sec_purpose.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if agent == AgentClass::Robot {
        Traffic::Bot
    } else if purpose.eq_ignore_ascii_case("prefetch") {
        Traffic::Prefetch
    } else {
        Traffic::Unknown
    }
}

/// Whether a token stands in the text with no letter behind it, as part of a word that may begin before it
/// (`Googlebot/2.1`), unless that word is known to be no robot.
fn declares(agent: &str, token: &str) -> bool {
    agent.match_indices(token).any(|(at, _)| {
        let (before, after) = (&agent[..at], &agent[at + token.len()..]);
        let ends = !after.starts_with(|c: char| c.is_ascii_alphabetic());
        ends && !NO_ROBOTS.iter().any(|word| word.strip_suffix(token).is_some_and(|head| before.ends_with(head)))
    })
}

/// Whether the text begins with a name, and not with a longer word.
fn begins(agent: &str, name: &str) -> bool {
    agent.strip_prefix(name).is_some_and(|rest| {
        name.ends_with(|c: char| !c.is_ascii_alphanumeric()) || !rest.starts_with(|c: char| c.is_ascii_alphabetic())
    })
}
