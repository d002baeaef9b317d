//! Looking at JSON without parsing it: how deep it goes, whose it says it is, and what must not leave in it. For bodies
//! that may not parse at all.

use std::{borrow::Cow, net::IpAddr, ops::Range};

use firsthop_core::Network;

use crate::json::escaped_unit;

/// Deepest nesting of objects and arrays; a scalar has none.
pub(crate) fn depth(json: &str) -> usize {
    let (mut depth, mut most) = (0usize, 0);
    let mut tokens = Tokens { bytes: json.as_bytes(), at: 0 };
    while let Some(token) = tokens.next() {
        match token {
            Token::Open => {
                depth += 1;
                most = most.max(depth);
            }
            Token::Close => depth = depth.saturating_sub(1),
            Token::Text(_) => {}
        }
    }
    most
}

/// The value of the first member of this name, at any depth, whose value is a string: as it stands, escapes and all.
pub(crate) fn find_text<'a>(json: &'a [u8], name: &str) -> Option<&'a str> {
    members(json)
        .find(|(key, _)| &json[key.clone()] == name.as_bytes())
        .and_then(|(_, v)| str::from_utf8(&json[v]).ok())
}

/// Cuts the addresses in members named `ip` to their networks, at any depth, however the name is written: for what is kept as it came
/// or may not parse at all. A text that is no address is emptied and any other value becomes null, since it may hold one.
pub(crate) fn without_addresses(json: &[u8]) -> Cow<'_, [u8]> {
    let mut tokens = Tokens { bytes: json, at: 0 };
    let mut cut = Vec::new();
    let mut kept = 0;
    while let Some(token) = tokens.next() {
        let Token::Text(name) = token else { continue };
        let Some(value) = is_ip(&json[name.clone()]).then(|| value_at(json, name.end + 1)).flatten() else { continue };
        let (at, end, instead) = if json[value] == b'"' {
            let Some(Token::Text(text)) = tokens.next() else { break };
            let network = str::from_utf8(&json[text.clone()]).ok().and_then(network);
            (text.start, text.end, Cow::Owned(network.unwrap_or_default()))
        } else {
            tokens.at = value_end(json, value);
            (value, tokens.at, Cow::Borrowed("null"))
        };
        cut.extend_from_slice(&json[kept..at]);
        cut.extend_from_slice(instead.as_bytes());
        kept = end;
    }
    if kept == 0 {
        return Cow::Borrowed(json);
    }
    cut.extend_from_slice(&json[kept..]);
    Cow::Owned(cut)
}

/// Whether a name, as it stands between its quotes, reads `ip`.
fn is_ip(name: &[u8]) -> bool {
    let mut at = 0;
    for wanted in *b"ip" {
        let len = match escaped_unit(name, at) {
            Some(unit) if unit == u16::from(wanted) => 6,
            None if name.get(at) == Some(&wanted) => 1,
            _ => return false,
        };
        at += len;
    }
    at == name.len()
}

/// Where the value of a member begins whose name ends before `at`. None if no value follows.
fn value_at(json: &[u8], at: usize) -> Option<usize> {
    let skip_space = |at: usize| Some(at + json.get(at..)?.iter().position(|byte| !byte.is_ascii_whitespace())?);
    let colon = skip_space(at)?;
    if json[colon] == b':' { skip_space(colon + 1) } else { None }
}

/// Where a value that is no text ends: the end of the text, if it does not.
fn value_end(json: &[u8], start: usize) -> usize {
    if !matches!(json[start], b'{' | b'[') {
        let rest = json[start..].iter().position(|byte| b",]}".contains(byte) || byte.is_ascii_whitespace());
        return rest.map_or(json.len(), |len| start + len);
    }
    let mut tokens = Tokens { bytes: json, at: start };
    let mut depth = 0usize;
    while let Some(token) = tokens.next() {
        match token {
            Token::Open => depth += 1,
            Token::Close if depth == 1 => return tokens.at,
            Token::Close => depth -= 1,
            Token::Text(_) => {}
        }
    }
    json.len()
}

/// The network of an address, as text; also of an address with a port and of a network that was cut before.
pub(crate) fn network(address: &str) -> Option<String> {
    let address = address.trim();
    let bare = address.strip_suffix("/24").or(address.strip_suffix("/48")).unwrap_or(address);
    let address = bare.parse::<IpAddr>().or_else(|_| bare.parse().map(|address: std::net::SocketAddr| address.ip()));
    Some(Network::of(address.ok()?).to_string())
}

/// Escaped surrogates that stand alone become U+FFFD, as everywhere else where JavaScript's text becomes UTF-8. An SDK
/// that cuts a text in the middle of an emoji sends such, and its event is worth more than that half. Lengths and
/// positions stay.
pub(crate) fn mend_surrogates(json: &str) -> Cow<'_, str> {
    let mut mended: Option<Vec<u8>> = None;
    let bytes = json.as_bytes();
    let mut at = 0;
    while let Some(found) = bytes[at..].iter().position(|&b| b == b'\\') {
        at += found;
        let len = match escaped_unit(bytes, at) {
            None => 2,
            Some(0xd800..=0xdbff) if matches!(escaped_unit(bytes, at + 6), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => {
                mended.get_or_insert_with(|| bytes.to_vec())[at..at + 6].copy_from_slice(b"\\ufffd");
                6
            }
            Some(_) => 6,
        };
        at = (at + len).min(bytes.len());
    }
    match mended {
        // Only ASCII was put in place of ASCII.
        Some(bytes) => Cow::Owned(String::from_utf8(bytes).unwrap_or_default()),
        None => Cow::Borrowed(json),
    }
}

/// Members whose value is a string: where name and value stand, without their quotes. A string that does not end goes
/// to the end of the text.
fn members(json: &[u8]) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + '_ {
    let mut tokens = Tokens { bytes: json, at: 0 };
    let mut last: Option<Range<usize>> = None;
    std::iter::from_fn(move || {
        loop {
            let text = match tokens.next()? {
                Token::Text(text) => text,
                Token::Open | Token::Close => {
                    last = None;
                    continue;
                }
            };
            let name = last.replace(text.clone());
            // Between the quotes of name and value stand a colon and white space, and nothing else.
            let member = name.filter(|name| {
                let between = json.get(name.end + 1..text.start - 1).unwrap_or_default();
                between.trim_ascii() == b":"
            });
            if let Some(name) = member {
                return Some((name, text));
            }
        }
    })
}

enum Token {
    Open,
    Close,
    /// What stands between the quotes.
    Text(Range<usize>),
}

struct Tokens<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Tokens<'_> {
    fn next(&mut self) -> Option<Token> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            match byte {
                b'{' | b'[' => return Some(Token::Open),
                b'}' | b']' => return Some(Token::Close),
                b'"' => {
                    let start = self.at;
                    let mut end = start;
                    loop {
                        match self.bytes.get(end) {
                            Some(b'"') | None => break,
                            Some(b'\\') => end += 2,
                            Some(_) => end += 1,
                        }
                    }
                    let end = end.min(self.bytes.len());
                    self.at = end + 1;
                    return Some(Token::Text(start..end));
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn depths() {
        for (json, expected) in [
            ("1", 0),
            ("{}", 1),
            (r#"{"a":[{}],"b":[[]]}"#, 3),
            (r#"{"a":"[[[[","b\"[[":1}"#, 1),
            (r#"["\\",[]]"#, 2),
            ("[[[]],[]]", 3),
            ("[[[", 3),
            ("]]]]", 0),
            (r#"["unclosed [[["#, 1),
        ] {
            assert_eq!(depth(json), expected, "{json}");
        }
    }

    #[test]
    fn a_key_is_found_in_what_does_not_parse() {
        for json in [
            r#"{"writeKey":"fh_x","batch":[{"#,
            r#"{"batch":[nonsense], "writeKey" : "fh_x"#,
            r#"{"event":"writeKey","writeKey":"fh_x","#,
            "{\"writeKey\"\n:\t\"fh_x\"}",
        ] {
            assert_eq!(find_text(json.as_bytes(), "writeKey"), Some("fh_x"), "{json}");
        }
        for json in [r#"{"a":"writeKey"}"#, r#"["writeKey","fh_x"]"#, r#"{"writeKey":1,"a":"fh_x"}"#, "", "\""] {
            assert_eq!(find_text(json.as_bytes(), "writeKey"), None, "{json}");
        }
    }

    #[test]
    fn no_address_stays() {
        for (json, expected) in [
            (r#"{"ip":"203.0.113.77","a":1}"#, r#"{"ip":"203.0.113.0/24","a":1}"#),
            (r#"{"context":{"ip" : "2001:db8:1:2::3"}}"#, r#"{"context":{"ip" : "2001:db8:1::/48"}}"#),
            (r#"{"ip":"203.0.113.77"#, r#"{"ip":"203.0.113.0/24"#),
            (r#"{"ip":"203.0.113.77:4711"}"#, r#"{"ip":"203.0.113.0/24"}"#),
            (r#"{"ip":"203.0.113.77, 10.0.0.1"}"#, r#"{"ip":""}"#),
            (r#"{"ip":"203.0.113.0/24"}"#, r#"{"ip":"203.0.113.0/24"}"#),
            (
                r#"[{"ip":"203.0.113.77"},{"ip":"::ffff:198.51.100.7"}]"#,
                r#"[{"ip":"203.0.113.0/24"},{"ip":"198.51.100.0/24"}]"#,
            ),
            (r#"{"tip":"203.0.113.77","ip":null}"#, r#"{"tip":"203.0.113.77","ip":null}"#),
            (r#"{"ip":["203.0.113.77"],"a":1}"#, r#"{"ip":null,"a":1}"#),
            (r#"{"ip" : {"v4":"203.0.113.77","of":[{}]} ,"a":"]"}"#, r#"{"ip" : null ,"a":"]"}"#),
            (r#"{"ip":3405803853}"#, r#"{"ip":null}"#),
            (r#"{"\u0069p":"203.0.113.77"}"#, r#"{"\u0069p":"203.0.113.0/24"}"#),
            (r#"{"\u0069\u0070":["203.0.113.77"]}"#, r#"{"\u0069\u0070":null}"#),
            (r#"{"ip":["203.0.113.77","#, r#"{"ip":null"#),
            (r#"{"ip":"203\u002e0.113.77"}"#, r#"{"ip":""}"#),
            (r#"["ip","203.0.113.77"]"#, r#"["ip","203.0.113.77"]"#),
            (r#"{"ip":"#, r#"{"ip":"#),
        ] {
            assert_eq!(String::from_utf8_lossy(&without_addresses(json.as_bytes())), expected);
        }
    }

    #[test]
    fn halves_of_pairs_become_the_replacement_character() {
        for (json, expected) in [
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#""\ude00\ud83d""#, r#""\ufffd\ufffd""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\uD83Dx\uDE00""#, r#""\ufffdx\ufffd""#),
            (r#""\u00e9\ud8"#, r#""\u00e9\ud8"#),
        ] {
            assert_eq!(mend_surrogates(json), expected);
        }
    }

    proptest! {
        #[test]
        fn anything_is_looked_at_without_a_panic(bytes: Vec<u8>, text in "[\\\\\"\\[\\]{}:ipu0-9d8, ]{0,60}") {
            let _ = (depth(&text), mend_surrogates(&text), network(&text));
            for json in [&bytes[..], text.as_bytes()] {
                let _ = (find_text(json, "ip"), without_addresses(json));
            }
            prop_assert_eq!(mend_surrogates(&text).len(), text.len());
        }
    }
}
