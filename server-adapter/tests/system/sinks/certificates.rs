//! Certificates of the test's own, made by `openssl`: an authority, and what it vouches for.

use std::{fs, path::Path, process::Command};

const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

fn openssl(folder: &Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

/// Makes `NAME.pem` and `NAME.key`: an authority that nobody knows.
pub(super) fn authority(folder: &Path, name: &str) {
    let (key, certificate, subject) = (format!("{name}.key"), format!("{name}.pem"), format!("/CN={name}"));
    let rest = ["-days", "2", "-keyout", &key, "-out", &certificate, "-subj", &subject];
    openssl(folder, &[&["req", "-x509"], &KEY[..], &rest].concat());
}

/// Makes `NAME.pem` and `NAME.key`: a server's, for this name or address (`IP:127.0.0.1`), by an authority.
pub(super) fn certificate(folder: &Path, authority: &str, name: &str, of: &str) {
    let file = |extension: &str| format!("{name}.{extension}");
    let (key, request, certificate, names) = (file("key"), file("csr"), file("pem"), file("san"));
    let subject = format!("/CN={name}");
    openssl(folder, &[&["req"], &KEY[..], &["-keyout", &key, "-out", &request, "-subj", &subject]].concat());
    fs::write(folder.join(&names), format!("subjectAltName={of}\n")).expect("written");
    let (by, by_key) = (format!("{authority}.pem"), format!("{authority}.key"));
    let sign = ["-req", "-in", &request, "-CA", &by, "-CAkey", &by_key, "-days", "2", "-extfile", &names];
    openssl(folder, &[&["x509"], &sign[..], &["-out", &certificate]].concat());
}
