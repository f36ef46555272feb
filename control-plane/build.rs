//! Puts the dashboard, if it has been built (`admin-ui/dist`), into the daemon.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "woff" => "font/woff",
        "ttf" => "font/ttf",
        "txt" => "text/plain; charset=utf-8",
        "webmanifest" => "application/manifest+json",
        _ => "application/octet-stream",
    }
}

fn files(dir: &Path, into: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, into)?;
        } else {
            into.push(path);
        }
    }
    Ok(())
}

/// FNV-1a: only to tell versions of a file apart.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| {
        (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../admin-ui/dist");
    // A folder that is not there yet is looked for by its parents: cargo notices when it comes.
    println!("cargo::rerun-if-changed=../admin-ui/dist");
    let mut found = Vec::new();
    if root.join("index.html").is_file() {
        files(&root, &mut found)?;
    }
    found.sort();
    let mut code = String::from("const FILES: &[File] = &[\n");
    for path in &found {
        let bytes = fs::read(path)?;
        let name = path.strip_prefix(&root)?.to_string_lossy().replace('\\', "/");
        let (kind, etag) = (content_type(&name), format!("\"{:016x}\"", hash(&bytes)));
        let place = path.canonicalize()?;
        writeln!(
            code,
            "    File {{ path: {name:?}, content_type: {kind:?}, etag: {etag:?}, bytes: include_bytes!({place:?}) }},"
        )?;
    }
    code.push_str("];\n");
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("dashboard.rs"), code)?;
    Ok(())
}
