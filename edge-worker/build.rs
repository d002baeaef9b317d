//! Puts the page SDK (`bindings/dist/`, built by `tools/build sdk`) into the Worker, and releases that pages still name (`kept/`).

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use miniz_oxide::inflate::decompress_to_vec;
use serde_json::Value;
use sha2::{Digest, Sha256, Sha384};

#[path = "src/sdk/six_bits.rs"]
mod six_bits;

/// For bundlers, which have them from npm: a page takes the script, or the module with its own .wasm, and the Worker is small.
const NOT_SERVED: [&str; 2] = ["firsthop-sealed.mjs", "firsthop.inline.mjs"];

const LISTING: &str = "integrity.json";

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let (dist, kept) = (here.join("../bindings/dist"), here.join("kept"));
    println!("cargo::rerun-if-changed={}", dist.display());
    println!("cargo::rerun-if-changed={}", kept.display());
    let mut folders = fs::read_dir(kept)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    folders.retain(|path| path.is_dir());
    folders.sort();

    let mut pack = Pack { bytes: Vec::new(), table: String::from("&[\n") };
    // What is shipped serves the SDK. A check of the code alone (clippy, rust-analyzer) need not build it first.
    if dist.join(LISTING).exists() || env::var("PROFILE")? == "release" {
        for folder in std::iter::once(&dist).chain(&folders) {
            pack.release(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
    }
    pack.table.push_str("]\n");
    fs::write(out.join("sdk.rs"), pack.table)?;
    fs::write(out.join("sdk.bin"), pack.bytes)?;
    Ok(())
}

/// All files in one block, and the table that says where each stands in it.
struct Pack {
    bytes: Vec<u8>,
    table: String,
}

impl Pack {
    fn release(&mut self, folder: &Path) -> Result {
        println!("cargo::rerun-if-changed={}", folder.join(LISTING).display());
        let listing = fs::read(folder.join(LISTING))
            .map_err(|error| format!("{LISTING}: {error}: build the page SDK first (make sdk)"))?;
        let mut listing: Value = serde_json::from_slice(&listing)?;
        let text = |name: &str| listing[name].as_str().map(str::to_owned).ok_or(format!("{LISTING} has no {name}"));
        let (version, build) = (text("version")?, text("build")?);
        let served = listing["files"].as_object_mut().ok_or("integrity.json has no files")?;
        served.retain(|name, _| !NOT_SERVED.contains(&&**name));
        let mut files = Vec::new();
        for (name, about) in served {
            let path = folder.join(name);
            println!("cargo::rerun-if-changed={}", path.display());
            let bytes = fs::read(&path)?;
            let integrity = format!("sha384-{}", BASE64_STANDARD.encode(Sha384::digest(&bytes)));
            if about["integrity"].as_str() != Some(&integrity) {
                return Err(format!("{name} is not what {LISTING} says: build the page SDK anew (make sdk)").into());
            }
            files.push((name.clone(), bytes));
        }
        files.push((LISTING.into(), serde_json::to_vec(&listing)?));
        // gzip finds again what stands no more than 32 KiB before: the scripts begin alike, and so none is far from the next. Modules last: a script
        // may have one inside.
        files.sort_by_key(|(name, bytes)| (name.ends_with(".wasm"), bytes.len()));

        writeln!(self.table, "    Release {{ version: {version:?}, build: {build:?}, files: &[")?;
        let first = self.bytes.len();
        for (name, bytes) in &files {
            let tag: String = Sha256::digest(bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
            let (at, alphabet) = match name.ends_with(".wasm").then(|| inside(&self.bytes[first..], bytes)).flatten() {
                Some([text, alphabet]) => {
                    (first + text.start..first + text.end, Some(first + alphabet.start..first + alphabet.end))
                }
                None => {
                    let start = self.bytes.len();
                    self.bytes.extend(bytes);
                    (start..self.bytes.len(), None)
                }
            };
            let etag = format!("\"{tag}\"");
            writeln!(
                self.table,
                "        File {{ name: {name:?}, etag: {etag:?}, at: {at:?}, alphabet: {alphabet:?} }},"
            )?;
        }
        self.table.push_str("    ] },\n");
        Ok(())
    }
}

/// Where scripts have a module inside them, deflated, six bits a character: the text, and its alphabet.
fn inside(scripts: &[u8], module: &[u8]) -> Option<[Range<usize>; 2]> {
    let mut start = 0;
    let mut literals = Vec::new();
    for (end, byte) in scripts.iter().enumerate() {
        if b"\"'`".contains(byte) {
            literals.push(start..end);
            start = end + 1;
        }
    }
    let alphabets = literals.iter().filter(|at| at.len() == 64);
    let texts = literals.iter().filter(|at| at.len() > module.len() / 4);
    let mut pairs = alphabets.flat_map(|alphabet| texts.clone().map(move |text| [text.clone(), alphabet.clone()]));
    pairs.find(|[text, alphabet]| {
        let deflated = six_bits::decode(&scripts[text.clone()], &scripts[alphabet.clone()]);
        deflated.and_then(|bytes| decompress_to_vec(&bytes).ok()).as_deref() == Some(module)
    })
}
