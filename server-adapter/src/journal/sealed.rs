//! What is sealed in a journal, and read with the region keys of today.
//!
//! A journal keeps a sealed frame as it came, so that its signature can be checked for ever. Whoever reads its events opens it on the way.
//!
//! Each sink, and who watches the shapes, reads what was committed, all of them soon after. To open a small frame takes longer than to
//! deliver it, so the first of them does it for the others.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use firsthop_core::{Error, Frame, SEAL_LEN};
use firsthop_intake::{Contents, RegionSecrets};

/// A tenant's region keys, as its files say now: shared by all who read its journal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seals(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    secrets: RwLock<Arc<RegionSecrets>>,
    opened: Mutex<Opened>,
}

impl Seals {
    pub(crate) fn new(secrets: RegionSecrets) -> Self {
        Self(Arc::new(Shared { secrets: RwLock::new(Arc::new(secrets)), opened: Mutex::default() }))
    }

    /// From now on it is these.
    pub(crate) fn set(&self, secrets: RegionSecrets) {
        *self.0.secrets.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(secrets);
        self.forget();
    }

    pub(crate) fn get(&self) -> Arc<RegionSecrets> {
        Arc::clone(&self.0.secrets.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is sealed in the frame that stands in the journal under this number. None: nothing is.
    ///
    /// # Errors
    /// As [`unseal`].
    pub(crate) fn open(&self, id: i64, frame: &Frame<'_>) -> Result<Option<Arc<[u8]>>, Error> {
        if frame.sealed_to().is_none() {
            return Ok(None);
        }
        let name = name(id, frame);
        // Held while it is opened: all are woken at once, and those who come second would open it too.
        let mut opened = self.opened();
        if let Some(known) = opened.get(&name) {
            return Ok(Some(known));
        }
        let Contents::Opened(payload) = unseal(frame, &self.get())? else { return Ok(None) };
        let payload: Arc<[u8]> = payload.into();
        opened.keep(name, Arc::clone(&payload));
        Ok(Some(payload))
    }

    /// The same for one that nobody may have to wait for: what others have opened, or what it opens for itself.
    ///
    /// # Errors
    /// As [`unseal`].
    pub(crate) fn open_aside(&self, id: i64, frame: &Frame<'_>) -> Result<Option<Arc<[u8]>>, Error> {
        if frame.sealed_to().is_none() {
            return Ok(None);
        }
        let known = self.0.opened.try_lock().ok().and_then(|opened| opened.get(&name(id, frame)));
        if known.is_some() {
            return Ok(known);
        }
        match unseal(frame, &self.get())? {
            Contents::Opened(payload) => Ok(Some(payload.into())),
            _ => Ok(None),
        }
    }

    /// Nothing that was opened is kept any longer: it may tell of somebody who is erased.
    pub(crate) fn forget(&self) {
        *self.opened() = Opened::default();
    }

    fn opened(&self) -> MutexGuard<'_, Opened> {
        self.0.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A frame's number, and the tag of its seal.
type Name = (i64, [u8; 16]);

/// A number may be given again if its commit failed.
fn name(id: i64, frame: &Frame<'_>) -> Name {
    (id, frame.payload().last_chunk().copied().unwrap_or_default())
}

/// Payloads that were opened last, in the order of their frames.
#[derive(Default)]
struct Opened {
    payloads: VecDeque<(Name, Arc<[u8]>)>,
    bytes: usize,
}

/// Most that is kept of them: those who read are as close to each other as that, or each opens for itself. Bytes, and payloads.
const KEPT: usize = 2 << 20;
const MOST: usize = 4096;

impl Opened {
    fn get(&self, name: &Name) -> Option<Arc<[u8]>> {
        let at = self.payloads.binary_search_by(|(known, _)| known.cmp(name)).ok()?;
        Some(Arc::clone(&self.payloads[at].1))
    }

    fn keep(&mut self, name: Name, payload: Arc<[u8]>) {
        let Err(at) = self.payloads.binary_search_by(|(known, _)| known.cmp(&name)) else { return };
        self.bytes += payload.len();
        self.payloads.insert(at, (name, payload));
        // The oldest make room; or where somebody reads what is long gone by, that itself.
        while self.bytes > KEPT || self.payloads.len() > MOST {
            let Some((_, gone)) = self.payloads.pop_front() else { return };
            self.bytes -= gone.len();
        }
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("payloads", &self.payloads.len()).finish_non_exhaustive()
    }
}

/// A stored frame whose events can be read, sealed or not.
pub(crate) struct Readable<'a> {
    frame: Frame<'a>,
    contents: Contents,
}

impl<'a> Readable<'a> {
    /// Of a producer's bytes.
    ///
    /// # Errors
    /// As [`Frame::parse`]; [`Error::Sealed`] if it is sealed and the key is not here, [`Error::Seal`] if it does not open.
    pub(crate) fn parse(bytes: &'a [u8], secrets: &RegionSecrets) -> Result<Self, Error> {
        Self::new(Frame::parse(bytes)?, secrets)
    }

    /// Of a frame that was parsed.
    ///
    /// # Errors
    /// As [`unseal`].
    pub(crate) fn new(frame: Frame<'a>, secrets: &RegionSecrets) -> Result<Self, Error> {
        Ok(Self { frame, contents: unseal(&frame, secrets)? })
    }

    pub(crate) fn frame(&self) -> Frame<'_> {
        self.contents.of_frame(&self.frame).unwrap_or(self.frame)
    }
}

/// What can be read of a frame.
///
/// # Errors
/// [`Error::Sealed`] if it is sealed and the key is not here, [`Error::Seal`] if it does not open.
pub(crate) fn unseal(frame: &Frame<'_>, secrets: &RegionSecrets) -> Result<Contents, Error> {
    let Some(id) = frame.sealed_to() else { return Ok(Contents::Clear) };
    let key = secrets.get(frame.header().region, id).ok_or(Error::Sealed)?;
    let mut payload = vec![0; frame.payload().len() - SEAL_LEN];
    frame.unseal(key, &mut payload)?;
    Ok(Contents::Opened(payload))
}

#[cfg(test)]
mod tests {
    use firsthop_core::{
        Event, FrameWriter, Header, Region, RegionKeyId, RegionSecretKey, SourceId, TenantId, Timestamp, Unsigned,
    };

    use super::*;

    fn region() -> Region {
        "EU".parse().expect("a region")
    }

    fn secret() -> RegionSecretKey {
        RegionSecretKey::new(RegionKeyId::new(1), [7; 32])
    }

    fn sealed(name: &str, ephemeral: u8) -> Vec<u8> {
        let header = Header::new(TenantId::new(1), SourceId::new([2; 16]), Timestamp::from_millis(1));
        let mut writer = FrameWriter::new(vec![0; 4096], &Header { region: region(), ..header }).expect("room");
        writer.seal_to(&secret().public()).expect("room");
        writer.event(&Event { name, ..Event::default() }).expect("room");
        writer.finish_sealed(&Unsigned, &[ephemeral; 32]).expect("finished").to_vec()
    }

    #[test]
    fn a_frame_is_opened_once_for_all_who_read_it_and_for_no_one_else() {
        let seals = Seals::new([(region(), secret())].into_iter().collect());
        let (one, two) = (sealed("one", 1), sealed("two", 2));
        let open = |id, bytes: &[u8]| seals.open(id, &Frame::parse(bytes).expect("a frame"));
        let first = open(1, &one).expect("opens").expect("sealed");
        let again = seals.clone().open(1, &Frame::parse(&one).expect("a frame")).expect("opens").expect("sealed");
        assert!(Arc::ptr_eq(&first, &again), "another reader of the same journal");
        // Its number was given again to another.
        let other = open(1, &two).expect("opens").expect("sealed");
        assert_ne!(first, other);
        assert!(memchr::memmem::find(&other, b"two").is_some());
        // Who may keep nobody waiting waits for nobody, and leaves nothing there.
        let aside = |id, bytes: &[u8]| seals.open_aside(id, &Frame::parse(bytes).expect("a frame")).expect("opens");
        assert!(Arc::ptr_eq(&first, &aside(1, &one).expect("sealed")));
        let held = seals.opened();
        assert_eq!(aside(1, &one), Some(Arc::clone(&first)));
        drop(held);
        let own = aside(3, &two).expect("sealed");
        assert!(!Arc::ptr_eq(&own, &open(3, &two).expect("opens").expect("sealed")));
        // After an erasure nothing is left in memory.
        seals.forget();
        assert_eq!((seals.opened().payloads.len(), Arc::strong_count(&first)), (0, 2), "ours, and `again`");
        // Nobody reads what a key has opened that was taken away.
        seals.set(RegionSecrets::default());
        assert_eq!(open(1, &one).map(|_| ()), Err(Error::Sealed));
        assert!(!format!("{seals:?}").contains("116, 119, 111"));
    }

    #[test]
    fn what_was_opened_is_bounded() {
        let mut opened = Opened::default();
        let name = |id| (id, [0; 16]);
        for id in 0..10_000 {
            opened.keep(name(id), vec![0; 100].into());
            assert!(opened.payloads.len() <= MOST && opened.bytes <= KEPT);
        }
        for id in 0..100 {
            // Long gone by: it takes nobody's place.
            opened.keep(name(id), vec![0; 100].into());
            assert!(opened.get(&name(id)).is_none() && opened.get(&name(9_999)).is_some());
        }
        opened.keep(name(10_000), vec![0; KEPT].into());
        assert_eq!((opened.payloads.len(), opened.bytes), (1, KEPT));
        opened.keep(name(10_001), vec![0; KEPT + 1].into());
        assert_eq!((opened.payloads.len(), opened.bytes), (0, 0));
    }
}
