//! What a hop knows of a request besides its body.

use firsthop_core::{Network, Timestamp};

/// What a hop knows of a request besides its body. There is no room in it for an address: the hop cuts it to its
/// network ([`Network::of`]) before anything else sees it.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The hop's clock.
    pub now: Timestamp,
    /// The sender's network.
    pub network: Network,
    /// ISO 3166-1 alpha-2 code, if known.
    pub country: Option<&'a str>,
    /// Code of the point of presence, if there is one.
    pub pop: Option<&'a str>,
    /// `Origin`
    pub origin: Option<&'a str>,
    /// `Authorization`
    pub authorization: Option<&'a str>,
    /// `Content-Type`
    pub content_type: Option<&'a str>,
    /// `Content-Encoding`
    pub content_encoding: Option<&'a str>,
    /// `User-Agent`
    pub user_agent: Option<&'a str>,
    /// `Sec-CH-UA-Mobile`
    pub ch_mobile: Option<&'a str>,
    /// `Sec-CH-UA-Platform`
    pub ch_platform: Option<&'a str>,
    /// `Sec-Purpose`
    pub sec_purpose: Option<&'a str>,
    /// `traceparent` (W3C Trace Context)
    pub traceparent: Option<&'a str>,
    /// The HMAC-SHA256 of the frame under the secret of the session that it [claims](crate::native::claimed), where the hop has had it
    /// computed.
    pub mac: Option<[u8; 32]>,
    /// `Sec-GPC` (Global Privacy Control). Asked for by itself: it counts whoever says it.
    pub gpc: Option<&'a str>,
    /// ISO 3166-2 subdivision without its country, where the tenant wants it.
    pub subdivision: Option<&'a str>,
    /// City, where the tenant wants it.
    pub city: Option<&'a str>,
}

impl<'a> Facts<'a> {
    /// The headers that [`with_headers`](Self::with_headers) asks for, for a hop that must copy them out first.
    pub const HEADERS: [&'static str; 9] = [
        "origin",
        "authorization",
        "content-type",
        "content-encoding",
        "user-agent",
        "sec-ch-ua-mobile",
        "sec-ch-ua-platform",
        "sec-purpose",
        "traceparent",
    ];

    /// Nothing known but the time.
    #[must_use]
    pub const fn at(now: Timestamp) -> Self {
        Self {
            now,
            network: Network::Unknown,
            country: None,
            pop: None,
            origin: None,
            authorization: None,
            content_type: None,
            content_encoding: None,
            user_agent: None,
            ch_mobile: None,
            ch_platform: None,
            sec_purpose: None,
            traceparent: None,
            mac: None,
            gpc: None,
            subdivision: None,
            city: None,
        }
    }

    /// Takes what the headers say; `header` is asked by lower-case name.
    #[must_use]
    pub fn with_headers(self, mut header: impl FnMut(&'static str) -> Option<&'a str>) -> Self {
        let [
            origin,
            authorization,
            content_type,
            content_encoding,
            user_agent,
            ch_mobile,
            ch_platform,
            sec_purpose,
            traceparent,
        ] = Self::HEADERS.map(&mut header);
        Self {
            origin,
            authorization,
            content_type,
            content_encoding,
            user_agent,
            ch_mobile,
            ch_platform,
            sec_purpose,
            traceparent,
            ..self
        }
    }
}
