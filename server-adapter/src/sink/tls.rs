//! TLS to others: rustls, with the authorities that the operator or the system names.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use firsthop_core::Timestamp;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, crypto,
        pki_types::{CertificateDer, pem::PemObject},
    },
};
use x509_cert::{Certificate, der::Decode};

use super::Failure;

/// Where systems keep the authorities that they trust.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// When the first of the certificates in a file ends. None: it has none that can be read, which a sink says that wants it.
pub(super) fn first_end(file: &Path) -> Option<Timestamp> {
    let found = CertificateDer::pem_file_iter(file).ok()?.filter_map(Result::ok);
    let ends = found.filter_map(|certificate| {
        let certificate = Certificate::from_der(&certificate).ok()?;
        let end = certificate.tbs_certificate().validity().not_after.to_unix_duration();
        Some(Timestamp::from_millis(end.as_millis() as u64))
    });
    ends.min()
}

/// Verifies by the authorities in this file, or else in `SSL_CERT_FILE`, or else the system's.
pub(super) fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, Failure> {
    let named = ca_file.map(Path::to_owned).or_else(|| std::env::var_os("SSL_CERT_FILE").map(PathBuf::from));
    let file =
        named.or_else(|| BUNDLES.map(PathBuf::from).into_iter().find(|path| path.exists())).ok_or_else(|| {
            Failure::new(
                "this system has no certificate authorities: name a file of them in ca_file (apt: ca-certificates)",
            )
        })?;
    let failed = |what: &dyn std::fmt::Display| Failure::new(format!("{}: {what}", file.display()));
    let mut roots = RootCertStore::empty();
    let found = CertificateDer::pem_file_iter(&file).map_err(|error| failed(&error))?;
    // A system's bundle may have some that nobody can use.
    let (added, _) = roots.add_parsable_certificates(found.filter_map(Result::ok));
    if added == 0 {
        return Err(failed(&"no certificates in PEM"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
