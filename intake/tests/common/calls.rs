//! Calls of Segment's, and the events that they become.

use firsthop_core::{Consent, Frame};
use firsthop_intake::{
    Facts, Refused, Rooted, content_digest,
    json::{Json, to_string},
    rules::Rules,
    segment::{self, Accepted, Call},
};
use serde_json::{Value, json};

use super::{KEY, counter, facts, known, server};

pub type Answer<'a> = Result<Accepted<'a, Rooted>, Box<Refused<'a, Rooted>>>;

pub fn send<'a>(call: Call, body: &'a str) -> Answer<'a> {
    send_as(call, body.as_bytes(), &facts())
}

pub fn send_as<'a>(call: Call, body: &'a [u8], facts: &Facts<'a>) -> Answer<'a> {
    segment::receive(call, body, facts, &mut counter(), known(server()), &granted)
}

/// By the rules of a tenant that has set none.
pub fn granted(_: &Rooted, said: &str) -> Consent {
    Rules::none().consent.granted(said)
}

/// What an event says, and its digest.
pub fn events(accepted: &Accepted<'_, Rooted>) -> Vec<(Value, [u8; 16])> {
    let mut events = Vec::new();
    for bytes in &accepted.frames {
        let frame = Frame::parse(bytes).unwrap();
        let (context, of_frame) = frame.open().unwrap();
        for event in of_frame {
            let event = event.unwrap();
            let context = event.context.apply(&context).unwrap();
            let value = json!({
                "kind": event.kind.as_str(),
                "id": event.id.unwrap().id,
                "name": event.name,
                "time": event.time(frame.header().created).as_millis(),
                "context": serde_json::from_str::<Value>(&to_string(Json(context))).unwrap(),
                "properties": serde_json::from_str::<Value>(&to_string(Json(event.properties))).unwrap(),
            });
            events.push((value, content_digest(&event, &context)));
        }
    }
    events
}

pub fn one(call: Call, message: Value) -> Value {
    let mut message = message;
    message["writeKey"] = KEY.into();
    let body = message.to_string();
    let accepted = send(call, &body).unwrap();
    assert!(accepted.rejected.is_empty());
    let mut events = events(&accepted);
    assert_eq!(events.len(), 1);
    events.remove(0).0
}

pub fn batch(messages: Value) -> String {
    json!({ "writeKey": KEY, "batch": messages }).to_string()
}
