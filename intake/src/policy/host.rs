//! Addresses that a hop sends to: what a person sets, not what a request says.

use std::{fmt, net::IpAddr};

/// What is wrong with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostFault {
    /// Another scheme, or none.
    Scheme,
    /// `http` to another machine: keys and events would travel in the clear.
    Plain,
    /// No host, a user, a query, or characters that stand in no address.
    Form,
}

impl fmt::Display for HostFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "must be an https URL",
            Self::Plain => "must be https: keys and events travel there",
            Self::Form => "must be an address and no more: no user, no query, no spaces",
        })
    }
}

impl std::error::Error for HostFault {}

/// A URL to put a path behind, without the slash at its end: `https`, or `http` to this very machine.
///
/// # Errors
/// [`HostFault`].
pub fn base_url(url: &str) -> Result<&str, HostFault> {
    let url = url.trim_end_matches('/');
    let rest = match url.split_once("://") {
        Some(("https", rest)) => rest,
        Some(("http", rest)) if is_loopback(rest) => rest,
        Some(("http", _)) => return Err(HostFault::Plain),
        _ => return Err(HostFault::Scheme),
    };
    // What a URL parser might take for the end of the host, or drop.
    let is_plain = |b: u8| b.is_ascii_graphic() && !b"?#@\\\"<>^`{|}%".contains(&b);
    if rest.is_empty() || rest.starts_with(['/', ':']) || !rest.bytes().all(is_plain) {
        return Err(HostFault::Form);
    }
    Ok(url)
}

fn is_loopback(rest: &str) -> bool {
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next(),
        None => authority.split(':').next(),
    };
    host.is_some_and(|host| host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (url, is) in [
            ("https://eu.example", "https://eu.example"),
            ("https://eu.example/", "https://eu.example"),
            ("https://eu.example:8443/behind/a/path//", "https://eu.example:8443/behind/a/path"),
            ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[::1]:8080/x", "http://[::1]:8080/x"),
            ("http://localhost", "http://localhost"),
        ] {
            assert_eq!(base_url(url), Ok(is), "{url}");
        }
        for (url, fault) in [
            ("", HostFault::Scheme),
            ("eu.example", HostFault::Scheme),
            ("HTTPS://eu.example", HostFault::Scheme),
            ("ftp://eu.example", HostFault::Scheme),
            ("javascript://x", HostFault::Scheme),
            (" https://eu.example", HostFault::Scheme),
            ("http://eu.example", HostFault::Plain),
            ("http://10.0.0.1", HostFault::Plain),
            ("http://localhost.evil.example", HostFault::Plain),
            ("http://127.0.0.1.evil.example", HostFault::Plain),
            ("http://evil.example/127.0.0.1", HostFault::Plain),
            ("http://127.0.0.1@evil.example", HostFault::Plain),
            ("http://localhost:80@evil.example", HostFault::Form),
            ("http://[::1]@evil.example", HostFault::Form),
            ("https://", HostFault::Scheme),
            ("https:///x", HostFault::Form),
            ("https://:443", HostFault::Form),
            ("https://user@eu.example", HostFault::Form),
            ("https://eu.example?x", HostFault::Form),
            ("https://eu.example/#x", HostFault::Form),
            ("https://eu.example\\x", HostFault::Form),
            ("https://eu.example/a b", HostFault::Form),
            ("https://eu.example/%2e%2e", HostFault::Form),
            ("https://eu.example\t", HostFault::Form),
            ("https://eu.exämple", HostFault::Form),
            ("https://eu.example\r\nx: y", HostFault::Form),
        ] {
            assert_eq!(base_url(url), Err(fault), "{url}");
        }
    }
}
