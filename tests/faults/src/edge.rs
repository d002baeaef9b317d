//! An edge: it has leases from the server, grants sessions by them, and vouches for what pages send in envelopes of its own.

use std::sync::{Mutex, PoisonError};

use base64::{Engine, prelude::BASE64_STANDARD};
use firsthop_core::{
    Alg, Annotation, Epoch, Header, KeyId, LeaseKey, LeaseRing, Network, Region, SourceId, TenantId, Timestamp,
    WorkerId, limits::MAX_ENVELOPE, seal_envelope,
};
use firsthop_intake::{Account, Facts, Leased, Origins, RegionSecrets, Session, native};

use crate::{
    Outcome,
    folder::Folder,
    http::Client,
    load::Log,
    producer::{Made, Producer, now},
    random::Random,
};

#[derive(Debug)]
pub(crate) struct Edge {
    token: String,
    inner: Mutex<Inner>,
    /// How far its clock is from ours.
    shift_ms: i64,
}

#[derive(Debug)]
struct Inner {
    account: Leased,
    source: SourceId,
    batch: u64,
}

impl Edge {
    /// Enrols one, and lets it fetch its leases from the running server.
    pub(crate) fn enrol(folder: &Folder, name: &str, random: &mut Random) -> Outcome<Self> {
        let token = folder.ok(&["edge", "add", "--name", name, "--region", "EU"])?.trim().to_owned();
        let mut ten = [0; 10];
        ten.iter_mut().for_each(|byte| *byte = random.next() as u8);
        let account = fetch(folder, &token)?;
        let inner = Mutex::new(Inner { account, source: SourceId::v7(now(), ten), batch: 0 });
        Ok(Self { token, inner, shift_ms: 0 })
    }

    /// Fetches its leases again, as it does every five minutes.
    pub(crate) fn refresh(&self, folder: &Folder) -> Outcome<()> {
        let account = fetch(folder, &self.token)?;
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).account = account;
        Ok(())
    }

    pub(crate) const fn shift_clock(&mut self, millis: i64) {
        self.shift_ms = millis;
    }

    /// Whether it can vouch for anything now. Otherwise it answers 503.
    pub(crate) fn has_lease(&self) -> bool {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).account.current(self.now()).is_ok()
    }

    fn now(&self) -> Timestamp {
        now().offset(self.shift_ms)
    }

    /// What it makes of a page's frame: an envelope, and a session for the page if that needs one.
    pub(crate) fn forward(&self, body: &[u8]) -> Outcome<(Vec<u8>, Option<Session>)> {
        let now = self.now();
        let facts =
            Facts { country: Some("CH"), pop: Some("ZRH"), network: Network::V4([192, 0, 2]), ..Facts::at(now) };
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let account = inner.account.clone();
        match native::receive(body, &facts, |_| Some(&account)) {
            Ok(accepted) => {
                let count = accepted.frame.header().count;
                Ok((inner.seal(&accepted.annotation, body, count, now)?, accepted.session))
            }
            Err(refused) => Err(format!("the edge refuses the page's frame: {:?}", refused.annotation).into()),
        }
    }

    /// A page behind it sends one frame, and sends it again until the server has answered.
    pub(crate) fn deliver(
        &self,
        client: &mut Client,
        page: &mut Producer,
        count: u32,
        log: &Log,
        give_up: &dyn Fn() -> bool,
    ) -> Outcome<bool> {
        let made = page.frame(count)?;
        let Some(granted) = self.deliver_made(client, &made, log, give_up)? else { return Ok(false) };
        page.session = granted.or_else(|| page.session.take());
        Ok(true)
    }

    /// The same for a frame that was made before. Returns the session that the page gets, or nothing if it was told to give up.
    pub(crate) fn deliver_made(
        &self,
        client: &mut Client,
        made: &Made,
        log: &Log,
        give_up: &dyn Fn() -> bool,
    ) -> Outcome<Option<Option<Session>>> {
        let session = Mutex::new(None);
        let seal = || {
            let (sealed, granted) = self.forward(&made.bytes)?;
            *session.lock().unwrap_or_else(PoisonError::into_inner) = granted;
            Ok(sealed)
        };
        let answer = crate::load::deliver_to(client, "/v1/e", &seal, made, log, give_up)?;
        let Some(answer) = answer else { return Ok(None) };
        if answer.status != 200 {
            return Err(format!("an envelope is refused: {} {}", answer.status, answer.text()).into());
        }
        Ok(Some(session.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Inner {
    fn seal(&mut self, annotation: &Annotation<'_>, body: &[u8], count: u16, now: Timestamp) -> Outcome<Vec<u8>> {
        let (key_id, scope, lease) = self.account.current(now)?;
        let header = Header {
            key_id,
            epoch: scope.epoch,
            region: scope.region,
            alg: Alg::HmacSha256,
            count,
            batch_seq: self.batch,
            ..Header::new(scope.tenant, self.source, now)
        };
        self.batch += 1;
        let mut buffer = vec![0; MAX_ENVELOPE];
        let key = lease.envelope_key(header.alg)?;
        Ok(seal_envelope(&mut buffer, &header, scope.worker, annotation, body, &key)?.to_vec())
    }
}

fn fetch(folder: &Folder, token: &str) -> Outcome<Leased> {
    let due = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let said = loop {
        let answer = Client::new(folder.internal).request("POST", "/v1/leases", &bearer, b"")?;
        if answer.status == 200 {
            break answer.json();
        }
        // The server looks at the files every second.
        if std::time::Instant::now() > due {
            return Err(format!("no leases: {}", answer.text()).into());
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    let mut leases = LeaseRing::new();
    for lease in said["leases"].as_array().ok_or("no leases")? {
        let number = |name: &str| lease[name].as_u64().and_then(|number| u32::try_from(number).ok()).ok_or("no number");
        let key: [u8; 32] = BASE64_STANDARD.decode(lease["key"].as_str().ok_or("no key")?)?.as_slice().try_into()?;
        leases.insert(KeyId::new(number("keyId")?), Epoch::new(number("epoch")?), LeaseKey::new(key));
    }
    let text = |name: &str| said[name].as_str().ok_or_else(|| format!("no {name}"));
    let texts = |name: &str| -> Vec<String> {
        let list = said[name].as_array().into_iter().flatten();
        list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let tenant = firsthop_intake::Tenant {
        id: text("tenant")?.parse::<TenantId>()?,
        name: text("name")?.to_owned(),
        region: text("region")?.parse::<Region>()?,
        worker: WorkerId::new(
            said["worker"].as_u64().and_then(|number| u32::try_from(number).ok()).ok_or("no worker")?,
        ),
        write_keys: texts("writeKeys"),
        origins: Origins::parse(texts("origins"))?,
    };
    Ok(Leased { tenant, leases, region_secrets: RegionSecrets::default() })
}
