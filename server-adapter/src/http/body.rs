//! Reading a body: bounded in bytes, in time, and in the memory that all requests together may hold.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use firsthop_core::limits::MAX_ENVELOPE;
use firsthop_intake::{Problem, Refusal};
use http::{header::EXPECT, request::Parts};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::connections::{Connection, Taken};
use crate::{Settings, ingest::full, journal::Held};

/// The whole body of a request that `began` then. What it takes of the memory is `held`'s.
///
/// # Errors
/// [`Refusal::BodyTooLarge`], [`Refusal::BodyTimeout`], [`Refusal::Unavailable`]; a body that breaks off is
/// [`Truncated`](firsthop_core::Error::Truncated).
pub(super) async fn read<B>(
    parts: &Parts,
    body: B,
    most: usize,
    settings: &Settings,
    connection: Option<&Connection>,
    began: std::time::Instant,
    held: &mut Held,
) -> Result<Bytes, Problem>
where
    B: Body<Data: Buf>,
{
    let mut body = pin!(body);
    let pace = Pace { began: began.into(), whole: settings.body_timeout.0, rate: settings.body_rate.0 };
    // Behind a proxy, its address is that of all.
    let of_peer = connection.filter(|_| settings.proxies == 0).map(|connection| Arc::clone(&connection.share));
    let most_of_peer = usize::try_from(settings.memory.0 / 4).unwrap_or(usize::MAX).max(2 * MAX_ENVELOPE);
    let mut memory = Memory { held, of_peer: of_peer.map(Taken::new), most_of_peer };
    let read = collect(body.as_mut(), most, &pace, &mut memory).await;
    drop(memory);
    if let Some(connection) = connection {
        connection.serving();
    }
    if read.is_err() {
        held.release();
        // Who asked whether to send it has not begun.
        if !parts.headers.contains_key(EXPECT) {
            Box::pin(linger(body)).await;
        }
    }
    read
}

/// When a body must be here, and how much of it meanwhile.
struct Pace {
    began: Instant,
    whole: Duration,
    rate: u64,
}

impl Pace {
    const GRACE: Duration = Duration::from_secs(3);

    /// When the next piece must have come, after so many bytes.
    fn due(&self, bytes: usize) -> Instant {
        let nanos = (bytes as u128 * 1_000_000_000).checked_div(self.rate.into());
        let slow = nanos.map_or(self.whole, |nanos| {
            Self::GRACE.saturating_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
        });
        self.began + self.whole.min(slow)
    }
}

/// What a body takes while it is being read: of the memory of all, which it keeps, and of its peer's share.
struct Memory<'a> {
    held: &'a mut Held,
    of_peer: Option<Taken>,
    most_of_peer: usize,
}

impl Memory<'_> {
    fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        if let Some(of_peer) = &mut self.of_peer {
            let many = || full().with_detail("too much under way from this address");
            of_peer.grow(bytes, self.most_of_peer).ok_or_else(many)?;
        }
        self.held.grow(bytes).ok_or_else(full)
    }
}

async fn collect<B>(mut body: Pin<&mut B>, most: usize, pace: &Pace, memory: &mut Memory<'_>) -> Result<Bytes, Problem>
where
    B: Body<Data: Buf>,
{
    let known = body.size_hint().exact().and_then(|known| usize::try_from(known).ok());
    if body.size_hint().lower() > most as u64 {
        return Err(Problem::body_too_large(most));
    }
    let mut next = async |size: usize| loop {
        let mut frame = pin!(async { body.frame().await.map(|frame| frame.map_err(drop)) });
        // What is there already, as small bodies are once their heads are, needs no timer.
        let frame = match std::future::poll_fn(|context| Poll::Ready(frame.as_mut().poll(context))).await {
            Poll::Ready(frame) => Ok(frame),
            Poll::Pending => Box::pin(tokio::time::timeout_at(pace.due(size), frame)).await,
        };
        match frame {
            Err(_) => return Err(Problem::new(Refusal::BodyTimeout)),
            Ok(None) => return Ok(None),
            Ok(Some(Err(_))) => {
                return Err(Problem::new(firsthop_core::Error::Truncated).with_detail("the body broke off"));
            }
            // Trailers say nothing to us.
            Ok(Some(Ok(frame))) => {
                if let Ok(mut data) = frame.into_data() {
                    return Ok(Some(data.copy_to_bytes(data.remaining())));
                }
            }
        }
    };
    let Some(first) = next(0).await? else { return Ok(Bytes::new()) };
    if first.len() > most {
        return Err(Problem::body_too_large(most));
    }
    memory.grow(first.len())?;
    // A piece is a part of the buffer that the connection reads into: kept until the commit, it would keep all of that, which is much
    // more than is counted, and the connection would need another.
    let Some(second) = next(first.len()).await? else { return Ok(Bytes::copy_from_slice(&first)) };
    // Room for what has come and as much again, and not for what a length promises: that would be memory for nothing.
    let mut whole = BytesMut::new();
    let mut piece = Some(second);
    let mut put = |bytes: &[u8], whole: &mut BytesMut| {
        let size = whole.len() + bytes.len();
        if size > most {
            return Err(Problem::body_too_large(most));
        }
        if size > whole.capacity() {
            let room = (2 * size).max(16 << 10).min(known.unwrap_or(most)).max(size);
            memory.grow(room - whole.capacity())?;
            whole.reserve(room - whole.len());
        }
        whole.extend_from_slice(bytes);
        Ok(())
    };
    put(&first, &mut whole)?;
    drop(first);
    while let Some(bytes) = piece {
        put(&bytes, &mut whole)?;
        piece = next(whole.len()).await?;
    }
    Ok(whole.freeze())
}

/// Reads on for a little while what is on its way already and throws it away. A connection that is closed with bytes
/// unread is reset, and the reset can overtake the answer: the sender would not learn why. Bounded in bytes and, for
/// senders that trickle, in all its time.
async fn linger<B>(mut body: Pin<&mut B>)
where
    B: Body<Data: Buf>,
{
    const MOST: usize = 4 << 20;
    const QUIET: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(1);
    let mut size = 0;
    let rest = async {
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(QUIET, body.as_mut().frame()).await {
            size += frame.data_ref().map_or(0, Buf::remaining);
            if size > MOST {
                break;
            }
        }
    };
    // Either way it is over.
    let _ = tokio::time::timeout(LONGEST, rest).await;
}
