//! The page SDK's addresses: what a path asks for, and how long a browser may keep what it gets there. Edge and server have the files.
//!
//! `/sdk/{file}` is the current SDK, `/sdk/{release}/{file}` that of one release. A release is called by its build, 16 hex digits that stand
//! for the bytes of all its files, which never change; or by its version (`0.1.0`), under which a build of one's own may stand, and the next.

/// What a path behind `/sdk/` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Version or build. None: the current release.
    pub release: Option<&'a str>,
    /// The file's name.
    pub file: &'a str,
}

/// The listing of a release's files: integrity values, sizes, version.
pub const LISTING: &str = "integrity.json";

/// How long the current SDK, or a version's, may be used without asking: five minutes, and a day longer while a newer one is fetched.
pub const SHORT: &str = "public, max-age=300, stale-while-revalidate=86400";
/// How long a build may.
pub const FOREVER: &str = "public, max-age=31536000, immutable";

/// For pages of every origin, which a tag with `integrity` needs; for pages that are isolated from other origins; and no guessing of types.
pub const HEADERS: [(&str, &str); 4] = [
    ("access-control-allow-origin", "*"),
    ("cross-origin-resource-policy", "cross-origin"),
    ("timing-allow-origin", "*"),
    ("x-content-type-options", "nosniff"),
];

impl<'a> Wanted<'a> {
    /// Of a path without the `/sdk/` in front. None: no path of the SDK's.
    #[must_use]
    pub fn parse(path: &'a str) -> Option<Self> {
        let (release, file) = match path.split_once('/') {
            Some((release, file)) => (Some(release), file),
            None => (None, path),
        };
        let is_path = !file.is_empty() && !file.contains('/') && release.is_none_or(is_release);
        is_path.then_some(Self { release, file })
    }

    /// How long the answer may be kept.
    #[must_use]
    pub fn caching(&self) -> &'static str {
        if self.release.is_some_and(is_build) { FOREVER } else { SHORT }
    }

    /// Where a release that is not here leads: to the current one, because a page without its SDK loses every event. Not the
    /// listing, which speaks of one release.
    #[must_use]
    pub fn elsewhere(&self) -> Option<String> {
        (self.release.is_some() && self.file != LISTING).then(|| ["/sdk/", self.file].concat())
    }
}

/// The media type of a file, by its name. None: nothing that is served.
#[must_use]
pub fn media(file: &str) -> Option<&'static str> {
    match file.rsplit_once('.')?.1 {
        "js" | "mjs" => Some("text/javascript; charset=utf-8"),
        "wasm" => Some("application/wasm"),
        "json" => Some("application/json"),
        _ => None,
    }
}

/// Whether a copy that the client has is still good, by its `If-None-Match`. A proxy that compresses marks the tag as weak, which makes no
/// difference here.
#[must_use]
pub fn is_known(if_none_match: Option<&str>, etag: &str) -> bool {
    if_none_match.is_some_and(|tags| {
        tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
    })
}

fn is_build(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A build or a version, which is three numbers, and perhaps a pre-release behind a hyphen.
fn is_release(text: &str) -> bool {
    let (numbers, pre) = text.split_once('-').unwrap_or((text, "0"));
    let number = |part: &str| !part.is_empty() && part.len() <= 9 && part.bytes().all(|b| b.is_ascii_digit());
    let is_version = numbers.split('.').count() == 3
        && numbers.split('.').all(number)
        && !pre.is_empty()
        && pre.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
    is_build(text) || is_version
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let wanted = |release, file| Some(Wanted { release, file });
        for (path, expected) in [
            ("firsthop.js", wanted(None, "firsthop.js")),
            ("0.1.0/firsthop.js", wanted(Some("0.1.0"), "firsthop.js")),
            ("1.0.0-rc.1/firsthop.js", wanted(Some("1.0.0-rc.1"), "firsthop.js")),
            ("0123456789abcdef/firsthop.js", wanted(Some("0123456789abcdef"), "firsthop.js")),
            ("", None),
            ("firsthop.js/", None),
            ("/firsthop.js", None),
            ("a/firsthop.js", None),
            ("../firsthop.js", None),
            ("1.2/firsthop.js", None),
            ("1.2.3-/firsthop.js", None),
            ("1.2.x/firsthop.js", None),
            ("1.2.3/4/firsthop.js", None),
            ("0123456789ABCDEF/firsthop.js", None),
            ("0123456789abcde/firsthop.js", None),
        ] {
            assert_eq!(Wanted::parse(path), expected, "{path}");
        }
    }

    #[test]
    fn only_a_build_is_kept_for_ever() {
        let caching = |path| Wanted::parse(path).expect(path).caching();
        assert_eq!(caching("0123456789abcdef/firsthop.js"), FOREVER);
        for path in ["firsthop.js", "integrity.json", "0.1.0/firsthop.js", "1.0.0-0123456789abcdef/firsthop.js"] {
            assert_eq!(caching(path), SHORT, "{path}");
        }
    }

    #[test]
    fn a_release_that_is_not_here_leads_to_the_current_one() {
        let elsewhere = |path| Wanted::parse(path).expect(path).elsewhere();
        assert_eq!(elsewhere("0.0.9/firsthop.js").as_deref(), Some("/sdk/firsthop.js"));
        assert_eq!(elsewhere("0.0.9/integrity.json"), None);
        assert_eq!(elsewhere("nothing.js"), None);
    }

    #[test]
    fn a_copy_is_known_by_its_tag() {
        for (header, known) in [
            (None, false),
            (Some("\"a\""), true),
            (Some("W/\"a\""), true),
            (Some("\"b\", \"a\""), true),
            (Some("*"), true),
            (Some("\"b\""), false),
            (Some(""), false),
        ] {
            assert_eq!(is_known(header, "\"a\""), known, "{header:?}");
        }
    }
}
