//! A bundle: its directory and its config.json.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use pyrt_container::compile;
use pyrt_container::spec::{Mount, Spec};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::log::Log;
use crate::systemd::{Manager, Unit};

/// No config.json is longer; what is has not been written for a container.
const MAX_CONFIG: u64 = 16 << 20;

const KERNEL_MEMORY: &str = "linux.resources.memory.kernel";

/// The bundle, which becomes the working directory, and the bytes of its config.json.
pub fn open(bundle: Option<&str>) -> Result<(PathBuf, Vec<u8>)> {
    let given = Path::new(bundle.unwrap_or("."));
    let bundle = fs::canonicalize(given).map_err(|error| Error::file("opening the bundle", given, &error))?;
    std::env::set_current_dir(&bundle).map_err(|error| Error::file("entering the bundle", &bundle, &error))?;
    let content = read(&bundle.join("config.json"))?;
    Ok((bundle, content))
}

/// A config.json, and what it says.
#[derive(Debug)]
pub struct Document {
    /// As it is kept.
    pub bytes: &'static [u8],
    /// Borrows from them.
    pub spec: Spec<'static>,
}

impl Document {
    /// Reads one. It is there until the command ends, which is soon.
    pub fn read(content: Vec<u8>) -> compile::Result<Self> {
        let bytes: &'static [u8] = Vec::leak(content);
        Ok(Self { bytes, spec: compile::read(bytes)? })
    }
}

/// The document as a plan can be made of it. Without fields that the specification does not know, which a runtime has to pass
/// over (config.md, "Extensibility"), and without words of bind mounts that only a new file system could take (`mode=755`):
/// the kernel passes them over (mount(2), "Creating a bind mount"), so engines leave them there. And without a limit that
/// the kernel has lost, which engines can still be asked for. Each is worth a warning.
pub fn known(config: Vec<u8>, log: &Log) -> Result<Document> {
    let bytes: &'static [u8] = Vec::leak(config);
    let less = match compile::read(bytes) {
        Ok(spec) => match without_idle_options(bytes, &spec, log) {
            None => return Ok(Document { bytes, spec }),
            Some(less) => less,
        },
        Err(error) => without_what_goes_unheeded(bytes, &error, log).ok_or(error)?,
    };
    // Less of it each time: this ends.
    known(less, log)
}

/// `None` if the error is one.
fn without_what_goes_unheeded(config: &[u8], error: &compile::Error, log: &Log) -> Option<Vec<u8>> {
    let why = match &*error.path {
        _ if error.message == compile::UNKNOWN_FIELD => compile::UNKNOWN_FIELD,
        KERNEL_MEMORY => "kernels have no such limit any more",
        _ => return None,
    };
    let less = without_field(config, &error.path)?;
    log.warn(&Error::new(format!("{}: {why}, ignored", error.path)));
    Some(less)
}

/// `linux.resources` without fields that the specification does not know.
pub fn known_resources(resources: Vec<u8>, log: &Log) -> Vec<u8> {
    const WHERE: &str = "linux.resources";
    match compile::read_resources(&resources) {
        Err(error) if error.message == compile::UNKNOWN_FIELD => {
            let path = error.path.strip_prefix(WHERE).unwrap_or(&error.path).trim_start_matches('.');
            let Some(less) = without_field(&resources, path) else { return resources };
            log.warn(&Error::new(format!("{}: {}, ignored", error.path, error.message)));
            known_resources(less, log)
        }
        _ => resources,
    }
}

fn without_field(config: &[u8], path: &str) -> Option<Vec<u8>> {
    let mut document = serde_json::from_slice::<Value>(config).ok()?;
    remove(&mut document, path).then(|| document.to_string().into_bytes())
}

/// `None` if there are no such words.
fn without_idle_options(config: &[u8], spec: &Spec<'_>, log: &Log) -> Option<Vec<u8>> {
    let binds = |mount: &Mount<'_>| {
        mount.kind.as_deref() == Some("bind") || mount.options.iter().any(|word| matches!(&**word, "bind" | "rbind"))
    };
    let idle = |mount: &Mount<'_>| binds(mount) && mount.options.iter().any(|word| word.contains('='));
    if !spec.mounts.iter().any(idle) {
        return None;
    }
    let mut document = serde_json::from_slice::<Value>(config).ok()?;
    for (index, mount) in spec.mounts.iter().enumerate().filter(|(_, mount)| idle(mount)) {
        for word in mount.options.iter().filter(|word| word.contains('=')) {
            log.warn(&Error::new(format!("mounts[{index}].options: {word}: no option of a bind mount, ignored")));
        }
        if let Some(words) = document["mounts"][index]["options"].as_array_mut() {
            words.retain(|word| word.as_str().is_none_or(|word| !word.contains('=')));
        }
    }
    Some(document.to_string().into_bytes())
}

/// The document with its groups at the place of a scope, and the unit that makes it.
pub fn in_scope(document: &Document, id: &str, manager: Manager) -> Result<(Document, Unit)> {
    let unit = Unit::of(document.spec.linux.cgroups_path.as_deref(), id, manager)?;
    let fields = serde_json::from_slice::<Value>(document.bytes);
    let mut fields = fields.map_err(|error| Error::new(format!("config.json: {error}")))?;
    fields["linux"]["cgroupsPath"] = unit.cgroup().into();
    Ok((Document::read(fields.to_string().into_bytes())?, unit))
}

/// The document for whoever has gone into its user namespace already: the users are the host's from there. `group`
/// is put in place of the one that it names.
pub fn in_own_namespace(config: &[u8], group: Option<String>) -> Result<Vec<u8>> {
    let document = serde_json::from_slice::<Value>(config);
    let mut document = document.map_err(|error| Error::new(format!("config.json: {error}")))?;
    if let Some(linux) = document["linux"].as_object_mut() {
        linux.remove("uidMappings");
        linux.remove("gidMappings");
        if let Some(namespaces) = linux.get_mut("namespaces").and_then(Value::as_array_mut) {
            namespaces.retain(|namespace| namespace["type"] != "user");
        }
        linux.extend(group.map(|group| ("cgroupsPath".to_owned(), group.into())));
    }
    Ok(document.to_string().into_bytes())
}

/// The document for whoever is in a user namespace and may make no device nodes: the machine's are bound. Rules about devices
/// go, because who makes none opens what its user may open anyway.
pub fn with_bound_devices(plain: Document) -> compile::Result<Document> {
    const DEFAULTS: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
    let Ok(mut document) = serde_json::from_slice::<Value>(plain.bytes) else { return Ok(plain) };
    let mut devices: Vec<String> = DEFAULTS.map(str::to_owned).into();
    if let Some(linux) = document["linux"].as_object_mut() {
        let listed = linux.remove("devices");
        let paths = listed.iter().flat_map(|list| list.as_array()).flatten();
        devices.extend(paths.filter_map(|device| device["path"].as_str()).map(str::to_owned));
        if let Some(resources) = linux.get_mut("resources").and_then(Value::as_object_mut) {
            resources.remove("devices");
        }
    }
    if !document["mounts"].is_array() {
        document["mounts"] = Value::Array(Vec::new());
    }
    let Some(mounts) = document["mounts"].as_array_mut() else { return Ok(plain) };
    let is_bound = |mount: &Value| mount["destination"] == "/dev" && mount["type"] != "tmpfs";
    if !mounts.iter().any(is_bound) {
        devices.dedup();
        for path in devices {
            if !mounts.iter().any(|mount| mount["destination"] == path.as_str()) {
                mounts.push(
                    json!({"destination": path, "type": "bind", "source": path, "options": ["bind", "rprivate"]}),
                );
            }
        }
    }
    Document::read(document.to_string().into_bytes())
}

/// `linux.resources` as it stands.
pub fn resources(config: &[u8]) -> Vec<u8> {
    let document = serde_json::from_slice::<Value>(config).unwrap_or_default();
    let resources = document.pointer("/linux/resources").filter(|resources| resources.is_object());
    resources.map_or_else(|| b"{}".to_vec(), |resources| resources.to_string().into_bytes())
}

/// Removes the field at a JSON path; false if there is none. A key may have dots in it, so the longest that fits counts.
fn remove(document: &mut Value, path: &str) -> bool {
    match document {
        Value::Array(list) => {
            let Some((index, rest)) = path.strip_prefix('[').and_then(|path| path.split_once(']')) else {
                return false;
            };
            let element = index.parse().ok().and_then(|index: usize| list.get_mut(index));
            element.is_some_and(|element| remove(element, rest.trim_start_matches('.')))
        }
        Value::Object(fields) => {
            if fields.remove(path).is_some() {
                return true;
            }
            let mut keys: Vec<String> = fields.keys().filter(|key| path.starts_with(key.as_str())).cloned().collect();
            keys.sort_by_key(|key| std::cmp::Reverse(key.len()));
            keys.iter().any(|key| {
                let rest = path[key.len()..].trim_start_matches('.');
                fields.get_mut(key).is_some_and(|field| remove(field, rest))
            })
        }
        _ => false,
    }
}

/// Reads a document of a size that makes sense.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |error: &std::io::Error| Error::file("reading", path, error);
    let file = File::open(path).map_err(|error| failed(&error))?;
    let size = file.metadata().map_err(|error| failed(&error))?.len().min(MAX_CONFIG);
    // One more, so that the end shows at once.
    let mut content = Vec::with_capacity(size as usize + 1);
    file.take(MAX_CONFIG + 1).read_to_end(&mut content).map_err(|error| failed(&error))?;
    if content.len() as u64 > MAX_CONFIG {
        return Err(Error::new(format!("{}: longer than {} MiB", path.display(), MAX_CONFIG >> 20)));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_removed_by_its_path() {
        let document = serde_json::json!({"a": [{"b.c": {"d": 1, "e": 2}}], "x": 1});
        for (path, gone) in [("x", true), ("a[0].b.c.d", true), ("a[1].b.c.d", false), ("a[0].b", false), ("y", false)]
        {
            let mut copy = document.clone();
            assert_eq!(remove(&mut copy, path), gone, "{path}");
            assert_eq!(copy != document, gone);
        }
    }
}
