//! `/metrics`: a page that any Prometheus reads, and `docs/metrics.md`, which has all of it and no more.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::{Folder, Page};

/// A family of the page.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    samples: usize,
    /// Of all samples, but for `le`.
    labels: BTreeSet<String>,
}

/// Reads a page of the text format 0.0.4 and takes nothing that a parser somewhere might not.
fn parse(page: &str) -> BTreeMap<String, Family> {
    assert!(page.ends_with('\n') && !page.contains("\n\n") && !page.contains('\r'), "lines end with a line feed");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut series = BTreeSet::new();
    let mut current = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').expect("a help text");
            assert!(text.ends_with('.') && text.trim() == text, "{line}");
            let kind =
                lines.next().and_then(|line| line.strip_prefix("# TYPE ")?.strip_prefix(name)?.strip_prefix(' '));
            let kind = kind.unwrap_or_else(|| panic!("a type after {line}")).to_owned();
            lint(name, &kind);
            assert!(families.insert(name.to_owned(), Family { kind, ..Family::default() }).is_none(), "{name} twice");
            name.clone_into(&mut current);
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("a sample: {line}"));
        let (name, labels) = sample.split_once('{').unwrap_or((sample, "}"));
        let labels = labels_of(labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}")));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("a value: {line}"));
        let family = families.get_mut(&current).expect("a family before its samples");
        let suffix = name.strip_prefix(current.as_str()).unwrap_or_else(|| panic!("{line} is not of {current}"));
        match family.kind.as_str() {
            "histogram" => {
                assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}");
                assert_eq!(labels.contains_key("le"), suffix == "_bucket", "{line}");
            }
            "counter" => assert!(suffix.is_empty() && value >= 0.0, "{line}"),
            _ => assert!(suffix.is_empty() && value.is_finite(), "{line}"),
        }
        assert!(series.insert((name.to_owned(), labels.clone())), "twice: {line}");
        family.samples += 1;
        family.labels.extend(labels.into_keys().filter(|label| label != "le"));
    }
    histograms_add_up(page, &families);
    families
}

/// What `promtool check metrics` asks of names.
fn lint(name: &str, kind: &str) {
    let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    assert!(is_name(name) && name.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
    assert!(["counter", "gauge", "histogram"].contains(&kind), "{name}: {kind}");
    assert_eq!(name.ends_with("_total"), kind == "counter", "{name}: a counter, and nothing else, ends with _total");
    for word in name.split('_') {
        let not_base = ["ms", "millis", "milliseconds", "minutes", "hours", "kb", "kib", "mb", "percent"];
        assert!(!not_base.contains(&word), "{name}: base units, please");
        assert!(
            !["counter", "gauge", "histogram", "sum", "count", "bucket"].contains(&word),
            "{name}: no type in a name"
        );
    }
}

fn labels_of(mut text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").expect("a label's value in quotes");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        let mut value = String::new();
        let mut rest = rest.chars();
        loop {
            match rest.next().expect("a closing quote") {
                '"' => break,
                '\\' => value.push(match rest.next() {
                    Some('n') => '\n',
                    Some(c @ ('"' | '\\')) => c,
                    other => panic!("an escape of {other:?}"),
                }),
                c => value.push(c),
            }
        }
        assert!(labels.insert(name.to_owned(), value).is_none(), "{name} twice");
        text = rest.as_str();
        text = text.strip_prefix(',').map_or(text, |more| {
            assert!(!more.is_empty());
            more
        });
    }
    labels
}

/// Buckets grow, end with `+Inf`, and agree with `_count`.
fn histograms_add_up(page: &str, families: &BTreeMap<String, Family>) {
    for (name, _) in families.iter().filter(|(_, family)| family.kind == "histogram") {
        let mut last = BTreeMap::new();
        for line in page.lines() {
            let Some((sample, value)) = line.rsplit_once(' ') else { continue };
            let Some(rest) = sample.strip_prefix(name.as_str()) else { continue };
            let labels = |rest: &str| labels_of(rest.trim_start_matches('{').trim_end_matches('}'));
            if let Some(rest) = rest.strip_prefix("_bucket") {
                let (mut labels, value) = (labels(rest), value.parse::<u64>().expect("a count"));
                let bound: f64 = labels.remove("le").expect("le").parse().expect("a bound");
                let before = last.insert(labels, (bound, value)).unwrap_or((0.0, 0));
                assert!(bound > before.0 && value >= before.1, "{line}");
            } else if let Some(rest) = rest.strip_prefix("_count") {
                assert_eq!(last[&labels(rest)], (f64::INFINITY, value.parse().expect("a count")), "{line}");
            }
        }
    }
}

/// A row of `docs/metrics.md`.
#[derive(Debug)]
struct Row {
    kind: String,
    unit: String,
    labels: BTreeSet<String>,
}

fn document() -> (String, BTreeMap<String, Row>) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let text = std::fs::read_to_string(path).expect("docs/metrics.md");
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, name, kind, unit, labels, meaning, _] = cells[..] else { continue };
        let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else { continue };
        assert!(!meaning.is_empty(), "{name}: what it means");
        let labels =
            labels.split(", ").filter(|label| !label.is_empty()).map(|label| label.trim_matches('`').to_owned());
        let row = Row { kind: kind.to_owned(), unit: unit.to_owned(), labels: labels.collect() };
        assert!(rows.insert(name.to_owned(), row).is_none(), "{name} stands twice");
    }
    (text, rows)
}

#[test]
fn every_metric_is_documented_and_there() {
    let folder = Folder::new();
    let tenant = folder.tenant("shop", &[]);
    folder.ok(&["key", "rotate"]);
    let server = folder.serve();
    let mut client = server.client();
    let mut page = Page::new(&tenant);
    page.begin(&mut client);
    assert_eq!(client.frame(b"nonsense").code(), "bad-magic");
    let body = server.internal_get("/metrics");
    assert_eq!(body.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let there = parse(&body.text());
    let (_, documented) = document();
    let names = |names: Vec<&String>| names.into_iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(there.keys().collect()), names(documented.keys().collect()), "exposed, and in docs/metrics.md");
    for (name, row) in &documented {
        let family = &there[name];
        assert_eq!(family.kind, row.kind, "{name}: type");
        // Nothing has happened yet that some of them count.
        if family.samples > 0 {
            assert_eq!(family.labels, row.labels, "{name}: labels");
        }
        for unit in ["seconds", "bytes"] {
            let base = name.trim_end_matches("_total");
            assert_eq!(base.ends_with(unit), row.unit == unit, "{name}: unit");
        }
    }
    let silent: Vec<_> = there.iter().filter(|(_, family)| family.samples == 0).map(|(name, _)| name).collect();
    assert!(silent.len() < there.len() / 3, "most of them say something here: {silent:?} do not");
}

/// An alert on a metric that is not there would never fire.
#[test]
fn alerts_are_on_metrics_that_there_are() {
    let (text, documented) = document();
    let mut named = 0;
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.split('|').collect();
        if cells.len() != 4 {
            continue;
        }
        for word in cells[1].split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            if word.starts_with("firsthop_") {
                named += 1;
                let name = word.strip_suffix("_bucket").unwrap_or(word);
                assert!(documented.contains_key(name), "{word} in {line}");
            }
        }
    }
    assert!(named >= 10, "{named} metrics in the table of alerts");
}
