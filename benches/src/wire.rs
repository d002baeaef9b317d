//! What goes over the wire today: Segment's HTTP API, `POST /v1/batch`, every message with the context that analytics.js gives it.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor},
};

use crate::body::{Body, ProductViewed, Sum};

/// One visitor on one page, and the ids and times of the messages sent from there.
#[derive(Debug)]
pub struct Visit {
    pub(crate) anonymous_id: &'static str,
    pub(crate) url: &'static str,
    pub(crate) title: &'static str,
    pub(crate) referrer: &'static str,
    pub(crate) locale: &'static str,
    /// Source, medium, name.
    pub(crate) campaign: (&'static str, &'static str, &'static str),
    /// Name, version.
    pub(crate) library: (&'static str, &'static str),
    /// Message id and time of each message.
    marks: Vec<(String, String)>,
}

impl Visit {
    /// A visit with ids for so many messages.
    #[must_use]
    pub fn new(messages: usize) -> Self {
        Self {
            anonymous_id: "8a9b3c1e-2f4d-4b6a-9c7e-5d1f0a2b3c4d",
            url: "https://shop.example/en/games/board-games?utm_source=newsletter&utm_medium=email&utm_campaign=spring-sale",
            title: "Board games | Shop Example",
            referrer: "https://mail.example/inbox",
            locale: "en-GB",
            campaign: ("newsletter", "email", "spring-sale"),
            library: ("analytics.js", "npm:next-1.81.0"),
            marks: (0..messages)
                .map(|i| {
                    let ms = 1_772_446_530_123 + i as u64 * 4_321;
                    let id = format!("ajs-next-{ms}-3f2a9c1e-6b4d-4e8a-{:04x}-{:012x}", 0x8000 + i % 0x4000, i * 7919);
                    let time = format!("2026-03-02T10:{:02}:{:02}.{:03}Z", i / 60 % 60, i % 60, i * 37 % 1000);
                    (id, time)
                })
                .collect(),
        }
    }

    /// The batch of these events.
    #[must_use]
    pub fn batch<'a>(&'a self, bodies: &[Body<'a>]) -> impl Serialize + 'a {
        let batch = bodies.iter().zip(&self.marks).map(|(body, (id, time))| self.message(body, id, time)).collect();
        Batch { batch, sent_at: "2026-03-02T10:15:31.456Z", write_key: "fh_0000000000005eed_0123456789abcdef" }
    }

    /// One event as the body of `POST /v1/track`, under an id of the caller's.
    #[must_use]
    pub fn track<'a>(&'a self, body: &Body<'a>, message_id: &'a str, timestamp: &'a str) -> impl Serialize + 'a {
        self.message(body, message_id, timestamp)
    }

    /// A batch as somebody would write it who cares for its size: what is the same for all events stands in it once. No SDK sends this;
    /// it is what a JavaScript Worker is given beside ours, so that it need not read more than it must.
    #[must_use]
    pub fn lean<'a>(&'a self, bodies: &[Body<'a>], ids: &'a [String], write_key: &'a str) -> impl Serialize + 'a {
        let event = |(body, id): (&Body<'a>, &'a String)| LeanEvent {
            id,
            name: body.name,
            offset: body.offset_ms,
            properties: body.properties,
        };
        Lean {
            write_key,
            sent_at: "2026-03-02T10:15:31.456Z",
            anonymous_id: self.anonymous_id,
            context: self.context(),
            events: bodies.iter().zip(ids).map(event).collect(),
        }
    }

    fn context(&self) -> MessageContext<'_> {
        MessageContext {
            page: Page {
                path: "/en/games/board-games",
                referrer: self.referrer,
                search: "?utm_source=newsletter&utm_medium=email&utm_campaign=spring-sale",
                title: self.title,
                url: self.url,
            },
            locale: self.locale,
            campaign: MessageCampaign { source: self.campaign.0, medium: self.campaign.1, name: self.campaign.2 },
            library: Library { name: self.library.0, version: self.library.1 },
        }
    }

    fn message<'a>(&'a self, body: &Body<'a>, message_id: &'a str, timestamp: &'a str) -> Message<'a> {
        Message {
            kind: "track",
            event: body.name,
            anonymous_id: self.anonymous_id,
            message_id,
            timestamp,
            properties: body.properties,
            context: self.context(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Batch<'a> {
    batch: Vec<Message<'a>>,
    sent_at: &'a str,
    write_key: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Lean<'a> {
    write_key: &'a str,
    sent_at: &'a str,
    anonymous_id: &'a str,
    context: MessageContext<'a>,
    events: Vec<LeanEvent<'a>>,
}

#[derive(Serialize)]
struct LeanEvent<'a> {
    id: &'a str,
    name: &'a str,
    offset: i64,
    properties: ProductViewed<'a>,
}

/// Strings are borrowed: the fastest that serde_json can do, and possible because nothing in the data needs an escape.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    event: &'a str,
    anonymous_id: &'a str,
    message_id: &'a str,
    timestamp: &'a str,
    #[serde(borrow)]
    properties: ProductViewed<'a>,
    context: MessageContext<'a>,
}

#[derive(Serialize, Deserialize)]
struct MessageContext<'a> {
    #[serde(borrow)]
    page: Page<'a>,
    locale: &'a str,
    campaign: MessageCampaign<'a>,
    library: Library<'a>,
}

#[derive(Serialize, Deserialize)]
struct Page<'a> {
    path: &'a str,
    referrer: &'a str,
    search: &'a str,
    title: &'a str,
    url: &'a str,
}

#[derive(Serialize, Deserialize)]
struct MessageCampaign<'a> {
    source: &'a str,
    medium: &'a str,
    name: &'a str,
}

#[derive(Serialize, Deserialize)]
struct Library<'a> {
    name: &'a str,
    version: &'a str,
}

/// Decodes a batch and adds up what its events say. Messages are looked at one after the other, so that no list has to be built.
///
/// # Panics
/// If it is not our own JSON.
#[inline]
#[must_use]
pub fn read_batch(json: &[u8]) -> u64 {
    let batch: ReadBatch<'_> = serde_json::from_slice(json).expect("our own JSON");
    std::hint::black_box((batch.sent_at, batch.write_key));
    batch.batch.0
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadBatch<'a> {
    batch: Added,
    sent_at: &'a str,
    write_key: &'a str,
}

struct Added(u64);

impl<'de> Deserialize<'de> for Added {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Adding;

        impl<'de> Visitor<'de> for Adding {
            type Value = Added;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("messages")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut messages: A) -> Result<Added, A::Error> {
                let mut sum = 0u64;
                while let Some(message) = messages.next_element::<Message<'de>>()? {
                    let message = std::hint::black_box(message);
                    sum = sum.wrapping_add(message.event.sum()).wrapping_add(message.properties.sum());
                }
                Ok(Added(sum))
            }
        }

        deserializer.deserialize_seq(Adding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bodies;

    #[test]
    fn a_batch_carries_every_value() {
        let (bodies, visit) = (bodies(50, 1), Visit::new(50));
        let json = serde_json::to_vec(&visit.batch(&bodies)).unwrap();
        let expected =
            bodies.iter().fold(0u64, |sum, body| sum.wrapping_add(body.name.sum()).wrapping_add(body.properties.sum()));
        assert_eq!(read_batch(&json), expected);
    }
}
