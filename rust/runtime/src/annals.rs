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
use std::fs::{self, File};
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
    /// Whether its other processes end with the first.
    #[serde(default = "yes")]
    pub has_pid_namespace: bool,
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
    pub fn again(self) -> Result<Option<Annals>> {
        let Annals { path, lock } = self.0;
        hold(path.clone(), lock).map_err(|error| Error::file("locking", &path, &error))
    }
}

const DIRECTORY: u32 = 0o700;
const STATE: &str = "state.json";
const FILES: [&str; 5] = [STATE, "config.json", "plan", "release", "outcome"];
/// At the end of the name of what is being written.
const FRESH: &str = ".new";

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
        let locked = lock(&path).map_err(|error| {
            let _ = fs::remove_dir(&path);
            Error::file("locking", &path, &error)
        })?;
        // Taken for one that a killed `create` has left, between the two calls.
        locked.ok_or_else(|| missing(id))
    }

    /// Locks the folder of a container that is there; waits for whoever has it.
    pub fn open(root: &Path, id: &str) -> Result<Self> {
        Self::find(root, id)?.ok_or_else(|| missing(id))
    }

    /// The same, if there is one.
    pub fn find(root: &Path, id: &str) -> Result<Option<Self>> {
        let path = root.join(id);
        loop {
            match lock(&path) {
                Ok(Some(locked)) => return Ok(Some(locked)),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(Error::file("locking", &path, &error)),
            }
        }
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
        let (fresh, path) = (self.path(&format!("{name}{FRESH}")), self.path(name));
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
        self.write(STATE, &serde_json::to_vec(record).unwrap_or_default())
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
        FILES.iter().for_each(|name| drop(fs::remove_file(self.path(name))));
        let removed = fs::remove_dir(&self.path).or_else(|_| fs::remove_dir_all(&self.path));
        removed.map_err(|error| Error::file("removing", &self.path, &error))
    }

    /// Removes the folder of a container of which nothing is written down, if it looks like one: `--root` may be a wrong one.
    pub fn remove_begun(self) -> Result<()> {
        let is_ours = |name: &str| FILES.contains(&name.strip_suffix(FRESH).unwrap_or(name));
        let entries = fs::read_dir(&self.path).map_err(|error| Error::file("reading", &self.path, &error))?;
        match entries.flatten().map(|entry| entry.file_name()).find(|name| !name.to_str().is_some_and(is_ours)) {
            None => self.remove(),
            Some(other) => {
                let (path, other) = (self.path.display(), Path::new(&other).display());
                Err(Error::new(format!("{path}: {other} is in it, so this is no container's folder")))
            }
        }
    }
}

/// Of a container that is not there.
pub fn missing(id: &str) -> Error {
    Error::new(format!("container does not exist: {id}"))
}

/// `None` if the folder is gone by the time that it is locked.
fn lock(path: &Path) -> io::Result<Option<Annals>> {
    hold(path.to_owned(), File::open(path)?)
}

/// Waits for the lock of an open folder; `None` if that was removed meanwhile: there may be another of its name by now.
fn hold(path: PathBuf, lock: File) -> io::Result<Option<Annals>> {
    // SAFETY: flock(2) of an open descriptor.
    while unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) } != 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let ours = lock.metadata()?.ino();
    let is_there = fs::metadata(&path).is_ok_and(|data| data.ino() == ours);
    Ok(is_there.then_some(Annals { path, lock }))
}

/// Reads a record without the lock: it is whole or absent. `None` while the container is only begun.
pub fn peek(root: &Path, id: &str) -> Result<Option<Record>> {
    let folder = root.join(id);
    match fs::read(folder.join(STATE)) {
        Ok(content) => serde_json::from_slice(&content)
            .map(Some)
            .map_err(|error| Error::new(format!("{}: {error}", folder.join(STATE).display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if folder.is_dir() {
                Ok(None)
            } else {
                Err(missing(id))
            }
        }
        Err(error) => Err(Error::file("reading", &folder.join(STATE), &error)),
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
