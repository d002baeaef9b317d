//! Requests to the server: one host, one try, a bounded time, a bounded answer.

use std::{cell::RefCell, time::Duration};

use wasm_bindgen::{JsCast, JsValue};
use worker::js_sys::{Promise, Uint8Array};

use firsthop_intake::{Problem, Refusal};

use crate::{glue, steps::settled};

/// The server's answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Of a refusal.
    pub(crate) retry_after: Option<String>,
    /// Of a refusal.
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
        self.status == refusal.status() && Problem::code_in(&self.body).as_deref() == Some(refusal.code())
    }

    /// Its body, if it is a text.
    pub(crate) fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.body).ok()
    }
}

/// Longest answer that is read: receipts and problems are short, and a list of leases is not long.
const MAX_ANSWER: u32 = 256 * 1024;

/// Posts to the server. Nothing if it could not be reached, took longer than `limit`, or answered at greater length
/// than it ever should.
///
/// Redirects are not followed: a request goes to the host that the operator has named and to no other.
pub(crate) async fn post(url: &str, headers: &[(&str, &str)], body: Option<&[u8]>, limit: Duration) -> Option<Answer> {
    ask(&JsValue::UNDEFINED, url, headers, body, limit).await
}

/// The same to whoever has a method `fetch`, such as a Durable Object; undefined is the network.
pub(crate) async fn ask(
    whom: &JsValue,
    url: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
    limit: Duration,
) -> Option<Answer> {
    let head = POSTED.with(|last| last.news(head(url, headers)));
    let answer = came(glue::post(whom, head.as_deref(), body, limit.as_millis() as u32, MAX_ANSWER)).await?;
    let status = answer.status();
    // Who did what was asked has nothing to add to it.
    let (retry_after, verdict) = match status {
        200..=299 => (None, None),
        _ => (answer.retry_after(), answer.verdict()),
    };
    Some(Answer { status, retry_after, verdict, body: answer.bytes().to_vec() })
}

/// Posts what never was in our memory, and leaves the answer there as well. Nothing of either is kept, not even the head.
pub(crate) async fn post_on(
    url: &str,
    headers: &[(&str, &str)],
    body: &Uint8Array,
    limit: Duration,
) -> Option<glue::Answer> {
    came(glue::pass_on(&head(url, headers), body, limit.as_millis() as u32, MAX_ANSWER)).await
}

async fn came(posted: Promise) -> Option<glue::Answer> {
    settled(posted).await.ok().filter(|answer| !answer.is_undefined()).map(JsCast::unchecked_into)
}

thread_local! {
    static POSTED: Last = const { Last::new() };
}

/// A head as it was said to JavaScript last. Most are the same as the one before, and JavaScript has kept what it made of that: then it need not be said
/// again. A new instance of this Worker knows of none.
pub(crate) struct Last(RefCell<Option<String>>);

impl Last {
    pub(crate) const fn new() -> Self {
        Self(RefCell::new(None))
    }

    /// The head, unless it is the last one. To be said at once.
    pub(crate) fn news(&self, head: String) -> Option<String> {
        let mut last = self.0.borrow_mut();
        if last.as_ref() == Some(&head) {
            return None;
        }
        last.replace(head);
        last.clone()
    }
}

/// A request's head: URL and headers.
fn head(url: &str, headers: &[(&str, &str)]) -> String {
    lines(url, headers.iter().copied())
}

/// Headers as they cross to JavaScript: name and value in turn, one to a line, behind what comes first.
pub(crate) fn lines<'a>(first: &str, headers: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::with_capacity(256);
    text.push_str(first);
    for (name, value) in headers {
        for line in [name, value] {
            // No value of ours has a line break. What a server sent has none either: the platform has parsed it.
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(line);
        }
    }
    text
}
