//! Events → unsigned native frames of a fresh source, as many as it takes.

use firsthop_core::{
    Consent, Error, Event, ExtensionKind, FrameWriter, Header, SourceId, Timestamp, Unsigned, is_traceparent,
    limits::{MAX_FRAME, MAX_HEADER},
};

use crate::Tenant;

/// Packs events into frames, one after the other.
#[derive(Debug)]
pub(crate) struct Frames<'k> {
    header: Header,
    write_key: &'k str,
    /// Of the request: the frames remember whose trace they are part of.
    traceparent: Option<&'k str>,
    writer: FrameWriter<Vec<u8>>,
    done: Vec<Vec<u8>>,
}

impl<'k> Frames<'k> {
    /// For events that came as up to this many bytes of JSON.
    pub(crate) fn new(
        tenant: &Tenant,
        write_key: &'k str,
        traceparent: Option<&'k str>,
        source: SourceId,
        now: Timestamp,
        events: usize,
        json: usize,
    ) -> Result<Self, Error> {
        // An event that becomes larger than thrice its JSON is one whose id and empty fields outweigh it.
        let room = (MAX_HEADER + 3 * json + 256 * events).min(MAX_FRAME);
        let header = Header { region: tenant.region, ..Header::new(tenant.id, source, now) };
        let mut frames = Self {
            header,
            write_key,
            traceparent,
            writer: FrameWriter::new(vec![0; room], &header)?,
            done: Vec::new(),
        };
        frames.begin()?;
        Ok(frames)
    }

    /// Says what the visitor grants with the events that follow. A frame has one consent.
    pub(crate) fn under(&mut self, consent: Consent) -> Result<(), Error> {
        if self.header.consent == consent {
            return Ok(());
        }
        if !self.writer.is_empty() {
            self.close()?;
        }
        self.header.consent = consent;
        self.begin()
    }

    /// Adds an event: to the frame at hand, or to the next one.
    pub(crate) fn push(&mut self, event: &Event<'_>) -> Result<(), Error> {
        match self.writer.event(event) {
            Err(Error::BufferFull | Error::Count) if !self.writer.is_empty() => {
                self.close()?;
                self.begin()?;
                self.writer.event(event)
            }
            other => other,
        }
        .map_err(|error| if error == Error::BufferFull { Error::TooLarge } else { error })
    }

    /// The frames.
    pub(crate) fn finish(mut self) -> Result<Vec<Vec<u8>>, Error> {
        if !self.writer.is_empty() {
            self.close()?;
        }
        Ok(self.done)
    }

    fn begin(&mut self) -> Result<(), Error> {
        self.writer.begin(&self.header)?;
        if let Some(traceparent) = self.traceparent.filter(|text| is_traceparent(text)) {
            self.writer.extension(ExtensionKind::Traceparent, traceparent.as_bytes())?;
        }
        self.writer.extension(ExtensionKind::WriteKey, self.write_key.as_bytes())
    }

    fn close(&mut self) -> Result<(), Error> {
        self.header.first_seq += u64::from(self.writer.count());
        self.header.batch_seq += 1;
        self.done.push(self.writer.finish(&Unsigned)?.to_vec());
        Ok(())
    }
}
