//! Which request is for whom.

use crate::{Problem, Refusal, sdk::Wanted, segment::Call};

/// What a request asks for. A hop that does not serve a route answers [`Refusal::NotFound`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route<'a> {
    /// `POST /v1/f`: one native frame.
    Frame,
    /// `POST /v1/e`: one envelope of an edge's. Server only.
    Envelope,
    /// `POST /v1/leases`: leases for an edge. Server's internal listener only.
    Leases,
    /// `GET /v1/region-keys/{tenant}`: what frames are sealed to, signed. Server only.
    RegionKeys(&'a str),
    /// `POST /v1/track` and its kin: Segment's HTTP API.
    Segment(Call),
    /// `OPTIONS` of one of the above that pages use: answer 204 with [`CORS`] and [`PREFLIGHT`].
    Preflight,
    /// `GET /livez`
    Live,
    /// `GET /readyz`. Server only.
    Ready,
    /// `GET /startupz`. Server only.
    Startup,
    /// `GET /metrics`. Server's internal listener, and edges whose operator has set a token.
    Metrics,
    /// `GET /statusz`. Edges whose operator has set a token.
    Status,
    /// `GET /sdk/{file}`, `/sdk/{release}/{file}`: a file of the page SDK.
    Sdk(Wanted<'a>),
}

/// Headers of every answer on a route that pages write to, problems included. No credentials are used, so `*` gives
/// nothing away; the origin is enforced where it counts, on the `POST`.
pub const CORS: [(&str, &str); 3] = [
    ("access-control-allow-origin", "*"),
    ("access-control-expose-headers", "Firsthop-Receipt, Retry-After"),
    ("cache-control", "no-store"),
];

/// What the answer to a preflight has besides [`CORS`].
pub const PREFLIGHT: [(&str, &str); 3] = [
    ("access-control-allow-methods", "POST, OPTIONS"),
    // `*` leaves out `Authorization`. The named ones are what Segment's browser SDK sends, for browsers that read `*`
    // as a name.
    ("access-control-allow-headers", "Authorization, Content-Type, X-Retry-Count, *"),
    ("access-control-max-age", "86400"),
];

/// The route of a request. The path has no query.
///
/// # Errors
/// [`Refusal::NotFound`]; [`Refusal::MethodNotAllowed`] with the methods that are.
pub fn route<'a>(method: &str, path: &'a str) -> Result<Route<'a>, Problem> {
    const READ: &str = "GET, HEAD";
    const WRITE: &str = "POST, OPTIONS";
    let (route, allow) = match path {
        "/v1/f" => (Route::Frame, WRITE),
        "/v1/e" => (Route::Envelope, "POST"),
        "/v1/leases" => (Route::Leases, "POST"),
        "/livez" => (Route::Live, READ),
        "/readyz" => (Route::Ready, READ),
        "/startupz" => (Route::Startup, READ),
        "/metrics" => (Route::Metrics, READ),
        "/statusz" => (Route::Status, READ),
        _ => {
            let call = path.strip_prefix("/v1/").and_then(Call::from_path);
            let tenant =
                path.strip_prefix("/v1/region-keys/").filter(|tenant| !tenant.is_empty() && !tenant.contains('/'));
            let wanted = path.strip_prefix("/sdk/").and_then(Wanted::parse);
            match (call, wanted, tenant) {
                (Some(call), ..) => (Route::Segment(call), WRITE),
                (_, Some(wanted), _) => (Route::Sdk(wanted), READ),
                (.., Some(tenant)) => (Route::RegionKeys(tenant), READ),
                _ => return Err(Problem::new(Refusal::NotFound)),
            }
        }
    };
    match method {
        "OPTIONS" if allow == WRITE => Ok(Route::Preflight),
        _ if allow.split(", ").any(|allowed| allowed == method) => Ok(route),
        _ => Err(Problem::not_allowed(allow)),
    }
}

impl Route<'_> {
    /// Whether pages write to this path, so that every answer has [`CORS`]: whatever the method, a 405 too.
    #[must_use]
    pub fn is_public_path(path: &str) -> bool {
        route("OPTIONS", path) == Ok(Route::Preflight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        use Call::*;
        for (path, expected) in [
            ("/v1/f", Route::Frame),
            ("/v1/e", Route::Envelope),
            ("/v1/leases", Route::Leases),
            ("/v1/track", Route::Segment(Track)),
            ("/v1/t", Route::Segment(Track)),
            ("/v1/identify", Route::Segment(Identify)),
            ("/v1/i", Route::Segment(Identify)),
            ("/v1/page", Route::Segment(Page)),
            ("/v1/p", Route::Segment(Page)),
            ("/v1/screen", Route::Segment(Screen)),
            ("/v1/s", Route::Segment(Screen)),
            ("/v1/group", Route::Segment(Group)),
            ("/v1/g", Route::Segment(Group)),
            ("/v1/alias", Route::Segment(Alias)),
            ("/v1/a", Route::Segment(Alias)),
            ("/v1/batch", Route::Segment(Batch)),
            ("/v1/b", Route::Segment(Batch)),
        ] {
            assert_eq!(route("POST", path), Ok(expected), "{path}");
            let public = !matches!(expected, Route::Envelope | Route::Leases);
            assert_eq!(Route::is_public_path(path), public, "{path}");
            assert_eq!(route("OPTIONS", path) == Ok(Route::Preflight), public, "{path}");
            let problem = route("GET", path).unwrap_err();
            assert_eq!(problem.status(), 405, "{path}");
            assert_eq!(problem.allow(), Some(if public { "POST, OPTIONS" } else { "POST" }), "{path}");
        }
        for (path, expected) in [
            ("/livez", Route::Live),
            ("/readyz", Route::Ready),
            ("/startupz", Route::Startup),
            ("/metrics", Route::Metrics),
            ("/statusz", Route::Status),
            ("/sdk/firsthop.js", Route::Sdk(Wanted { release: None, file: "firsthop.js" })),
            ("/sdk/0.1.0/firsthop.js", Route::Sdk(Wanted { release: Some("0.1.0"), file: "firsthop.js" })),
            ("/v1/region-keys/00000000000000c8", Route::RegionKeys("00000000000000c8")),
        ] {
            assert_eq!(route("GET", path), Ok(expected), "{path}");
            assert_eq!(route("HEAD", path), Ok(expected), "{path}");
            let problem = route("POST", path).unwrap_err();
            assert_eq!((problem.status(), problem.allow()), (405, Some("GET, HEAD")), "{path}");
        }
    }

    #[test]
    fn what_is_no_route_is_not_found() {
        for path in [
            "",
            "/",
            "/v1",
            "/v1/",
            "/v1/x",
            "/v1/f/",
            "/v1/tracks",
            "/V1/f",
            "/v2/f",
            "/v1/region-keys",
            "/v1/region-keys/",
            "/v1/region-keys/a/b",
            "/sdk/",
            "/sdk/a/b",
            "/sdk/../x",
        ] {
            for method in ["GET", "POST", "OPTIONS", "BREW"] {
                assert_eq!(route(method, path).unwrap_err().status(), 404, "{method} {path}");
            }
        }
    }

    #[test]
    fn methods_are_exact() {
        for method in ["post", "PUT", "", "POST ", "DELETE"] {
            assert_eq!(route(method, "/v1/f").unwrap_err().status(), 405, "{method}");
        }
    }
}
