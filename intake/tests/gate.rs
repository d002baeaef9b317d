//! The region gate, row by row: the same table as on workerd (`edge-worker/test/gate.test.mjs`).
#![allow(clippy::unwrap_used, reason = "a helper of tests that fails is a test that fails")]

use std::collections::BTreeMap;

use firsthop_core::Region;
use firsthop_intake::{
    Refusal,
    policy::{Arriving, Hop, Place, Policy, RegionPolicy, Step, gate},
};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Table {
    policies: BTreeMap<String, Value>,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    what: String,
    policy: Option<String>,
    #[serde(default)]
    confined: bool,
    cf: Option<Cf>,
    region: Option<String>,
    // What is sealed and what is not goes the same way, but where what is not is refused.
    #[serde(default)]
    sealed: bool,
    #[serde(default)]
    segment: bool,
    forwarded: Option<String>,
    expect: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Cf {
    colo: Option<Value>,
    country: Option<String>,
    continent: Option<String>,
    #[serde(rename = "isEUCountry")]
    is_eu_country: Option<String>,
}

fn policy(json: &Value) -> Policy {
    let text = json.to_string().replace('{', "\u{0}{").replace('}', "}\u{0}");
    // `{eu}` is the only brace within a text: put an address there, and the other braces back.
    let hosts = ["eu", "ch", "us", "nx", "ap"];
    let text = hosts
        .iter()
        .fold(text, |text, name| text.replace(&format!("\u{0}{{{name}}}\u{0}"), &format!("https://{name}.example")));
    let policy: Policy = serde_json::from_str(&text.replace('\u{0}', "")).unwrap();
    policy.check().unwrap();
    policy
}

fn region(text: &str) -> Region {
    text.parse().unwrap()
}

#[test]
fn every_row() {
    let table: Table = serde_json::from_str(include_str!("gate/table.json")).unwrap();
    let policies: BTreeMap<_, _> = table.policies.iter().map(|(name, json)| (name.as_str(), policy(json))).collect();
    for row in &table.rows {
        assert!(row.segment != row.region.is_some(), "{}: a frame with a region, or Segment", row.what);
        let cf = row.cf.as_ref();
        let colo = cf.map(|cf| cf.colo.as_ref().and_then(Value::as_str));
        let arriving = Arriving {
            region: row.region.as_deref().map_or(Region::ANY, region),
            is_sealed: row.sealed,
            visitor: cf.map_or(Place::Unknown, |cf| {
                Place::visitor(cf.country.as_deref(), cf.continent.as_deref(), cf.is_eu_country.is_some())
            }),
            forwarded: row.forwarded.as_deref(),
        };
        let policy = row.policy.as_deref().map(|name| &policies[name]);
        let step = match gate(policy, &Hop::new(region("EU"), row.confined, colo), &arriving) {
            Step::Process => "process".into(),
            Step::Forward { region, host } => {
                let name = host.strip_prefix("https://").and_then(|host| host.strip_suffix(".example"));
                format!("forward {} {region}", name.unwrap_or(host))
            }
            Step::Refuse(refusal) => format!("refuse {}", refusal.code()),
        };
        assert_eq!(step, row.expect, "{}", row.what);
    }
    let expected: Vec<_> = table.rows.iter().map(|row| row.expect.split(' ').next().unwrap()).collect();
    for step in ["process", "forward", "refuse"] {
        assert!(expected.iter().filter(|expected| **expected == step).count() >= 15, "{step}");
    }
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let areas = || proptest::collection::vec("(\\*|EU|EEA|APAC|DE|CH|US|QA|europe|oceania)", 0..3);
    let area = |texts: Vec<String>| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    let of = move |code: &'static str| {
        (areas(), proptest::option::of(areas()), areas(), any::<bool>()).prop_map(
            move |(countries, process, forward, host)| RegionPolicy {
                code: region(code),
                host: host.then(|| format!("https://{code}.example")),
                countries: area(countries),
                process: process.map(area),
                forward: area(forward),
                unseal: false,
            },
        )
    };
    (of("EU"), of("QA"), of("US")).prop_map(|(a, b, c)| Policy { regions: vec![a, b, c], ..Policy::default() })
}

#[test]
fn a_region_where_nobody_may_read_has_no_use_for_keys() {
    let region_with = |code, process: Option<&[&str]>| RegionPolicy {
        code: region(code),
        host: Some("https://eu.example".into()),
        countries: Vec::new(),
        process: process.map(|areas| areas.iter().map(|area| area.parse().unwrap()).collect()),
        forward: vec!["*".parse().unwrap()],
        unseal: false,
    };
    for (what, policy, free, confined) in [
        ("none", None, true, true),
        ("rules alone", Some(vec![]), true, true),
        ("in the region", Some(vec![region_with("EU", None)]), true, true),
        ("nowhere", Some(vec![region_with("EU", Some(&[]))]), false, false),
        ("elsewhere", Some(vec![region_with("EU", Some(&["US"]))]), true, false),
        ("another region", Some(vec![region_with("US", None)]), false, false),
    ] {
        let policy = policy.map(|regions| Policy { regions, ..Policy::default() });
        for (is_confined, expected) in [(false, free), (true, confined)] {
            assert_eq!(
                Hop::may_ever_read(region("EU"), is_confined, policy.as_ref()),
                expected,
                "{what} {is_confined}"
            );
        }
    }
}

proptest! {
    /// What must hold whatever a policy says and whoever comes from wherever.
    #[test]
    fn laws(
        policy in any_policy(),
        has_policy: bool,
        serves in "(EU|QA|CH)",
        wanted in "(EU|QA|US|CH|--)",
        confined: bool,
        colo in proptest::option::of(proptest::option::of("(FRA|ZRH|IAD|SYD|fra|QQQ)")),
        visitor in "(DE|CH|US|BR|XX)?",
        refuse_unsealed: bool,
        is_sealed: bool,
        forwarded in proptest::option::of("(EU|QA|US|CH|--|x)"),
    ) {
        let policy = Policy { refuse_unsealed, ..policy };
        let policy = has_policy.then_some(&policy);
        let hop = Hop::new(region(&serves), confined, colo.as_ref().map(Option::as_deref));
        let arriving = Arriving {
            region: region(&wanted),
            is_sealed,
            visitor: Place::visitor(Some(&visitor), None, false),
            forwarded: forwarded.as_deref(),
        };
        let step = gate(policy, &hop, &arriving);
        match (policy, step) {
            (_, Step::Process) if arriving.region != Region::ANY => {
                prop_assert_eq!(arriving.region, hop.serves, "nobody reads what is for another region");
            }
            (Some(_), Step::Forward { .. }) if forwarded.is_some() => prop_assert!(false, "passed on twice"),
            (Some(policy), Step::Forward { region, host }) => {
                prop_assert!(arriving.region == Region::ANY || arriving.region == region);
                let said = policy.region(region).unwrap();
                prop_assert_eq!(said.host.as_deref(), Some(host), "a host that the policy has not named");
                prop_assert!(policy.may_forward(said, hop.place));
            }
            (None, step) => prop_assert!(!matches!(step, Step::Forward { .. }), "nobody said where to"),
            _ => {}
        }
        if let (Some(policy), Step::Process) = (policy, step) {
            prop_assert!(policy.may_process(policy.region(hop.serves).unwrap(), hop.place));
        }
        if step == Step::Process {
            prop_assert!(hop.may_read(policy), "read without the keys for it");
            prop_assert!(Hop::may_ever_read(hop.serves, confined, policy), "its region gets no keys");
        }
        if !matches!(step, Step::Refuse(_)) {
            prop_assert!(is_sealed || !(has_policy && refuse_unsealed), "not sealed, and taken");
        }
        if let Step::Refuse(refusal) = step {
            let is_bare = refusal == Refusal::Unsealed && has_policy && refuse_unsealed && !is_sealed;
            prop_assert!(is_bare || matches!(refusal, Refusal::WrongRegion | Refusal::ForwardLoop));
        }
        // What is passed on arrives with what it was passed on for.
        if let Step::Forward { region, .. } = step {
            let next = Arriving { visitor: Place::Unknown, forwarded: Some(region.as_str()), ..arriving };
            let there = Hop { serves: region, place: Place::Region(region) };
            let said = policy.unwrap().region(region).unwrap();
            let reads = policy.unwrap().may_process(said, there.place);
            let expected = if reads { Step::Process } else { Step::Refuse(Refusal::ForwardLoop) };
            prop_assert_eq!(gate(policy, &there, &next), expected);
        }
    }
}
