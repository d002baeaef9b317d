//! Requests to the server: one host, one try, a bounded time, a bounded answer.

use std::time::Duration;

use serde::Deserialize;
use wasm_bindgen::{JsCast, JsValue};
use worker::{
    js_sys::{self, Promise, Uint8Array, futures::JsFuture},
    web_sys::{AbortController, RequestInit, RequestRedirect, Response, WorkerGlobalScope},
};

use firsthop_intake::{Refusal, Verdict};

use crate::platform::{read, within};

/// The server's answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<String>,
    pub(crate) verdict: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// What it asks for as a pause, in seconds.
    pub(crate) fn asked(&self) -> Option<u64> {
        self.retry_after.as_deref()?.trim().parse().ok()
    }

    /// Whether it is this problem of the server's.
    pub(crate) fn is_problem(&self, refusal: Refusal) -> bool {
        #[derive(Deserialize)]
        struct Body<'a> {
            code: &'a str,
        }
        let body = serde_json::from_slice::<Body<'_>>(&self.body);
        self.status == refusal.status() && body.is_ok_and(|body| body.code == refusal.code())
    }
}

/// Longest answer that is read: receipts and problems are short, and a list of leases is not long.
const MAX_ANSWER: usize = 256 * 1024;

/// Posts to the server. Nothing if it could not be reached, took longer than `limit`, or answered at greater length
/// than it ever should.
///
/// Redirects are not followed: a request goes to the host that the operator has named and to no other.
pub(crate) async fn post(url: &str, headers: &[(&str, &str)], body: Option<&[u8]>, limit: Duration) -> Option<Answer> {
    let abort = AbortController::new().ok()?;
    let init = RequestInit::new();
    init.set_method("POST");
    init.set_redirect(RequestRedirect::Manual);
    init.set_signal(Some(&abort.signal()));
    let list = worker::web_sys::Headers::new().ok()?;
    for (name, value) in headers {
        list.set(name, value).ok()?;
    }
    init.set_headers(&list);
    if let Some(body) = body {
        init.set_body(&Uint8Array::from(body));
    }
    let answer = within(limit, fetch(url, &init)).await;
    if answer.is_none() {
        abort.abort();
    }
    answer?.ok()
}

async fn fetch(url: &str, init: &RequestInit) -> Result<Answer, JsValue> {
    let scope: WorkerGlobalScope = js_sys::global().unchecked_into();
    answer(scope.fetch_with_str_and_init(url, init)).await
}

/// The answer that a fetch has promised, read within the bound.
pub(crate) async fn answer(promise: Promise) -> Result<Answer, JsValue> {
    let response: Response = JsFuture::from(promise).await?.dyn_into()?;
    let headers = response.headers();
    let (retry_after, verdict) = (headers.get("retry-after")?, headers.get(Verdict::HEADER)?);
    let body = read(response.body(), None, MAX_ANSWER).await.map_err(|_| JsValue::UNDEFINED)?;
    Ok(Answer { status: response.status(), retry_after, verdict, body })
}
