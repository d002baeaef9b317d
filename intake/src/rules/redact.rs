//! A frame written anew: the same events under the same numbers, with what the tenant wants kept of them.

use std::borrow::Cow;

use firsthop_core::{
    Alg, Consent, Context, ContextDelta, Effects, Error, Event, EventKind, ExtensionKind, Flags, Frame, FrameWriter,
    HashKey, Header, Properties, PropertiesWriter, Rewritten, Unsigned,
    limits::{MAX_EVENT, MAX_FRAME},
};

use super::{
    IdRule, Rules, ValuesRule, Without,
    page::Urls,
    values::{Copier, hashed},
};

/// How a frame is to be written anew.
#[derive(Clone, Copy)]
pub(super) struct Redaction<'r> {
    pub(super) rules: &'r Rules,
    pub(super) key: Option<&'r HashKey>,
    /// What becomes of the events.
    pub(super) without: Without,
    /// What the visitor has granted.
    pub(super) granted: Consent,
    /// Whether the signature of the producer's session was checked.
    pub(super) trusted: bool,
}

impl Redaction<'_> {
    /// Whether there is anything that might have to be changed.
    pub(super) fn is_due(&self) -> bool {
        let rules = self.rules;
        self.without != Without::Keep
            || self.cuts()
            || [&rules.properties, &rules.traits, &rules.context].into_iter().any(|values| !values.is_empty())
            || [rules.ids.user, rules.ids.anonymous].into_iter().any(|rule| rule != IdRule::Keep)
    }

    /// The frame anew, and what was done. None: there was nothing to do.
    pub(super) fn write(&self, frame: &Frame<'_>) -> Result<Option<(Vec<u8>, Effects)>, Error> {
        let room = (4 * frame.bytes().len() + 4096).min(MAX_FRAME);
        let written = match self.write_in(frame, room) {
            // Hashes may be longer than what they stand for, and it has no room for them: what was to be hashed is left out.
            Err(Error::BufferFull | Error::TooLarge | Error::Count) => {
                Redaction { key: None, ..*self }.write_in(frame, MAX_FRAME)
            }
            written => written,
        };
        written.map(|(bytes, effects)| (!effects.is_empty()).then(|| (bytes, effects.with(Effects::REWRITTEN))))
    }

    fn write_in(&self, frame: &Frame<'_>, room: usize) -> Result<(Vec<u8>, Effects), Error> {
        let header = Header { flags: Flags::default(), alg: Alg::None, ..*frame.header() };
        let mut writer = FrameWriter::new(vec![0; room], &header)?;
        let suppressed = self.without == Without::Suppress;
        if let Some(traceparent) = frame.traceparent().filter(|_| !suppressed) {
            writer.extension(ExtensionKind::Traceparent, traceparent.as_bytes())?;
        }
        writer.extension(ExtensionKind::Rewritten, &Rewritten { trusted: self.trusted, suppressed }.to_bytes())?;
        let (shared, events) = frame.open()?;
        let mut effects = Effects::default();
        if suppressed {
            effects = Effects::SUPPRESSED;
            writer.context(&Context::EMPTY)?;
            for event in events {
                writer.event(&Event { id: event?.id, ..Event::default() })?;
            }
            return Ok((writer.finish(&Unsigned)?.to_vec(), effects));
        }
        if self.without == Without::Anonymise {
            effects = effects.with(Effects::ANONYMISED);
        }
        let mut buffers = Buffers::new(frame.bytes().len());
        self.context(&shared, &mut buffers.extra, &mut effects, |context| writer.context(context))?;
        for event in events {
            self.event(&event?, &mut buffers, &mut effects, |event| writer.event(event))?;
        }
        Ok((writer.finish(&Unsigned)?.to_vec(), effects))
    }

    fn event(
        &self,
        event: &Event<'_>,
        buffers: &mut Buffers,
        effects: &mut Effects,
        write: impl FnOnce(&Event<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Buffers { properties, extra, delta } = buffers;
        let context = if event.context.is_none() {
            ContextDelta::NONE
        } else {
            self.context(&event.context.apply(&Context::EMPTY)?, extra, effects, |context| {
                let is_empty = *context == Context::EMPTY;
                if is_empty { Ok(ContextDelta::NONE) } else { ContextDelta::encode(context, delta) }
            })?
        };
        let is_about = matches!(event.kind, EventKind::Identify | EventKind::Group);
        let rule = if is_about { &self.rules.traits } else { &self.rules.properties };
        let anonymous = self.without == Without::Anonymise;
        let properties = if anonymous && is_about {
            Properties::EMPTY
        } else {
            self.values(rule, event.properties, properties, effects)?
        };
        // The name of these is an id.
        let name = match event.kind {
            EventKind::Group | EventKind::Alias if anonymous => Cow::Borrowed(""),
            // A user's or a visitor's: nobody says which.
            EventKind::Alias => {
                let ids = &self.rules.ids;
                self.id(ids.user.max(ids.anonymous), Some(event.name), effects).unwrap_or_default()
            }
            _ => self.urls().in_text(event.name, effects),
        };
        write(&Event { name: &name, context, properties, ..*event })
    }

    /// A context, or what an event's adds to it.
    fn context<T>(
        &self,
        context: &Context<'_>,
        buffer: &mut PropertiesWriter<Vec<u8>>,
        effects: &mut Effects,
        write: impl FnOnce(&Context<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let anonymous = self.without == Without::Anonymise;
        let url = context.url.map(|url| self.urls().of(url, effects));
        let referrer = context.referrer.map(|url| self.urls().of(url, effects));
        let ids = &self.rules.ids;
        let user_id = self.id(ids.user, context.user_id, effects).filter(|_| !anonymous);
        let anonymous_id = self.id(ids.anonymous, context.anonymous_id, effects).filter(|_| !anonymous);
        let extra = if anonymous {
            Properties::EMPTY
        } else {
            self.values(&self.rules.context, context.extra, buffer, effects)?
        };
        write(&Context {
            user_id: user_id.as_deref(),
            anonymous_id: anonymous_id.as_deref(),
            session_id: context.session_id.filter(|_| !anonymous),
            user_agent: context.user_agent.filter(|_| !anonymous),
            url: url.as_deref(),
            referrer: referrer.as_deref(),
            extra,
            ..*context
        })
    }

    fn cuts(&self) -> bool {
        self.rules.campaign.cut_click_ids && !self.rules.campaign.may_keep_click_ids(self.granted)
    }

    fn urls(&self) -> Urls<'_> {
        Urls { bare: self.without == Without::Anonymise, cut: self.cuts().then_some(&self.rules.campaign) }
    }

    fn id<'a>(&self, rule: IdRule, id: Option<&'a str>, effects: &mut Effects) -> Option<Cow<'a, str>> {
        let id = id.filter(|id| !id.is_empty())?;
        match (rule, self.key) {
            (IdRule::Keep, _) => Some(Cow::Borrowed(id)),
            (IdRule::Hash, Some(key)) => {
                *effects = effects.with(Effects::HASHED);
                Some(Cow::Owned(hashed(key, id.as_bytes())))
            }
            (IdRule::Hash, None) | (IdRule::Remove, _) => {
                *effects = effects.with(Effects::REMOVED);
                None
            }
        }
    }

    fn values<'b>(
        &self,
        rule: &ValuesRule,
        values: Properties<'b>,
        writer: &'b mut PropertiesWriter<Vec<u8>>,
        effects: &mut Effects,
    ) -> Result<Properties<'b>, Error> {
        let urls = self.urls();
        if values.is_empty() || rule.is_empty() && !urls.bare && urls.cut.is_none() {
            return Ok(values);
        }
        writer.clear();
        let mut copier = Copier { rule, key: self.key, urls, effects: *effects };
        copier.block(values, writer)?;
        *effects = copier.effects;
        writer.finish()
    }
}

/// Memory that all events of a frame share.
struct Buffers {
    properties: PropertiesWriter<Vec<u8>>,
    extra: PropertiesWriter<Vec<u8>>,
    delta: Vec<u8>,
}

impl Buffers {
    /// For a frame of so many bytes.
    fn new(frame: usize) -> Self {
        let room = (4 * frame + 4096).min(MAX_EVENT);
        let writer = || PropertiesWriter::new(vec![0; room], vec![0; room]);
        Self { properties: writer(), extra: writer(), delta: vec![0; room] }
    }
}
