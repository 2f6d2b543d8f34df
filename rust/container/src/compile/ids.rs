//! Numbers of users and groups, inside and outside.

mod joined;

use std::borrow::Cow;
use std::fmt::Write;

use crate::spec::{IdMapping, Linux, Mount, NamespaceKind, Spec, User};

use super::error::{Error, Result};
use super::namespaces::{Namespaces, Origin};
use super::opened::Opened;

/// Most lines of a map (user_namespaces(7), since Linux 4.15).
const MAX_LINES: usize = 340;
/// The kernel takes a map in one write(2) of less than a page.
const MAX_BYTES: usize = 4096;

/// Both maps of a container. Without a user namespace other than the host's every number is the host's.
#[derive(Debug)]
pub(super) struct Ids<'a> {
    /// Whether there is a user namespace, new or joined.
    pub mapped: bool,
    uids: Cow<'a, [IdMapping]>,
    gids: Cow<'a, [IdMapping]>,
}

impl<'a> Ids<'a> {
    /// From the specification, or from whoever is in a namespace that is joined.
    pub fn of(linux: &'a Linux<'_>, namespaces: &Namespaces, opened: &Opened) -> Result<Self> {
        let (mut uids, mut gids) = (Cow::from(&linux.uid_mappings), Cow::from(&linux.gid_mappings));
        if let Origin::Joined(slot) = namespaces.of(NamespaceKind::User) {
            if uids.is_empty() && gids.is_empty() {
                let found = opened.get(slot).and_then(joined::maps_of);
                let [users, groups] = found.ok_or_else(joined::unknown)?;
                (uids, gids) = (users.into(), groups.into());
            }
        }
        let ids = Self { mapped: namespaces.is_own(NamespaceKind::User), uids, gids };
        ids.check()?;
        Ok(ids)
    }

    fn check(&self) -> Result<()> {
        for (map, path) in [(&self.uids, "linux.uidMappings"), (&self.gids, "linux.gidMappings")] {
            if self.mapped {
                check_map(map, path)?;
                check_root(map, path)?;
            } else if !map.is_empty() {
                return Err(Error::spec(path, "there is no user namespace that it could be for"));
            }
        }
        Ok(())
    }

    /// What the host calls a process's user and group; `path` is where they stand in its document.
    pub fn check_user(&self, user: &User, path: &str) -> Result<(u32, u32)> {
        let field = |name: &str| format!("{path}.{name}");
        let host = (self.host_uid(user.uid, &field("uid"))?, self.host_gid(user.gid, &field("gid"))?);
        for (index, &gid) in user.additional_gids.iter().enumerate() {
            self.host_gid(gid, &field(&format!("additionalGids[{index}]")))?;
        }
        Ok(host)
    }

    /// What the host calls the container's user `uid`.
    pub fn host_uid(&self, uid: u32, path: &str) -> Result<u32> {
        self.host(&self.uids, uid, path)
    }

    /// What the host calls the container's group `gid`.
    pub fn host_gid(&self, gid: u32, path: &str) -> Result<u32> {
        self.host(&self.gids, gid, path)
    }

    /// The container's root as the host numbers it.
    pub fn root(&self) -> (u32, u32) {
        // `check_map` has seen to it that 0 is mapped.
        (translate(&self.uids, 0).unwrap_or(0), translate(&self.gids, 0).unwrap_or(0))
    }

    /// What is written to uid_map and gid_map.
    pub fn texts(&self) -> (String, String) {
        (lines(&self.uids), lines(&self.gids))
    }

    fn host(&self, map: &[IdMapping], id: u32, path: &str) -> Result<u32> {
        // -1 means "leave as it is" to chown(2) and setresuid(2).
        if id == u32::MAX {
            return Err(Error::spec(path, format!("{id} is no id")));
        }
        if !self.mapped {
            return Ok(id);
        }
        translate(map, id).ok_or_else(|| {
            Error::spec(path, format!("{id} is not mapped into the user namespace"))
                .hint("the mappings have to cover every id that the container uses")
        })
    }
}

/// Where a container's users come from.
#[derive(Debug)]
pub enum UserNamespace<'s> {
    /// A new namespace, and its maps as the kernel takes them.
    New {
        /// Of uid_map.
        uids: String,
        /// Of gid_map.
        gids: String,
    },
    /// Somebody's, named by its file.
    Joined(&'s str),
}

/// For whoever goes there and begins the container inside: what `linux.namespaces` says of users, checked, and whether the maps
/// cover the ids of the process. `None` if they are the host's.
pub fn user_namespace<'s>(spec: &'s Spec<'_>) -> Result<Option<UserNamespace<'s>>> {
    let linux = &spec.linux;
    Namespaces::check_list(linux)?;
    let Some(namespace) = linux.namespaces.iter().find(|namespace| namespace.kind == NamespaceKind::User) else {
        return Ok(None);
    };
    if let Some(path) = namespace.path.as_deref().filter(|path| !path.is_empty()) {
        return Ok(Some(UserNamespace::Joined(path)));
    }
    let ids = Ids { mapped: true, uids: (&linux.uid_mappings).into(), gids: (&linux.gid_mappings).into() };
    ids.check()?;
    if let Some(process) = &spec.process {
        ids.check_user(&process.user, "process.user")?;
    }
    let (uids, gids) = ids.texts();
    Ok(Some(UserNamespace::New { uids, gids }))
}

fn translate(map: &[IdMapping], id: u32) -> Option<u32> {
    map.iter().find_map(|line| {
        let offset = id.checked_sub(line.container_id).filter(|&offset| offset < line.size)?;
        line.host_id.checked_add(offset)
    })
}

fn lines(map: &[IdMapping]) -> String {
    let mut text = String::with_capacity(map.len() * 24);
    for IdMapping { container_id, host_id, size } in map {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{container_id} {host_id} {size}");
    }
    text
}

fn check_map(map: &[IdMapping], path: &str) -> Result<()> {
    if map.is_empty() {
        return Err(Error::spec(path, "missing"));
    }
    if map.len() > MAX_LINES || lines(map).len() >= MAX_BYTES {
        return Err(Error::spec(path, format!("the kernel takes at most {MAX_LINES} mappings and {MAX_BYTES} bytes")));
    }
    for (index, line) in map.iter().enumerate() {
        check_line(line, &map[..index]).map_err(|message| Error::spec(format!("{path}[{index}]"), message))?;
    }
    Ok(())
}

fn check_root(map: &[IdMapping], path: &str) -> Result<()> {
    match translate(map, 0) {
        Some(_) => Ok(()),
        None => Err(Error::spec(path, "the container's root, id 0, is not mapped")),
    }
}

/// The maps of one mount, as they are written; none if nothing is said.
pub(super) fn of_mount(mount: &Mount<'_>, path: &str) -> Result<Option<Maps>> {
    let maps = [(&mount.uid_mappings, "uidMappings"), (&mount.gid_mappings, "gidMappings")];
    if maps.iter().all(|(map, _)| map.is_empty()) {
        return Ok(None);
    }
    maps.iter().try_for_each(|(map, name)| check_map(map, &format!("{path}.{name}")))?;
    Ok(Some(Maps { uids: lines(&mount.uid_mappings), gids: lines(&mount.gid_mappings) }))
}

/// What is written to uid_map and gid_map.
#[derive(Debug)]
pub(super) struct Maps {
    pub uids: String,
    pub gids: String,
}

fn check_line(line: &IdMapping, before: &[IdMapping]) -> std::result::Result<(), String> {
    if line.size == 0 {
        return Err("size is 0".to_owned());
    }
    // The last number, 2^32 - 1, is no id.
    let fits = |first: u32| first.checked_add(line.size).is_some();
    if !fits(line.container_id) || !fits(line.host_id) {
        return Err("goes beyond the largest id".to_owned());
    }
    let overlaps = |a: u32, b: u32, other: u32| a < b + other && b < a + line.size;
    for (index, earlier) in before.iter().enumerate() {
        if overlaps(line.container_id, earlier.container_id, earlier.size) {
            return Err(format!("overlaps mapping {index} inside the container"));
        }
        if overlaps(line.host_id, earlier.host_id, earlier.size) {
            return Err(format!("overlaps mapping {index} on the host"));
        }
    }
    Ok(())
}
