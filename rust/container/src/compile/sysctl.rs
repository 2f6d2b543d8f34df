//! `linux.sysctl`: kernel parameters of the container's own namespaces, and of no other.

use std::ffi::CString;

use crate::plan::{Op, Slot};
use crate::spec::{Linux, NamespaceKind, Text};

use super::error::{Error, Result};
use super::namespaces::{Namespaces, name};
use super::opened::Writer;
use super::paths::c;

const OF_IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// File below the root of a procfs, and its content.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(CString, String)>);

impl Parameters {
    pub fn of(linux: &Linux<'_>, namespaces: &Namespaces) -> Result<Self> {
        let parameters = linux.sysctl.iter().map(|(key, value)| parameter(key, value, namespaces));
        parameters.collect::<Result<_>>().map(Self)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The child's part.
    pub fn write(&self, proc: Slot, writer: &mut Writer) {
        for (name, value) in &self.0 {
            writer.plan.child(Op::SetKernelParameter { proc, name, value: value.as_bytes() });
        }
    }
}

fn parameter(key: &Text<'_>, value: &Text<'_>, namespaces: &Namespaces) -> Result<(CString, String)> {
    let field = || format!("linux.sysctl.{key}");
    let (dotted, path) = spell(key);
    if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(Error::spec(field(), "no name of a kernel parameter"));
    }
    match namespace_of(&dotted) {
        Some(kind) if namespaces.is_own(kind) => Ok((c(&format!("sys/{path}")), value.to_string())),
        Some(kind) => Err(Error::spec(field(), format!("needs a {} namespace of the container's own", name(kind)))),
        None => Err(Error::spec(field(), "belongs to no namespace, so it would change the host")),
    }
}

/// With dots and as a path. If a slash comes first, slashes separate and dots are letters (sysctl(8)).
fn spell(key: &str) -> (String, String) {
    let slashes_separate = key.find(['.', '/']).is_some_and(|at| key.as_bytes()[at] == b'/');
    let swapped: String = key
        .chars()
        .map(|letter| match letter {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect();
    if slashes_separate { (swapped, key.to_owned()) } else { (key.to_owned(), swapped) }
}

fn namespace_of(dotted: &str) -> Option<NamespaceKind> {
    match dotted {
        "kernel.domainname" | "kernel.hostname" => Some(NamespaceKind::Uts),
        _ if OF_IPC.contains(&dotted) || dotted.starts_with("fs.mqueue.") => Some(NamespaceKind::Ipc),
        _ if dotted.starts_with("net.") => Some(NamespaceKind::Network),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_understood() {
        let spelled = |key: &str| spell(key).1;
        assert_eq!(spelled("net.ipv4.ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(spelled("net/ipv4/ip_forward"), "net/ipv4/ip_forward");
        assert_eq!(spelled("net/ipv4/conf/eth0.100/forwarding"), "net/ipv4/conf/eth0.100/forwarding");
        assert_eq!(spelled("net.ipv4.conf.eth0/100.forwarding"), "net/ipv4/conf/eth0.100/forwarding");
    }
}
