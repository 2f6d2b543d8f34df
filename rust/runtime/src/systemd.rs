//! cgroups that systemd makes (`--systemd-cgroup`): a scope a container.
//!
//! A scope can't be empty, and the container's process is to be born in its cgroup (CLONE_INTO_CGROUP). So a process that
//! does nothing goes in ahead of it, and leaves when it is there:
//!
//! ```text
//! create                      systemd                            a process that waits
//!   | StartTransientUnit PIDs -> | the slice, the scope, limits      .
//!   | <------------- JobRemoved  | moves it there ----------------> |
//!   |  clones the container's process into the scope                .
//!   |  SIGKILL ---------------------------------------------------> |
//! delete
//!   | StopUnit, ResetFailedUnit -> |
//! ```
//!
//! Beside controllers of version 1 systemd sees by a hierarchy of version 2, which limits nothing, who is in a unit. There the
//! process is born where `create` is meanwhile.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pyrt_container::host::{Host, Layout, read_file};
use pyrt_container::sys::{self, Side};
use serde::{Deserialize, Serialize};

use crate::bus::{Bus, Value};
use crate::error::{Error, Result};

/// Whose systemd it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Manager {
    /// The machine's.
    #[default]
    System,
    /// A plain user's, who has given it the groups below its own.
    User {
        /// Where its sockets are.
        folder: PathBuf,
        /// Its own group.
        group: String,
    },
}

impl Manager {
    /// The one of whoever has called, `uid`, if it can be asked at all (sd_booted(3)).
    pub fn find(uid: u32, host: &Host) -> Result<Self> {
        let refused = |why: &str| {
            Err(Error::new(format!("--systemd-cgroup: {why}")).hint("let the engine use the driver cgroupfs"))
        };
        let Ok(system) = fs::metadata("/run/systemd/system") else {
            return refused("this machine is not run by systemd");
        };
        // In the namespace of a plain user's engine we are root as well, but the machine's systemd is nobody's there.
        if (uid, system.uid()) == (0, 0) {
            return Ok(Self::System);
        }
        match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
            _ if host.cgroups.layout() != Layout::V2 => refused("a user's own systemd limits on cgroup v2 alone"),
            Some(folder) => {
                let group =
                    Self::User { folder: folder.clone(), group: String::new() }.connect()?.property("ControlGroup");
                Ok(Self::User { folder, group: group? })
            }
            None => refused("XDG_RUNTIME_DIR does not say where the user's systemd is"),
        }
    }

    fn connect(&self) -> Result<Bus> {
        // SAFETY: geteuid(2) takes nothing and can't fail.
        let uid = unsafe { libc::geteuid() };
        match self {
            Self::System => Bus::connect(&Path::new("/run").join(PRIVATE), "/run/dbus/system_bus_socket".as_ref(), uid),
            Self::User { folder, .. } => Bus::connect(&folder.join(PRIVATE), &folder.join("bus"), outside(uid)),
        }
    }

    fn usual_slice(&self) -> &'static str {
        match self {
            Self::System => "system.slice",
            Self::User { .. } => "user.slice",
        }
    }
}

/// What is called `uid` in this user namespace, where it was made (user_namespaces(7)).
fn outside(uid: u32) -> u32 {
    let map = read_file("/proc/self/uid_map").unwrap_or_default();
    let found = map.lines().find_map(|line| {
        let numbers: Vec<u32> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [first, other, count] = numbers[..] else { return None };
        uid.checked_sub(first).filter(|offset| *offset < count).map(|offset| other + offset)
    });
    found.unwrap_or(uid)
}

/// Where systemd listens itself, for its user alone; no bus has to run.
const PRIVATE: &str = "systemd/private";

/// The unit of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `PREFIX-NAME.scope`.
    pub name: String,
    /// What it is below of.
    pub slice: String,
    /// Who makes it.
    #[serde(default)]
    pub manager: Manager,
}

/// Controller, file, value: as a cgroup takes them.
type Limit = (String, String, String);

impl Unit {
    /// `linux.cgroupsPath` is `SLICE:PREFIX:NAME` here, as runc documents it.
    pub fn of(path: Option<&str>, id: &str, manager: Manager) -> Result<Self> {
        let wrong = |message: String| Error::new(format!("linux.cgroupsPath: {message}"));
        let usual = format!(":pyrt:{id}");
        let path = path.filter(|path| !path.is_empty()).unwrap_or(&usual);
        let parts: Vec<&str> = path.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            let hint = "with --systemd-cgroup it has three parts";
            return Err(wrong(format!("{path:?} is not slice:prefix:name")).hint(hint));
        };
        if path.contains('/') {
            return Err(wrong(format!("{path:?} contains a slash")));
        }
        if name.is_empty() || name.ends_with(".slice") {
            return Err(wrong(format!("{path:?} names no scope")));
        }
        let name = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        let slice = if slice.is_empty() { manager.usual_slice() } else { slice };
        let unit = Self { name, slice: slice.to_owned(), manager };
        match unit.parents() {
            Some(_) => Ok(unit),
            None => Err(wrong(format!("{slice:?} is no slice"))),
        }
    }

    /// The cgroup of its slice: each dash is one step down (systemd.slice(5)).
    fn parents(&self) -> Option<String> {
        let stem = self.slice.strip_suffix(".slice")?;
        if stem == "-" {
            return Some(String::new());
        }
        let parts: Vec<&str> = stem.split('-').collect();
        if parts.contains(&"") {
            return None;
        }
        Some((1..=parts.len()).map(|count| format!("/{}.slice", parts[..count].join("-"))).collect())
    }

    /// Its own cgroup, below the root of a hierarchy.
    pub fn cgroup(&self) -> String {
        let above = match &self.manager {
            Manager::System => "",
            Manager::User { group, .. } => group.trim_end_matches('/'),
        };
        format!("{above}{}/{}", self.parents().unwrap_or_default(), self.name)
    }

    /// Has systemd make it, with somebody in it.
    pub fn make(&self, id: &str, limits: &[Limit]) -> Result<Scope> {
        let scope = Scope { sitter: sit()? };
        let text = |text: &str| Value::Text(text.to_owned());
        let on = |name: &str| (name.to_owned(), Value::Bool(true));
        let mut properties = vec![
            ("Description".to_owned(), text(&format!("pyrt container {id}"))),
            ("Slice".to_owned(), text(&self.slice)),
            ("DefaultDependencies".to_owned(), Value::Bool(false)),
            ("PIDs".to_owned(), Value::Numbers(vec![scope.sitter as u32])),
            // Ours to write below: without it systemd takes back what it does not know of.
            on("Delegate"),
            on("MemoryAccounting"),
            on("CPUAccounting"),
            on("IOAccounting"),
            on("TasksAccounting"),
        ];
        properties.extend(properties_of(limits));
        let arguments = [text(&self.name), text("replace"), Value::Properties(properties), Value::NoUnits];
        let mut bus = self.manager.connect()?;
        let job = bus.call("StartTransientUnit", &arguments)?;
        match bus.await_job(&job)?.as_str() {
            "done" => Ok(scope),
            other => Err(Error::new(format!("starting {}: {other}", self.name)).hint("journalctl may say why")),
        }
    }

    /// Tells systemd of other limits, or it would write its own again.
    pub fn change(&self, limits: &[Limit]) -> Result<()> {
        let properties = properties_of(limits);
        if properties.is_empty() {
            return Ok(());
        }
        let arguments = [Value::Text(self.name.clone()), Value::Bool(true), Value::Properties(properties)];
        self.manager.connect()?.call("SetUnitProperties", &arguments).map(|_| ())
    }

    /// Has systemd forget it. One whose last process has ended is forgotten already.
    pub fn stop(&self) -> Result<()> {
        let mut bus = self.manager.connect()?;
        let name = Value::Text(self.name.clone());
        if let Ok(job) = bus.call("StopUnit", &[name.clone(), Value::Text("replace".to_owned())]) {
            bus.await_job(&job)?;
        }
        let _ = bus.call("ResetFailedUnit", &[name]);
        Ok(())
    }
}

/// A scope with nobody in it but a process of ours, which ends with this.
#[derive(Debug)]
pub struct Scope {
    sitter: i32,
}

impl Scope {
    /// Goes where systemd has put who waits, if this machine has more hierarchies than one; what is cloned meanwhile is there.
    pub fn visit(&self, host: &Host) -> Result<Option<Visit>> {
        let Some(hierarchy) = host.cgroups.v2.as_ref().filter(|_| host.cgroups.layout() == Layout::Hybrid) else {
            return Ok(None);
        };
        let place = |process: &str| {
            let groups = read_file(&format!("/proc/{process}/cgroup")).unwrap_or_default();
            let path = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").to_owned();
            PathBuf::from(format!("{}{path}/cgroup.procs", hierarchy.mount))
        };
        let (here, there) = (place("self"), place(&self.sitter.to_string()));
        if here == there {
            return Ok(None);
        }
        fs::write(&there, "0").map_err(|error| Error::file("entering", &there, &error))?;
        Ok(Some(Visit { home: here }))
    }
}

/// We are in a scope, and go home with this.
#[derive(Debug)]
pub struct Visit {
    home: PathBuf,
}

impl Drop for Visit {
    fn drop(&mut self) {
        // Whoever has no home any more ends soon.
        let _ = fs::write(&self.home, "0");
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let _ = sys::kill(self.sitter, libc::SIGKILL);
        let _ = sys::wait(self.sitter, true);
    }
}

/// A process that does nothing, and ends with us at the latest.
fn sit() -> Result<i32> {
    match sys::clone(0, None).map_err(|errno| Error::call("making a process for the scope", errno))? {
        Side::Child => {
            let _ = sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64, 0);
            loop {
                // SAFETY: pause(2) takes nothing.
                unsafe { libc::pause() };
            }
        }
        Side::Parent { pid, pidfd } => {
            sys::close(pidfd);
            Ok(pid)
        }
    }
}

/// systemd.resource-control(5) for the files that it has a property for; others it leaves alone.
fn properties_of(limits: &[Limit]) -> Vec<(String, Value)> {
    let mut properties = Vec::new();
    for (_, file, value) in limits {
        let mut put = |name: &str, value: Option<Value>| {
            properties.extend(value.map(|value| (name.to_owned(), value)));
        };
        match file.as_str() {
            "memory.max" | "memory.limit_in_bytes" => put("MemoryMax", number(value)),
            "memory.high" => put("MemoryHigh", number(value)),
            "memory.low" => put("MemoryLow", number(value)),
            "memory.min" => put("MemoryMin", number(value)),
            "memory.swap.max" => put("MemorySwapMax", number(value)),
            "pids.max" => put("TasksMax", number(value)),
            "cpu.weight" => put("CPUWeight", number(value)),
            "cpu.shares" => put("CPUShares", number(value)),
            "io.weight" => put("IOWeight", number(value.trim_start_matches("default "))),
            "cpu.max" => quota(value, &mut put),
            "cpuset.cpus" => put("AllowedCPUs", bits(value)),
            "cpuset.mems" => put("AllowedMemoryNodes", bits(value)),
            _ => {}
        }
    }
    properties
}

fn number(text: &str) -> Option<Value> {
    match text {
        "max" | "-1" => Some(Value::Number(u64::MAX)),
        text => text.parse().ok().map(Value::Number),
    }
}

/// `cpu.max` has a quota and its period, systemd time a second.
fn quota(text: &str, put: &mut impl FnMut(&str, Option<Value>)) {
    const SECOND: u64 = 1_000_000;
    let (quota, period) = text.split_once(' ').unwrap_or((text, ""));
    let period: Option<u64> = period.parse().ok().filter(|period| *period > 0);
    let a_second = match (quota.parse::<u64>(), period) {
        (Ok(quota), period) => quota.saturating_mul(SECOND) / period.unwrap_or(SECOND / 10),
        (Err(_), _) => u64::MAX,
    };
    put("CPUQuotaPerSecUSec", Some(Value::Number(a_second)));
    put("CPUQuotaPeriodUSec", period.map(Value::Number));
}

/// A list like `0-3,7`, as bits.
fn bits(list: &str) -> Option<Value> {
    let mut bytes = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        for bit in first..=last.min(8191) {
            bytes.resize(bytes.len().max(bit / 8 + 1), 0);
            bytes[bit / 8] |= 1u8 << (bit % 8);
        }
    }
    Some(Value::Bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_a_scope_in_a_slice() {
        let of = |path: Option<&str>| Unit::of(path, "abc", Manager::System).map(|unit| unit.cgroup());
        assert_eq!(of(None).unwrap(), "/system.slice/pyrt-abc.scope");
        assert_eq!(of(Some("a-b.slice:libpod:x")).unwrap(), "/a.slice/a-b.slice/libpod-x.scope");
        assert_eq!(of(Some(":docker:x")).unwrap(), "/system.slice/docker-x.scope");
        assert_eq!(of(Some("-.slice::x")).unwrap(), "/x.scope");
        for path in ["/a/b", "x", "a:b", "a:b:c:d", "user:b:c", "a--b.slice:b:c", "a.slice:b:", "a.slice:b:c.slice"] {
            assert!(of(Some(path)).is_err(), "{path}");
        }
        let manager = Manager::User { folder: PathBuf::new(), group: "/user.slice/user@1.service".to_owned() };
        let unit = Unit::of(None, "abc", manager).unwrap();
        assert_eq!(unit.cgroup(), "/user.slice/user@1.service/user.slice/pyrt-abc.scope");
    }

    #[test]
    fn limits_have_properties() {
        let limit = |file: &str, value: &str| (String::new(), file.to_owned(), value.to_owned());
        let found = properties_of(&[
            limit("memory.max", "max"),
            limit("cpu.max", "50000 100000"),
            limit("cpuset.cpus", "0-1,9"),
            limit("memory.oom.group", "1"),
        ]);
        let expected = [
            ("MemoryMax", Value::Number(u64::MAX)),
            ("CPUQuotaPerSecUSec", Value::Number(500_000)),
            ("CPUQuotaPeriodUSec", Value::Number(100_000)),
            ("AllowedCPUs", Value::Bytes(vec![3, 2])),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value)));
    }
}
