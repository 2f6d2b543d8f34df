//! The cgroup hierarchies that are mounted.

use std::os::fd::OwnedFd;

use crate::compile::open_path;

use super::mounts::unescape;

/// One mounted cgroup hierarchy.
#[derive(Debug)]
pub struct Hierarchy {
    /// What it controls ("memory", "cpu").
    pub controllers: Vec<String>,
    /// What mount(2) takes for it on version 1: the controllers, or "name=systemd" with what belongs to that.
    pub options: Vec<String>,
    /// Where it is mounted.
    pub mount: String,
    /// Its root there, O_PATH.
    pub root: OwnedFd,
}

impl Hierarchy {
    /// The last part of its mount point, which is also its name inside ("cpu,cpuacct").
    pub fn name(&self) -> &str {
        self.mount.rsplit('/').next().unwrap_or_default()
    }

    /// As /proc/PID/cgroup calls what it is for.
    pub fn subjects(&self) -> impl Iterator<Item = &str> {
        let names = self.options.iter().filter(|word| word.starts_with("name="));
        self.controllers.iter().chain(names).map(String::as_str)
    }

    /// Whether it has this controller.
    pub fn controls(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

/// How controllers are spread over versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Nothing is mounted.
    None,
    /// Version 1 alone.
    V1,
    /// Controllers on version 1, and a version 2 hierarchy beside them.
    Hybrid,
    /// Version 2 alone.
    V2,
}

impl Layout {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::V1 => "v1",
            Self::Hybrid => "hybrid",
            Self::V2 => "v2",
        }
    }
}

/// The mounted hierarchies.
#[derive(Debug, Default)]
pub struct Cgroups {
    /// Version 1, one or more controllers each.
    pub v1: Vec<Hierarchy>,
    /// Version 1, without a controller: systemd keeps its units apart in one.
    pub named: Vec<Hierarchy>,
    /// Version 2.
    pub v2: Option<Hierarchy>,
}

impl Cgroups {
    /// Which kind of machine this is.
    pub fn layout(&self) -> Layout {
        match (self.v1.is_empty(), &self.v2) {
            (true, None) => Layout::None,
            (true, Some(_)) => Layout::V2,
            (false, None) => Layout::V1,
            (false, Some(_)) => Layout::Hybrid,
        }
    }

    /// Reads a mountinfo file (proc_pid_mountinfo(5)); hierarchies that can't be opened are not there.
    pub fn read(mountinfo: &str) -> Self {
        let mut cgroups = Self::default();
        for line in mountinfo.lines() {
            let Some((place, filesystem)) = line.split_once(" - ") else { continue };
            let Some(mount) = place.split(' ').nth(4).map(|mount| unescape(mount).into_owned()) else { continue };
            let mut fields = filesystem.split(' ');
            match (fields.next(), fields.nth(1)) {
                (Some("cgroup"), Some(options)) => cgroups.add_v1(mount, options),
                (Some("cgroup2"), _) if cgroups.v2.is_none() => cgroups.v2 = open_v2(mount),
                _ => {}
            }
        }
        cgroups
    }

    fn add_v1(&mut self, mount: String, options: &str) {
        const NO_CONTROLLERS: [&str; 6] = ["rw", "ro", "xattr", "noprefix", "clone_children", "none"];
        let controllers: Vec<String> = options
            .split(',')
            .filter(|word| !word.contains('=') && !NO_CONTROLLERS.contains(word))
            .map(str::to_owned)
            .collect();
        let (list, options) = if controllers.is_empty() {
            let own = options.split(',').filter(|word| !matches!(*word, "rw" | "ro"));
            (&mut self.named, std::iter::once("none").chain(own).map(str::to_owned).collect())
        } else {
            (&mut self.v1, controllers.clone())
        };
        if list.iter().any(|known| known.options == options) {
            return;
        }
        if let Ok(root) = open_path(&mount) {
            list.push(Hierarchy { controllers, options, mount, root });
        }
    }
}

fn open_v2(mount: String) -> Option<Hierarchy> {
    let root = open_path(&mount).ok()?;
    let controllers = std::fs::read_to_string(format!("{mount}/cgroup.controllers")).unwrap_or_default();
    let controllers = controllers.split_whitespace().map(str::to_owned).collect();
    Some(Hierarchy { controllers, options: Vec::new(), mount, root })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_apart() {
        let v1 = "32 31 0:29 / / rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                  36 31 0:33 / / rw - cgroup cgroup rw,devices\n\
                  40 31 0:37 / / rw,relatime - cgroup cgroup rw,xattr,name=systemd\n";
        let v2 = "41 31 0:38 / / rw,relatime shared:1 - cgroup2 cgroup2 rw,nsdelegate\n";
        let (one, two) = (Cgroups::read(v1), Cgroups::read(v2));
        assert_eq!((one.layout(), two.layout()), (Layout::V1, Layout::V2));
        assert_eq!(Cgroups::read(&format!("{v1}{v2}")).layout(), Layout::Hybrid);
        assert_eq!(Cgroups::read("22 27 0:21 / /proc rw - proc proc rw").layout(), Layout::None);
        let controllers: Vec<_> = one.v1.iter().map(|hierarchy| hierarchy.controllers.clone()).collect();
        assert_eq!(controllers, [vec!["cpu", "cpuacct"], vec!["devices"]]);
        let named: Vec<_> = one.named.iter().map(|hierarchy| hierarchy.options.clone()).collect();
        assert_eq!(named, [["none", "xattr", "name=systemd"]]);
    }
}
