//! `linux.resources`: the limits of a container.

use serde::Deserialize;

use super::text::{Map, Refused, Text, nullable_list};

/// `linux.resources`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "some fields are here to be refused")]
pub struct Resources<'a> {
    /// Which devices may be opened or made, in order.
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub devices: Vec<DeviceRule<'a>>,
    /// Memory.
    #[serde(default)]
    pub memory: Option<Memory>,
    /// Processor time and placement.
    #[serde(borrow, default)]
    pub cpu: Option<Cpu<'a>>,
    /// Number of tasks.
    #[serde(default)]
    pub pids: Option<Pids>,
    #[serde(default, rename = "blockIO")]
    block_io: Refused,
    #[serde(default)]
    hugepage_limits: Refused,
    #[serde(default)]
    network: Refused,
    #[serde(default)]
    rdma: Refused,
    /// Files of cgroup v2 and what is written to them.
    #[serde(borrow, default)]
    pub unified: Map<'a, Text<'a>>,
}

/// One of `linux.resources.devices`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRule<'a> {
    /// Allowed or denied.
    pub allow: bool,
    /// a (all), c or b.
    #[serde(borrow, rename = "type", default)]
    pub kind: Option<Text<'a>>,
    /// Any if absent or -1.
    #[serde(default)]
    pub major: Option<i64>,
    /// Any if absent or -1.
    #[serde(default)]
    pub minor: Option<i64>,
    /// Of r, w, m; all if absent.
    #[serde(borrow, default)]
    pub access: Option<Text<'a>>,
}

/// `linux.resources.memory`, bytes; -1 is no limit.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "some fields are here to be refused")]
pub struct Memory {
    /// Memory.
    #[serde(default)]
    pub limit: Option<i64>,
    /// Memory that is left when the host runs out of it.
    #[serde(default)]
    pub reservation: Option<i64>,
    /// Memory and swap together.
    #[serde(default)]
    pub swap: Option<i64>,
    #[serde(default)]
    kernel: Refused,
    #[serde(default, rename = "kernelTCP")]
    kernel_tcp: Refused,
    /// 0 to 100.
    #[serde(default)]
    pub swappiness: Option<u64>,
    /// Tasks wait instead of being killed.
    #[serde(default, rename = "disableOOMKiller")]
    pub disable_oom_killer: Option<bool>,
    /// The only way there is: kernels have no other since Linux 5.11.
    #[serde(default, rename = "useHierarchy")]
    pub use_hierarchy: Option<bool>,
    /// A new container uses nothing that a limit could be too small for.
    #[serde(default, rename = "checkBeforeUpdate")]
    pub check_before_update: Option<bool>,
}

/// `linux.resources.cpu`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cpu<'a> {
    /// Relative weight, 2 to 262144.
    #[serde(default)]
    pub shares: Option<u64>,
    /// Microseconds a period; not positive is no limit.
    #[serde(default)]
    pub quota: Option<i64>,
    /// Microseconds that may be saved up.
    #[serde(default)]
    pub burst: Option<u64>,
    /// Microseconds.
    #[serde(default)]
    pub period: Option<u64>,
    /// Microseconds a period for real-time tasks.
    #[serde(default)]
    pub realtime_runtime: Option<i64>,
    /// Microseconds.
    #[serde(default)]
    pub realtime_period: Option<u64>,
    /// List of processors.
    #[serde(borrow, default)]
    pub cpus: Option<Text<'a>>,
    /// List of memory nodes.
    #[serde(borrow, default)]
    pub mems: Option<Text<'a>>,
    /// 1: runs only when nobody else wants to.
    #[serde(default)]
    pub idle: Option<i64>,
}

/// `linux.resources.pids`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pids {
    /// Tasks; not positive is no limit.
    pub limit: i64,
}
