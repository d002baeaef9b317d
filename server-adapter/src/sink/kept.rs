//! A row that stands by itself: what a sink keeps of an event that it was refused, or could not hand over yet.

use super::row::{Field, Row, TEXTS};

/// A row that stands by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeptRow {
    texts: [Option<Box<str>>; TEXTS],
    seq: i64,
    skew_ms: Option<i64>,
}

impl KeptRow {
    pub(super) fn new(row: &Row<'_>) -> Self {
        let texts = row.fields().into_iter().filter_map(|(_, field)| match field {
            Field::Text(text) => Some(text.map(Box::from)),
            Field::Json(text) => Some(Some(text.into())),
            Field::Number(_) => None,
        });
        let mut kept = [const { None }; TEXTS];
        kept.iter_mut().zip(texts).for_each(|(kept, text)| *kept = text);
        Self { texts: kept, seq: row.seq, skew_ms: row.skew_ms }
    }

    pub(super) fn row(&self) -> Row<'_> {
        // In the order of `Row::fields`, without the numbers.
        let some = |at: usize| self.texts[at].as_deref();
        let text = |at: usize| some(at).unwrap_or_default();
        Row {
            event_id: text(0),
            received_at: text(1),
            time: text(2),
            kind: text(3),
            name: text(4),
            user_id: some(5),
            anonymous_id: some(6),
            session_id: some(7),
            url: some(8),
            title: some(9),
            referrer: some(10),
            properties: text(11),
            context: text(12),
            country: some(13),
            pop: some(14),
            network: some(15),
            agent: text(16),
            traffic: text(17),
            trust: text(18),
            source: text(19),
            seq: self.seq,
            vendor: some(20),
            foreign_id: some(21),
            consent: text(22),
            region: text(23),
            subdivision: some(24),
            city: some(25),
            referrer_class: some(26),
            utm: [some(27), some(28), some(29), some(30), some(31)],
            click_id: some(32),
            skew_ms: self.skew_ms,
            rules: some(33),
            effects: text(34),
            traceparent: None,
            repeats: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::row::COLUMNS, *};

    /// Every field another text, so that two that change places show.
    #[test]
    fn a_kept_row_is_the_row() {
        let texts: Vec<String> = (0..TEXTS).map(|n| format!("t{n}\"\u{0}")).collect();
        let mut kept = KeptRow { texts: [const { None }; TEXTS], seq: 7, skew_ms: Some(-8) };
        kept.texts.iter_mut().zip(&texts).for_each(|(kept, text)| *kept = Some(text.as_str().into()));
        assert_eq!(KeptRow::new(&kept.row()), kept);
        kept.texts[5] = None;
        kept.texts[11] = Some(r#"{"n":12345678901234567890}"#.into());
        kept.texts[12] = Some("{}".into());
        let mut json = Vec::new();
        kept.row().write_json(&mut json);
        let text = String::from_utf8(json).expect("UTF-8");
        assert!(
            text.contains(r#""properties":{"n":12345678901234567890}"#)
                && text.contains(r#""seq":7,"#)
                && text.contains(r#""skew_ms":-8,"#),
            "{text}"
        );
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((value["name"].as_str(), value["user_id"].is_null()), (Some("t4\"\u{0}"), true));
        assert_eq!(value.as_object().map(|object| object.len()), Some(COLUMNS));
    }
}
