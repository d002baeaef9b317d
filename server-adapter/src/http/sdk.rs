//! `GET /sdk/…`: the page SDK, from the folders that the setting `sdk` names.
//!
//! They are read once, at the start, and what is served is held to the listing that came with it: a file that was changed on the way here is
//! no SDK, and pages would refuse it one by one.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use firsthop_intake::{
    Problem, Refusal,
    sdk::{HEADERS, LISTING, SHORT, Wanted, is_known, media},
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::Deserialize;
use sha2::{Digest, Sha256, Sha384};

use crate::Error;

/// Most bytes of a file. The largest that is made has a thirtieth of that.
const MOST_BYTES: u64 = 1 << 20;
/// Most files of a release.
const MOST_FILES: usize = 32;

/// The releases that are served, the current one first.
#[derive(Debug, Default)]
pub(crate) struct Shelf(Vec<Release>);

#[derive(Debug)]
struct Release {
    version: String,
    build: String,
    files: BTreeMap<String, File>,
}

#[derive(Debug)]
struct File {
    bytes: Bytes,
    etag: String,
    media: &'static str,
}

/// `integrity.json`, as far as it is looked at.
#[derive(Deserialize)]
struct Listing {
    version: String,
    build: String,
    files: BTreeMap<String, Listed>,
}

#[derive(Deserialize)]
struct Listed {
    integrity: String,
}

impl Shelf {
    /// Reads the folders.
    ///
    /// # Errors
    /// [`Error::Settings`]: which folder or file is not what it should be.
    pub(crate) fn open(folders: &[PathBuf]) -> Result<Self, Error> {
        let open = |folder: &PathBuf| {
            Release::open(folder).map_err(|why| Error::settings(format!("sdk: {}: {why}", folder.display())))
        };
        folders.iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    /// What is asked for.
    pub(super) fn find(&self, wanted: &Wanted<'_>, headers: &HeaderMap) -> Result<Found, Problem> {
        let Some(current) = self.0.first() else {
            let detail = "this server was given no page SDK to serve: see the setting sdk";
            return Err(Problem::new(Refusal::NotFound).with_detail(detail));
        };
        let release = match wanted.release {
            Some(name) => self.0.iter().find(|release| release.version == name || release.build == name),
            None => Some(current),
        };
        if let Some(file) = release.and_then(|release| release.files.get(wanted.file)) {
            let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
            let bytes = (!is_known(known, &file.etag)).then(|| file.bytes.clone());
            let (etag, media) = (file.etag.clone(), file.media);
            return Ok(Found::File { bytes, etag, media, caching: wanted.caching() });
        }
        match wanted.elsewhere() {
            Some(location) if release.is_none() && current.files.contains_key(wanted.file) => {
                Ok(Found::Elsewhere(location))
            }
            _ => Err(Refusal::NotFound.into()),
        }
    }
}

impl Release {
    fn open(folder: &Path) -> Result<Self, String> {
        let listing = read(&folder.join(LISTING)).map_err(|why| {
            format!("{LISTING}: {why}; it takes the folder `dist` of the npm package firsthop, or of `make sdk`")
        })?;
        let wrong = |error| format!("{LISTING}: {error}");
        let Listing { version, build, files } = serde_json::from_slice(&listing).map_err(wrong)?;
        if files.len() > MOST_FILES {
            return Err(format!("{LISTING}: more than {MOST_FILES} files"));
        }
        let mut release = Self { version, build, files: BTreeMap::new() };
        for (name, listed) in files {
            let bytes = if is_name(&name) { read(&folder.join(&name)) } else { Err("no name of a file".into()) };
            let bytes = bytes.map_err(|why| format!("{name}: {why}"))?;
            if format!("sha384-{}", BASE64_STANDARD.encode(Sha384::digest(&bytes))) != listed.integrity {
                return Err(format!("{name}: not the bytes that {LISTING} speaks of; fetch or build the SDK anew"));
            }
            release.put(name, bytes)?;
        }
        release.put(LISTING.to_owned(), listing)?;
        Ok(release)
    }

    fn put(&mut self, name: String, bytes: Vec<u8>) -> Result<(), String> {
        let media = media(&name).ok_or_else(|| format!("{name}: neither script nor WebAssembly"))?;
        let etag = format!("\"{}\"", crate::ledger::hex(&Sha256::digest(&bytes)[..8]));
        self.files.insert(name, File { bytes: bytes.into(), etag, media });
        Ok(())
    }
}

/// Whether it names a file of the folder itself.
fn is_name(text: &str) -> bool {
    !text.starts_with('.') && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!("more than {MOST_BYTES} bytes"));
    }
    Ok(bytes)
}

/// A file, or where there is one.
pub(super) enum Found {
    File {
        /// None: the copy that the client has is still good.
        bytes: Option<Bytes>,
        etag: String,
        media: &'static str,
        caching: &'static str,
    },
    /// The release is not here: the address of the current one.
    Elsewhere(String),
}

impl Found {
    pub(super) fn into_answer(self) -> Response<Full<Bytes>> {
        let mut answer = Response::new(Full::default());
        let mut values = HEADERS.map(|(name, value)| (name, value.to_owned())).to_vec();
        match self {
            Self::File { bytes, etag, media, caching } => {
                values.extend([("etag", etag), ("cache-control", caching.to_owned())]);
                match bytes {
                    Some(bytes) => {
                        values.push(("content-type", media.to_owned()));
                        *answer.body_mut() = Full::from(bytes);
                    }
                    None => *answer.status_mut() = StatusCode::NOT_MODIFIED,
                }
            }
            Self::Elsewhere(location) => {
                values.extend([("location", location), ("cache-control", SHORT.to_owned())]);
                *answer.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            }
        }
        for (name, value) in values {
            if let Ok(value) = HeaderValue::try_from(value) {
                answer.headers_mut().insert(name, value);
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect(name);
        }
        folder
    }

    /// A listing of one file.
    fn listing(build: &str, name: &str, content: &str) -> String {
        let integrity = BASE64_STANDARD.encode(Sha384::digest(content));
        format!(
            r#"{{"version":"1.2.3","build":"{build}","files":{{"{name}":{{"integrity":"sha384-{integrity}","size":1,"path":"/"}}}}}}"#
        )
    }

    #[test]
    fn a_release_is_found_by_version_build_and_as_the_current_one() {
        let (new, old) = ("0123456789abcdef", "fedcba9876543210");
        let first = folder(&[("integrity.json", &listing(new, "a.js", "new")), ("a.js", "new"), ("other.js", "x")]);
        let text = listing(old, "a.js", "old").replace("1.2.3", "1.2.2");
        let second = folder(&[("integrity.json", &text), ("a.js", "old")]);
        let shelf = Shelf::open(&[first.path().to_owned(), second.path().to_owned()]).expect("two releases");
        let found = |path: &str| match shelf.find(&Wanted::parse(path).expect(path), &HeaderMap::new()) {
            Ok(Found::File { bytes, .. }) => String::from_utf8(bytes.expect("bytes").to_vec()).expect("text"),
            Ok(Found::Elsewhere(location)) => location,
            Err(problem) => problem.status().to_string(),
        };
        for (path, expected) in [
            ("a.js", "new"),
            ("1.2.3/a.js", "new"),
            ("0123456789abcdef/a.js", "new"),
            ("1.2.2/a.js", "old"),
            ("fedcba9876543210/a.js", "old"),
            ("1.0.0/a.js", "/sdk/a.js"),
            ("1.0.0/b.js", "404"),
            ("1.0.0/integrity.json", "404"),
            ("1.2.3/b.js", "404"),
            // Not in the listing.
            ("other.js", "404"),
        ] {
            assert_eq!(found(path), expected, "{path}");
        }
        assert!(found("1.2.2/integrity.json").contains(old));
    }

    #[test]
    fn what_is_no_sdk_is_refused_and_named() {
        let build = "0123456789abcdef";
        for (files, says) in [
            (vec![], "integrity.json: No such file"),
            (vec![("integrity.json", "{}".to_owned())], "missing field"),
            (vec![("integrity.json", listing(build, "a.js", "x"))], "a.js: No such file"),
            (vec![("integrity.json", listing(build, "a.js", "x")), ("a.js", "y".to_owned())], "a.js: not the bytes"),
            (vec![("integrity.json", listing(build, "../a.js", "x"))], "../a.js: no name of a file"),
            (vec![("integrity.json", listing(build, "a.txt", "x")), ("a.txt", "x".to_owned())], "a.txt: neither"),
            (vec![("integrity.json", "x".repeat(1 << 21))], "integrity.json: more than 1048576 bytes"),
        ] {
            let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
            let folder = folder(&files);
            let error = Shelf::open(&[folder.path().to_owned()]).expect_err(says).to_string();
            assert!(error.starts_with("sdk: ") && error.contains(says), "{says}: {error}");
        }
    }

    #[test]
    fn without_a_folder_it_says_which_setting_is_missing() {
        let wanted = Wanted::parse("firsthop.js").expect("a path");
        let Err(problem) = Shelf::default().find(&wanted, &HeaderMap::new()) else { panic!("a problem") };
        assert_eq!((problem.status(), problem.detail().contains("setting sdk")), (404, true));
    }
}
