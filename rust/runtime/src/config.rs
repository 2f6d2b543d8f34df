//! A bundle: its directory and its config.json.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// No config.json is longer; what is has not been written for a container.
const MAX_CONFIG: u64 = 16 << 20;

/// The bundle, which becomes the working directory, and the bytes of its config.json.
pub fn open(bundle: Option<&str>) -> Result<(PathBuf, Vec<u8>)> {
    let given = Path::new(bundle.unwrap_or("."));
    let bundle = fs::canonicalize(given).map_err(|error| Error::file("opening the bundle", given, &error))?;
    std::env::set_current_dir(&bundle).map_err(|error| Error::file("entering the bundle", &bundle, &error))?;
    let content = read(&bundle.join("config.json"))?;
    Ok((bundle, content))
}

/// Reads a document of a size that makes sense.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |error: &std::io::Error| Error::file("reading", path, error);
    let file = File::open(path).map_err(|error| failed(&error))?;
    let mut content = Vec::new();
    file.take(MAX_CONFIG + 1).read_to_end(&mut content).map_err(|error| failed(&error))?;
    if content.len() as u64 > MAX_CONFIG {
        return Err(Error::new(format!("{}: longer than {} MiB", path.display(), MAX_CONFIG >> 20)));
    }
    Ok(content)
}
