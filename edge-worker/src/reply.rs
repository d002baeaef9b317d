//! Answers: what they consist of, and how they become the platform's.

use std::borrow::Cow;

use worker::{js_sys::Uint8Array, wasm_bindgen::JsValue, web_sys::Response};

use firsthop_intake::{CORS, Problem, Receipt, Verdict};

use crate::{
    glue,
    upstream::{Answer, Last, lines},
};

thread_local! {
    static ANSWERED: Last = const { Last::new() };
}

/// An answer.
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(&'static str, Cow<'static, str>)>,
    body: Content,
}

enum Content {
    /// What was said here.
    Own(Cow<'static, [u8]>),
    /// The same as a text: what most answers are.
    Text(String),
    /// What another hop has said: it stays in the platform's memory.
    Foreign(Uint8Array),
}

impl Reply {
    /// An answer with headers and without a body.
    pub(crate) fn empty(status: u16, headers: &[(&'static str, &'static str)]) -> Self {
        Self::bytes(status, headers, &[][..])
    }

    /// An answer with a body.
    pub(crate) fn bytes(
        status: u16,
        headers: &[(&'static str, &'static str)],
        body: impl Into<Cow<'static, [u8]>>,
    ) -> Self {
        let headers = headers.iter().map(|&(name, value)| (name, Cow::Borrowed(value))).collect();
        Self { status, headers, body: Content::Own(body.into()) }
    }

    /// Another hop's answer, without headers yet.
    pub(crate) const fn foreign(status: u16, body: Uint8Array) -> Self {
        Self { status, headers: Vec::new(), body: Content::Foreign(body) }
    }

    /// The answer to a native frame.
    pub(crate) fn receipt(receipt: &Receipt) -> Self {
        let reply = Self::empty(200, &[("content-type", "application/json")]);
        Self { body: Content::Text(receipt.to_json()), ..reply }
    }

    /// A refusal, with its body in one format or another.
    pub(crate) fn problem(problem: &Problem, body: Cow<'static, [u8]>) -> Self {
        Self { status: problem.status(), headers: problem.headers(), body: Content::Own(body) }
    }

    /// The server's refusal, as it came.
    pub(crate) fn passed_on(answer: Answer) -> Self {
        const HEADERS: [(&str, &str); 2] =
            [("content-type", "application/problem+json"), ("cache-control", "no-store")];
        let reply = Self::bytes(answer.status, &HEADERS, answer.body);
        match answer.verdict {
            Some(verdict) => reply.with(Verdict::HEADER, verdict),
            None => reply,
        }
    }

    /// With one more header.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With the true verdict, for an answer whose body does not say it.
    pub(crate) fn with_verdict(self, verdict: &Verdict) -> Self {
        self.with(Verdict::HEADER, verdict.to_header())
    }

    /// As pages may read it.
    pub(crate) fn with_cors(mut self) -> Self {
        self.headers.extend(CORS.map(|(name, value)| (name, Cow::Borrowed(value))));
        self
    }

    /// The platform's answer; to `HEAD` without its body.
    pub(crate) fn into_response(self, head: bool) -> Result<Response, JsValue> {
        let headers = lines("", self.headers.iter().map(|(name, value)| (*name, &**value)));
        let headers = ANSWERED.with(|last| last.news(headers));
        let headers = headers.as_deref();
        match self.body {
            Content::Own(body) if !body.is_empty() && !head => glue::respond(self.status, headers, Some(&body)),
            Content::Text(text) if !head => glue::respond_text(self.status, headers, &text),
            Content::Foreign(body) if !head => glue::respond_with(self.status, headers, &body),
            _ => glue::respond(self.status, headers, None),
        }
    }
}
