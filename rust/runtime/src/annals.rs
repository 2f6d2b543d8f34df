//! The state directory: one folder a container, below `--root`.
//!
//! ```text
//! ID/                locked (flock) by whoever changes something
//!   state.json       written aside and renamed: whole or absent
//!   config.json      as it was when the container was created
//!   plan             explains what goes wrong after the start
//!   release          fifo; there while the container waits to be started
//!   outcome          fifo; see `compile::lifecycle`
//! ```

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::systemd::Unit;

/// A container's cgroup in one hierarchy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cgroup {
    /// On version 2 all that the root has.
    pub controllers: Vec<String>,
    /// Absolute path.
    pub path: PathBuf,
}

/// What is remembered of a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Of the specification, as config.json has it.
    pub oci_version: String,
    /// The container.
    pub id: String,
    /// Its first process; 0 while it is being created.
    pub pid: i32,
    /// When that was started, clock ticks after boot.
    pub start_time: u64,
    /// Absolute path.
    pub bundle: PathBuf,
    /// Absolute path.
    pub rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    /// Who created it.
    pub uid: u32,
    /// As config.json has them.
    pub annotations: BTreeMap<String, String>,
    /// One a hierarchy.
    pub cgroups: Vec<Cgroup>,
    /// The mount at `rootfs`, if the container has no mount namespace that ends with it.
    #[serde(default)]
    pub root_mount: Option<u64>,
    /// What systemd has made them for.
    #[serde(default)]
    pub unit: Option<Unit>,
    /// Whether config.json has hooks: else nobody need look for them.
    #[serde(default = "yes")]
    pub has_hooks: bool,
    /// Whether config.json has a process: else there is nothing to start.
    #[serde(default = "yes")]
    pub has_process: bool,
    /// Made and started in one, by `run`.
    #[serde(default)]
    pub at_once: bool,
}

fn yes() -> bool {
    true
}

/// A container's folder, locked.
#[derive(Debug)]
pub struct Annals {
    path: PathBuf,
    lock: File,
}

/// The folder of a container that runs, open to others.
#[derive(Debug)]
pub struct Left(Annals);

impl Left {
    /// Locks it again; `None` if it was removed meanwhile. The record in it is the same: nobody changes it once the
    /// container runs.
    pub fn again(self) -> Option<Annals> {
        let Annals { path, lock } = self.0;
        hold(path, lock).ok().flatten()
    }
}

const DIRECTORY: u32 = 0o700;

impl Annals {
    /// Makes the folder of a new container.
    pub fn make(root: &Path, id: &str) -> Result<Self> {
        let path = root.join(id);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY)
            .create(root)
            .map_err(|error| Error::file("making", root, &error))?;
        fs::DirBuilder::new().mode(DIRECTORY).create(&path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Error::new(format!("container with given ID already exists: {id}")),
            _ => Error::file("making", &path, &error),
        })?;
        lock(path, id)
    }

    /// Locks the folder of a container that is there; waits for whoever has it.
    pub fn open(root: &Path, id: &str) -> Result<Self> {
        lock(root.join(id), id)
    }

    /// Lets others change it.
    pub fn leave(self) -> Left {
        // SAFETY: flock(2) of an open descriptor.
        unsafe { libc::flock(self.lock.as_raw_fd(), libc::LOCK_UN) };
        Left(self)
    }

    /// The folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file aside, then gives it its name.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let (fresh, path) = (self.path(&format!("{name}.new")), self.path(name));
        let written = fs::write(&fresh, content).and_then(|()| fs::rename(&fresh, &path));
        written.map_err(|error| Error::file("writing", &path, &error))
    }

    /// Reads a file.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.path(name);
        fs::read(&path).map_err(|error| Error::file("reading", &path, &error))
    }

    /// Writes the record.
    pub fn record(&self, record: &Record) -> Result<()> {
        self.write("state.json", &serde_json::to_vec(record).unwrap_or_default())
    }

    /// Makes a fifo.
    pub fn make_fifo(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        let text = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
        // SAFETY: the path is a C string.
        match unsafe { libc::mkfifo(text.as_ptr(), 0o600) } {
            0 => Ok(()),
            _ => Err(Error::file("making", &path, &io::Error::last_os_error())),
        }
    }

    /// Removes the folder.
    pub fn remove(self) -> Result<()> {
        // Most have no more than these, and looking is dearer than trying.
        for name in ["state.json", "config.json", "plan", "release", "outcome"] {
            let _ = fs::remove_file(self.path(name));
        }
        let removed = fs::remove_dir(&self.path).or_else(|_| fs::remove_dir_all(&self.path));
        removed.map_err(|error| Error::file("removing", &self.path, &error))
    }
}

fn missing(id: &str) -> Error {
    Error::new(format!("container does not exist: {id}"))
}

fn lock(path: PathBuf, id: &str) -> Result<Annals> {
    let file = OpenOptions::new().read(true).open(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => missing(id),
        _ => Error::file("opening", &path, &error),
    })?;
    hold(path, file)?.ok_or_else(|| missing(id))
}

/// Waits for the lock of an open folder; `None` if that is gone by then.
fn hold(path: PathBuf, lock: File) -> Result<Option<Annals>> {
    // SAFETY: flock(2) of an open descriptor.
    while unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) } != 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(Error::file("locking", &path, &error));
        }
    }
    // Removed while we waited, and perhaps made anew by somebody else.
    let ours = lock.metadata().map(|data| data.ino()).ok();
    let is_there = ours.is_some() && fs::metadata(&path).map(|data| data.ino()).ok() == ours;
    Ok(is_there.then_some(Annals { path, lock }))
}

/// Reads a record without the lock: it is whole or absent. `None` while the container is only begun.
pub fn peek(root: &Path, id: &str) -> Result<Option<Record>> {
    let folder = root.join(id);
    match fs::read(folder.join("state.json")) {
        Ok(content) => serde_json::from_slice(&content)
            .map(Some)
            .map_err(|error| Error::new(format!("{}: {error}", folder.join("state.json").display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if folder.is_dir() {
                Ok(None)
            } else {
                Err(missing(id))
            }
        }
        Err(error) => Err(Error::file("reading", &folder.join("state.json"), &error)),
    }
}

/// The ids of all containers, in order.
pub fn ids(root: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("reading", root, &error)),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut ids: Vec<String> = names.filter(|name| crate::arguments::check_id(name).is_ok()).collect();
    ids.sort();
    Ok(ids)
}
