//! `linux`: namespaces, ids, devices, paths.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::resources::Resources;
use super::text::{Map, Refused, Text, nullable_list};

/// `linux`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "some fields are here to be refused")]
pub struct Linux<'a> {
    /// Of the new user namespace.
    #[serde(default, deserialize_with = "nullable_list")]
    pub uid_mappings: Vec<IdMapping>,
    /// Of the new user namespace.
    #[serde(default, deserialize_with = "nullable_list")]
    pub gid_mappings: Vec<IdMapping>,
    /// Kernel parameters of its namespaces.
    #[serde(borrow, default)]
    pub sysctl: Map<'a, Text<'a>>,
    /// Limits.
    #[serde(borrow, default)]
    pub resources: Option<Resources<'a>>,
    /// Its place in the cgroup hierarchies.
    #[serde(borrow, default)]
    pub cgroups_path: Option<Text<'a>>,
    /// What it does not share with the host.
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub namespaces: Vec<Namespace<'a>>,
    /// Device nodes beside the default ones.
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub devices: Vec<Device<'a>>,
    /// Network devices of the host that become the container's, by their names there.
    #[serde(borrow, default)]
    pub net_devices: Map<'a, NetDevice<'a>>,
    /// As it stands, for [`crate::seccomp`], which keeps compiled filters by content.
    #[serde(borrow, default)]
    pub seccomp: Option<&'a RawValue>,
    /// Propagation of the root mount.
    #[serde(borrow, default)]
    pub rootfs_propagation: Option<Text<'a>>,
    /// Hidden.
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub masked_paths: Vec<Text<'a>>,
    /// Read-only.
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub readonly_paths: Vec<Text<'a>>,
    /// SELinux's context of what is mounted.
    #[serde(borrow, default)]
    pub mount_label: Option<Text<'a>>,
    #[serde(default)]
    intel_rdt: Refused,
    /// set_mempolicy(2).
    #[serde(borrow, default)]
    pub memory_policy: Option<MemoryPolicy<'a>>,
    /// personality(2).
    #[serde(borrow, default)]
    pub personality: Option<Personality<'a>>,
    /// Of the new time namespace.
    #[serde(borrow, default)]
    pub time_offsets: Map<'a, TimeOffset>,
}

/// One of `linux.uidMappings`, `linux.gidMappings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdMapping {
    /// First id inside.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// First id outside.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// Kinds of namespaces, as the specification spells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "namespaces(7)")]
pub enum NamespaceKind {
    Pid,
    Network,
    Mount,
    Ipc,
    Uts,
    User,
    Cgroup,
    Time,
}

/// One of `linux.namespaces`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace<'a> {
    /// Which.
    #[serde(rename = "type")]
    pub kind: NamespaceKind,
    /// Joined if given, else new.
    #[serde(borrow, default)]
    pub path: Option<Text<'a>>,
}

/// One of `linux.devices`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device<'a> {
    /// Where in the container.
    #[serde(borrow)]
    pub path: Text<'a>,
    /// c, b, u or p.
    #[serde(borrow, rename = "type")]
    pub kind: Text<'a>,
    /// Device number, first part.
    #[serde(default)]
    pub major: i64,
    /// Device number, second part.
    #[serde(default)]
    pub minor: i64,
    /// Permissions; 0666 if absent.
    #[serde(default)]
    pub file_mode: Option<u32>,
    /// Owner inside.
    #[serde(default)]
    pub uid: Option<u32>,
    /// Group inside.
    #[serde(default)]
    pub gid: Option<u32>,
}

/// `linux.personality`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "some fields are here to be refused")]
pub struct Personality<'a> {
    /// LINUX or LINUX32.
    #[serde(borrow)]
    pub domain: Text<'a>,
    #[serde(default)]
    flags: Refused,
}

/// One of `linux.netDevices`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetDevice<'a> {
    /// What it is called in the container; as on the host if absent.
    #[serde(borrow, default)]
    pub name: Option<Text<'a>>,
}

/// `linux.memoryPolicy`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryPolicy<'a> {
    /// `MPOL_...`.
    #[serde(borrow)]
    pub mode: Text<'a>,
    /// A list like `0-3,7`.
    #[serde(borrow, default)]
    pub nodes: Option<Text<'a>>,
    /// `MPOL_F_...`.
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub flags: Vec<Text<'a>>,
}

/// One of `linux.timeOffsets`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeOffset {
    /// Seconds.
    #[serde(default)]
    pub secs: i64,
    /// Nanoseconds.
    #[serde(default)]
    pub nanosecs: u32,
}
