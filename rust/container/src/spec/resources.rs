//! `linux.resources`: the limits of a container.

use serde::Deserialize;

use super::text::{Map, Refused, Text, nullable_list};

/// `linux.resources`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
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
    /// Shares and rates of block devices.
    #[serde(default, rename = "blockIO")]
    pub block_io: Option<BlockIo>,
    /// Memory in huge pages.
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub hugepage_limits: Vec<HugepageLimit<'a>>,
    /// Marks on packets.
    #[serde(borrow, default)]
    pub network: Option<Network<'a>>,
    /// Handles and objects of RDMA devices.
    #[serde(borrow, default)]
    pub rdma: Map<'a, Rdma>,
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
    /// Of TCP buffers.
    #[serde(default, rename = "kernelTCP")]
    pub kernel_tcp: Option<i64>,
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

/// `linux.resources.blockIO`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "some fields are here to be refused")]
pub struct BlockIo {
    /// Share of every device, 10 to 1000.
    #[serde(default)]
    pub weight: Option<u16>,
    /// Against groups below it: gone from the kernel with its scheduler CFQ, in Linux 5.0.
    #[serde(default)]
    leaf_weight: Refused,
    /// Share of one device.
    #[serde(default, deserialize_with = "nullable_list")]
    pub weight_device: Vec<DeviceWeight>,
    /// Bytes a second.
    #[serde(default, deserialize_with = "nullable_list")]
    pub throttle_read_bps_device: Vec<DeviceRate>,
    /// Bytes a second.
    #[serde(default, deserialize_with = "nullable_list")]
    pub throttle_write_bps_device: Vec<DeviceRate>,
    /// Operations a second.
    #[serde(default, rename = "throttleReadIOPSDevice", deserialize_with = "nullable_list")]
    pub throttle_read_iops_device: Vec<DeviceRate>,
    /// Operations a second.
    #[serde(default, rename = "throttleWriteIOPSDevice", deserialize_with = "nullable_list")]
    pub throttle_write_iops_device: Vec<DeviceRate>,
}

/// One of `linux.resources.blockIO.weightDevice`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "some fields are here to be refused")]
pub struct DeviceWeight {
    /// Device number, first part.
    pub major: i64,
    /// Device number, second part.
    pub minor: i64,
    /// 10 to 1000.
    #[serde(default)]
    pub weight: Option<u16>,
    /// As that of the whole.
    #[serde(default)]
    leaf_weight: Refused,
}

/// One of the lists `linux.resources.blockIO.throttle...Device`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRate {
    /// Device number, first part.
    pub major: i64,
    /// Device number, second part.
    pub minor: i64,
    /// A second; 0 is no limit.
    pub rate: u64,
}

/// One of `linux.resources.hugepageLimits`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HugepageLimit<'a> {
    /// As the kernel spells it: `2MB`, `1GB`.
    #[serde(borrow)]
    pub page_size: Text<'a>,
    /// Bytes.
    pub limit: u64,
}

/// `linux.resources.network`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network<'a> {
    /// What traffic control sees on its packets.
    #[serde(default, rename = "classID")]
    pub class_id: Option<u32>,
    /// Of its packets on an interface.
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub priorities: Vec<InterfacePriority<'a>>,
}

/// One of `linux.resources.network.priorities`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterfacePriority<'a> {
    /// Interface of the host.
    #[serde(borrow)]
    pub name: Text<'a>,
    /// Its priority.
    pub priority: u32,
}

/// One of `linux.resources.rdma`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rdma {
    /// Handles.
    #[serde(default)]
    pub hca_handles: Option<u32>,
    /// Objects.
    #[serde(default)]
    pub hca_objects: Option<u32>,
}
