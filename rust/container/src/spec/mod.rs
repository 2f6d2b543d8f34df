//! The OCI runtime specification 1.3, Linux: config.json as types that borrow from its bytes.
//!
//! Every field of the specification is here. What pyrt does not honour has the type [`Refused`]: asking for it
//! is an error that names the field. What the specification does not know is an error as well.
//! Nothing here judges values; [`crate::compile`] does.

mod linux;
mod process;
mod resources;
mod state;
mod text;

pub use linux::{Device, IdMapping, Linux, MemoryPolicy, Namespace, NamespaceKind, NetDevice, Personality, TimeOffset};
pub use process::{Affinity, Capabilities, ConsoleSize, IoPriority, Process, ResourceLimit, Scheduler, User};
pub use resources::{
    BlockIo, Cpu, DeviceRate, DeviceRule, DeviceWeight, HugepageLimit, InterfacePriority, Memory, Network, Pids, Rdma,
    Resources,
};
pub use state::State;
pub use text::{Map, Refused, Text};

pub(crate) use text::nullable_list;

use serde::Deserialize;

/// config.json.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "some fields are here to be refused")]
pub struct Spec<'a> {
    /// Version of the specification.
    #[serde(borrow)]
    pub oci_version: Text<'a>,
    /// What is run.
    #[serde(borrow)]
    pub process: Option<Process<'a>>,
    /// Where its files are.
    #[serde(borrow)]
    pub root: Option<Root<'a>>,
    /// Host name in its uts namespace.
    #[serde(borrow, default)]
    pub hostname: Option<Text<'a>>,
    /// NIS domain name in its uts namespace.
    #[serde(borrow, default)]
    pub domainname: Option<Text<'a>>,
    /// Mounted in this order.
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub mounts: Vec<Mount<'a>>,
    /// Programs of the host that are run on the way.
    #[serde(borrow, default)]
    pub hooks: Option<Hooks<'a>>,
    /// Handed to hooks, else without meaning (CVE-2026-53488: labels and annotations must not steer the host).
    #[serde(borrow, default)]
    pub annotations: Map<'a, Text<'a>>,
    /// All that is Linux alone.
    #[serde(borrow, default)]
    pub linux: Linux<'a>,
    #[serde(default)]
    solaris: Refused,
    #[serde(default)]
    windows: Refused,
    #[serde(default)]
    vm: Refused,
    #[serde(default)]
    zos: Refused,
    #[serde(default)]
    freebsd: Refused,
}

/// `root`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root<'a> {
    /// The bundle's directory; relative to the bundle.
    #[serde(borrow)]
    pub path: Text<'a>,
    /// Mounted read-only.
    #[serde(default)]
    pub readonly: bool,
}

/// One of `mounts`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mount<'a> {
    /// Where in the container.
    #[serde(borrow)]
    pub destination: Text<'a>,
    /// File system type, or "bind".
    #[serde(borrow, rename = "type", default)]
    pub kind: Option<Text<'a>>,
    /// What is mounted.
    #[serde(borrow, default)]
    pub source: Option<Text<'a>>,
    /// Option words as of mount(8).
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub options: Vec<Text<'a>>,
    /// How the source's owners are shown, other than by the container's user namespace.
    #[serde(default, deserialize_with = "nullable_list")]
    pub uid_mappings: Vec<IdMapping>,
    /// The same of groups.
    #[serde(default, deserialize_with = "nullable_list")]
    pub gid_mappings: Vec<IdMapping>,
}

/// `hooks`, each list in the order in which it is run.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hooks<'a> {
    /// The same as `create_runtime`, and older.
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub prestart: Vec<Hook<'a>>,
    /// In the host's namespaces, before the root is changed.
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub create_runtime: Vec<Hook<'a>>,
    /// In the container's namespaces, before the root is changed.
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub create_container: Vec<Hook<'a>>,
    /// In the container, before its process is executed.
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub start_container: Vec<Hook<'a>>,
    /// When the process runs.
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub poststart: Vec<Hook<'a>>,
    /// When the container is deleted.
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub poststop: Vec<Hook<'a>>,
}

/// One hook.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook<'a> {
    /// The program.
    #[serde(borrow)]
    pub path: Text<'a>,
    /// Its arguments, its name first.
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub args: Vec<Text<'a>>,
    /// `NAME=value` each.
    #[serde(borrow, default, deserialize_with = "nullable_list")]
    pub env: Vec<Text<'a>>,
    /// Seconds until it is killed.
    #[serde(default)]
    pub timeout: Option<i64>,
}
