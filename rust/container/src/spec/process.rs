//! `process`: what is run, as whom, with which rights.

use serde::Deserialize;

use super::text::{Refused, Text, nullable_list};

/// `process`; also the document that describes one more process of a running container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "some fields are here to be refused")]
pub struct Process<'a> {
    /// Standard input, output and error are a terminal.
    #[serde(default)]
    pub terminal: bool,
    /// Its size.
    #[serde(default)]
    pub console_size: Option<ConsoleSize>,
    /// As whom.
    pub user: User,
    /// Command and arguments.
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub args: Vec<Text<'a>>,
    #[serde(default)]
    command_line: Refused,
    /// `NAME=value` each.
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub env: Vec<Text<'a>>,
    /// Working directory.
    #[serde(borrow)]
    pub cwd: Text<'a>,
    /// None at all if absent.
    #[serde(borrow, default)]
    pub capabilities: Option<Capabilities<'a>>,
    /// setrlimit(2).
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub rlimits: Vec<ResourceLimit<'a>>,
    /// PR_SET_NO_NEW_PRIVS.
    #[serde(default)]
    pub no_new_privileges: bool,
    /// AppArmor's name for what it may do.
    #[serde(borrow, default)]
    pub apparmor_profile: Option<Text<'a>>,
    /// How gladly the kernel kills it when memory runs out.
    #[serde(default)]
    pub oom_score_adj: Option<i32>,
    /// sched_setattr(2).
    #[serde(borrow, default)]
    pub scheduler: Option<Scheduler<'a>>,
    /// SELinux's context of the process.
    #[serde(borrow, default)]
    pub selinux_label: Option<Text<'a>>,
    /// ioprio_set(2).
    #[serde(borrow, default)]
    pub io_priority: Option<IoPriority<'a>>,
    /// For processes that join.
    #[serde(borrow, default, rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<Affinity<'a>>,
}

/// Characters.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u16,
    /// Columns.
    pub width: u16,
}

/// `process.user`, ids as the container numbers them.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "some fields are here to be refused")]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Mode bits that new files do not get.
    #[serde(default)]
    pub umask: Option<u32>,
    /// Supplementary groups.
    #[serde(default, deserialize_with = "nullable_list")]
    pub additional_gids: Vec<u32>,
    #[serde(default)]
    username: Refused,
}

/// `process.capabilities`, names each.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the five sets of capabilities(7)")]
pub struct Capabilities<'a> {
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub bounding: Vec<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub effective: Vec<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub inheritable: Vec<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub permitted: Vec<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub ambient: Vec<Text<'a>>,
}

/// One of `process.rlimits`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceLimit<'a> {
    /// `RLIMIT_...`.
    #[serde(borrow, rename = "type")]
    pub kind: Text<'a>,
    /// Ceiling.
    pub hard: u64,
    /// In force.
    pub soft: u64,
}

/// `process.scheduler`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields of struct sched_attr")]
pub struct Scheduler<'a> {
    #[serde(borrow)]
    pub policy: Text<'a>,
    #[serde(default)]
    pub nice: i32,
    #[serde(default)]
    pub priority: i32,
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub flags: Vec<Text<'a>>,
    #[serde(default)]
    pub runtime: u64,
    #[serde(default)]
    pub deadline: u64,
    #[serde(default)]
    pub period: u64,
}

/// `process.ioPriority`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IoPriority<'a> {
    /// `IOPRIO_CLASS_...`.
    #[serde(borrow)]
    pub class: Text<'a>,
    /// 0 (first) to 7.
    #[serde(default)]
    pub priority: u32,
}

/// `process.execCPUAffinity`, lists like `0-3,7`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Affinity<'a> {
    /// Before the process joins its cgroup.
    #[serde(borrow, default)]
    pub initial: Option<Text<'a>>,
    /// After.
    #[serde(borrow, default, rename = "final")]
    pub last: Option<Text<'a>>,
}
