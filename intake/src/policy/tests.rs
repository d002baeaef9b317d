use std::collections::HashSet;

use proptest::prelude::*;
use serde_json::Value;

use super::{tables::*, *};

fn policy(json: &str) -> Policy {
    serde_json::from_str(json).unwrap()
}

fn area(text: &str) -> Area {
    text.parse().unwrap()
}

fn country(code: &str) -> Place {
    Place::Country(Country::parse(code).unwrap())
}

fn region(code: &str) -> Region {
    code.parse().unwrap()
}

fn codes(list: &str) -> impl Iterator<Item = &str> {
    assert_eq!(list.len() % 2, 0, "{list}");
    (0..list.len()).step_by(2).map(|at| &list[at..at + 2])
}

/// The names of what says the same in both.
fn unsaid(json: &Value, default: &Value, at: &str, unsaid_at: &mut Vec<String>) {
    match (json, default) {
        (Value::Object(json), Value::Object(default)) => {
            for (name, json) in json {
                unsaid(json, default.get(name).unwrap_or(&Value::Null), &format!("{at}.{name}"), unsaid_at);
            }
        }
        _ if json == default => unsaid_at.push(at.to_owned()),
        _ => {}
    }
}

#[test]
fn every_field_survives_its_text() {
    let full = Policy {
        regions: vec![
            RegionPolicy {
                code: region("EU"),
                host: Some("https://eu.events.example".into()),
                countries: vec![area("DE"), area("CH")],
                process: Some(vec![area("DE")]),
                forward: vec![area("*"), area("US")],
                unseal: true,
            },
            // What may be left out, and an empty list, which is not the same as none.
            RegionPolicy {
                code: region("US"),
                host: None,
                countries: Vec::new(),
                process: Some(Vec::new()),
                forward: Vec::new(),
                unseal: false,
            },
        ],
        refuse_unsealed: true,
        rules: crate::rules::tests::full(),
    };
    let json = serde_json::to_string(&full).unwrap();

    // As an edge reads what the server writes, and as the server reads what people write.
    assert_eq!(Policy::read(&json).as_ref(), Ok(&full));
    assert_eq!(policy(&json), full);
    assert_ne!(full.rules.fingerprint(), 0);

    // The text does say something in every field.
    let of = |policy: &Policy| serde_json::to_value(policy).unwrap();
    let (mut says_nothing, full) = (Vec::new(), of(&full));
    unsaid(&full, &of(&Policy::default()), "policy", &mut says_nothing);
    unsaid(&full["rules"], &serde_json::to_value(Rules::default()).unwrap(), "rules", &mut says_nothing);
    assert_eq!(says_nothing, Vec::<String>::new());
    assert_eq!(full.as_object().unwrap().len(), 3);
}

#[test]
fn the_tables_hold_what_they_should() {
    let all: Vec<_> = CONTINENTS.iter().flat_map(|(_, list)| codes(list)).collect();
    // ISO 3166-1 has 249, and there is Kosovo.
    assert_eq!(all.len(), 250);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len(), "a country has one continent");
    for (list, count) in [(UNION, 27 + 7), (ECONOMIC_AREA, 3), (UNITED_STATES, 7), (PACIFIC_ASIA, 28)] {
        let codes: HashSet<_> = codes(list).collect();
        assert_eq!(codes.len(), count, "{list}");
        assert!(codes.iter().all(|code| Country::parse(code).is_some()), "{list}");
    }
    let mut colos = HashSet::new();
    for line in COLOS.lines() {
        let (code, rest) = line.split_once(' ').unwrap();
        assert!(Country::parse(code).is_some(), "{line}");
        for colo in rest.split(' ') {
            assert!(colos.insert(colo) && colo.len() == 3, "{line}");
            assert_eq!(Place::colo(colo), country(code), "{colo}");
        }
    }
    assert!(colos.len() > 330);
}

#[test]
fn points_of_presence() {
    for (colo, code) in [
        ("FRA", "DE"),
        ("IAD", "US"),
        ("ZRH", "CH"),
        ("LHR", "GB"),
        ("RUN", "RE"),
        ("SJU", "PR"),
        ("HKG", "HK"),
        ("CGD", "CN"),
    ] {
        assert_eq!(Place::colo(colo), country(code), "{colo}");
    }
    for colo in [
        "", "fra", "Fra", "FRA ", " FRA", "FR", "FRAX", "XXX", "DE", "DE ", " DU", "T1", "XX", "---", "A\nB", "ÄÖ",
        "LOCAL",
    ] {
        assert_eq!(Place::colo(colo), Place::Unknown, "{colo:?}");
    }
}

#[test]
fn visitors() {
    use Place::*;
    for (code, continent, is_union, place) in [
        (Some("DE"), Some("EU"), true, country("DE")),
        (Some("CH"), Some("EU"), false, country("CH")),
        (Some("XK"), None, false, country("XK")),
        // Where the facts contradict one another, the country has the word.
        (Some("US"), Some("EU"), true, country("US")),
        (Some("XX"), None, false, Unknown),
        (Some("T1"), Some("T1"), false, Unknown),
        (Some("de"), None, false, Unknown),
        (Some("Germany"), Some("Europe"), false, Unknown),
        (Some(""), Some(""), false, Unknown),
        (None, None, false, Unknown),
        (None, None, true, Union),
        (Some("XX"), Some("EU"), true, Union),
        (None, Some("EU"), false, Continent(super::Continent::Europe)),
        (Some("XX"), Some("OC"), false, Continent(super::Continent::Oceania)),
    ] {
        assert_eq!(Place::visitor(code, continent, is_union), place, "{code:?} {continent:?} {is_union}");
    }
}

#[test]
fn what_areas_hold() {
    let anything = [Place::Unknown, Place::Union, Place::Continent(Continent::Asia), Place::Region(region("QQ"))];
    assert!(anything.iter().all(|&place| area("*").holds(place)));
    for (text, inside, outside) in [
        ("EU", "AT FR CY MT AX RE GP MF", "CH NO IS LI GB NC PF GL US"),
        ("EEA", "DE IS LI NO RE", "CH GB SJ"),
        ("US", "US PR GU VI", "CA MX BM"),
        ("AP", "JP AU IN SG NZ TL WS GU", "AE IL IR AF KZ RU TR US"),
        ("APAC", "JP AU", "AE"),
        ("CH", "CH", "LI DE"),
        ("GB", "GB", "JE GG IM GI"),
        ("europe", "CH DE RU XK CY", "TR GE RE GL"),
        ("north-america", "US CA GL GP", "GF CO"),
        ("south-america", "BR GF", "PA"),
        ("africa", "RE ZA EG", "IL"),
        ("asia", "TR GE IL JP", "TL CY EG"),
        ("oceania", "AU TL", "ID"),
        ("antarctica", "AQ TF", "FK"),
    ] {
        let area = area(text);
        for code in inside.split(' ') {
            assert!(area.holds(country(code)), "{code} is in {text}");
            assert!(area.holds(Place::Region(region(code))), "{code} is in {text}");
        }
        for code in outside.split(' ') {
            assert!(!area.holds(country(code)), "{code} is not in {text}");
        }
        assert!(!area.holds(Place::Unknown), "{text}");
        assert!(!area.holds(Place::Region(region("QQ"))), "{text}");
        assert_eq!(area.holds(Place::Union), ["EU", "EEA"].contains(&text), "{text}");
        let by_continent = Continent::ALL.into_iter().filter(|&continent| area.holds(Place::Continent(continent)));
        let expected = match text {
            "AP" | "APAC" => vec![Continent::Oceania],
            _ => Continent::ALL.into_iter().filter(|continent| continent.as_str() == text).collect(),
        };
        assert_eq!(by_continent.collect::<Vec<_>>(), expected, "{text}");
    }
    assert!(area("EU").holds(Place::Region(region("EU"))) && area("EEA").holds(Place::Region(region("EU"))));
    assert!(area("AP").holds(Place::Region(region("AP"))) && !area("AP").holds(Place::Region(region("EU"))));
}

#[test]
fn who_may_do_what() {
    let policy = policy(
        r#"{"regions": [
            {"code": "EU", "host": "https://eu.example", "process": ["EU", "CH"], "forward": ["europe", "US"]},
            {"code": "CH", "host": "https://ch.example", "forward": ["*"]},
            {"code": "NX", "host": "https://nx.example", "countries": ["NO", "SE", "DK", "FI", "IS", "AX"], "process": []
             , "forward": ["NX"]}
        ]}"#,
    );
    policy.check().unwrap();
    for (code, place, may_process, may_forward) in [
        ("EU", Place::colo("FRA"), true, true),
        ("EU", Place::colo("ZRH"), true, true),
        ("EU", Place::colo("LHR"), false, true),
        ("EU", Place::colo("IAD"), false, true),
        ("EU", Place::colo("NRT"), false, false),
        ("EU", Place::Unknown, false, false),
        // Sweden has left for a region of its own, and lies in the European Union all the same.
        ("EU", Place::colo("ARN"), true, true),
        ("EU", Place::Region(region("EU")), true, true),
        ("CH", Place::colo("ZRH"), true, true),
        ("CH", Place::colo("NRT"), false, true),
        ("CH", Place::Unknown, false, true),
        ("CH", Place::Region(region("EU")), false, true),
        ("NX", Place::colo("ARN"), false, true),
        ("NX", Place::Region(region("NX")), false, true),
        ("NX", Place::colo("FRA"), false, false),
    ] {
        let region = policy.region(region(code)).unwrap();
        let may = (policy.may_process(region, place), policy.may_forward(region, place));
        assert_eq!(may, (may_process, may_forward), "{code} at {place:?}");
    }
    for (place, expected) in [
        (country("DE"), Some("EU")),
        (country("SE"), Some("NX")),
        (country("IS"), Some("NX")),
        (country("CH"), Some("CH")),
        (country("US"), None),
        (Place::Union, Some("EU")),
        (Place::Continent(Continent::Europe), None),
        (Place::Unknown, None),
        (Place::Region(region("NX")), Some("NX")),
    ] {
        assert_eq!(policy.region_of(place), expected.map(region), "{place:?}");
    }
    assert_eq!(policy.region(region("US")), None);
}

#[test]
fn what_is_wrong_is_said() {
    let many = |text: &str, count: usize| vec![text; count].join(",");
    let eu = r#"{"code": "EU"}"#;
    let one = |rest: &str| format!(r#"{{"code": "EU", {rest}}}"#);
    let long = format!(r#""host": "https://{}.example""#, "x".repeat(250));
    for (regions, expected) in [
        (String::new(), "policy: regions: at least one, or leave the policy out"),
        (many(eu, 33), "policy: regions: at most 32"),
        (many(eu, 2), "policy: regions[1] (EU): code: stands twice"),
        (
            r#"{"code": "--", "countries": ["DE"]}"#.into(),
            "policy: regions[0] (--): code: “--” is any region: name one",
        ),
        (
            format!(r#"{eu}, {{"code": "QQ"}}"#),
            "policy: regions[1] (QQ): countries: no country has this code: say what belongs to it",
        ),
        (one(&format!(r#""process": [{}]"#, many("\"DE\"", 257))), "policy: regions[0] (EU): process: at most 256"),
        (
            one(r#""process": ["QQ"]"#),
            "policy: regions[0] (EU): process: QQ is no country, nor a region that is known here",
        ),
        (
            format!(r#"{}, {{"code": "QQ", "countries": ["US"]}}"#, one(r#""countries": ["QQ"]"#)),
            "policy: regions[0] (EU): countries: QQ is no country, nor a region that is known here",
        ),
        (one(r#""forward": ["*"]"#), "policy: regions[0] (EU): forward: the region needs a host to be passed on to"),
        (
            one(r#""process": []"#),
            "policy: regions[0] (EU): process: nobody may read or pass on what is for the region: leave it out, or say who may",
        ),
        (
            one(r#""host": "http://eu.example""#),
            "policy: regions[0] (EU): host: must be https: keys and events travel there",
        ),
        (one(r#""host": "eu.example""#), "policy: regions[0] (EU): host: must be an https URL"),
        (one(&long), "policy: regions[0] (EU): host: at most 255 bytes"),
    ] {
        let policy = policy(&format!(r#"{{"regions": [{regions}]}}"#));
        assert_eq!(policy.check().unwrap_err().to_string(), expected);
    }
    for (json, expected) in [
        (r#"{"regions": [{"code": "eu"}]}"#, "a region is two capital letters"),
        (r#"{"regions": [{"code": "EU", "forward": ["Europe"]}]}"#, "a place is the code of a country or region"),
        (r#"{"regions": [{"code": "EU", "forward": ["--"]}]}"#, "a place is the code of a country or region"),
        (r#"{"regions": [{"code": "EU", "hosts": "https://x"}]}"#, "unknown field `hosts`"),
        (r#"{"regions": [], "version": 1}"#, "unknown field `version`"),
    ] {
        let error = serde_json::from_str::<Policy>(json).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

fn any_area() -> impl Strategy<Value = Area> {
    let texts = "(\\*|EU|EEA|APAC|DE|FR|CH|US|PR|NO|RE|AU|africa|europe|oceania|QA|QB)";
    texts.prop_map(|text: String| text.parse().unwrap())
}

fn any_place() -> impl Strategy<Value = Place> {
    let codes = "(DE|FR|CH|US|PR|NO|RE|AU|EU|QA|QB|XX)?";
    let visitors = (codes, "(AF|EU|OC|NA)?", any::<bool>());
    prop_oneof![
        visitors.prop_map(|(country, continent, is_union)| Place::visitor(Some(&country), Some(&continent), is_union)),
        "(FRA|ZRH|IAD|RUN|SYD|XXX)".prop_map(|colo| Place::colo(&colo)),
        "(EU|AP|CH|US|QA|QB)".prop_map(|code| Place::Region(code.parse().unwrap())),
    ]
}

fn any_region(code: &'static str) -> impl Strategy<Value = RegionPolicy> {
    let areas = || proptest::collection::vec(any_area(), 0..4);
    (areas(), proptest::option::of(areas()), areas(), any::<bool>(), any::<bool>()).prop_map(
        move |(countries, process, forward, host, unseal)| RegionPolicy {
            code: code.parse().unwrap(),
            host: host.then(|| "https://x.example".into()),
            countries,
            process,
            forward,
            unseal,
        },
    )
}

fn any_policy() -> impl Strategy<Value = Policy> {
    (any_region("EU"), any_region("QA"), any_region("CH"))
        .prop_map(|(a, b, c)| Policy { regions: vec![a, b, c], ..Policy::default() })
}

proptest! {
    #[test]
    fn a_policy_survives_its_text(policy in any_policy()) {
        let text = serde_json::to_string(&policy).unwrap();
        prop_assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), policy);
    }

    /// What nobody knows is inside of nothing, so it may only do what is allowed everywhere.
    #[test]
    fn nowhere_is_outside(policy in any_policy()) {
        for region in &policy.regions {
            let open = |areas: &[Area]| policy.any(areas, Place::Unknown);
            let anywhere = region.process.as_ref().map_or(region.countries.contains(&Area::Anywhere), |areas| open(areas));
            prop_assert_eq!(policy.may_process(region, Place::Unknown), anywhere);
            prop_assert_eq!(policy.may_forward(region, Place::Unknown), anywhere || open(&region.forward));
        }
        if policy.regions.iter().all(|region| !region.countries.contains(&Area::Anywhere)) {
            prop_assert_eq!(policy.region_of(Place::Unknown), None);
        }
    }

    /// Who may read may pass on; and a place that is added to a list takes nothing away.
    #[test]
    fn more_allowed_is_more_allowed(policy in any_policy(), area in any_area(), place in any_place()) {
        let mut more = policy.clone();
        more.regions[0].process.get_or_insert_with(|| vec![Area::Code(policy.regions[0].code)]).push(area);
        more.regions[0].forward.push(area);
        let (before, after) = (&policy.regions[0], &more.regions[0]);
        prop_assert!(!policy.may_process(before, place) || policy.may_forward(before, place));
        prop_assert!(!policy.may_process(before, place) || more.may_process(after, place));
        prop_assert!(!policy.may_forward(before, place) || more.may_forward(after, place));
    }

    /// A region's own list decides who belongs to it, and only one region has a visitor.
    #[test]
    fn a_visitor_is_in_a_region_that_holds_them(policy in any_policy(), place in any_place()) {
        match policy.region_of(place) {
            Some(code) => prop_assert!(policy.region(code).unwrap().holds(place)),
            None => prop_assert!(policy.regions.iter().all(|region| !region.holds(place))),
        }
    }

    #[test]
    fn coarser_is_never_more(code in "[A-Z]{2}", area in any_area()) {
        if let Some(country) = Country::parse(&code) {
            // What holds a whole continent or the whole union holds each country in it.
            let place = Place::Country(country);
            prop_assert!(!area.holds(Place::Continent(country.continent())) || area.holds(place));
            prop_assert!(!country.is_in(UNION) || !area.holds(Place::Union) || area.holds(place));
        }
    }

    #[test]
    fn any_text_is_read_without_a_panic(text in "[ -~é]{0,20}") {
        let _ = (text.parse::<Area>(), Place::colo(&text), Place::visitor(Some(&text), Some(&text), false), base_url(&text).is_ok());
        let _ = base_url(&format!("http://{text}")).is_ok();
        let _ = serde_json::from_str::<Policy>(&format!(r#"{{"regions":[{{"code":{text:?}}}]}}"#)).map(|policy| policy.check());
    }
}

/// Rules need no regions: then each hop serves its own, as without a policy.
#[test]
fn rules_stand_alone() {
    let read = |json: &str| {
        let policy: Policy = serde_json::from_str(json).map_err(|error| error.to_string())?;
        policy.check().map(|()| policy).map_err(|error| error.to_string())
    };
    let policy = read(r#"{"rules": {"place": {"precision": "city"}}}"#).expect("a policy");
    assert_eq!(serde_json::to_value(&policy).expect("JSON")["rules"]["place"]["precision"], "city");
    let said = read(r#"{"rules": {"properties": {"deny": ["."]}}}"#).expect_err("no path");
    assert!(said.starts_with("policy: rules: properties.deny: \".\": "), "{said}");
    assert!(read(r#"{"rules": {"props": {}}}"#).expect_err("no rule").contains("unknown field `props`"));
    assert_eq!(read("{}").expect_err("nothing"), "policy: regions: at least one, or leave the policy out");
    let hop = Hop::new("EU".parse().expect("a region"), true, None);
    for (region, step) in
        [("EU", Step::Process), ("--", Step::Process), ("US", Step::Refuse(crate::Refusal::WrongRegion))]
    {
        let region = region.parse().expect("a region");
        let arriving = Arriving { region, is_sealed: false, visitor: Place::Unknown, forwarded: None };
        assert_eq!(gate(Some(&policy), &hop, &arriving), step, "{region}");
    }
}
