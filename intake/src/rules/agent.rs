//! What kind of client sent a request: by its client hints where it sends them, otherwise by its user agent.

use firsthop_core::AgentClass;

use crate::Facts;

/// What declares itself a robot, lower case, by its last letter. Each must stand at the end of a word, so that a word like
/// "robotics" does not match; what follows may be a version or a separator.
const fn robots(last: u8) -> &'static [&'static str] {
    match last {
        b'7' => &["site24x7"],
        b'd' => &["google-read-aloud"],
        b'e' => &[
            "apis-google",
            "chrome-lighthouse",
            "feedfetcher-google",
            "headlesschrome",
            "mediapartners-google",
            "statuscake",
            "vkshare",
        ],
        b'g' => &["crawling", "facebookcatalog"],
        b'm' => &["pingdom"],
        b'p' => &["slurp", "whatsapp"],
        b'r' => {
            &["chatgpt-user", "claude-user", "crawler", "ia_archiver", "perplexity-user", "spider", "w3c_validator"]
        }
        b's' => &["phantomjs", "yandex.com/bots"],
        b't' => &["bot", "facebookexternalhit", "meta-externalagent"],
        b'w' => &["bingpreview", "quora link preview", "skypeuripreview"],
        b'x' => &["gtmetrix"],
        b'y' => &["checkly", "embedly"],
        _ => &[],
    }
}

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

/// What televisions and consoles say in the first comment.
const TELEVISIONS: [&str; 11] = [
    "smart-tv",
    "smarttv",
    "apple tv",
    "googletv",
    "google tv",
    "android tv",
    "bravia",
    "web0s",
    "tizen",
    "playstation",
    "xbox",
];

/// A request's user agent in small letters, as the rules compare it.
pub(crate) fn lower(facts: &Facts<'_>) -> String {
    facts.user_agent.unwrap_or_default().trim().to_ascii_lowercase()
}

/// The class of a client whose user agent is this in small letters.
pub(crate) fn agent_class(facts: &Facts<'_>, agent: &str) -> AgentClass {
    if is_robot(agent) {
        return AgentClass::Robot;
    }
    if !agent.starts_with("mozilla/") && LIBRARIES.iter().any(|library| begins(agent, library)) {
        return AgentClass::Library;
    }
    let android = facts.ch_platform.is_some_and(|platform| platform.trim_matches('"').eq_ignore_ascii_case("android"));
    match facts.ch_mobile.map(str::trim) {
        Some("?1") => return AgentClass::Phone,
        Some("?0") if android => return AgentClass::Tablet,
        Some("?0") => return AgentClass::Desktop,
        _ => {}
    }
    // The first comment names the platform; what follows is the browser's ancestry.
    let platform = agent.split(')').next().unwrap_or_default();
    let has = |token: &str| platform.contains(token);
    let mobile = agent.contains("mobi");
    if has("ipad") || has("tablet") || has("playbook") || has("kindle") || agent.contains("silk/") {
        AgentClass::Tablet
    } else if has("iphone") || has("ipod") || has("windows phone") {
        AgentClass::Phone
    } else if TELEVISIONS.iter().any(|token| has(token)) || agent.contains("crkey/") {
        AgentClass::Tv
    } else if has("android") || mobile {
        // Android says "Mobile" on phones only.
        if mobile { AgentClass::Phone } else { AgentClass::Tablet }
    } else if has("windows nt") || has("macintosh") || has("x11;") || has("cros ") {
        AgentClass::Desktop
    } else {
        AgentClass::Unknown
    }
}

/// Whether one of the tokens stands at the end of a word. The word may begin before it (`Googlebot/2.1`), unless it is
/// known to be no robot.
fn is_robot(agent: &str) -> bool {
    let bytes = agent.as_bytes();
    let ends = (1..=bytes.len())
        .filter(|&end| bytes[end - 1].is_ascii_alphanumeric() && !bytes.get(end).is_some_and(u8::is_ascii_alphabetic));
    ends.map(|end| &bytes[..end]).any(|word| {
        let ends_with = |token: &&str| word.ends_with(token.as_bytes());
        robots(word[word.len() - 1]).iter().any(ends_with) && !NO_ROBOTS.iter().any(ends_with)
    })
}

/// Whether the text begins with a name, and not with a longer word.
fn begins(agent: &str, name: &str) -> bool {
    agent.strip_prefix(name).is_some_and(|rest| {
        name.ends_with(|c: char| !c.is_ascii_alphanumeric()) || !rest.starts_with(|c: char| c.is_ascii_alphabetic())
    })
}

#[cfg(test)]
mod tests {
    use firsthop_core::Timestamp;

    use super::*;

    fn facts(user_agent: &str) -> Facts<'_> {
        Facts { user_agent: Some(user_agent), ..Facts::at(Timestamp::from_millis(0)) }
    }

    fn class_of(facts: &Facts<'_>) -> AgentClass {
        agent_class(facts, &lower(facts))
    }

    #[test]
    fn classes_of_clients() {
        use AgentClass::*;
        for (class, agent) in [
            (
                Desktop,
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36",
            ),
            (Desktop, "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:144.0) Gecko/20100101 Firefox/144.0"),
            (
                Desktop,
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36",
            ),
            (
                Desktop,
                "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36",
            ),
            (
                Phone,
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
            ),
            (
                Phone,
                "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Mobile Safari/537.36",
            ),
            (Phone, "Mozilla/5.0 (Android 15; Mobile; rv:144.0) Gecko/144.0 Firefox/144.0"),
            (
                Phone,
                "Mozilla/5.0 (Linux; Android 11; CUBOT X19) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Mobile Safari/537.36",
            ),
            (
                Tablet,
                "Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16.6 Mobile/15E148 Safari/604.1",
            ),
            (
                Tablet,
                "Mozilla/5.0 (Linux; Android 13; SM-X700) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36",
            ),
            (
                Tablet,
                "Mozilla/5.0 (Linux; Android 9; KFMAWI) AppleWebKit/537.36 (KHTML, like Gecko) Silk/120.2.1 like Chrome/120.0.0.0 Safari/537.36",
            ),
            (Library, "analytics-node-next/latest"),
            (Library, "analytics-python/2.3.2"),
            (Library, "python-requests/2.32.3"),
            (Library, "curl/8.5.0"),
            (Library, "node"),
            (Library, "Go-http-client/2.0"),
            (Library, "okhttp/4.12.0"),
            (Library, "Apache-HttpClient/4.5.14 (Java/17.0.9)"),
            (Robot, "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"),
            (
                Robot,
                "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Mobile Safari/537.36 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            ),
            (
                Robot,
                "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm) Chrome/143.0.0.0 Safari/537.36",
            ),
            (Robot, "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)"),
            (Robot, "Mozilla/5.0 (compatible; Baiduspider/2.0; +http://www.baidu.com/search/spider.html)"),
            (
                Robot,
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/143.0.0.0 Safari/537.36",
            ),
            (Robot, "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)"),
            (
                Robot,
                "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
            ),
            (Robot, "Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)"),
            (
                Tv,
                "Mozilla/5.0 (PlayStation; PlayStation 5/8.20) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Safari/605.1.15",
            ),
            (
                Tv,
                "Mozilla/5.0 (Linux; Android 12; BRAVIA 4K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
            ),
            (
                Tv,
                "Mozilla/5.0 (SMART-TV; LINUX; Tizen 7.0) AppleWebKit/537.36 (KHTML, like Gecko) 94.0.4606.31/7.0 TV Safari/537.36",
            ),
            (Unknown, "robotics-lab"),
            (Unknown, "javascript-thing"),
            (Unknown, ""),
        ] {
            assert_eq!(class_of(&facts(agent)), class, "{agent}");
        }
        assert_eq!(class_of(&Facts::at(Timestamp::from_millis(0))), Unknown);
    }

    /// Chrome freezes its user agent: what a device is, its hints say.
    #[test]
    fn hints_come_before_the_user_agent() {
        let frozen =
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36";
        for (mobile, platform, class) in [
            ("?1", Some("\"Android\""), AgentClass::Phone),
            ("?0", Some("\"Android\""), AgentClass::Tablet),
            ("?0", Some("\"Windows\""), AgentClass::Desktop),
            ("?0", None, AgentClass::Desktop),
            ("yes", None, AgentClass::Desktop),
        ] {
            let facts = Facts { ch_mobile: Some(mobile), ch_platform: platform, ..facts(frozen) };
            assert_eq!(class_of(&facts), class, "{mobile} {platform:?}");
        }
        let robot = Facts { ch_mobile: Some("?1"), ..facts("Googlebot/2.1") };
        assert_eq!(class_of(&robot), AgentClass::Robot);
    }
}
