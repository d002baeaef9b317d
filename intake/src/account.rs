//! A tenant as a hop knows it: settings, allowed origins, and the keys that the hop holds.

use std::{rc::Rc, sync::Arc};

use firsthop_core::{
    Epoch, Error, Frame, KeyId, Keyring, LeaseKey, LeaseRing, LeaseScope, Region, RegionKeyId, RegionSecretKey,
    SessionGrant, TenantId, Timestamp, WorkerId, WriteKey,
};

use crate::{Problem, Refusal, RegionSecrets};

/// A tenant's settings, as far as a first hop needs them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// The id that write keys and frames name.
    pub id: TenantId,
    /// For people; may change.
    pub name: String,
    /// Where its events may be read. [`Region::ANY`] opens the gate to frames of every region.
    pub region: Region,
    /// Which first hop this is: 0 is the server.
    pub worker: WorkerId,
    /// The write keys in force.
    pub write_keys: Vec<String>,
    /// The pages that may write.
    pub origins: Origins,
}

impl Tenant {
    /// Whether this hop may read a frame that its producer meant for `region`.
    ///
    /// # Errors
    /// [`Refusal::WrongRegion`].
    pub fn admits(&self, region: Region) -> Result<(), Refusal> {
        let open = region == Region::ANY || self.region == Region::ANY || region == self.region;
        if open { Ok(()) } else { Err(Refusal::WrongRegion) }
    }

    /// Checks that a write key is one of the tenant's. A write key is no secret, so this needs no constant time.
    ///
    /// # Errors
    /// [`Error::WriteKey`].
    pub fn check_write_key(&self, key: &WriteKey<'_>) -> Result<(), Error> {
        let known = key.tenant() == self.id && self.write_keys.iter().any(|k| k == key.as_str());
        if known { Ok(()) } else { Err(Error::WriteKey) }
    }
}

/// What a hop knows of one tenant. One routine checks requests on both hops; what differs is which keys they hold.
///
/// [`Leased`] is an edge's, [`Rooted`] the server's.
pub trait Account {
    /// The tenant's settings.
    fn tenant(&self) -> &Tenant;

    /// The lease to grant sessions under and to sign with: its root, its scope, its key.
    ///
    /// # Errors
    /// [`Error::UnknownKey`] if the hop holds none for now.
    fn current(&self, now: Timestamp) -> Result<(KeyId, LeaseScope, LeaseKey), Error>;

    /// The lease that a session was granted under. `Ok(None)`: this hop cannot have it, another one decides; the frame
    /// goes on, marked [`Trust::Unchecked`](firsthop_core::Trust::Unchecked).
    ///
    /// # Errors
    /// [`Error::UnknownKey`] if no hop has it, and the frame is to be refused.
    fn lease(&self, root: KeyId, scope: &LeaseScope, now: Timestamp) -> Result<Option<LeaseKey>, Error>;

    /// Checks a frame against the session that it claims, under that lease. A hop that keeps the keys of sessions need not derive them.
    ///
    /// # Errors
    /// As [`LeaseKey::verify_session`].
    fn verify_session(&self, lease: &LeaseKey, frame: &Frame<'_>, now: Timestamp) -> Result<SessionGrant, Error> {
        lease.verify_session(frame, now)
    }

    /// The private key that frames for a region open with, by its number. `Ok(None)`: this hop is not one that may read them, or has not been given
    /// the key yet; the frame goes on as it came, and another one decides.
    ///
    /// # Errors
    /// [`Error::Sealed`] if no hop has it, and the frame is to be refused.
    fn region_secret(&self, _region: Region, _id: RegionKeyId) -> Result<Option<RegionSecretKey>, Error> {
        Err(Error::Sealed)
    }

    /// Whether a frame may come as it is, sealed or not. An edge asks its tenant's policy instead, at the gate, before it reads anything.
    ///
    /// # Errors
    /// [`Refusal::Unsealed`].
    fn check_sealed(&self, _is_sealed: bool) -> Result<(), Refusal> {
        Ok(())
    }

    /// Whether a body of this size may come at all and the tenant has anything left of its share. Asked for whoever names the
    /// tenant, before any work is done for them; so it must take nothing.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`], [`Refusal::BodyTooLarge`].
    fn has_room(&self, _bytes: usize) -> Result<(), Problem> {
        Ok(())
    }

    /// Takes a request from the tenant's share: asked once, when somebody answers for it, and before its events are read.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`].
    fn admit(&self, _events: u16, _bytes: usize) -> Result<(), Problem> {
        Ok(())
    }
}

macro_rules! account_behind {
    ($($pointer:ty),*) => {$(
        impl<T: Account + ?Sized> Account for $pointer {
            fn tenant(&self) -> &Tenant {
                (**self).tenant()
            }

            fn current(&self, now: Timestamp) -> Result<(KeyId, LeaseScope, LeaseKey), Error> {
                (**self).current(now)
            }

            fn lease(&self, root: KeyId, scope: &LeaseScope, now: Timestamp) -> Result<Option<LeaseKey>, Error> {
                (**self).lease(root, scope, now)
            }

            fn verify_session(&self, lease: &LeaseKey, frame: &Frame<'_>, now: Timestamp) -> Result<SessionGrant, Error> {
                (**self).verify_session(lease, frame, now)
            }

            fn region_secret(&self, region: Region, id: RegionKeyId) -> Result<Option<RegionSecretKey>, Error> {
                (**self).region_secret(region, id)
            }

            fn check_sealed(&self, is_sealed: bool) -> Result<(), Refusal> {
                (**self).check_sealed(is_sealed)
            }

            fn has_room(&self, bytes: usize) -> Result<(), Problem> {
                (**self).has_room(bytes)
            }

            fn admit(&self, events: u16, bytes: usize) -> Result<(), Problem> {
                (**self).admit(events, bytes)
            }
        }
    )*};
}
account_behind!(&T, Rc<T>, Arc<T>);

/// Leases that an edge may hold at a time: three epochs of five roots.
pub(crate) const LEASES: usize = 16;

/// An edge's account: settings and leases that the server handed out. What it holds no lease for, the server decides.
#[derive(Clone, Debug)]
pub struct Leased {
    /// The tenant, with the edge's own worker id and region.
    pub tenant: Tenant,
    /// The leases; all of the tenant's, the edge's region and its worker id.
    pub leases: LeaseRing<LEASES>,
    /// The private keys of its region, where the tenant lets its edges read what is sealed; otherwise none.
    pub region_secrets: RegionSecrets,
}

impl Account for Leased {
    fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    fn current(&self, now: Timestamp) -> Result<(KeyId, LeaseScope, LeaseKey), Error> {
        let (id, epoch, key) = self.leases.current(now)?;
        Ok((id, own_scope(&self.tenant, epoch), key.clone()))
    }

    fn lease(&self, root: KeyId, scope: &LeaseScope, _now: Timestamp) -> Result<Option<LeaseKey>, Error> {
        if *scope != own_scope(&self.tenant, scope.epoch) {
            return Ok(None);
        }
        Ok(self.leases.get(root, scope.epoch).ok().cloned())
    }

    fn region_secret(&self, region: Region, id: RegionKeyId) -> Result<Option<RegionSecretKey>, Error> {
        Ok(self.region_secrets.get(region, id).cloned())
    }
}

/// Roots that a tenant may have at a time.
pub const ROOTS: usize = 8;

/// The server's account: settings and roots. Every lease follows from a root, so there is none to ask further.
#[derive(Clone, Debug)]
pub struct Rooted {
    /// The tenant; its worker id is 0.
    pub tenant: Tenant,
    /// The roots.
    pub roots: Keyring<ROOTS>,
    /// The private keys of its regions.
    pub region_secrets: RegionSecrets,
    /// Whether what is not sealed is refused.
    pub sealed_only: bool,
}

impl Account for Rooted {
    fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    fn current(&self, now: Timestamp) -> Result<(KeyId, LeaseScope, LeaseKey), Error> {
        let (id, root) = self.roots.current(now)?;
        let scope = own_scope(&self.tenant, Epoch::at(now));
        Ok((id, scope, root.lease(&scope)))
    }

    fn lease(&self, root: KeyId, scope: &LeaseScope, now: Timestamp) -> Result<Option<LeaseKey>, Error> {
        self.roots.get(root, now).map(|root| Some(root.lease(scope)))
    }

    fn region_secret(&self, region: Region, id: RegionKeyId) -> Result<Option<RegionSecretKey>, Error> {
        self.region_secrets.get(region, id).cloned().map(Some).ok_or(Error::Sealed)
    }

    fn check_sealed(&self, is_sealed: bool) -> Result<(), Refusal> {
        if self.sealed_only && !is_sealed { Err(Refusal::Unsealed) } else { Ok(()) }
    }
}

const fn own_scope(tenant: &Tenant, epoch: Epoch) -> LeaseScope {
    LeaseScope { tenant: tenant.id, region: tenant.region, worker: tenant.worker, epoch }
}

/// What browsers send for an origin that they do not tell: of a sandboxed page, or of a request that is not CORS under
/// `Referrer-Policy: no-referrer`.
pub(crate) const HIDDEN: &str = "null";

/// The origins that may write for a tenant: exact ones (`https://shop.example`, `http://localhost:8080`), all
/// subdomains (`https://*.shop.example`, at any depth, not the apex itself), `null` (pages that hide their origin), or `*`. The default
/// allows none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Vec<Pattern>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Any,
    Exact(String),
    /// What stands before the subdomain (`https://`) and behind it (`.shop.example:8443`).
    Subdomains(String, String),
}

impl Origins {
    /// Every page may write.
    #[must_use]
    pub fn any() -> Self {
        Self(vec![Pattern::Any])
    }

    /// Reads the patterns, in any case, with or without a slash at the end.
    ///
    /// # Errors
    /// [`Error::Parse`] if one is none of these forms.
    pub fn parse<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, Error> {
        patterns.into_iter().map(|pattern| Pattern::parse(pattern.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Checks a request's `Origin`. None passes: what sends none is no browser, and could send what it liked.
    ///
    /// # Errors
    /// [`Error::Origin`].
    pub fn check(&self, origin: Option<&str>) -> Result<(), Error> {
        match origin {
            Some(origin) if !self.0.iter().any(|pattern| pattern.matches(origin)) => Err(Error::Origin),
            _ => Ok(()),
        }
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim().trim_end_matches('/').to_ascii_lowercase();
        if text == "*" {
            return Ok(Self::Any);
        }
        if text == HIDDEN {
            return Ok(Self::Exact(text));
        }
        let (scheme, host) = text.split_once("://").ok_or(Error::Parse)?;
        let scheme_ok = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        let (wild, rest) = match host.strip_prefix('*') {
            Some(rest) => (true, rest),
            None => (false, host),
        };
        // Brackets and colons: IPv6 literals and ports.
        let host_ok = rest.len() > usize::from(wild)
            && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b))
            && rest.starts_with('.') == wild;
        match (scheme_ok && host_ok, wild) {
            (false, _) => Err(Error::Parse),
            (true, true) => Ok(Self::Subdomains(format!("{scheme}://"), rest.into())),
            (true, false) => Ok(Self::Exact(text)),
        }
    }

    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => origin == exact,
            Self::Subdomains(scheme, domain) => origin
                .strip_prefix(scheme.as_str())
                .and_then(|host| host.strip_suffix(domain.as_str()))
                // Only a host name's characters: nothing that ends the host before the domain begins.
                .is_some_and(|sub| {
                    !sub.is_empty()
                        && sub.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
                }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_match_what_they_say_and_no_more() {
        let origins =
            Origins::parse(["https://Shop.example/", "https://*.brand.example", "http://localhost:8080"]).unwrap();
        for good in
            ["https://shop.example", "https://www.brand.example", "https://a.b.brand.example", "http://localhost:8080"]
        {
            assert_eq!(origins.check(Some(good)), Ok(()), "{good}");
        }
        for bad in [
            "http://shop.example",
            "https://shop.example:8443",
            "https://shop.example.evil.example",
            "https://www.shop.example",
            "https://brand.example",
            "https://.brand.example/",
            "https://notbrand.example",
            "https://www.brand.example.evil.example",
            "https://evil.example/.brand.example",
            "https://evil.example#.brand.example",
            "https://user@x.brand.example:1",
            "http://www.brand.example",
            "http://localhost:8081",
            "null",
            "",
        ] {
            assert_eq!(origins.check(Some(bad)), Err(Error::Origin), "{bad}");
        }
        assert_eq!(origins.check(None), Ok(()));
        assert_eq!(Origins::default().check(Some("https://shop.example")), Err(Error::Origin));
        assert_eq!(Origins::any().check(Some("null")), Ok(()));
        assert_eq!(Origins::parse(["null"]).unwrap().check(Some("null")), Ok(()));
        assert_eq!(Origins::parse(["null"]).unwrap().check(Some("https://shop.example")), Err(Error::Origin));
        let ported = Origins::parse(["https://*.brand.example:8443"]).unwrap();
        assert_eq!(ported.check(Some("https://www.brand.example:8443")), Ok(()));
        assert_eq!(ported.check(Some("https://www.brand.example")), Err(Error::Origin));
    }

    #[test]
    fn what_is_no_origin_is_refused_at_once() {
        for bad in [
            "shop.example",
            "https://",
            "https://*",
            "https://*.",
            "https://*shop.example",
            "https://a.*.example",
            "https://shop.example/path",
            "https://.example",
            "://x",
            "",
            "**",
        ] {
            assert_eq!(Origins::parse([bad]), Err(Error::Parse), "{bad}");
        }
    }
}
