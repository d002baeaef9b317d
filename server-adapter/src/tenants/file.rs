//! The two files of a tenant.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use firsthop_core::{
    KeyId, Keyring, PublicKey, Region, RegionKeyId, RegionSecretKey, RootKey, SecretKey, TenantId, Timestamp, WorkerId,
    WriteKey, limits::MAX_WRITE_KEY,
};
use firsthop_intake::{
    Origins, RegionSecrets, Rooted, Tenant,
    document::{self, RegionKey},
    policy::Policy,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use zeroize::Zeroizing;

use super::{limits::LimitsFile, retention::RetentionFile};
use crate::{
    Error, clock,
    sink::{self, SinkSpec},
};

/// Most write keys, and most bytes of origins (three more for each): with the documents, which have a bound of their own, an answer to an edge stays within the
/// 256 KiB that it reads.
const MOST_WRITE_KEYS: usize = 128;
const MOST_ORIGINS: usize = 24 * 1024;
const _: () = assert!(document::MAX_ALL + MOST_WRITE_KEYS * (MAX_WRITE_KEY + 3) + MOST_ORIGINS < 240 * 1024);

/// `tenant.toml`: who the tenant is, and who may write to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantFile {
    /// Never changes: it is in every key and every frame.
    #[serde(with = "as_text")]
    pub id: TenantId,
    /// For people; may change.
    pub name: String,
    /// Where the tenant's data may be read; `--` for anywhere.
    #[serde(with = "as_text", default)]
    pub region: Region,
    /// Keys that pages and SDKs write with. Remove one to cut its users off.
    pub write_keys: Vec<String>,
    /// Origins that pages may be served from: `https://shop.example`, `https://*.example.com`, or `*` for all.
    pub origins: Vec<String>,
    /// What it may send, where that differs from the server's settings.
    #[serde(default, skip_serializing_if = "LimitsFile::is_empty")]
    pub limits: LimitsFile,
    /// Where its events go, besides the events table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sinks: Vec<SinkSpec>,
    /// What its journal keeps, where that differs from the server's settings.
    #[serde(default, skip_serializing_if = "RetentionFile::is_empty")]
    pub retention: RetentionFile,
    /// Edges that may have leases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enrolments: Vec<Enrolment>,
    /// Which first hop may read what, pass it on unread, or neither. Its edges get it as a signed document. Without one, an edge serves
    /// its own region and no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
}

/// An edge that may have leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// Its number in keys and envelopes; never used again for another edge.
    #[serde(with = "worker")]
    pub worker: WorkerId,
    /// For people.
    pub name: String,
    /// Where it stands: it gets leases for there.
    #[serde(with = "as_text")]
    pub region: Region,
    /// SHA-256 of its token, in hex. The token itself is nowhere.
    pub token_sha256: String,
    /// When it was enrolled.
    #[serde(default, with = "moment_or_none", skip_serializing_if = "Option::is_none")]
    pub added: Option<Timestamp>,
    /// No leases from then on; its envelopes are refused.
    #[serde(default, with = "moment_or_none", skip_serializing_if = "Option::is_none")]
    pub removed: Option<Timestamp>,
}

/// `keys.toml`: the roots. One that has ended stays, so that what it signed can be checked years later.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// What closes the ledger's hours. Made when it is first needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<SigningKey>,
    /// What signs the documents that edges and pages check. Made when it is first needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<SigningKey>,
    /// The highest number that a region key has had. It is not given again, also when that key is taken out: frames that are stored name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_region_key: Option<u32>,
    /// The roots, oldest first.
    pub roots: Vec<Root>,
    /// What frames are sealed to, oldest first. One that has ended stays: what was sealed to it is still to be opened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub region_keys: Vec<RegionKeyPair>,
}

/// An Ed25519 key. Whoever has its public half can check what it has signed, and nobody can make it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SigningKey(#[serde(with = "secret")] RootKey);

impl SigningKey {
    /// From 32 random bytes.
    pub(crate) const fn new(seed: RootKey) -> Self {
        Self(seed)
    }

    /// The half that signs.
    #[must_use]
    pub fn secret(&self) -> SecretKey {
        SecretKey::from_seed(self.0.expose())
    }

    /// The half that everybody may have.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.secret().public()
    }
}

/// A root key and when it is in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// Its number in frames.
    #[serde(with = "key_id")]
    pub id: KeyId,
    /// It signs from here on, until a later root does.
    #[serde(with = "moment")]
    pub from: Timestamp,
    /// It verifies until here, or without an end.
    #[serde(default, with = "moment_or_none", skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The key.
    #[serde(with = "secret")]
    pub secret: RootKey,
}

/// A region's key pair: frames are sealed to its public half, and opened with this one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionKeyPair {
    /// Its number in frames; never used again for another key of the tenant's.
    #[serde(with = "region_key_id")]
    pub id: RegionKeyId,
    /// Who can open what is sealed to it.
    #[serde(with = "as_text")]
    pub region: Region,
    /// Producers seal to it from here on, until a later one of the region begins.
    #[serde(with = "moment")]
    pub from: Timestamp,
    /// Nobody seals to it from here on, or without an end.
    #[serde(default, with = "moment_or_none", skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// X25519 (RFC 7748).
    #[serde(with = "secret")]
    pub(super) secret: RootKey,
}

impl RegionKeyPair {
    /// From 32 random bytes.
    pub(super) const fn new(id: RegionKeyId, region: Region, from: Timestamp, secret: RootKey) -> Self {
        Self { id, region, from, until: None, secret }
    }

    /// The half that opens.
    #[must_use]
    pub fn secret(&self) -> RegionSecretKey {
        RegionSecretKey::new(self.id, *self.secret.expose())
    }

    /// What is published of it.
    #[must_use]
    pub fn published(&self) -> RegionKey {
        RegionKey {
            id: self.id,
            region: self.region,
            public: *self.secret().public().as_bytes(),
            from: self.from,
            until: self.until,
        }
    }

    /// Whether producers are told of it at a moment: it has not ended.
    #[must_use]
    pub fn is_published(&self, at: Timestamp) -> bool {
        self.until.is_none_or(|until| at < until)
    }
}

impl TenantFile {
    /// Checks what a hand may have got wrong.
    ///
    /// # Errors
    /// [`Error::Tenant`], saying what.
    pub fn check(&self) -> Result<(), Error> {
        check_name(&self.name)?;
        if self.write_keys.is_empty() {
            return Err(Error::tenant("write_keys: at least one"));
        }
        if self.write_keys.len() > MOST_WRITE_KEYS {
            return Err(Error::tenant(format!(
                "write_keys: {}, and each edge is sent all of them: at most {MOST_WRITE_KEYS}. Take out those that nobody uses any more",
                self.write_keys.len()
            )));
        }
        for key in &self.write_keys {
            match WriteKey::parse(key) {
                Ok(parsed) if parsed.tenant() == self.id => {}
                _ => return Err(Error::tenant(format!("write_keys: not a write key of tenant {}", self.id))),
            }
        }
        parse_origins(&self.origins)?;
        sink::spec::check(&self.sinks)?;
        if let Some(policy) = &self.policy {
            policy.check().map_err(|error| Error::tenant(error.to_string()))?;
        }
        for (i, enrolment) in self.enrolments.iter().enumerate() {
            if enrolment.worker.get() == 0 {
                return Err(Error::tenant("enrolments: worker 0 is the server itself"));
            }
            if self.enrolments[..i].iter().any(|other| other.worker == enrolment.worker) {
                return Err(Error::tenant(format!("enrolments: worker {} stands twice", enrolment.worker.get())));
            }
            if enrolment.token_sha256.len() != 64 || !enrolment.token_sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(Error::tenant("enrolments: token_sha256 is 64 hex digits"));
            }
        }
        Ok(())
    }

    /// The tenant as a first hop sees it: the server is worker 0, in the tenant's region.
    ///
    /// # Errors
    /// As [`check`](Self::check), and [`Error::Tenant`] if more roots are in force than a keyring holds.
    pub fn account(&self, keys: &KeyFile, now: Timestamp) -> Result<Rooted, Error> {
        self.check()?;
        Ok(Rooted {
            tenant: Tenant {
                id: self.id,
                name: self.name.clone(),
                region: self.region,
                worker: WorkerId::new(0),
                write_keys: self.write_keys.clone(),
                origins: parse_origins(&self.origins)?,
            },
            roots: keys.ring(now)?,
            region_secrets: keys.region_secrets(),
            sealed_only: self.is_sealed_only(),
        })
    }
}

impl TenantFile {
    /// Whether what is not sealed is refused.
    fn is_sealed_only(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.refuse_unsealed)
    }

    /// What is not sealed is refused, and there is no key to seal to: that refuses everything.
    ///
    /// # Errors
    /// [`Error::Tenant`], if it is so.
    pub(super) fn check_sealed(&self, keys: &KeyFile) -> Result<(), Error> {
        if self.is_sealed_only() && keys.region_keys.is_empty() {
            let why = "policy: refuse_unsealed, and there is nothing to seal to: `firsthop region-key new` makes a key";
            return Err(Error::tenant(why));
        }
        Ok(())
    }
}

/// Origins that pages may be served from.
pub(super) fn parse_origins(origins: &[String]) -> Result<Origins, Error> {
    let bytes: usize = origins.iter().map(|origin| origin.len() + 3).sum();
    if bytes > MOST_ORIGINS {
        return Err(Error::tenant(format!(
            "origins: {bytes} bytes, and each edge is sent all of them: at most {MOST_ORIGINS}. `https://*.example.com` names all below example.com"
        )));
    }
    Origins::parse(origins).map_err(|_| {
        let wrong = origins.iter().find(|origin| Origins::parse([origin]).is_err());
        let origin = wrong.map_or("", String::as_str);
        Error::tenant(format!(
            "origins: {origin:?} is none. One is `https://shop.example`, perhaps with a port; `https://*.shop.example` is all below it, `null` is pages \
             that hide theirs, `*` is everybody"
        ))
    })
}

/// A name is for people to say and for terminals to print.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    if name.is_empty() || name.len() > 64 || name.trim() != name || name.chars().any(char::is_control) {
        return Err(Error::tenant("a name has 1 to 64 bytes, no control characters, no space around it"));
    }
    Ok(())
}

impl KeyFile {
    /// The roots that are in force now or later.
    ///
    /// # Errors
    /// [`Error::Tenant`] if none is, there are too many, or two have one id.
    pub fn ring<const N: usize>(&self, now: Timestamp) -> Result<Keyring<N>, Error> {
        let mut ring = Keyring::new();
        for root in self.roots.iter().filter(|root| root.until.is_none_or(|until| now < until)) {
            ring.insert(root.id, root.secret.clone(), root.from, root.until)
                .map_err(|error| Error::tenant(format!("keys.toml: root {}: {error}", root.id.get())))?;
        }
        ring.current(now).map_err(|_| Error::tenant("keys.toml: no root is in force now"))?;
        Ok(ring)
    }

    /// The region keys that are published at a moment: those that have not ended, by region and then by when they begin.
    #[must_use]
    pub fn published(&self, at: Timestamp) -> Vec<RegionKey> {
        let published = self.region_keys.iter().filter(|key| key.is_published(at));
        let mut keys: Vec<RegionKey> = published.map(RegionKeyPair::published).collect();
        keys.sort_by_key(|key| (key.region, key.from, key.id));
        keys
    }

    /// The highest number that a region key has, or has had.
    pub(super) fn last_region_key(&self) -> Option<u32> {
        self.region_keys.iter().map(|key| key.id.get()).max().max(self.last_region_key)
    }

    /// What opens frames: the private halves of all region keys, in force or not.
    #[must_use]
    pub fn region_secrets(&self) -> RegionSecrets {
        self.region_keys.iter().map(|key| (key.region, key.secret())).collect()
    }

    /// A root, in force or not.
    #[must_use]
    pub fn root(&self, id: KeyId) -> Option<&RootKey> {
        self.roots.iter().find(|root| root.id == id).map(|root| &root.secret)
    }
}

/// Reads a TOML file.
pub(super) fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, Error> {
    let text = Zeroizing::new(fs::read_to_string(path).map_err(Error::io(path))?);
    toml::from_str(&text).map_err(|error| {
        // The message without the line it points at: that line may hold a key.
        let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].lines().count().max(1));
        Error::tenant(format!("{}: line {line}: {}", path.display(), error.message()))
    })
}

/// Writes a TOML file in the place of the old one, durably.
pub(super) fn write(path: &Path, value: &impl Serialize, heading: &str) -> Result<(), Error> {
    let text = toml::to_string(value).map_err(|error| Error::tenant(format!("{}: {error}", path.display())))?;
    replace(path, Zeroizing::new(format!("{heading}{text}")).as_bytes())
}

/// Puts a file in the place of the old one, durably. Only its owner reads it.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let in_place = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        sync_folder(path.parent().unwrap_or(Path::new(".")))
    };
    in_place().map_err(Error::io(path))
}

/// Makes a folder that only its owner can enter, durably. One that exists is as good.
pub(crate) fn make_folder(path: &Path) -> std::io::Result<()> {
    let make = || fs::DirBuilder::new().mode(0o700).create(path);
    let made = match make() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).ok_or(error)?;
            make_folder(parent)?;
            // Once: there are file systems in which nothing can be made, and which say that something is missing.
            make()
        }
        made => made,
    };
    match made {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
            _ => sync_folder(Path::new(".")),
        },
    }
}

/// A renamed or new file is there after a power cut only once its folder is on disk.
pub(crate) fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

mod as_text {
    use super::*;

    pub(super) fn serialize<T: ToString, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.to_string())
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

macro_rules! as_number {
    ($module:ident, $type:ident) => {
        mod $module {
            use super::*;

            pub(super) fn serialize<S: Serializer>(value: &$type, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_u32(value.get())
            }

            pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                u32::deserialize(deserializer).map($type::new)
            }
        }
    };
}
as_number!(worker, WorkerId);
as_number!(key_id, KeyId);
as_number!(region_key_id, RegionKeyId);

mod moment {
    use super::*;

    pub(super) fn serialize<S: Serializer>(value: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&clock::format(*value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        clock::parse(&text).ok_or_else(|| D::Error::custom("not a time such as 2026-11-21T21:18:03Z"))
    }
}

mod moment_or_none {
    use super::*;

    pub(super) fn serialize<S: Serializer>(value: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => moment::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        moment::deserialize(deserializer).map(Some)
    }
}

mod secret {
    use super::*;

    pub(super) fn serialize<S: Serializer>(value: &RootKey, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(BASE64_STANDARD.encode(value.expose())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RootKey, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = BASE64_STANDARD.decode(text.as_bytes()).map(Zeroizing::new).ok();
        let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(&bytes[..]).ok());
        bytes.map(RootKey::new).ok_or_else(|| D::Error::custom("a key is 32 bytes in base64"))
    }
}
