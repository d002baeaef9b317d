//! What a tenant's server tells its edges under its signature: so far, the region policy.
//!
//! Whoever stands between edge and server could hold back a document, and cannot make one. What does not verify, is somebody else's, or is
//! older than what is held is not taken, and what is held stays.

use std::{cell::RefCell, rc::Rc};

use worker::{
    console_error,
    js_sys::{Array, Promise, Uint8Array},
    wasm_bindgen::{JsValue, prelude::wasm_bindgen},
};

use firsthop_core::TenantId;
use firsthop_intake::{
    document::{Kind, Signed},
    policy::Policy,
};

use crate::steps::settled;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = ["crypto", "subtle"], js_name = importKey, catch)]
    fn import_key(
        format: &str,
        key: &Uint8Array,
        algorithm: &str,
        extractable: bool,
        usages: &Array,
    ) -> Result<Promise, JsValue>;

    #[wasm_bindgen(js_namespace = ["crypto", "subtle"], catch)]
    fn verify(algorithm: &str, key: &JsValue, signature: &Uint8Array, data: &Uint8Array) -> Result<Promise, JsValue>;
}

/// A tenant's documents, as far as this isolate has seen them.
pub(crate) struct Documents {
    tenant: TenantId,
    /// What they verify with.
    key: [u8; 32],
    policy: RefCell<Known>,
}

enum Known {
    /// The server has not been asked yet, or what it said cannot be believed.
    Nothing,
    /// There never was a policy.
    Without,
    /// This one, of this version; or that there is none any more, which has a version too, so that the last one does not come back.
    Policy(u64, Option<Rc<Policy>>),
}

impl Documents {
    pub(crate) const fn new(tenant: TenantId, key: [u8; 32]) -> Self {
        Self { tenant, key, policy: RefCell::new(Known::Nothing) }
    }

    /// The region policy, or that there is none. Nothing: nobody knows, so nothing may be read yet.
    pub(crate) fn policy(&self) -> Option<Option<Rc<Policy>>> {
        match &*self.policy.borrow() {
            Known::Nothing => None,
            Known::Without => Some(None),
            Known::Policy(_, policy) => Some(policy.clone()),
        }
    }

    /// The policy's version; 0 without one.
    pub(crate) fn version(&self) -> u64 {
        match &*self.policy.borrow() {
            Known::Policy(version, _) => *version,
            _ => 0,
        }
    }

    /// Forgets them: whoever sent them is not to be asked any longer.
    pub(crate) fn forget(&self) {
        *self.policy.borrow_mut() = Known::Nothing;
    }

    /// Takes what the server has sent, as far as it holds. Returns what of it is now in force; nothing if that is something else.
    pub(crate) async fn take<'a>(&self, documents: &'a [Signed]) -> Option<&'a [Signed]> {
        let Some(at) = documents.iter().position(|signed| signed.kind == Kind::Policy.as_str()) else {
            // Not sent is not taken back: there was one, and somebody may have left it out.
            let mut held = self.policy.borrow_mut();
            if matches!(*held, Known::Nothing) {
                *held = Known::Without;
            }
            return matches!(*held, Known::Without).then_some(&[]);
        };
        match self.read(&documents[at]).await {
            Ok((version, policy)) => {
                *self.policy.borrow_mut() = Known::Policy(version, policy.map(Rc::new));
                Some(&documents[at..=at])
            }
            Err(why) => {
                let tenant = self.tenant;
                console_error!(
                    "{{\"event\":\"document-refused\",\"kind\":\"policy\",\"tenant\":\"{tenant}\",\"code\":\"{why}\"}}"
                );
                None
            }
        }
    }

    async fn read(&self, signed: &Signed) -> Result<(u64, Option<Policy>), &'static str> {
        let bytes = signed.signed_bytes().map_err(|unfit| unfit.code())?;
        if !holds(&self.key, &signed.signature, &bytes).await.unwrap_or(false) {
            return Err("document-signature");
        }
        let document =
            signed.read::<Option<Policy>>(Kind::Policy, self.tenant, self.version()).map_err(|unfit| unfit.code())?;
        if let Some(policy) = &document.body {
            policy.check().map_err(|_| "document-unsound")?;
        }
        Ok((document.version, document.body))
    }
}

/// Whether an Ed25519 signature holds, by the platform's own means.
async fn holds(key: &[u8; 32], signature: &[u8; 64], message: &[u8]) -> Result<bool, JsValue> {
    const ALG: &str = "Ed25519";
    let usages = Array::of1(&"verify".into());
    let key = settled(import_key("raw", &Uint8Array::from(&key[..]), ALG, false, &usages)?).await?;
    let verified = verify(ALG, &key, &Uint8Array::from(&signature[..]), &Uint8Array::from(message))?;
    Ok(settled(verified).await?.is_truthy())
}
