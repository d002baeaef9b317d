//! Reading a body: bounded in bytes, in time, and in the memory that all requests together may hold.

use std::{pin::pin, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use firsthop_intake::{Problem, Refusal};
use http_body::Body;
use http_body_util::BodyExt;

use crate::{ingest::full, journal::Held};

/// The whole body. What it takes of the memory is `held`'s.
///
/// # Errors
/// [`Refusal::BodyTooLarge`], [`Refusal::BodyTimeout`], [`Refusal::Unavailable`]; a body that breaks off is
/// [`Truncated`](firsthop_core::Error::Truncated).
pub(super) async fn read<B>(body: B, most: usize, time: Duration, held: &mut Held) -> Result<Bytes, Problem>
where
    B: Body<Data: Buf>,
{
    let (least, known) = (body.size_hint().lower(), body.size_hint().exact());
    if least > most as u64 {
        return Err(Problem::body_too_large(most));
    }
    let known = known.and_then(|known| usize::try_from(known).ok());
    match tokio::time::timeout(time, collect(pin!(body), most, known, held)).await {
        Ok(read) => read,
        Err(_) => Err(Problem::new(Refusal::BodyTimeout)),
    }
}

async fn collect<B>(
    mut body: std::pin::Pin<&mut B>,
    most: usize,
    known: Option<usize>,
    held: &mut Held,
) -> Result<Bytes, Problem>
where
    B: Body<Data: Buf>,
{
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
    let Some(first) = next().await? else { return Ok(Bytes::new()) };
    let mut size = first.len();
    let mut grow = |bytes: usize, size: usize| {
        if size > most {
            return Err(Problem::body_too_large(most));
        }
        held.grow(bytes).ok_or_else(full)
    };
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
