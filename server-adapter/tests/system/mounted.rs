//! The library: the same service in a router of somebody else's.

use std::time::{Duration, Instant};

use axum::{Router, body::Body, routing::get};
use firsthop_core::TenantId;
use firsthop_server::{ClientAddress, Server, Settings};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tower_service::Service;

use crate::common::{Page, Tenant, base64};

async fn call(router: &mut Router, request: Request<Body>) -> (StatusCode, String, Vec<u8>) {
    let response = router.call(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    let receipt = parts.headers.get("firsthop-receipt").map_or("", |value| value.to_str().expect("text")).to_owned();
    (parts.status, receipt, body.collect().await.expect("a body").to_bytes().to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_takes_events_beside_other_routes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut settings = Settings::default();
    settings.data = folder.path().join("data");
    let server = Server::open(settings.clone()).expect("opens");
    let made = server.made().expect("a tenant, since there was none");
    let id: TenantId = made.tenant.id;
    let tenant = Tenant { id, key: made.tenant.write_keys[0].clone(), folder: made.folder.clone() };
    assert!(server.is_ready());
    assert!(Server::open(settings).is_err(), "one server to a folder");

    let mut app = Router::new().route("/", get(|| async { "the shop" })).merge(server.router());
    let mut page = Page::new(&tenant);
    let frame = page.frame(3);
    let mut request = Request::post("/v1/f").body(Body::from(frame)).expect("a request");
    request.extensions_mut().insert(ClientAddress([198, 51, 100, 7].into()));
    let (status, _, body) = call(&mut app, request).await;
    assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
    assert_eq!(firsthop_intake::Receipt::from_json(&body).expect("a receipt").stored, 3);
    let authorization = format!("Basic {}", base64(format!("{}:", tenant.key).as_bytes()));
    let request =
        Request::post("/v1/identify").header("authorization", authorization).body(Body::from(r#"{"userId":"u"}"#));
    let (status, receipt, _) = call(&mut app, request.expect("a request")).await;
    assert_eq!((status, receipt.as_str()), (StatusCode::OK, "stored=1, duplicate=0, conflict=0, quarantined=0"));
    let (_, _, body) = call(&mut app, Request::get("/").body(Body::empty()).expect("a request")).await;
    assert_eq!(body, b"the shop");
    let (status, _, _) = call(&mut app, Request::get("/metrics").body(Body::empty()).expect("a request")).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "internal things are in a router of their own");
    let (status, _, body) =
        call(&mut server.internal_router(), Request::get("/metrics").body(Body::empty()).expect("a request")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(String::from_utf8_lossy(&body).contains("outcome=\"stored\",reason=\"\"} 4"));

    tenant.settle();
    assert_eq!(tenant.events("SELECT COUNT(*) FROM events WHERE network = '198.51.100.0/24'"), 3);
    let closing = server.clone();
    tokio::task::spawn_blocking(move || closing.close(Instant::now() + Duration::from_secs(5))).await.expect("closed");
    let frame = page.frame(1);
    let (status, _, _) = call(&mut app, Request::post("/v1/f").body(Body::from(frame)).expect("a request")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "closed is closed");
    assert!(!server.is_ready());
}
