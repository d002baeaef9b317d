//! The texts of a context, and the trace that a frame is part of, collected one by one.

use core::mem;

use firsthop_core::{Campaign, Context, Error};

use crate::memory::utf8;

/// Texts until they are written with a frame.
pub(crate) struct Fields {
    free: &'static mut [u8],
    pub(crate) context: Context<'static>,
    campaign: Campaign<'static>,
    /// A W3C `traceparent`, or what the page takes for one.
    pub(crate) traceparent: Option<&'static str>,
}

impl Fields {
    pub(crate) const fn new(free: &'static mut [u8]) -> Self {
        Self { free, context: Context::EMPTY, campaign: NO_CAMPAIGN, traceparent: None }
    }

    /// Sets a text: those of [`Context`] in their order, then those of [`Campaign`], then the trace.
    pub(crate) fn set(&mut self, field: u32, text: &[u8]) -> Result<(), Error> {
        let (copy, free) = mem::take(&mut self.free).split_at_mut_checked(text.len()).ok_or(Error::BufferFull)?;
        copy.copy_from_slice(text);
        self.free = free;
        let (context, campaign) = (&mut self.context, &mut self.campaign);
        let slot = match field {
            0 => &mut context.anonymous_id,
            1 => &mut context.user_id,
            2 => &mut context.session_id,
            3 => &mut context.locale,
            4 => &mut context.timezone,
            5 => &mut context.user_agent,
            6 => &mut context.url,
            7 => &mut context.title,
            8 => &mut context.referrer,
            9 => &mut campaign.source,
            10 => &mut campaign.medium,
            11 => &mut campaign.name,
            12 => &mut campaign.term,
            13 => &mut campaign.content,
            _ => &mut self.traceparent,
        };
        *slot = Some(utf8(copy));
        if (9..14).contains(&field) {
            context.campaign = Some(*campaign);
        }
        Ok(())
    }
}

const NO_CAMPAIGN: Campaign<'static> = Campaign { source: None, medium: None, name: None, term: None, content: None };
