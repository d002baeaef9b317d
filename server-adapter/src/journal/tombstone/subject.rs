//! Who is erased: which events are theirs, and a frame without them.

use firsthop_core::{
    Alg, Context, Error, Event, Flags, Frame, FrameWriter, Header, Properties, PropertiesWriter, Unsigned, Value,
};
use firsthop_intake::RegionSecrets;

use super::{
    super::{sealed::Readable, store::open_body},
    Tombstone,
};

/// Whose events are to be erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) user: Option<String>,
    pub(crate) anonymous: Option<String>,
}

impl Subject {
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        [&self.user, &self.anonymous].into_iter().flatten().map(String::as_str)
    }

    /// Whether an event is this person's: by its context; or one that says that this person is now somebody else.
    fn has(&self, event: &Event<'_>, context: &Context<'_>) -> bool {
        let is = |said: Option<&str>, id: &Option<String>| said.is_some() && said == id.as_deref();
        let alias = event.kind == firsthop_core::EventKind::Alias && self.ids().any(|id| id == event.name);
        alias || is(context.user_id, &self.user) || is(context.anonymous_id, &self.anonymous)
    }

    /// The places of this person's events in a stored body. What cannot be read has none.
    pub(in crate::journal) fn find(&self, body: &[u8], secrets: &RegionSecrets) -> Vec<usize> {
        let read = || -> Result<Vec<usize>, Error> {
            let (_, bytes) = open_body(body)?;
            let readable = Readable::parse(bytes, secrets)?;
            let (context, events) = readable.frame().open()?;
            let mut found = Vec::new();
            for (index, event) in events.enumerate() {
                let event = event?;
                if self.has(&event, &event.context.apply(&context)?) {
                    found.push(index);
                }
            }
            Ok(found)
        };
        read().unwrap_or_default()
    }

    /// The frame without this person's events: blank in their places, so that the others keep theirs. It is signed by nobody, and sealed to nobody. `size`: how
    /// long it is to be; the first blank event is filled up with what means nothing. If it cannot be that long, it is shorter.
    pub(super) fn redact(
        &self,
        frame: &Frame<'_>,
        erased: &[usize],
        tombstone: &Tombstone,
        size: usize,
    ) -> Result<Vec<u8>, Error> {
        let shared = self.left_of_context(frame, erased, tombstone)?;
        let shortest = redact_with(frame, &shared, erased, 0, 0)?;
        // A text in properties brings a few bytes with it, and one more where its length needs another; a name makes up for that.
        for text in (0..size.saturating_sub(shortest.len())).rev().take(2 * NAME) {
            let longer = match redact_with(frame, &shared, erased, text, 0) {
                Ok(longer) => longer.len(),
                // More than an event may have.
                Err(_) => break,
            };
            if (0..NAME).contains(&size.wrapping_sub(longer)) {
                return redact_with(frame, &shared, erased, text, size - longer);
            }
        }
        match size.checked_sub(shortest.len()) {
            Some(name @ 1..NAME) => redact_with(frame, &shared, erased, 0, name),
            _ => Ok(shortest),
        }
    }

    /// Of the context that a frame's events share, what those that are left say by it: what each of them says itself was of the others.
    fn left_of_context<'a>(
        &self,
        frame: &Frame<'a>,
        erased: &[usize],
        tombstone: &Tombstone,
    ) -> Result<Context<'a>, Error> {
        let (shared, events) = frame.open()?;
        let mut left = Vec::new();
        for (index, event) in events.enumerate() {
            let event = event?;
            let is_gone = erased.contains(&index) || tombstone.has_forgotten(index) && is_blank(&event);
            if !is_gone {
                left.push(event.context.apply(&Context::EMPTY)?);
            }
        }
        let says = |says: fn(&Context<'_>) -> bool| !left.iter().all(says);
        let is = |said: &str, id: &Option<String>| Some(said) == id.as_deref();
        Ok(Context {
            // An event of somebody else's says so itself where the shared context says this person: nothing else is lost by it.
            user_id: shared.user_id.filter(|id| says(|own| own.user_id.is_some()) && !is(id, &self.user)),
            anonymous_id: shared
                .anonymous_id
                .filter(|id| says(|own| own.anonymous_id.is_some()) && !is(id, &self.anonymous)),
            session_id: shared.session_id.filter(|_| says(|own| own.session_id.is_some())),
            locale: shared.locale.filter(|_| says(|own| own.locale.is_some())),
            timezone: shared.timezone.filter(|_| says(|own| own.timezone.is_some())),
            user_agent: shared.user_agent.filter(|_| says(|own| own.user_agent.is_some())),
            url: shared.url.filter(|_| says(|own| own.url.is_some())),
            title: shared.title.filter(|_| says(|own| own.title.is_some())),
            referrer: shared.referrer.filter(|_| says(|own| own.referrer.is_some())),
            screen: shared.screen.filter(|_| says(|own| own.screen.is_some())),
            campaign: shared.campaign.filter(|_| says(|own| own.campaign.is_some())),
            extra: if says(|own| !own.extra.is_empty()) { shared.extra } else { Properties::EMPTY },
        })
    }
}

/// Whether an event is what stands in an erased one's place.
fn is_blank(event: &Event<'_>) -> bool {
    let is_filling = |text: &str| text.bytes().all(|byte| byte == b'-');
    is_filling(event.name)
        && event.properties.into_iter().all(|(key, _)| is_filling(key))
        && Event { name: "", properties: Properties::EMPTY, ..*event } == Event::default()
}

fn redact_with(
    frame: &Frame<'_>,
    shared: &Context<'_>,
    erased: &[usize],
    text: usize,
    name: usize,
) -> Result<Vec<u8>, Error> {
    let header = Header { flags: Flags::default(), alg: Alg::None, ..*frame.header() };
    let (_, events) = frame.open()?;
    let (text, name) = ("-".repeat(text), "-".repeat(name));
    let (mut shape, mut words) = ([0; 16], vec![0; text.len() + 16]);
    let mut filling = PropertiesWriter::new(&mut shape[..], &mut words[..]);
    if !text.is_empty() {
        filling.put("-", Value::Str(&text))?;
    }
    let mut filling = Some(Event { name: &name, properties: filling.finish()?, ..Event::default() });
    let mut buffer = vec![0; frame.bytes().len() + text.len() + 1024];
    let mut writer = FrameWriter::new(&mut buffer[..], &header)?;
    writer.context(shared)?;
    for (index, event) in events.enumerate() {
        let event = event?;
        writer.event(&if erased.contains(&index) { filling.take().unwrap_or_default() } else { event })?;
    }
    writer.finish(&Unsigned).map(<[u8]>::to_vec)
}

/// Most that the name of a blank event makes up for.
const NAME: usize = 64;
