//! The services as axum routers, for a service of somebody else's.

use axum::Router;

use crate::{Internal, Public, Server};

/// The paths that pages, SDKs and edges write to, what they seal to, and the page SDK.
const PUBLIC: [&str; 19] = [
    "/v1/f",
    "/v1/e",
    "/v1/track",
    "/v1/identify",
    "/v1/page",
    "/v1/screen",
    "/v1/group",
    "/v1/alias",
    "/v1/batch",
    "/v1/t",
    "/v1/i",
    "/v1/p",
    "/v1/s",
    "/v1/g",
    "/v1/a",
    "/v1/b",
    "/v1/region-keys/{tenant}",
    "/sdk/{file}",
    "/sdk/{release}/{file}",
];

const HEALTH: [&str; 3] = ["/livez", "/readyz", "/startupz"];
const INTERNAL: [&str; 2] = ["/metrics", "/v1/leases"];

impl Server {
    /// What pages, SDKs and edges write to: `/v1/f`, `/v1/e` and Segment's calls; the region keys; and the page SDK, if the settings name
    /// one. To merge into a router, at the root of its paths. Health is not among them, since a service has its own.
    pub fn router(&self) -> Router {
        let service = Public(self.into());
        PUBLIC.into_iter().fold(Router::new(), |router, path| router.route_service(path, service.clone()))
    }

    /// What operators and enrolled edges talk to: `/v1/leases`, `/metrics`, `/livez`, `/readyz`, `/startupz`. Not for
    /// the public.
    pub fn internal_router(&self) -> Router {
        let service = Internal(self.into());
        let paths = INTERNAL.into_iter().chain(HEALTH);
        paths.fold(Router::new(), |router, path| router.route_service(path, service.clone()))
    }

    /// The same as a plain `tower` service, health and problem answers for unknown paths included.
    #[must_use]
    pub fn public(&self) -> Public {
        Public(self.into())
    }

    /// The internal one as a plain `tower` service.
    #[must_use]
    pub fn internal(&self) -> Internal {
        Internal(self.into())
    }
}

#[cfg(test)]
mod tests {
    use firsthop_intake::{Route, route};

    use super::*;

    #[test]
    fn every_path_has_a_route_and_the_table_no_more() {
        for path in PUBLIC {
            let asked = path.replace("{release}", "0.1.0");
            let writes = matches!(route("POST", &asked), Ok(Route::Frame | Route::Envelope | Route::Segment(_)));
            assert!(writes || matches!(route("GET", &asked), Ok(Route::RegionKeys(_) | Route::Sdk(_))), "{path}");
        }
        for path in HEALTH.into_iter().chain(["/metrics"]) {
            assert!(route("GET", path).is_ok(), "{path}");
        }
        assert_eq!(route("POST", "/v1/leases"), Ok(Route::Leases));
        // One letter or a name: all that intake knows of Segment's are mounted.
        let names = ["track", "identify", "page", "screen", "group", "alias", "batch"];
        let letters: Vec<String> = ('a'..='z').map(String::from).collect();
        let known = names.into_iter().chain(letters.iter().map(String::as_str)).map(|name| format!("/v1/{name}"));
        for path in known.filter(|path| matches!(route("POST", path), Ok(Route::Segment(_)))) {
            assert!(PUBLIC.contains(&path.as_str()), "{path}");
        }
    }
}
