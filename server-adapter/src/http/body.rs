//! Reading a body: bounded in bytes, in time, and in the memory that all requests together may hold.

use std::{
    pin::{Pin, pin},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use firsthop_intake::{Problem, Refusal};
use http::{header::EXPECT, request::Parts};
use http_body::Body;
use http_body_util::BodyExt;

use crate::{ingest::full, journal::Held};

/// The whole body. What it takes of the memory is `held`'s.
///
/// # Errors
/// [`Refusal::BodyTooLarge`], [`Refusal::BodyTimeout`], [`Refusal::Unavailable`]; a body that breaks off is
/// [`Truncated`](firsthop_core::Error::Truncated).
pub(super) async fn read<B>(
    parts: &Parts,
    body: B,
    most: usize,
    time: Duration,
    held: &mut Held,
) -> Result<Bytes, Problem>
where
    B: Body<Data: Buf>,
{
    let mut body = pin!(body);
    let read = match tokio::time::timeout(time, collect(body.as_mut(), most, held)).await {
        Ok(read) => read,
        Err(_) => return Err(Problem::new(Refusal::BodyTimeout)),
    };
    if read.is_err() {
        held.release();
        // Who asked whether to send it has not begun.
        if !parts.headers.contains_key(EXPECT) {
            linger(body).await;
        }
    }
    read
}

async fn collect<B>(mut body: Pin<&mut B>, most: usize, held: &mut Held) -> Result<Bytes, Problem>
where
    B: Body<Data: Buf>,
{
    let known = body.size_hint().exact().and_then(|known| usize::try_from(known).ok());
    if body.size_hint().lower() > most as u64 {
        return Err(Problem::body_too_large(most));
    }
    let mut next = async || loop {
        match body.as_mut().frame().await {
            None => return Ok(None),
            Some(Err(_)) => return Err(Problem::new(firsthop_core::Error::Truncated).with_detail("the body broke off")),
            // Trailers say nothing to us.
            Some(Ok(frame)) => {
                if let Ok(mut data) = frame.into_data() {
                    return Ok(Some(data.copy_to_bytes(data.remaining())));
                }
            }
        }
    };
    let mut grow = |bytes: usize, size: usize| {
        if size > most {
            return Err(Problem::body_too_large(most));
        }
        held.grow(bytes).ok_or_else(full)
    };
    let Some(first) = next().await? else { return Ok(Bytes::new()) };
    let mut size = first.len();
    grow(size, size)?;
    // A body in one piece, as small ones are, is not copied.
    let Some(second) = next().await? else { return Ok(first) };
    let mut whole = BytesMut::with_capacity(known.unwrap_or(2 * (first.len() + second.len())).min(most));
    whole.extend_from_slice(&first);
    let mut piece = Some(second);
    while let Some(bytes) = piece {
        size += bytes.len();
        grow(bytes.len(), size)?;
        whole.extend_from_slice(&bytes);
        piece = next().await?;
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
