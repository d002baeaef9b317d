//! Puts the page SDK (`bindings/dist/`, built by `tools/build sdk`) into the Worker, and releases that pages still name (`kept/`).

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;
use sha2::{Digest, Sha256, Sha384};

/// For bundlers, which have them from npm: a page takes the script, or the module with its own .wasm, and the Worker is small.
const NOT_SERVED: [&str; 2] = ["firsthop-sealed.mjs", "firsthop.inline.mjs"];

const LISTING: &str = "integrity.json";

fn main() -> Result<(), Box<dyn Error>> {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let (dist, kept) = (here.join("../bindings/dist"), here.join("kept"));
    println!("cargo::rerun-if-changed={}", dist.display());
    println!("cargo::rerun-if-changed={}", kept.display());
    let mut folders = fs::read_dir(kept)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, std::io::Error>>()?;
    folders.retain(|path| path.is_dir());
    folders.sort();

    let mut table = String::from("&[\n");
    // What is shipped serves the SDK. A check of the code alone (clippy, rust-analyzer) need not build it first.
    if dist.join(LISTING).exists() || env::var("PROFILE")? == "release" {
        for (i, folder) in std::iter::once(&dist).chain(&folders).enumerate() {
            let listing = out.join(format!("{i}.json"));
            release(&mut table, folder, &listing).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
    }
    table.push_str("]\n");
    fs::write(out.join("sdk.rs"), table)?;
    Ok(())
}

/// Writes a release into the table, and what is served of its listing into a file.
fn release(table: &mut String, folder: &Path, served: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={}", folder.join(LISTING).display());
    let listing = fs::read(folder.join(LISTING))
        .map_err(|error| format!("{LISTING}: {error}: build the page SDK first (make sdk)"))?;
    let mut listing: Value = serde_json::from_slice(&listing)?;
    let text = |name: &str| listing[name].as_str().map(str::to_owned).ok_or(format!("{LISTING} has no {name}"));
    writeln!(table, "    Release {{ version: {:?}, build: {:?}, files: &[", text("version")?, text("build")?)?;
    let files = listing["files"].as_object_mut().ok_or("integrity.json has no files")?;
    files.retain(|name, _| !NOT_SERVED.contains(&&**name));
    for (name, about) in files.iter() {
        let path = folder.join(name);
        println!("cargo::rerun-if-changed={}", path.display());
        let integrity = format!("sha384-{}", BASE64_STANDARD.encode(Sha384::digest(fs::read(&path)?)));
        if about["integrity"].as_str() != Some(&integrity) {
            return Err(format!("{name} is not what {LISTING} says: build the page SDK anew (make sdk)").into());
        }
        file(table, name, &path)?;
    }
    fs::write(served, serde_json::to_string(&listing)?)?;
    file(table, LISTING, served)?;
    table.push_str("    ] },\n");
    Ok(())
}

fn file(table: &mut String, name: &str, path: &Path) -> Result<(), Box<dyn Error>> {
    let tag: String = Sha256::digest(fs::read(path)?)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let (tag, path) = (format!("\"{tag}\""), path.canonicalize()?);
    writeln!(table, "        File {{ name: {name:?}, etag: {tag:?}, bytes: include_bytes!({path:?}) }},")?;
    Ok(())
}
