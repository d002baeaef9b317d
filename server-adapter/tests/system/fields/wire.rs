//! The fields that `docs/wire-format.md` has.

/// In which section, and how its table is called here; whether the names stand in the first column.
const TABLES: &[(&str, &str, usize)] = &[
    ("## 2. ", "frame", 2),
    ("## 4. ", "extensions", 2),
    ("## 6. ", "properties", 1),
    ("## 7. ", "context", 1),
    ("## 8. ", "event", 1),
    ("## 9. ", "annotation", 1),
    ("**Notes.** ", "notes", 1),
    ("first hop grants a session", "grant", 2),
];

/// Each: of what, and its name. The first table after the line that begins so.
pub(super) fn fields(text: &str) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    for &(begins, of, column) in TABLES {
        let lines = text.lines().skip_while(|line| !line.contains(begins));
        let mut table = lines.skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
        let head = table.next().expect("a head");
        assert!(head.contains('|') && table.next().is_some_and(|line| line.starts_with("|---")), "{of}: {head}");
        let before = all.len();
        for line in table {
            let cell = line.split('|').nth(column).expect("a column").trim();
            for name in cell.split(',').map(|name| name.trim().trim_matches('`')).filter(|name| !name.is_empty()) {
                all.push((of, name.to_owned()));
            }
        }
        assert!(all.len() > before + 1, "{of} has no fields");
    }
    all
}

#[test]
fn fields_are_found() {
    let fields = fields(&super::read("wire-format.md"));
    let has = |of: &str, name: &str| fields.iter().any(|(table, field)| (*table, field.as_str()) == (of, name));
    for (of, name) in [
        ("frame", "magic"),
        ("frame", "tag"),
        ("extensions", "seal key"),
        ("context", "extra"),
        ("event", "offset_ms"),
        ("annotation", "refused"),
        ("notes", "city"),
        ("grant", "holder"),
    ] {
        assert!(has(of, name), "{of}.{name}: {fields:?}");
    }
}
