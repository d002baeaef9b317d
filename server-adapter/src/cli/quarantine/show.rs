//! `firsthop quarantine show`

use clap::Args;
use firsthop_core::Timestamp;
use firsthop_intake::Problem;
use serde_json::{Value, json};

use super::super::{
    Chosen,
    out::{Out, harmless},
};
use crate::{
    Error, clock,
    ingest::{Again, Today, judge},
    journal::{
        Noted,
        quarantine::{
            Item, Reader,
            decode::{Decoded, annotation, decode, dump},
        },
    },
};

#[derive(Debug, Args)]
pub(in crate::cli) struct Show {
    #[command(flatten)]
    chosen: Chosen,
    /// Its number in the list.
    id: i64,
    /// Dump every byte of what was set aside, not only what does not decode.
    #[arg(long)]
    hex: bool,
    /// One JSON object; the bytes in base64.
    #[arg(long)]
    json: bool,
}

/// Bytes that are dumped unasked.
const DUMP: usize = 4096;

impl Show {
    pub(super) fn run(self, out: &mut Out) -> Result<(), Error> {
        let stored = self.chosen.folder.store()?.find(self.chosen.tenant.as_deref())?;
        let path = stored.journal();
        let item = Reader::open(&path)?.item(self.id).map_err(Error::database(&path))?;
        let item = item.ok_or_else(|| {
            Error::tenant(format!("there is no entry {} in quarantine; `firsthop quarantine list` shows them", self.id))
        })?;
        let now = clock::now();
        let rooted = stored.tenant.account(&stored.keys, now)?;
        let replay = would(&judge(&item, Today { rooted: &rooted, file: &stored.tenant, keys: &stored.keys }, now));
        let decoded = decode(&item.body, &rooted.region_secrets);
        if self.json {
            return out.line(self.to_json(&item, &decoded, &replay));
        }
        let name = &stored.tenant.name;
        self.heading(out, name, &item, &replay)?;
        told(out, &decoded)?;
        let rest = decoded.inside.as_deref().filter(|inside| !inside.undecoded.is_empty()).unwrap_or(&decoded);
        let all = if self.hex { 0..item.body.len() } else { rest.undecoded.clone() };
        let shown = if self.hex { all.clone() } else { all.start..all.end.min(all.start + DUMP) };
        if !shown.is_empty() {
            out.line("")?;
            dump(&item.body[shown.clone()], shown.start).try_for_each(|line| out.line(line))?;
        }
        if shown.end < all.end {
            out.line(format_args!("and {} bytes more: --hex shows them", all.end - shown.end))?;
        }
        Ok(())
    }

    fn heading(&self, out: &mut Out, name: &str, item: &Item, replay: &str) -> Result<(), Error> {
        let line = &item.line;
        let mut row = |name: &str, value: &str| out.line(format_args!("{name:<9} {}", harmless(value)));
        row("entry", &format!("{} of tenant {name:?}, sha256 {}…", line.id, line.hash))?;
        row("reason", &line.reason)?;
        let time = |ms: i64| clock::format(Timestamp::from_millis(ms as u64));
        let came = match line.times {
            1 => time(line.first_ms),
            times => format!("{}, {times} times, at last {}", time(line.first_ms), time(line.last_ms)),
        };
        row("came", &came)?;
        let vouched = if line.vouched { "somebody with a key answers for it" } else { "nobody answers for it" };
        row("says", &format!("{} events in {} bytes; {vouched}", line.events, line.bytes))?;
        if let Some(request) = &item.request {
            let origin = request.origin.as_deref().unwrap_or("none");
            let key = request.write_key.as_deref().map(|key| format!(", write key {key}")).unwrap_or_default();
            row("request", &format!("POST {}, origin {origin}{key}", request.path))?;
        }
        if let Some(noted) = item.annotation.as_deref().and_then(|bytes| Noted::from_bytes(bytes).ok()) {
            let words = annotation(&noted.annotation).into_iter().filter_map(|(name, value)| {
                let text = value.as_str().filter(|text| !text.is_empty())?.to_owned();
                Some(format!("{name} {text}"))
            });
            row("noted", &words.collect::<Vec<_>>().join(", "))?;
        }
        row("replay", replay)?;
        out.line("")
    }

    fn to_json(&self, item: &Item, decoded: &Decoded, replay: &str) -> String {
        use base64::{Engine, prelude::BASE64_STANDARD};
        let noted = item.annotation.as_deref().and_then(|bytes| Noted::from_bytes(bytes).ok());
        let noted = noted.map(|noted| {
            annotation(&noted.annotation)
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect::<serde_json::Map<_, _>>()
        });
        let request = item
            .request
            .as_ref()
            .map(|request| json!({ "path": request.path, "origin": request.origin, "write_key": request.write_key }));
        let head = json!({
            "entry": item.line, "request": request, "noted": noted, "replay": replay,
            "body": BASE64_STANDARD.encode(&item.body),
        });
        // Put together as text: what is decoded has JSON in it whose entries shall stay in their order.
        let decoded = serde_json::to_string(decoded).unwrap_or_else(|_| "null".into());
        let head = head.to_string();
        format!("{},\"decoded\":{decoded}}}", &head[..head.len() - 1])
    }
}

/// What a replay would do.
fn would(again: &Again) -> String {
    let refused = |problem: &Problem| format!("would be refused again: {problem} ({})", problem.code());
    match again {
        Again::Refused(problem) => refused(problem),
        Again::Compare { .. } => {
            "stays: an event of the same identity and another content is stored; discard this one if that one is right"
                .into()
        }
        Again::Good(_, rejected) if rejected.is_empty() => {
            "passes the checks now: `firsthop quarantine replay` stores it".into()
        }
        Again::Good(_, rejected) => {
            let count: u32 = rejected.iter().map(|entry| u32::from(entry.events)).sum();
            format!("passes the checks now, but for {count} of its events")
        }
    }
}

fn told(out: &mut Out, decoded: &Decoded) -> Result<(), Error> {
    let kind = format!("{:?}", decoded.kind).to_lowercase();
    out.line(format_args!("{kind}, bytes {} to {}", decoded.bytes.start, decoded.bytes.end))?;
    for field in &decoded.fields {
        let value = match &field.value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        out.line(format_args!("{:8}  {:<11}  {}", field.at, field.name, harmless(&value)))?;
    }
    if let Some(context) = &decoded.context {
        out.line(format_args!("          context      {}", harmless(context.get())))?;
    }
    for event in &decoded.events {
        let properties = event.properties.as_ref().map_or("", |raw| raw.get());
        let id = event.foreign_id.as_ref().map(|id| format!(" id {id}")).unwrap_or_default();
        let said = format!("{} {:?} {}{id} {properties}", event.kind, event.name, event.time);
        out.line(format_args!("{:8}  event {:<5}  {}", event.at, event.seq, harmless(&said)))?;
    }
    if let Some(inside) = &decoded.inside {
        out.line("")?;
        told(out, inside)?;
    }
    if let Some(fault) = &decoded.fault {
        out.line(format_args!("fault at byte {}: {} ({})", fault.at, harmless(&fault.what), fault.code))?;
    }
    Ok(())
}
