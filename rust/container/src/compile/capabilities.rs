//! Names of capabilities and the five sets of a process.

use crate::host::Host;
use crate::spec::{Capabilities, Text};

use super::error::{Error, Result};
use super::ids::Ids;
use super::start::Start;

/// In the order of their numbers (linux/capability.h).
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The names in a set, for sentences and for `pyrt explain`.
pub fn names(set: u64) -> impl Iterator<Item = &'static str> {
    NAMES.iter().enumerate().filter(move |(number, _)| set & 1 << number != 0).map(|(_, name)| *name)
}

/// The five sets as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sets {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

impl Sets {
    /// Checks names and the rules of capabilities(7). Nothing said is no capability at all.
    pub fn of(
        capabilities: Option<&Capabilities<'_>>,
        ids: &Ids<'_>,
        start: &Start<'_>,
        host: &Host,
        path: &str,
    ) -> Result<Self> {
        let Some(given) = capabilities else { return Ok(Self::default()) };
        let known = |name: &Text<'_>| start.lifecycle.is_none() || NAMES.contains(&&**name);
        let set = |names: &[Text<'_>], name: &str| bits(names, known, &format!("{path}.{name}"));
        let mut sets = Self {
            bounding: set(&given.bounding, "bounding")?,
            effective: set(&given.effective, "effective")?,
            inheritable: set(&given.inheritable, "inheritable")?,
            permitted: set(&given.permitted, "permitted")?,
            ambient: set(&given.ambient, "ambient")?,
        };
        if let Some(name) = names(sets.effective & !sets.permitted).next() {
            return Err(Error::spec(format!("{path}.effective"), format!("{name} is not permitted")));
        }
        // Only what is permitted and inheritable can be ambient. runc passes over the rest, which its own
        // default specification has.
        sets.ambient &= sets.permitted & sets.inheritable;
        if !ids.mapped && start.lifecycle.is_some() {
            // config.md, "Linux Process": a runtime should not fail for what can't be granted; its command warns.
            return Ok(sets.only(host.capabilities));
        }
        if !ids.mapped {
            check_owned(sets.permitted | sets.inheritable, host, path)?;
        }
        Ok(sets)
    }

    fn only(self, mask: u64) -> Self {
        let Self { bounding, effective, inheritable, permitted, ambient } = self;
        Self {
            bounding: bounding & mask,
            effective: effective & mask,
            inheritable: inheritable & mask,
            permitted: permitted & mask,
            ambient: ambient & mask,
        }
    }
}

/// `counts` tells what is to be looked at: who calls the OCI command is warned of names that nobody knows.
fn bits<'t>(list: &[Text<'t>], counts: impl Fn(&Text<'t>) -> bool, path: &str) -> Result<u64> {
    list.iter().enumerate().filter(|(_, name)| counts(name)).try_fold(0, |set, (index, name)| {
        match NAMES.iter().position(|known| *known == &**name) {
            Some(number) => Ok(set | 1 << number),
            None => {
                let error =
                    Error::spec(format!("{path}[{index}]"), format!("{name:?} is no capability", name = &**name));
                Err(if name.starts_with("CAP_") { error } else { error.hint("names begin with CAP_") })
            }
        }
    })
}

/// Without a user namespace nobody can give what this process has not.
fn check_owned(wanted: u64, host: &Host, path: &str) -> Result<()> {
    match names(wanted & !host.capabilities).next() {
        Some(name) if host.privileged => {
            Err(Error::host(format!("{path}.permitted"), format!("this process has no {name} itself"))
                .hint("a user namespace of its own gives a container every capability inside it"))
        }
        _ => Ok(()),
    }
}
