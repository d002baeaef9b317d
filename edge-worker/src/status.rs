//! `/statusz` and `/metrics`: what waits, which policy is in force, until when there are leases, and what this isolate has done. For the operator
//! alone. What it says of leases is the store's word: to answer this, no key comes to an isolate that has none.

use std::fmt::Write as _;

use futures_util::future::join_all;
use subtle::ConstantTimeEq as _;
use worker::Env;

use firsthop_intake::{Problem, Refusal};

use crate::{
    arrival::Arrival,
    config::Config,
    counters,
    edge::Edge,
    lease::{Enrolled, Kept, Silent, Want},
    platform::now,
    reply::Reply,
    spool::{Report, report},
};

/// What is known of one tenant.
pub(crate) struct Tenant<'a> {
    enrolled: &'a Enrolled,
    /// What the region's store of leases says of itself, if it has anything.
    kept: Result<Option<Kept>, Silent>,
    /// Its spool: the sum of its shards, and how many of them did not say.
    spool: Report,
    silent: u32,
}

impl Tenant<'_> {
    fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref().ok()?.as_ref()
    }

    fn leases(&self) -> Option<(u64, u64)> {
        self.kept()?.leases
    }

    /// When the server said last that the documents are what they are.
    fn told(&self) -> Option<u64> {
        self.kept().map(|kept| kept.told).filter(|&told| told > 0)
    }

    /// A figure of the store's. None: it does not answer, so nobody knows.
    fn if_said(&self, figure: u64) -> Option<u64> {
        self.kept.is_ok().then_some(figure)
    }
}

/// How the answer is written: its media type, and the text.
type Form = fn(&Config, &[Tenant<'_>]) -> (&'static str, String);

/// Answers whoever has the token that the operator has set. Without one set, there is nothing here.
pub(crate) async fn answer(arrival: &Arrival<'_>, env: &Env, form: Form) -> Reply {
    let refuse = |refusal| {
        let problem = Problem::new(refusal);
        Reply::problem(&problem, problem.to_json().into_bytes().into())
    };
    let token = env.var("STATUS_TOKEN").map(|token| token.to_string()).unwrap_or_default();
    if token.trim().is_empty() {
        return refuse(Refusal::NotFound);
    }
    let shown = arrival.facts(now()).authorization.and_then(|value| value.split_once(' '));
    let shown = shown.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map_or("", |(_, shown)| shown.trim());
    if !bool::from(shown.as_bytes().ct_eq(token.trim().as_bytes())) {
        return refuse(Refusal::StatusToken);
    }
    let Some(edge) = Edge::get(env) else { return refuse(Refusal::Unavailable) };
    let mut tenants = Vec::with_capacity(edge.tenants().len());
    for enrolled in edge.tenants() {
        let kept = enrolled.look(&edge, Want::Documents, false).await;
        let shards = join_all((0..edge.config.spool.shards).map(|shard| report(&edge, enrolled.tenant, shard))).await;
        let silent = shards.iter().filter(|report| report.is_none()).count() as u32;
        tenants.push(Tenant { enrolled, kept, spool: shards.into_iter().flatten().sum(), silent });
    }
    let (media, text) = form(&edge.config, &tenants);
    Reply::bytes(200, &[("content-type", media), ("cache-control", "no-store")], text.into_bytes())
}

/// For people and scripts. Times are in milliseconds since the Unix epoch.
pub(crate) fn to_json(config: &Config, tenants: &[Tenant<'_>]) -> (&'static str, String) {
    let mut json = String::new();
    let _ = write!(json, r#"{{"version":"{}","region":"{}","#, env!("CARGO_PKG_VERSION"), config.region);
    match config.jurisdiction {
        Some(name) => write!(json, r#""jurisdiction":"{name}","#),
        None => write!(json, r#""jurisdiction":null,"#),
    }
    .unwrap_or_default();
    let _ = write!(json, r#""now":{},"isolate":{{"since":{},"frames":{{"#, now().as_millis(), counters::since());
    list(&mut json, counters::frames());
    json.push_str(r#"},"refused":{"#);
    list(&mut json, counters::refusals());
    json.push_str(r#"}},"tenants":["#);
    for (at, tenant) in tenants.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        let _ = write!(json, r#"{comma}{{"tenant":"{}","policy":"#, tenant.enrolled.tenant);
        match (tenant.enrolled.documents.version(), tenant.told()) {
            (0, _) => write!(json, "null"),
            (version, Some(told)) => write!(json, r#"{{"version":{version},"since":{told}}}"#),
            (version, None) => write!(json, r#"{{"version":{version},"since":null}}"#),
        }
        .unwrap_or_default();
        json.push_str(r#","leases":"#);
        match tenant.leases() {
            Some((since, until)) => write!(json, r#"{{"since":{since},"until":{until}}}"#),
            None => write!(json, "null"),
        }
        .unwrap_or_default();
        let (silent_store, silent) = (tenant.kept.is_err(), tenant.silent);
        let spool = serde_json::to_string(&tenant.spool).unwrap_or_default();
        let _ = write!(json, r#","silentStore":{silent_store},"silentShards":{silent},"spool":{spool}}}"#);
    }
    json.push_str("]}");
    ("application/json", json)
}

fn list(json: &mut String, counts: impl IntoIterator<Item = (&'static str, u64)>) {
    for (at, (name, count)) in counts.into_iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        let _ = write!(json, r#"{comma}"{name}":{count}"#);
    }
}

/// For Prometheus: the text format 0.0.4.
pub(crate) fn to_metrics(_: &Config, tenants: &[Tenant<'_>]) -> (&'static str, String) {
    let now = now();
    let mut text = String::new();
    let ago = |then: u64| now.as_millis().saturating_sub(then) / 1000;
    type Value<'a> = &'a dyn Fn(&Tenant<'_>) -> Option<u64>;
    let families: [(&str, &str, &str, Value<'_>); 15] = [
        ("spool_frames", "gauge", "Frames that wait in the spool.", &|it| Some(it.spool.frames)),
        ("spool_events", "gauge", "Events that wait in the spool.", &|it| Some(it.spool.events)),
        ("spool_bytes", "gauge", "Bytes that wait in the spool.", &|it| Some(it.spool.bytes)),
        ("spool_oldest_seconds", "gauge", "For how long the oldest frame waits.", &|it| {
            Some(it.spool.oldest.map_or(0, ago))
        }),
        ("spool_next_attempt_timestamp_seconds", "gauge", "When the next attempt is due; 0 if nothing waits.", &|it| {
            Some(it.spool.next.unwrap_or(0) / 1000)
        }),
        (
            "spool_failures",
            "gauge",
            "Attempts in a row of which none got through, in the shard that has most of them.",
            &|it| Some(it.spool.failures.into()),
        ),
        ("spool_stuck_frames", "gauge", "Frames that failed again and again while others got through.", &|it| {
            Some(it.spool.stuck)
        }),
        ("spool_silent_shards", "gauge", "Parts of the spool that did not answer.", &|it| Some(it.silent.into())),
        ("spool_full_total", "counter", "Frames that there was no room for.", &|it| Some(it.spool.full)),
        ("spool_taken_events_total", "counter", "Events that were ever spooled.", &|it| Some(it.spool.taken_events)),
        (
            "lease_store_silent",
            "gauge",
            "1 if the store of leases did not answer: what only it can say is left out then.",
            &|it| Some(it.kept.is_err().into()),
        ),
        (
            "leases_until_timestamp_seconds",
            "gauge",
            "Until when there are leases to sign with; 0 if there are none.",
            &|it| it.if_said(it.leases().map_or(0, |(_, until)| until / 1000)),
        ),
        ("leases_age_seconds", "gauge", "For how long the leases are as they are; 0 if there are none.", &|it| {
            it.if_said(it.leases().map_or(0, |(since, _)| ago(since)))
        }),
        ("policy_version", "gauge", "The version of the policy document that is in force; 0 without one.", &|it| {
            Some(it.enrolled.documents.version())
        }),
        (
            "documents_age_seconds",
            "gauge",
            "How long ago the server said last that the documents are what they are; left out if it never did.",
            &|it| it.told().map(ago),
        ),
    ];
    for (name, kind, help, value) in families {
        family(&mut text, name, kind, help);
        for tenant in tenants {
            if let Some(value) = value(tenant) {
                sample(&mut text, name, &[("tenant", &tenant.enrolled.tenant.to_string())], value);
            }
        }
    }
    let name = "spool_delivered_events_total";
    family(&mut text, name, "counter", "Events that the spool has handed over, by what became of them.");
    for Tenant { enrolled, spool, .. } in tenants {
        let became = [
            ("stored", spool.stored),
            ("duplicate", spool.duplicate),
            ("conflict", spool.conflict),
            ("quarantined", spool.quarantined),
        ];
        for (outcome, events) in became {
            sample(&mut text, name, &[("tenant", &enrolled.tenant.to_string()), ("outcome", outcome)], events);
        }
    }
    let name = "isolate_start_timestamp_seconds";
    family(
        &mut text,
        name,
        "gauge",
        "Since when the isolate that answers this counts. There are others, with numbers of their own.",
    );
    sample(&mut text, name, &[], counters::since() / 1000);
    let name = "isolate_frames_total";
    family(&mut text, name, "counter", "Frames, by what this isolate did with them.");
    for (became, frames) in counters::frames() {
        sample(&mut text, name, &[("became", became)], frames);
    }
    let name = "isolate_refused_total";
    family(&mut text, name, "counter", "Requests that this isolate answered with a problem, by its code.");
    for (code, requests) in counters::refusals() {
        sample(&mut text, name, &[("code", code)], requests);
    }
    ("text/plain; version=0.0.4; charset=utf-8", text)
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = write!(text, "# HELP firsthop_edge_{name} {help}\n# TYPE firsthop_edge_{name} {kind}\n");
}

/// No label of ours needs escaping: ids in hex, and names of our own.
fn sample(text: &mut String, name: &str, labels: &[(&str, &str)], value: u64) {
    let _ = write!(text, "firsthop_edge_{name}");
    for (at, (label, said)) in labels.iter().enumerate() {
        let _ = write!(text, "{}{label}=\"{said}\"", if at > 0 { "," } else { "{" });
    }
    let _ = writeln!(text, "{} {value}", if labels.is_empty() { "" } else { "}" });
}
