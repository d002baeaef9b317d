//! The tenants of a data folder: found, made, renamed, and given new roots.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use firsthop_core::{KeyId, Region, RootKey, TenantId, Timestamp};

use super::{
    LimitsFile, alphanumeric,
    file::{self, KeyFile, Root, SigningKey, TenantFile, check_name},
    random_bytes,
};
use crate::Error;

/// A data folder, seen as the tenants in it.
#[derive(Clone, Debug)]
pub struct Store {
    data: PathBuf,
}

/// A tenant as its files say.
#[derive(Clone, Debug)]
pub struct StoredTenant {
    /// The tenant's folder.
    pub folder: PathBuf,
    /// `tenant.toml`
    pub tenant: TenantFile,
    /// `keys.toml`
    pub keys: KeyFile,
}

const TENANT_HEADING: &str =
    "# A tenant of Firsthop. Edit it as you like, but for the id; a running server notices within a second.\n\n";
const KEYS_HEADING: &str =
    "# Root keys: whoever has one can forge this tenant's events. Change them with `firsthop key rotate`.\n\n";

impl Store {
    /// The tenants of this data folder. It need not exist yet.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self { data: data.into() }
    }

    /// The data folder.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// A tenant's folder.
    #[must_use]
    pub fn folder(&self, id: TenantId) -> PathBuf {
        self.data.join("tenants").join(id.to_string())
    }

    /// Who is there. Folders that are not named like a tenant are not looked at.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn ids(&self) -> Result<Vec<TenantId>, Error> {
        let folder = self.data.join("tenants");
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io(&folder))?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io(&folder))?;
            // A folder without the file is a tenant in the making.
            if let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok())
                && entry.path().join("tenant.toml").exists()
            {
                ids.push(id);
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Reads one tenant.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Tenant`].
    pub fn load(&self, id: TenantId) -> Result<StoredTenant, Error> {
        self.load_from(&self.folder(id), id)
    }

    /// Reads one tenant from a folder that may stand elsewhere.
    pub(crate) fn load_from(&self, folder: &Path, id: TenantId) -> Result<StoredTenant, Error> {
        let folder = folder.to_path_buf();
        let tenant: TenantFile = file::read(&folder.join("tenant.toml"))?;
        let keys = file::read(&folder.join("keys.toml"))?;
        if tenant.id != id {
            return Err(Error::tenant(format!("{}: its tenant.toml has another id", folder.display())));
        }
        tenant.check().map_err(|error| Error::tenant(format!("{}: {error}", folder.join("tenant.toml").display())))?;
        Ok(StoredTenant { folder, tenant, keys })
    }

    /// Reads all tenants.
    ///
    /// # Errors
    /// As [`load`](Self::load), for the first that cannot be read.
    pub fn all(&self) -> Result<Vec<StoredTenant>, Error> {
        self.ids()?.into_iter().map(|id| self.load(id)).collect()
    }

    /// The tenant that a person means: by id, by name, or the only one.
    ///
    /// # Errors
    /// [`Error::Tenant`] if there is none, or no telling which.
    pub fn find(&self, said: Option<&str>) -> Result<StoredTenant, Error> {
        let mut tenants = self.all()?;
        let names = || {
            let names: Vec<&str> = tenants.iter().map(|stored| stored.tenant.name.as_str()).collect();
            names.join(", ")
        };
        let at = match said {
            Some(said) => tenants
                .iter()
                .position(|stored| stored.tenant.name == said || stored.tenant.id.to_string() == said)
                .ok_or_else(|| Error::tenant(format!("no tenant {said:?}; there are: {}", names())))?,
            None if tenants.is_empty() => {
                return Err(Error::tenant(format!(
                    "no tenants in {}: start with `firsthop serve` or `firsthop tenant add`",
                    self.data.display()
                )));
            }
            None if tenants.len() > 1 => {
                return Err(Error::tenant(format!("which tenant? Say --tenant and one of: {}", names())));
            }
            None => 0,
        };
        Ok(tenants.swap_remove(at))
    }

    /// The tenants that a person means: each by id or name, or all.
    ///
    /// # Errors
    /// As [`find`](Self::find), and [`Error::Tenant`] if there are none.
    pub fn chosen(&self, said: &[String]) -> Result<Vec<StoredTenant>, Error> {
        let chosen = if said.is_empty() {
            self.all()?
        } else {
            said.iter().map(|said| self.find(Some(said))).collect::<Result<_, _>>()?
        };
        if chosen.is_empty() {
            return Err(Error::tenant(format!("no tenants in {}", self.data.display())));
        }
        Ok(chosen)
    }

    /// Makes a tenant, with a root and a write key.
    ///
    /// # Errors
    /// [`Error::Tenant`] if the name is taken or an origin is none; [`Error::Io`].
    pub fn add(&self, name: &str, region: Region, origins: &[String], now: Timestamp) -> Result<StoredTenant, Error> {
        let _lock = self.lock()?;
        self.check_free(name)?;
        file::parse_origins(origins)?;
        let mut id = [0; 8];
        random_bytes(&mut id);
        let id = TenantId::new(u64::from_le_bytes(id));
        let tenant = TenantFile {
            id,
            name: name.to_owned(),
            region,
            write_keys: vec![format!("fh_{id}_{}", alphanumeric(22))],
            origins: origins.to_vec(),
            limits: LimitsFile::default(),
            retention: super::RetentionFile::default(),
            sinks: Vec::new(),
            enrolments: Vec::new(),
            policy: None,
        };
        let root = Root { id: KeyId::FIRST, from: now, until: None, secret: new_root() };
        let keys = KeyFile {
            ledger: Some(SigningKey::new(new_root())),
            document: None,
            last_region_key: None,
            roots: vec![root],
            region_keys: Vec::new(),
        };
        let mut stored = StoredTenant { folder: self.folder(id), tenant, keys };
        file::make_folder(&stored.folder).map_err(Error::io(&stored.folder))?;
        // The keys first: a tenant is there once tenant.toml is.
        stored.save_keys()?;
        stored.save_tenant()?;
        Ok(stored)
    }

    /// Gives a tenant another name. Its id stays.
    ///
    /// # Errors
    /// [`Error::Tenant`], [`Error::Io`].
    pub fn rename(&self, said: &str, name: &str) -> Result<StoredTenant, Error> {
        let _lock = self.lock()?;
        let mut stored = self.find(Some(said))?;
        if stored.tenant.name != name {
            self.check_free(name)?;
            name.clone_into(&mut stored.tenant.name);
            stored.save_tenant()?;
        }
        Ok(stored)
    }

    /// Adds a root that signs from now on. The one before it verifies for `grace` longer, so that no frame that was
    /// valid when it was sent is refused.
    ///
    /// # Errors
    /// [`Error::Tenant`], [`Error::Io`].
    pub fn rotate(&self, said: Option<&str>, grace: Duration, now: Timestamp) -> Result<StoredTenant, Error> {
        let _lock = self.lock()?;
        let mut stored = self.find(said)?;
        let until = now.offset(i64::try_from(grace.as_millis()).unwrap_or(i64::MAX));
        let last = stored.keys.roots.iter().map(|root| root.id).max().unwrap_or(KeyId::new(0));
        for root in &mut stored.keys.roots {
            root.until = Some(root.until.map_or(until, |earlier| earlier.min(until)));
        }
        stored.keys.roots.push(Root { id: last.next(), from: now, until: None, secret: new_root() });
        stored.tenant.account(&stored.keys, now)?;
        stored.save_keys()?;
        Ok(stored)
    }

    fn check_free(&self, name: &str) -> Result<(), Error> {
        check_name(name)?;
        let taken = |stored: &StoredTenant| stored.tenant.name == name || stored.tenant.id.to_string() == name;
        if self.all()?.iter().any(taken) {
            return Err(Error::tenant(format!("there is a tenant {name:?} already")));
        }
        Ok(())
    }

    /// One change at a time; a server reads without it.
    pub(crate) fn lock(&self) -> Result<File, Error> {
        file::make_folder(&self.data).map_err(Error::io(&self.data))?;
        let path = self.data.join("admin.lock");
        let lock = || -> std::io::Result<File> {
            let file = File::options().create(true).append(true).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        lock().map_err(Error::io(&path))
    }
}

impl StoredTenant {
    pub(super) fn save_tenant(&self) -> Result<(), Error> {
        file::write(&self.folder.join("tenant.toml"), &self.tenant, TENANT_HEADING)
    }

    pub(super) fn save_keys(&mut self) -> Result<(), Error> {
        self.keys.last_region_key = self.keys.last_region_key();
        file::write(&self.folder.join("keys.toml"), &self.keys, KEYS_HEADING)
    }

    /// Where the journal is.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.folder.join("journal.db")
    }

    /// Where the shapes of the events are.
    #[must_use]
    pub fn shapes(&self) -> PathBuf {
        self.folder.join("schema.db")
    }

    /// Where the events table is.
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.folder.join("events.db")
    }

    /// Where the sinks are that cannot say it themselves, and what they refused.
    #[must_use]
    pub fn sinks(&self) -> PathBuf {
        self.folder.join("sinks.db")
    }
}

pub(super) fn new_root() -> RootKey {
    let mut secret = [0; 32];
    random_bytes(&mut secret);
    RootKey::new(secret)
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::PermissionsExt;

    use firsthop_core::WriteKey;

    use super::*;

    pub(in super::super) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    pub(in super::super) fn any() -> Vec<String> {
        vec!["*".to_owned()]
    }

    pub(in super::super) fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::new(folder.path().join("made/when/needed"));
        (folder, store)
    }

    /// Each edge is sent both, and reads an answer of so many bytes.
    #[test]
    fn origins_and_write_keys_are_no_more_than_an_edge_can_be_told() {
        let (_folder, store) = store();
        let origin = |n: usize| format!("https://{}{n:04}.example", "o".repeat(72));
        let most = 24 * 1024 / (origin(0).len() + 3);
        let origins: Vec<String> = (0..=most).map(origin).collect();
        let why = store.add("many", Region::ANY, &origins, NOW).unwrap_err().to_string();
        assert!(why.contains("at most 24576") && why.contains("https://*.example.com"), "{why}");
        let mut tenant = store.add("shop", Region::ANY, &origins[1..], NOW).expect("as many as there may be").tenant;
        tenant.write_keys = (0..128).map(|n| format!("fh_{}_{n:043}", tenant.id)).collect();
        tenant.check().expect("as many as there may be");
        tenant.write_keys.push(format!("fh_{}_{:043}", tenant.id, 128));
        let why = tenant.check().unwrap_err().to_string();
        assert!(why.contains("write_keys: 129") && why.contains("at most 128"), "{why}");
    }

    #[test]
    fn a_tenant_is_made_and_found_and_renamed() {
        let (_folder, store) = store();
        assert!(store.find(None).is_err());
        let shop = store.add("shop", "EU".parse().unwrap(), &any(), NOW).expect("made");
        assert_eq!(WriteKey::parse(&shop.tenant.write_keys[0]).expect("a key").tenant(), shop.tenant.id);
        assert_eq!(store.find(None).expect("the only one").tenant, shop.tenant);
        assert!(store.add("shop", Region::ANY, &any(), NOW).is_err(), "the name is taken");
        assert!(store.add("x", Region::ANY, &["shop.example".to_owned()], NOW).is_err(), "not an origin");
        assert!(store.add(" x", Region::ANY, &any(), NOW).is_err(), "not a name");

        let other = store.add("other", Region::ANY, &any(), NOW).expect("made");
        assert!(store.find(None).unwrap_err().to_string().contains("--tenant"));
        let renamed = store.rename("shop", "store").expect("renamed");
        assert_eq!(renamed.tenant.id, shop.tenant.id);
        assert_eq!(store.find(Some("store")).expect("by name").tenant.write_keys, shop.tenant.write_keys);
        assert_eq!(store.find(Some(&other.tenant.id.to_string())).expect("by id").tenant.name, "other");
        assert!(store.rename("store", "other").is_err(), "the name is taken");
    }

    #[test]
    fn only_the_owner_reads_the_files() {
        let (_folder, store) = store();
        let stored = store.add("shop", Region::ANY, &any(), NOW).expect("made");
        for name in ["tenant.toml", "keys.toml"] {
            let mode = fs::metadata(stored.folder.join(name)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(fs::metadata(&stored.folder).expect("there").permissions().mode() & 0o777, 0o700);
        assert!(!format!("{stored:?}").contains(&*base64_of(stored.keys.roots[0].secret.expose())));
    }

    fn base64_of(bytes: &[u8]) -> String {
        use base64::Engine;
        base64::prelude::BASE64_STANDARD.encode(bytes)
    }

    #[test]
    fn a_rotation_lets_the_old_root_verify_for_a_while() {
        let (_folder, store) = store();
        let before = store.add("shop", Region::ANY, &any(), NOW).expect("made").keys;
        let hour = Duration::from_secs(3600);
        let after = store.rotate(None, hour, NOW).expect("rotated").keys;
        let ring = after.ring::<8>(NOW).expect("in force");
        assert_eq!(ring.current(NOW).expect("a root").0, KeyId::new(2));
        assert_eq!(ring.get(KeyId::FIRST, NOW).expect("still verifies").expose(), before.roots[0].secret.expose());
        let later = NOW.offset(3_600_000);
        assert!(after.ring::<8>(later).expect("in force").get(KeyId::FIRST, later).is_err());
        assert!(after.root(KeyId::FIRST).is_some(), "kept for what it signed");
        // What was written is what is read.
        assert_eq!(store.find(None).unwrap().keys.roots[1].secret.expose(), after.roots[1].secret.expose());
    }

    #[test]
    fn a_broken_file_is_named_and_its_secret_is_not() {
        let (_folder, store) = store();
        let stored = store.add("shop", Region::ANY, &any(), NOW).expect("made");
        let path = stored.folder.join("keys.toml");
        let text = fs::read_to_string(&path).expect("there");
        fs::write(&path, text.replace("secret = \"", "secret = \"?")).expect("written");
        let error = store.find(None).expect_err("not base64").to_string();
        assert!(error.contains("keys.toml") && error.contains("base64"), "{error}");
        assert!(!error.contains(&base64_of(stored.keys.roots[0].secret.expose())[..20]), "{error}");
    }
}
