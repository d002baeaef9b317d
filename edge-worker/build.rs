//! Puts the page SDK (`bindings/dist/`, built by `tools/build sdk`) into the Worker.

use std::{env, error::Error, fmt::Write as _, fs, path::Path};

use sha2::{Digest, Sha256};

/// What is served, and as what: the rest of `dist/` (types, maps, the manifest) is for npm.
const TYPES: [(&str, &str); 3] =
    [("js", "text/javascript; charset=utf-8"), ("mjs", "text/javascript; charset=utf-8"), ("wasm", "application/wasm")];

fn main() -> Result<(), Box<dyn Error>> {
    let dist = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../bindings/dist");
    println!("cargo::rerun-if-changed={}", dist.display());
    let mut files: Vec<_> = match fs::read_dir(&dist) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?,
        Err(_) => Vec::new(),
    };
    files.sort();

    let mut table = String::from("&[\n");
    let mut count = 0;
    for path in &files {
        let (Some(name), Some(extension)) = (path.file_name(), path.extension()) else { continue };
        // For bundlers, which have them from npm: a page takes the script, or the module with its own .wasm, and the Worker is small.
        if name == "firsthop-sealed.mjs" || name == "firsthop.inline.mjs" {
            continue;
        }
        let Some((_, media)) = TYPES.iter().find(|(known, _)| extension == *known) else { continue };
        println!("cargo::rerun-if-changed={}", path.display());
        let digest = Sha256::digest(fs::read(path)?);
        let tag: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let (name, path) = (name.to_string_lossy(), path.canonicalize()?);
        writeln!(
            table,
            "    File {{ name: {name:?}, media: {media:?}, etag: {:?}, bytes: include_bytes!({path:?}) }},",
            format!("\"{tag}\"")
        )?;
        count += 1;
    }
    table.push_str("]\n");
    // What is shipped serves the SDK. A check of the code alone (clippy, rust-analyzer) need not build it first.
    if count == 0 && env::var("PROFILE")? == "release" {
        return Err("there is no page SDK in bindings/dist: build it first (make sdk)".into());
    }
    fs::write(Path::new(&env::var("OUT_DIR")?).join("sdk.rs"), table)?;
    Ok(())
}
