//! The service: route, read, decide, answer.

use std::{
    convert::Infallible,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll},
    time::Instant,
};

use bytes::{Buf, Bytes};
use firsthop_core::{Network, limits::MAX_ENVELOPE};
use firsthop_intake::{
    CORS, Facts, PREFLIGHT, Problem, Receipt, Refusal, Route, Verdict, check_encoding, native, policy::FORWARDED,
    route, segment,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, ETAG},
    request::Parts,
};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;

use super::{
    body,
    connections::Connection,
    documents::{self, Published},
    health, leases, sdk,
};
use crate::{
    Server, clock,
    ingest::{Sender, is_forged},
    server::Inner,
    traces::Trace,
};

/// The address of a request's sender, put among the request's extensions by whatever accepted the connection. axum's
/// `ConnectInfo<SocketAddr>` does as well. It is cut to its network before anything else sees it.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub IpAddr);

/// What pages, SDKs and edges talk to, as a `tower` service: native frames, Segment's calls, envelopes, health.
#[derive(Clone, Debug)]
pub struct Public(pub(crate) Asked);

/// What operators and enrolled edges talk to: leases, metrics, health. Not for the public.
#[derive(Clone, Debug)]
pub struct Internal(pub(crate) Asked);

/// Who is asked, and over which of our own listeners' connections; none in somebody's router.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    server: Server,
    connection: Option<Arc<Connection>>,
}

impl From<&Server> for Asked {
    fn from(server: &Server) -> Self {
        Self { server: server.clone(), connection: None }
    }
}

type Answer = Response<Full<Bytes>>;
pub(super) type Answering = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

/// A service for the connections of our own listener.
#[cfg(feature = "cli")]
pub(crate) trait OnConnection: Unpin {
    /// The same for one connection.
    fn on(&self, connection: &Arc<Connection>) -> Self;

    /// Answers a request.
    fn answering(&self, request: Request<hyper::body::Incoming>) -> Answering;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Public,
    Internal,
}

macro_rules! service {
    ($name:ident) => {
        impl<B> Service<Request<B>> for $name
        where
            B: Body<Data: Buf + Send> + Send + 'static,
        {
            type Response = Answer;
            type Error = Infallible;
            type Future = Answering;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: Request<B>) -> Answering {
                let asked = self.0.clone();
                Box::pin(async move { Ok(asked.answer(Side::$name, request).await) })
            }
        }

        #[cfg(feature = "cli")]
        impl OnConnection for $name {
            fn on(&self, connection: &Arc<Connection>) -> Self {
                Self(Asked { connection: Some(Arc::clone(connection)), ..self.0.clone() })
            }

            fn answering(&self, request: Request<hyper::body::Incoming>) -> Answering {
                let asked = self.0.clone();
                Box::pin(async move { Ok(asked.answer(Side::$name, request).await) })
            }
        }
    };
}
service!(Public);
service!(Internal);

/// A good answer's body.
enum Good {
    Receipt(String),
    Segment(Verdict),
    Preflight,
    Text(String),
    Json(String),
    Document(Published),
    Sdk(sdk::Found),
}

impl Asked {
    async fn answer<B>(&self, side: Side, request: Request<B>) -> Answer
    where
        B: Body<Data: Buf + Send> + Send + 'static,
    {
        let began = Instant::now();
        let (parts, body) = request.into_parts();
        let routed = route(parts.method.as_str(), parts.uri.path());
        let known = routed.as_ref().ok().copied();
        let result = match routed {
            Ok(route) => self.serve(side, route, &parts, body, began).await,
            Err(problem) => Err(problem),
        };
        let inner = &self.server.inner;
        if matches!(known, Some(Route::Frame | Route::Segment(_) | Route::Envelope)) {
            inner.traffic.took(began.elapsed());
        }
        let mut answer = match result {
            Ok(good) => good.into_answer(),
            Err(problem) => {
                if !problem.pause().is_zero() && !self.server.is_draining() {
                    // All that it holds meanwhile is a connection.
                    Box::pin(tokio::time::sleep(problem.pause())).await;
                }
                inner.traffic.refused(problem.code());
                tracing::debug!(code = problem.code(), status = problem.status(), "refused");
                refusal(&problem, matches!(known, Some(Route::Segment(_))))
            }
        };
        if side == Side::Public && Route::is_public_path(parts.uri.path()) {
            put(&mut answer, OF_PAGES.iter().cloned());
        }
        if self.server.is_draining() {
            // The client's next request goes to whoever takes over.
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        // No path: what somebody makes up may name them.
        tracing::trace!(status = answer.status().as_u16(), took = ?began.elapsed(), "answered");
        inner.traffic.answered(known, answer.status().as_u16());
        answer
    }

    async fn serve<B>(
        &self,
        side: Side,
        route: Route<'_>,
        parts: &Parts,
        body: B,
        began: Instant,
    ) -> Result<Good, Problem>
    where
        B: Body<Data: Buf + Send> + Send + 'static,
    {
        let server = &self.server;
        let inner: &Arc<Inner> = &server.inner;
        match (side, route) {
            (_, Route::Live) => Ok(Good::Text("live\n".into())),
            (_, Route::Startup) => Ok(Good::Text("started\n".into())),
            (side, Route::Ready) => health::ready(server, side == Side::Internal).map(Good::Json),
            (Side::Internal, Route::Metrics) => Ok(Good::Text(health::metrics(server))),
            (Side::Internal, Route::Leases) => leases::grant(inner, &parts.headers).map(Good::Json),
            (Side::Public, Route::RegionKeys(tenant)) => {
                documents::region_keys(inner, tenant, &parts.headers).map(Good::Document)
            }
            (Side::Public, Route::Sdk(wanted)) => inner.sdk.find(&wanted, &parts.headers).map(Good::Sdk),
            (Side::Public, Route::Preflight) => Ok(Good::Preflight),
            (Side::Public, Route::Frame | Route::Segment(_) | Route::Envelope) => {
                let most = match route {
                    Route::Segment(_) => segment::MAX_BODY,
                    Route::Envelope => MAX_ENVELOPE,
                    _ => native::MAX_BODY,
                };
                let mut trace = Trace::begin(text(&parts.headers, "traceparent"));
                let mut held = inner.memory.hold();
                let connection = self.connection.as_deref();
                let body = body::read(parts, body, most, &inner.settings, connection, began, &mut held).await?;
                trace.read();
                inner.tenants.disk.check(body.len(), inner.memory.used())?;
                let now = clock::now();
                let own = connection.map(|connection| connection.address);
                // Of what an edge has passed on unread, the address is the edge's; whose it was, nobody tells.
                let is_forwarded = parts.headers.contains_key(FORWARDED);
                let address = sender(parts, own, inner.settings.proxies).filter(|_| !is_forwarded);
                let network = address.map_or(Network::Unknown, Network::of);
                let said = Said::by(&parts.headers);
                let gpc = said.text(GPC);
                let facts = Facts { network, gpc, ..Facts::at(now) }.with_headers(|name| said.text(name));
                let receipt = |receipt: Receipt| Good::Receipt(receipt.to_json());
                // Behind a proxy, its address is that of all.
                let peer = connection.filter(|_| inner.settings.proxies == 0).map(|connection| &connection.share);
                let by = if peer.is_some_and(|peer| peer.forges()) { Sender::Stranger } else { Sender::Anybody };
                // Each request is moved to where it stays while it waits, with room for all that it might become: so what is large and
                // seldom has room of its own.
                let (name, result) = match route {
                    Route::Envelope => {
                        // As of all bodies.
                        check_encoding(facts.content_encoding)?;
                        let receipted = Box::pin(inner.envelope(body, now, held, by, &mut trace));
                        ("/v1/e", receipted.await.map(receipt))
                    }
                    Route::Segment(call) => {
                        let verdict = Box::pin(inner.segment(call, body, &facts, held, by, &mut trace)).await;
                        (call.path(), verdict.map(Good::Segment))
                    }
                    _ => ("/v1/f", inner.frame(body, &facts, held, by, &mut trace).await.map(receipt)),
                };
                if let Some(peer) = peer {
                    match &result {
                        Ok(_) => peer.note(false),
                        Err(problem) if is_forged(problem.refusal()) => peer.note(true),
                        // Says nothing of whose it was.
                        Err(_) => {}
                    }
                }
                trace.end(name, result.as_ref().map_or_else(Problem::status, |_| 200));
                result
            }
            _ => Err(Refusal::NotFound.into()),
        }
    }
}

impl Good {
    fn into_answer(self) -> Answer {
        let mut answer = match self {
            Self::Receipt(json) => {
                let mut answer = Response::new(Full::from(json));
                answer.headers_mut().insert(CONTENT_TYPE, JSON);
                answer
            }
            Self::Segment(verdict) => {
                let mut answer = Response::new(Full::from(segment::SUCCESS));
                answer.headers_mut().insert(CONTENT_TYPE, JSON);
                if let Ok(value) = HeaderValue::try_from(verdict.to_header()) {
                    answer.headers_mut().insert(HeaderName::from_static(Verdict::HEADER), value);
                }
                answer
            }
            Self::Preflight => {
                let mut answer = Response::new(Full::default());
                *answer.status_mut() = StatusCode::NO_CONTENT;
                put(&mut answer, PREFLIGHT.map(header));
                answer
            }
            Self::Text(text) => {
                let mut answer = Response::new(Full::from(text));
                let plain = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                answer.headers_mut().insert(CONTENT_TYPE, plain);
                answer
            }
            Self::Json(json) => {
                let mut answer = Response::new(Full::from(json));
                answer.headers_mut().insert(CONTENT_TYPE, JSON);
                answer
            }
            Self::Document(document) => return document.into_answer(),
            Self::Sdk(found) => return found.into_answer(),
        };
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

impl Published {
    fn into_answer(self) -> Answer {
        let mut answer = Response::new(self.json.clone().map(Full::from).unwrap_or_default());
        if self.json.is_none() {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            answer.headers_mut().insert(CONTENT_TYPE, JSON);
        }
        // Anybody may have it, a page of whatever origin too.
        put(&mut answer, [("access-control-allow-origin", "*"), ("cache-control", documents::MAX_AGE)].map(header));
        if let Ok(etag) = HeaderValue::try_from(self.etag) {
            answer.headers_mut().insert(ETAG, etag);
        }
        answer
    }
}

fn refusal(problem: &Problem, is_segment: bool) -> Answer {
    let json = if is_segment { problem.to_segment_json() } else { problem.to_json() };
    let mut answer = Response::new(Full::from(json));
    *answer.status_mut() = StatusCode::from_u16(problem.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = problem.headers().into_iter();
    put(
        &mut answer,
        headers.filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::try_from(&*value).ok()?))),
    );
    if matches!(problem.refusal(), Refusal::BodyTooLarge | Refusal::BodyTimeout) {
        // The rest of the body is not read, so the connection cannot carry another request.
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// [`CORS`], read once.
static OF_PAGES: LazyLock<[(HeaderName, HeaderValue); CORS.len()]> = LazyLock::new(|| CORS.map(header));

/// In place of what is there of these names.
fn put(answer: &mut Answer, headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>) {
    for (name, value) in headers {
        answer.headers_mut().insert(name, value);
    }
}

fn header((name, value): (&'static str, &'static str)) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), HeaderValue::from_static(value))
}

/// `Sec-GPC`.
const GPC: &str = "sec-gpc";

/// What the headers say that decide on something. Found by one walk: a request has few of them, and none of most that are asked for.
struct Said<'a>([Option<&'a HeaderValue>; Facts::HEADERS.len() + 1]);

impl<'a> Said<'a> {
    fn by(headers: &'a HeaderMap) -> Self {
        let mut said = [None; Facts::HEADERS.len() + 1];
        for (name, value) in headers {
            if let Some(place) = Self::place(name.as_str()) {
                // Of several the first counts.
                said[place].get_or_insert(value);
            }
        }
        Self(said)
    }

    fn place(name: &str) -> Option<usize> {
        Facts::HEADERS.iter().chain([&GPC]).position(|&known| known == name)
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.0[Self::place(name)?]?.to_str().ok()
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The address of whoever sent the request: of the connection, which is `own` or among the extensions, or what the outermost of our own proxies saw.
///
/// Each proxy appends the address that it saw, so the n-th from the right is the one that the n-th proxy from here
/// wrote. What stands left of it the sender may have made up.
fn sender(parts: &Parts, own: Option<IpAddr>, proxies: u8) -> Option<IpAddr> {
    if proxies == 0 {
        let told = || parts.extensions.get::<ClientAddress>().map(|address| address.0);
        let axums = || parts.extensions.get::<axum::extract::ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        return own.or_else(told).or_else(axums);
    }
    let lists: Vec<&str> =
        parts.headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
    let entry = lists.iter().rev().flat_map(|list| list.rsplit(',')).nth(usize::from(proxies) - 1)?.trim();
    // Some write a port behind it.
    entry.parse().ok().or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_our_own_proxies_wrote_is_believed() {
        let request = |lists: &[&str]| {
            let mut request = Request::new(());
            request.extensions_mut().insert(ClientAddress([192, 0, 2, 1].into()));
            for list in lists {
                request.headers_mut().append("x-forwarded-for", list.parse().unwrap());
            }
            request.into_parts().0
        };
        let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let forged = request(&["203.0.113.9, 198.51.100.7", "10.0.0.2"]);
        assert_eq!(sender(&forged, None, 0), address("192.0.2.1"));
        assert_eq!(sender(&forged, None, 1), address("10.0.0.2"));
        assert_eq!(sender(&forged, None, 2), address("198.51.100.7"));
        assert_eq!(sender(&forged, None, 4), None, "fewer entries than proxies: nobody knows");
        assert_eq!(sender(&request(&["[2001:db8::1]:443"]), None, 1), address("2001:db8::1"));
        assert_eq!(sender(&request(&["unknown"]), None, 1), None);
    }
}
