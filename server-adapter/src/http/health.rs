//! Whether the server is well: for an orchestrator, and for Prometheus.

use std::sync::Arc;

use firsthop_intake::{Problem, Refusal};
use serde::Serialize;

use crate::{
    Server, clock,
    journal::{Count, JournalStatus, ledger::LedgerFigures, quarantine::Room},
    metrics::{Page, resident_bytes},
    sink::{Runner, authorities_end},
    tenants::{LimitKind, Live, Tenants},
    traces::Counts,
};

/// `GET /readyz`: whether it takes events, and why not. `inside` names the tenants that alone have trouble as well.
pub(super) fn ready(server: &Server, inside: bool) -> Result<String, Problem> {
    if let Some(hindrance) = server.hindrance() {
        let (reason, detail) = hindrance.words();
        return Err(Problem::new(Refusal::Unavailable).with_detail(detail).with_reason(reason).with_retry_after(1));
    }
    #[derive(Serialize)]
    struct Ready<'a> {
        ready: bool,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        trouble: Vec<Trouble<'a>>,
    }
    #[derive(Serialize)]
    struct Trouble<'a> {
        tenant: String,
        reason: &'a str,
    }
    let all = if inside { server.inner.tenants.all() } else { Vec::new() };
    let trouble = all.iter().flat_map(|live| {
        let journal = match live.journal.status() {
            JournalStatus::Up => None,
            JournalStatus::Down => Some("journal-down"),
            JournalStatus::Slow => Some("journal-slow"),
        };
        let quarantine = match Room::of_gauge(live.journal.stats().quarantine_room.get()) {
            Room::Enough => None,
            Room::Vouched => Some("quarantine-full-for-unvouched"),
            Room::None => Some("quarantine-full"),
        };
        [journal, quarantine].into_iter().flatten().map(|reason| Trouble { tenant: live.id.to_string(), reason })
    });
    let ready = Ready { ready: true, trouble: trouble.collect() };
    // Texts only: nothing in it can fail.
    Ok(serde_json::to_string(&ready).unwrap_or_default())
}

/// `GET /metrics`
pub(super) fn metrics(server: &Server) -> String {
    let inner = &server.inner;
    let mut page = Page::default();
    let version = env!("CARGO_PKG_VERSION");
    page.family("firsthop_build_info", "gauge", "The build: always 1.");
    page.sample("firsthop_build_info", &[("version", version)], 1);
    page.single("firsthop_uptime_seconds", "gauge", "Time since the start.", inner.began.elapsed().as_secs_f64());
    page.single("firsthop_ready", "gauge", "1 if /readyz says so.", u8::from(server.is_ready()));
    if let Some(bytes) = resident_bytes() {
        page.single("process_resident_memory_bytes", "gauge", "Resident memory.", bytes);
    }
    page.single("firsthop_memory_bytes", "gauge", "Memory that requests under way hold.", inner.memory.used());
    let most = inner.settings.memory.0;
    page.single("firsthop_memory_limit_bytes", "gauge", "How much they may hold.", most);
    let disk = &inner.tenants.disk;
    page.single("firsthop_disk_free_bytes", "gauge", "Free on the data folder's disk.", disk.free());
    page.single(
        "firsthop_disk_reserve_bytes",
        "gauge",
        "With less than that free, no events are taken.",
        disk.reserved(),
    );
    inner.traffic.write(&mut page);
    let spans = "firsthop_trace_spans_total";
    page.family(spans, "counter", "Spans of traces, by what became of them.");
    let Counts { sent, dropped, failed } = crate::traces::counts();
    for (result, count) in [("sent", sent), ("dropped", dropped), ("failed", failed)] {
        page.sample(spans, &[("result", result)], count);
    }
    let tenants: Vec<(String, Arc<Live>)> =
        inner.tenants.all().into_iter().map(|live| (live.id.to_string(), live)).collect();
    outcomes(&mut page, &tenants);
    let sending = inner.tenants.senders() as u64;
    page.single("firsthop_tenants_sending", "gauge", "Tenants that have sent something of late.", sending);
    page.single(
        "firsthop_strangers_waiting",
        "gauge",
        "Requests that wait because their address sends mostly what nobody answers for.",
        inner.tenants.strangers.waiting(),
    );
    limits(&mut page, &tenants);
    ledgers(&mut page, &tenants);
    journals(&mut page, &tenants);
    shapes(&mut page, &tenants);
    sinks(&mut page, &tenants);
    keys(&mut page, &tenants);
    certificates(&mut page, &inner.tenants, &tenants);
    page.finish()
}

fn outcomes(page: &mut Page, tenants: &[(String, Arc<Live>)]) {
    type Figure = fn(&Count) -> i64;
    let families: [(&str, &str, &str, Figure); 3] = [
        ("firsthop_events_total", "counter", "Events by what became of them, since the journal began.", Count::ever),
        (
            "firsthop_frames_total",
            "counter",
            "Frames that had events of that outcome, since the journal began.",
            |count| count.frames,
        ),
        ("firsthop_ledger_events", "gauge", "Events by what became of them, as corrected since.", |count| count.events),
    ];
    let totals: Vec<_> = tenants.iter().map(|(id, live)| (id, live.journal.totals().get())).collect();
    for (name, kind, help, figure) in families {
        page.family(name, kind, help);
        for (id, totals) in &totals {
            for (key, count) in totals {
                let hop = key.hop.get().to_string();
                let labels = [
                    ("tenant", id.as_str()),
                    ("region", key.region.as_str()),
                    ("hop", &hop),
                    ("outcome", &key.outcome),
                    ("reason", &key.reason),
                ];
                page.sample(name, &labels, figure(count));
            }
        }
    }
}

fn limits(page: &mut Page, tenants: &[(String, Arc<Live>)]) {
    let limited = "firsthop_limited_total";
    page.family(limited, "counter", "What was over a limit of its tenant's, by limit.");
    for (id, live) in tenants {
        for kind in LimitKind::ALL {
            page.sample(limited, &[("tenant", id), ("limit", kind.as_str())], live.usage.refused(kind));
        }
    }
    let used = "firsthop_limit_used_ratio";
    page.family(used, "gauge", "How much of its burst a tenant has used, by rate; 1 is all of it.");
    for (id, live) in tenants {
        for (kind, ratio) in live.usage.used(&live.known().limits) {
            page.sample(used, &[("tenant", id), ("limit", kind.as_str())], ratio);
        }
    }
    page.family("firsthop_requests_under_way", "gauge", "Requests of a tenant that wait for their commit.");
    for (id, live) in tenants {
        page.sample("firsthop_requests_under_way", &[("tenant", id)], live.usage.under_way());
    }
    page.family(
        "firsthop_requests_waiting",
        "gauge",
        "Requests of a tenant that wait for its turn beside other tenants.",
    );
    for (id, live) in tenants {
        page.sample("firsthop_requests_waiting", &[("tenant", id)], live.turns.waiting());
    }
}

fn ledgers(page: &mut Page, tenants: &[(String, Arc<Live>)]) {
    type Figure = fn(&LedgerFigures) -> u64;
    let figures: [(&str, &str, Figure); 6] = [
        (
            "firsthop_ledger_in_flight_events",
            "Missing, of trusted sources heard of within the grace period.",
            |ledger| ledger.in_flight.get(),
        ),
        ("firsthop_ledger_unaccounted_events", "Missing, of trusted sources not heard of since.", |ledger| {
            ledger.unaccounted.get()
        }),
        (
            "firsthop_ledger_doubtful_events",
            "The same, and in quarantine under entries that nobody answers for.",
            |ledger| ledger.doubtful.get(),
        ),
        ("firsthop_ledger_untrusted_events", "Missing, of sources that no session vouches for.", |ledger| {
            ledger.untrusted.get()
        }),
        ("firsthop_ledger_checked_timestamp_seconds", "When that was last so.", |ledger| ledger.checked.get()),
        (
            "firsthop_ledger_closed_timestamp_seconds",
            "End of the last hour that was closed with counts in it.",
            |ledger| ledger.closed.get(),
        ),
    ];
    for (name, help, figure) in figures {
        page.family(name, "gauge", help);
        for (id, live) in tenants {
            page.sample(name, &[("tenant", id)], figure(&live.journal.stats().ledger));
        }
    }
}

fn journals(page: &mut Page, tenants: &[(String, Arc<Live>)]) {
    type Figure = fn(&Live) -> u64;
    let figures: [(&str, &str, &str, Figure); 14] = [
        ("firsthop_journal_up", "gauge", "1 if the journal takes commits.", |live| {
            u64::from(live.journal.status() == JournalStatus::Up)
        }),
        ("firsthop_journal_queue_bytes", "gauge", "Bytes that wait for a commit.", |live| live.journal.queued() as u64),
        ("firsthop_journal_failures_total", "counter", "Commits that failed.", |live| {
            live.journal.stats().failures.get()
        }),
        ("firsthop_journal_wal_bytes", "gauge", "Bytes in the write-ahead log.", |live| {
            live.journal.stats().wal_bytes.get()
        }),
        ("firsthop_journal_last_frame", "gauge", "Id of the last frame committed.", |live| live.journal.tip() as u64),
        ("firsthop_journal_bytes", "gauge", "Bytes of the journal's file that are in use.", |live| {
            live.journal.stats().bytes.get()
        }),
        ("firsthop_journal_disk_bytes", "gauge", "Bytes of the disk that the journal's file takes.", |live| {
            live.journal.stats().disk_bytes.get()
        }),
        ("firsthop_journal_oldest_seconds", "gauge", "Age of the oldest frame whose body is there.", |live| {
            let oldest = live.journal.stats().oldest_ms.get();
            if oldest == 0 { 0 } else { clock::now().as_millis().saturating_sub(oldest) / 1000 }
        }),
        (
            "firsthop_retention_clock_ahead_seconds",
            "gauge",
            "By how much the machine's clock is ahead of the one that age goes by.",
            |live| live.journal.stats().ahead.get(),
        ),
        ("firsthop_retention_frames_total", "counter", "Frames whose bodies retention has removed.", |live| {
            live.journal.stats().removed_frames.get()
        }),
        ("firsthop_retention_bytes_total", "counter", "Bytes of those.", |live| {
            live.journal.stats().removed_bytes.get()
        }),
        ("firsthop_quarantine_bytes", "gauge", "Bytes in quarantine.", |live| {
            live.journal.stats().quarantine_bytes.get()
        }),
        (
            "firsthop_quarantine_full",
            "gauge",
            "1 if it has no room for what nobody answers for, 2 if for nothing.",
            |live| live.journal.stats().quarantine_room.get(),
        ),
        ("firsthop_quarantine_overflow_total", "counter", "Refusals that quarantine had no room for.", |live| {
            live.journal.stats().quarantine_overflow.get()
        }),
    ];
    for (name, kind, help, figure) in figures {
        page.family(name, kind, help);
        for (id, live) in tenants {
            page.sample(name, &[("tenant", id)], figure(live));
        }
    }
    page.family("firsthop_journal_commit_seconds", "histogram", "Time of a group commit, sync included.");
    for (id, live) in tenants {
        page.histogram("firsthop_journal_commit_seconds", &[("tenant", id)], &live.journal.stats().commits);
    }
}

fn shapes(page: &mut Page, tenants: &[(String, Arc<Live>)]) {
    type Figure = fn(&Live) -> u64;
    let figures: [(&str, &str, &str, Figure); 4] = [
        (
            "firsthop_schema_type_changes_total",
            "counter",
            "Properties that came as another type than before.",
            |live| live.shapes.changes.get(),
        ),
        ("firsthop_schema_names", "gauge", "Names of events whose shape is known.", |live| live.shapes.names.get()),
        (
            "firsthop_schema_overflow_total",
            "counter",
            "Events with a name or a property over the bounds of what is kept.",
            |live| live.shapes.overflow.get(),
        ),
        (
            "firsthop_schema_skipped_frames_total",
            "counter",
            "Frames that were passed over, when more came than could be looked at.",
            |live| live.shapes.skipped.get(),
        ),
    ];
    for (name, kind, help, figure) in figures {
        page.family(name, kind, help);
        for (id, live) in tenants {
            page.sample(name, &[("tenant", id)], figure(live));
        }
    }
}

fn sinks(page: &mut Page, tenants: &[(String, Arc<Live>)]) {
    type Figure = fn(&Live, &Runner) -> f64;
    let figures: [(&str, &str, &str, Figure); 11] = [
        ("firsthop_sink_rows_total", "counter", "Events delivered since the start.", |_, sink| {
            sink.stats().rows.get() as f64
        }),
        ("firsthop_sink_errors_total", "counter", "Attempts that failed, to be made again.", |_, sink| {
            sink.stats().errors.get() as f64
        }),
        ("firsthop_sink_unreadable_total", "counter", "Stored frames that could not be read.", |_, sink| {
            sink.stats().unreadable.get() as f64
        }),
        (
            "firsthop_sink_rewinds_total",
            "counter",
            "Times that the journal was not the one that the sink was at.",
            |_, sink| sink.stats().rewinds.get() as f64,
        ),
        (
            "firsthop_sink_yielded_seconds_total",
            "counter",
            "Time for which a sink rested for the sake of acknowledgements.",
            |_, sink| sink.stats().yielded.get() as f64 / 1e6,
        ),
        (
            "firsthop_sink_up",
            "gauge",
            "0 if the last attempt failed, or others keep it from noting how far it is.",
            |_, sink| 1.0 - sink.stats().down.get() as f64,
        ),
        (
            "firsthop_sink_refused_total",
            "counter",
            "Events that the sink refused for good, since the start.",
            |_, sink| sink.stats().dead.get() as f64,
        ),
        ("firsthop_sink_dead_letters", "gauge", "Events that were refused and wait for a person.", |_, sink| {
            sink.stats().dead_now.get() as f64
        }),
        ("firsthop_sink_lag_frames", "gauge", "Frames committed and not yet delivered.", |live, sink| {
            (live.journal.tip() - sink.delivered()).max(0) as f64
        }),
        (
            "firsthop_sink_lag_seconds",
            "gauge",
            "Time since the oldest frame not yet delivered was received.",
            |_, sink| sink.lag().as_secs_f64(),
        ),
        ("firsthop_sink_confirmed_frame", "gauge", "Last frame that the sink will never ask for again.", |_, sink| {
            sink.confirmed() as f64
        }),
    ];
    let all: Vec<_> = tenants
        .iter()
        .flat_map(|(id, live)| live.sinks.all().into_iter().map(move |sink| (id.as_str(), live, sink)))
        .collect();
    for (name, kind, help, figure) in figures {
        page.family(name, kind, help);
        for (id, live, sink) in &all {
            page.sample(name, &[("tenant", id), ("sink", sink.name())], figure(live, sink));
        }
    }
    page.family("firsthop_sink_batch_seconds", "histogram", "Time of a sink's batch.");
    for (id, _, sink) in &all {
        page.histogram("firsthop_sink_batch_seconds", &[("tenant", id), ("sink", sink.name())], &sink.stats().batches);
    }
}

/// Read anew each time: a file is renewed in its place.
fn certificates(page: &mut Page, all: &Tenants, tenants: &[(String, Arc<Live>)]) {
    let now = clock::now().as_millis() as f64;
    let expiry = "firsthop_certificate_expiry_seconds";
    page.family(expiry, "gauge", "Time until the first authority ends that a sink names; negative once it has.");
    for (id, live) in tenants {
        let journal = all.journal(live.id);
        let Some(folder) = journal.parent() else { continue };
        for spec in &live.known().file.sinks {
            if let Some(end) = authorities_end(spec, folder) {
                page.sample(expiry, &[("tenant", id), ("sink", spec.name())], (end.as_millis() as f64 - now) / 1000.0);
            }
        }
    }
}

fn keys(page: &mut Page, tenants: &[(String, Arc<Live>)]) {
    let now = clock::now().as_millis() as f64;
    let tenants: Vec<_> = tenants.iter().map(|(id, live)| (id, live.known())).collect();
    let expiry = "firsthop_key_expiry_seconds";
    page.family(expiry, "gauge", "Time until a root or a region key ends; negative once it has.");
    for (id, known) in &tenants {
        let roots = known.keys.roots.iter().map(|root| ("root", root.id.get(), root.until));
        let regions = known.keys.region_keys.iter().map(|key| ("region", key.id.get(), key.until));
        for (kind, number, until) in roots.chain(regions) {
            if let Some(until) = until {
                let labels = [("tenant", id.as_str()), ("kind", kind), ("key_id", &number.to_string())];
                page.sample(expiry, &labels, (until.as_millis() as f64 - now) / 1000.0);
            }
        }
    }
    let age = "firsthop_key_age_seconds";
    page.family(age, "gauge", "Time since a root or a region key began, or an edge was enrolled that still is.");
    for (id, known) in &tenants {
        let roots = known.keys.roots.iter().map(|root| ("root", root.id.get(), root.from));
        let enrolled = known.file.enrolments.iter().filter(|edge| edge.removed.is_none());
        let edges = enrolled.filter_map(|edge| Some(("edge", edge.worker.get(), edge.added?)));
        let regions = known.keys.region_keys.iter().map(|key| ("region", key.id.get(), key.from));
        for (kind, number, from) in roots.chain(regions).chain(edges) {
            let labels = [("tenant", id.as_str()), ("kind", kind), ("key_id", &number.to_string())];
            page.sample(age, &labels, (now - from.as_millis() as f64) / 1000.0);
        }
    }
}
