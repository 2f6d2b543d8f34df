//! `linux.resources` as files of cgroup v1 or v2 and what is written to them.
//!
//! Pure: the conversions between the two versions are those of the OCI runtime specification's cgroup v2
//! notes, as runc and crun do them.

mod block_io;
mod hardware;

use crate::spec::{Cpu, Memory, Resources};

use super::error::{Error, Result};

/// One write to one file of the container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Which controller's hierarchy.
    pub controller: String,
    /// File name.
    pub file: String,
    /// What is written.
    pub value: String,
    /// The field that asks for it.
    pub field: String,
    /// Another file and its value, where the kernel has that one instead.
    pub otherwise: Option<(String, String)>,
}

impl Setting {
    /// File and value, as far as `exists` knows of them: the first choice if it knows of neither.
    pub fn choose(self, exists: impl Fn(&str) -> bool) -> (String, String) {
        match self.otherwise {
            Some((file, value)) if !exists(&self.file) && exists(&file) => (file, value),
            _ => (self.file, self.value),
        }
    }
}

fn setting(controller: &str, file: &str, value: impl ToString, field: &str) -> Setting {
    Setting {
        controller: controller.to_owned(),
        file: file.to_owned(),
        value: value.to_string(),
        field: format!("linux.resources.{field}"),
        otherwise: None,
    }
}

/// A number of bytes; -1 is no limit, and nothing else is below 0.
fn bytes(value: Option<i64>, field: &str, unlimited: &str) -> Result<Option<String>> {
    match value {
        // Go programs write 0 for what they leave out.
        None | Some(0) => Ok(None),
        Some(-1) => Ok(Some(unlimited.to_owned())),
        Some(number) if number > 0 => Ok(Some(number.to_string())),
        Some(number) => Err(refuse(field, &format!("{number} is no number of bytes"))),
    }
}

fn refuse(field: &str, message: &str) -> Error {
    Error::spec(format!("linux.resources.{field}"), message)
}

fn only_v1(field: &str) -> Error {
    refuse(field, "there is no such limit on cgroup v2")
}

/// Files of version 1.
pub(super) fn for_v1(resources: &Resources<'_>) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    if let Some(memory) = &resources.memory {
        memory_v1(memory, &mut settings)?;
    }
    if let Some(cpu) = &resources.cpu {
        cpu_v1(cpu, &mut settings)?;
    }
    pids(resources, &mut settings);
    if let Some(block_io) = &resources.block_io {
        block_io::v1(block_io, &mut settings)?;
    }
    hardware::v1(resources, &mut settings)?;
    if let Some((file, _)) = resources.unified.first() {
        return Err(refuse(&format!("unified.{file}"), "this machine's controllers are on cgroup v1"));
    }
    Ok(settings)
}

/// Files of version 2.
pub(super) fn for_v2(resources: &Resources<'_>) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    if let Some(memory) = &resources.memory {
        memory_v2(memory, &mut settings)?;
    }
    if let Some(cpu) = &resources.cpu {
        cpu_v2(cpu, &mut settings)?;
    }
    pids(resources, &mut settings);
    if let Some(block_io) = &resources.block_io {
        block_io::v2(block_io, &mut settings)?;
    }
    hardware::v2(resources, &mut settings)?;
    for (file, value) in resources.unified.iter() {
        settings.push(unified(file, value)?);
    }
    Ok(settings)
}

fn pids(resources: &Resources<'_>, settings: &mut Vec<Setting>) {
    match resources.pids.as_ref().map(|pids| pids.limit) {
        // As runc has it: 0 is "not given".
        None | Some(0) => {}
        Some(limit) if limit > 0 => settings.push(setting("pids", "pids.max", limit, "pids.limit")),
        Some(_) => settings.push(setting("pids", "pids.max", "max", "pids.limit")),
    }
}

fn check_memory(memory: &Memory) -> Result<()> {
    if memory.use_hierarchy == Some(false) {
        return Err(refuse("memory.useHierarchy", "the kernel has no other way since Linux 5.11"));
    }
    let limit = memory.limit.unwrap_or(0);
    match memory.swap {
        Some(swap) if swap > 0 && limit <= 0 => Err(refuse("memory.swap", "needs a limit of memory")),
        Some(swap) if swap > 0 && swap < limit => {
            Err(refuse("memory.swap", &format!("{swap} is less than the limit of memory, {limit}"))
                .hint("it is memory and swap together"))
        }
        _ => Ok(()),
    }
}

fn memory_v1(memory: &Memory, settings: &mut Vec<Setting>) -> Result<()> {
    check_memory(memory)?;
    let mut add = |file: &str, value: Option<String>, field: &str| {
        settings.extend(value.map(|value| setting("memory", file, value, field)));
    };
    // First memory, then both together: the second may not be smaller at any moment.
    add("memory.limit_in_bytes", bytes(memory.limit, "memory.limit", "-1")?, "memory.limit");
    add("memory.memsw.limit_in_bytes", bytes(memory.swap, "memory.swap", "-1")?, "memory.swap");
    add("memory.soft_limit_in_bytes", bytes(memory.reservation, "memory.reservation", "-1")?, "memory.reservation");
    let swappiness = memory.swappiness.map(|value| match value {
        0..=100 => Ok(value.to_string()),
        _ => Err(refuse("memory.swappiness", &format!("{value} is not within 0 to 100"))),
    });
    add("memory.swappiness", swappiness.transpose()?, "memory.swappiness");
    add("memory.kmem.tcp.limit_in_bytes", bytes(memory.kernel_tcp, "memory.kernelTCP", "-1")?, "memory.kernelTCP");
    let disable = memory.disable_oom_killer.filter(|&disable| disable);
    add("memory.oom_control", disable.map(|_| "1".to_owned()), "memory.disableOOMKiller");
    Ok(())
}

fn memory_v2(memory: &Memory, settings: &mut Vec<Setting>) -> Result<()> {
    check_memory(memory)?;
    if memory.swappiness.is_some() {
        return Err(only_v1("memory.swappiness"));
    }
    if memory.disable_oom_killer == Some(true) {
        return Err(only_v1("memory.disableOOMKiller"));
    }
    if memory.kernel_tcp.is_some_and(|limit| limit != 0) {
        return Err(only_v1("memory.kernelTCP"));
    }
    let mut add = |file: &str, value: Option<String>, field: &str| {
        settings.extend(value.map(|value| setting("memory", file, value, field)));
    };
    add("memory.max", bytes(memory.limit, "memory.limit", "max")?, "memory.limit");
    add("memory.swap.max", swap_v2(memory)?, "memory.swap");
    add("memory.low", bytes(memory.reservation, "memory.reservation", "max")?, "memory.reservation");
    Ok(())
}

/// Version 1 limits memory and swap together, version 2 swap alone.
fn swap_v2(memory: &Memory) -> Result<Option<String>> {
    match (memory.swap, memory.limit) {
        // Memory without limit, and nothing said of swap: that is none either.
        (None | Some(0), Some(-1)) => Ok(Some("max".to_owned())),
        (Some(swap), Some(limit)) if swap > 0 => Ok(Some((swap - limit).to_string())),
        (swap, _) => bytes(swap, "memory.swap", "max"),
    }
}

fn positive(value: Option<u64>) -> Option<u64> {
    value.filter(|&value| value != 0)
}

fn cpu_v1(cpu: &Cpu<'_>, settings: &mut Vec<Setting>) -> Result<()> {
    check_cpu(cpu)?;
    let mut add = |file: &str, value: Option<String>, field: &str| {
        settings.extend(value.map(|value| setting("cpu", file, value, field)));
    };
    add("cpu.shares", positive(cpu.shares).map(|shares| shares.to_string()), "cpu.shares");
    // The period first: a quota is judged against it, and a burst against the quota.
    add("cpu.cfs_period_us", positive(cpu.period).map(|period| period.to_string()), "cpu.period");
    let quota = cpu.quota.filter(|&quota| quota != 0).map(|quota| quota.max(-1).to_string());
    add("cpu.cfs_quota_us", quota, "cpu.quota");
    add("cpu.cfs_burst_us", cpu.burst.map(|burst| burst.to_string()), "cpu.burst");
    add("cpu.rt_period_us", positive(cpu.realtime_period).map(|period| period.to_string()), "cpu.realtimePeriod");
    let runtime = cpu.realtime_runtime.filter(|&runtime| runtime != 0);
    add("cpu.rt_runtime_us", runtime.map(|runtime| runtime.to_string()), "cpu.realtimeRuntime");
    add("cpu.idle", cpu.idle.map(|idle| idle.to_string()), "cpu.idle");
    cpuset(cpu, settings)
}

fn cpu_v2(cpu: &Cpu<'_>, settings: &mut Vec<Setting>) -> Result<()> {
    check_cpu(cpu)?;
    if cpu.realtime_runtime.is_some_and(|runtime| runtime != 0) {
        return Err(only_v1("cpu.realtimeRuntime"));
    }
    if positive(cpu.realtime_period).is_some() {
        return Err(only_v1("cpu.realtimePeriod"));
    }
    let mut add = |file: &str, value: Option<String>, field: &str| {
        settings.extend(value.map(|value| setting("cpu", file, value, field)));
    };
    add("cpu.idle", cpu.idle.map(|idle| idle.to_string()), "cpu.idle");
    // An idle group has no weight that could be set.
    let shares = positive(cpu.shares).filter(|_| cpu.idle != Some(1));
    add("cpu.weight", shares.map(|shares| weight(shares).to_string()), "cpu.shares");
    add("cpu.max", cpu_max(cpu), if cpu.quota.is_some() { "cpu.quota" } else { "cpu.period" });
    add("cpu.max.burst", cpu.burst.map(|burst| burst.to_string()), "cpu.burst");
    cpuset(cpu, settings)
}

fn check_cpu(cpu: &Cpu<'_>) -> Result<()> {
    if let Some(idle) = cpu.idle.filter(|idle| !(0..=1).contains(idle)) {
        return Err(refuse("cpu.idle", &format!("{idle} is neither 0 nor 1")));
    }
    for (list, field) in [(&cpu.cpus, "cpu.cpus"), (&cpu.mems, "cpu.mems")] {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            parse_list(list).map_err(|message| refuse(field, &message))?;
        }
    }
    Ok(())
}

/// Shares, 2 to 262144 with 1024 in the middle, as weight, 1 to 10000 with 100 in the middle: the curve through the
/// three pairs that runc (since 1.3.2) and crun (since 1.23) use. A straight line made 39 of the default.
fn weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent).ceil() as u64).clamp(1, 10_000)
}

fn cpu_max(cpu: &Cpu<'_>) -> Option<String> {
    let (quota, period) = (cpu.quota.filter(|&quota| quota != 0), positive(cpu.period));
    if quota.is_none() && period.is_none() {
        return None;
    }
    // The kernel's own period (Documentation/admin-guide/cgroup-v2.rst, cpu.max).
    let period = period.unwrap_or(100_000);
    Some(match quota {
        Some(quota) if quota > 0 => format!("{quota} {period}"),
        _ => format!("max {period}"),
    })
}

fn cpuset(cpu: &Cpu<'_>, settings: &mut Vec<Setting>) -> Result<()> {
    for (list, name) in [(&cpu.cpus, "cpus"), (&cpu.mems, "mems")] {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            settings.push(setting("cpuset", &format!("cpuset.{name}"), list, &format!("cpu.{name}")));
        }
    }
    Ok(())
}

/// Numbers of a list like `0-3,7`, at most [`MAX_CPUS`].
pub(super) fn parse_list(list: &str) -> std::result::Result<Vec<usize>, String> {
    let wrong = || format!("{list:?} is no list like 0-3,7");
    let mut numbers = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
        if first > last || last >= MAX_CPUS {
            return Err(wrong());
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}

/// More processors than any kernel is built for (NR_CPUS).
pub(super) const MAX_CPUS: usize = 8192;

fn unified(file: &str, value: &str) -> Result<Setting> {
    let field = format!("unified.{file}");
    let controller = match file.split_once('.') {
        Some((controller, rest)) if !controller.is_empty() && !rest.is_empty() && !file.contains('/') => controller,
        _ => return Err(refuse(&field, "not a file of a cgroup")),
    };
    Ok(setting(controller, file, value, &field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(json: &str, version: u32) -> std::result::Result<Vec<(String, String)>, String> {
        let resources: Resources<'_> = serde_json::from_str(json).unwrap();
        let settings = if version == 1 { for_v1(&resources) } else { for_v2(&resources) };
        settings
            .map(|list| list.into_iter().map(|setting| (setting.file, setting.value)).collect())
            .map_err(|error| error.to_string())
    }

    fn check(json: &str, v1: &[(&str, &str)], v2: &[(&str, &str)]) {
        for (version, expected) in [(1, v1), (2, v2)] {
            let found = settings(json, version).unwrap();
            let found: Vec<_> = found.iter().map(|(file, value)| (file.as_str(), value.as_str())).collect();
            assert_eq!(found, expected, "{json} on version {version}");
        }
    }

    #[test]
    fn each_limit_becomes_its_files() {
        const MEMORY: &str = "memory.limit_in_bytes";
        const BOTH: &str = "memory.memsw.limit_in_bytes";
        check(r#"{"memory": {"limit": 64}}"#, &[(MEMORY, "64")], &[("memory.max", "64")]);
        check(
            r#"{"memory": {"limit": 64, "swap": 100}}"#,
            &[(MEMORY, "64"), (BOTH, "100")],
            &[("memory.max", "64"), ("memory.swap.max", "36")],
        );
        check(
            r#"{"memory": {"limit": 64, "swap": 64}}"#,
            &[(MEMORY, "64"), (BOTH, "64")],
            &[("memory.max", "64"), ("memory.swap.max", "0")],
        );
        check(
            r#"{"memory": {"limit": 64, "swap": -1}}"#,
            &[(MEMORY, "64"), (BOTH, "-1")],
            &[("memory.max", "64"), ("memory.swap.max", "max")],
        );
        check(r#"{"memory": {"limit": -1}}"#, &[(MEMORY, "-1")], &[("memory.max", "max"), ("memory.swap.max", "max")]);
        check(r#"{"memory": {"reservation": 32}}"#, &[("memory.soft_limit_in_bytes", "32")], &[("memory.low", "32")]);
        check(r#"{"pids": {"limit": 32}}"#, &[("pids.max", "32")], &[("pids.max", "32")]);
        check(r#"{"pids": {"limit": -1}}"#, &[("pids.max", "max")], &[("pids.max", "max")]);
        check(r#"{"pids": {"limit": 0}}"#, &[], &[]);
        check(r#"{"cpu": {"quota": 50000}}"#, &[("cpu.cfs_quota_us", "50000")], &[("cpu.max", "50000 100000")]);
        check(
            r#"{"cpu": {"quota": 50000, "period": 20000, "burst": 1000}}"#,
            &[("cpu.cfs_period_us", "20000"), ("cpu.cfs_quota_us", "50000"), ("cpu.cfs_burst_us", "1000")],
            &[("cpu.max", "50000 20000"), ("cpu.max.burst", "1000")],
        );
        check(r#"{"cpu": {"quota": -1}}"#, &[("cpu.cfs_quota_us", "-1")], &[("cpu.max", "max 100000")]);
        check(r#"{"cpu": {"period": 20000}}"#, &[("cpu.cfs_period_us", "20000")], &[("cpu.max", "max 20000")]);
        check(
            r#"{"cpu": {"shares": 1024, "idle": 1}}"#,
            &[("cpu.shares", "1024"), ("cpu.idle", "1")],
            &[("cpu.idle", "1")],
        );
        check(
            r#"{"cpu": {"cpus": "0-1,3", "mems": "0"}}"#,
            &[("cpuset.cpus", "0-1,3"), ("cpuset.mems", "0")],
            &[("cpuset.cpus", "0-1,3"), ("cpuset.mems", "0")],
        );
        check(r#"{"memory": {}, "cpu": {}}"#, &[], &[]);
    }

    #[test]
    fn block_devices_have_shares_and_rates() {
        check(
            r#"{"blockIO": {"weight": 500, "weightDevice": [{"major": 8, "minor": 0, "weight": 10}, {"major": 8, "minor": 1}]}}"#,
            &[("blkio.bfq.weight", "500"), ("blkio.bfq.weight_device", "8:0 10")],
            &[("io.bfq.weight", "default 500"), ("io.bfq.weight", "8:0 10")],
        );
        check(
            r#"{"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}],
                            "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 0}],
                            "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 30}],
                            "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 40}]}}"#,
            &[
                ("blkio.throttle.read_bps_device", "8:0 1000"),
                ("blkio.throttle.write_bps_device", "8:0 0"),
                ("blkio.throttle.read_iops_device", "8:0 30"),
                ("blkio.throttle.write_iops_device", "8:16 40"),
            ],
            &[
                ("io.max", "8:0 rbps=1000"),
                ("io.max", "8:0 wbps=max"),
                ("io.max", "8:0 riops=30"),
                ("io.max", "8:16 wiops=40"),
            ],
        );
    }

    #[test]
    fn a_weight_goes_to_the_scheduler_that_is_there() {
        let resources: Resources<'_> = serde_json::from_str(r#"{"blockIO": {"weight": 1000}}"#).unwrap();
        for (there, file, value) in [
            (&["io.bfq.weight", "io.weight"][..], "io.bfq.weight", "default 1000"),
            (&["io.weight"], "io.weight", "default 10000"),
            (&[], "io.bfq.weight", "default 1000"),
        ] {
            let setting = for_v2(&resources).unwrap().remove(0);
            assert_eq!(setting.choose(|name| there.contains(&name)), (file.to_owned(), value.to_owned()));
        }
    }

    #[test]
    fn huge_pages_rdma_and_marks() {
        check(
            r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#,
            &[("hugetlb.2MB.rsvd.limit_in_bytes", "4194304"), ("hugetlb.2MB.limit_in_bytes", "4194304")],
            &[("hugetlb.2MB.rsvd.max", "4194304"), ("hugetlb.2MB.max", "4194304")],
        );
        let rdma = [("rdma.max", "mlx5_1 hca_handle=3 hca_object=10000"), ("rdma.max", "mlx4_0 hca_handle=2")];
        check(
            r#"{"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx4_0": {"hcaHandles": 2}}}"#,
            &rdma,
            &rdma,
        );
        let network = r#"{"network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]}}"#;
        let marks = [("net_cls.classid", "1048577"), ("net_prio.ifpriomap", "eth0 500")];
        let marks: Vec<_> = marks.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect();
        assert_eq!(settings(network, 1).unwrap(), marks);
        assert!(settings(network, 2).unwrap_err().starts_with("linux.resources.network.classID: "));
        check(r#"{"network": {}}"#, &[], &[]);
    }

    #[test]
    fn shares_keep_their_middle_and_their_ends() {
        let pairs = [(0, 1), (2, 1), (1024, 100), (2000, 170), (262_144, 10_000), (u64::MAX, 10_000)];
        for (shares, expected) in pairs {
            assert_eq!(weight(shares), expected, "{shares}");
        }
        assert!((2..262_144).step_by(97).all(|shares| weight(shares) <= weight(shares + 97)));
    }

    #[test]
    fn what_one_version_lacks_is_refused_by_name() {
        let cases = [
            (2, r#"{"memory": {"swappiness": 10}}"#, "linux.resources.memory.swappiness"),
            (2, r#"{"memory": {"disableOOMKiller": true}}"#, "linux.resources.memory.disableOOMKiller"),
            (2, r#"{"cpu": {"realtimeRuntime": 1}}"#, "linux.resources.cpu.realtimeRuntime"),
            (2, r#"{"memory": {"kernelTCP": 5}}"#, "linux.resources.memory.kernelTCP"),
            (2, r#"{"network": {"priorities": [{"name": "a", "priority": 1}]}}"#, "linux.resources.network.priorities"),
            (2, r#"{"cpu": {"realtimePeriod": 1}}"#, "linux.resources.cpu.realtimePeriod"),
            (1, r#"{"unified": {"memory.high": "1"}}"#, "linux.resources.unified.memory.high"),
            (2, r#"{"unified": {"../x": "1"}}"#, "linux.resources.unified.../x"),
        ];
        for (version, json, field) in cases {
            assert!(settings(json, version).unwrap_err().starts_with(field), "{json}");
        }
    }

    #[test]
    fn nonsense_is_refused_on_both() {
        let cases = [
            (r#"{"memory": {"limit": -2}}"#, "memory.limit"),
            (r#"{"memory": {"swap": 5}}"#, "memory.swap"),
            (r#"{"memory": {"limit": 64, "swap": 5}}"#, "memory.swap"),
            (r#"{"memory": {"useHierarchy": false}}"#, "memory.useHierarchy"),
            (r#"{"cpu": {"idle": 2}}"#, "cpu.idle"),
            (r#"{"cpu": {"cpus": "3-1"}}"#, "cpu.cpus"),
            (r#"{"cpu": {"cpus": "a"}}"#, "cpu.cpus"),
            (r#"{"cpu": {"mems": "0-99999"}}"#, "cpu.mems"),
            (r#"{"blockIO": {"weight": 9}}"#, "blockIO.weight"),
            (
                r#"{"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 1001}]}}"#,
                "blockIO.weightDevice[0].weight",
            ),
            (
                r#"{"blockIO": {"throttleReadBpsDevice": [{"major": -1, "minor": 0, "rate": 1}]}}"#,
                "blockIO.throttleReadBpsDevice[0].major",
            ),
            (r#"{"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]}"#, "hugepageLimits[0].pageSize"),
            (r#"{"hugepageLimits": [{"pageSize": "02MB", "limit": 1}]}"#, "hugepageLimits[0].pageSize"),
            (r#"{"rdma": {"a b": {"hcaHandles": 3}}}"#, "rdma.a b"),
            (r#"{"rdma": {"a": {}}}"#, "rdma.a"),
        ];
        for (json, field) in cases {
            for version in [1, 2] {
                let message = settings(json, version).unwrap_err();
                assert!(message.starts_with(&format!("linux.resources.{field}: ")), "{message}");
            }
        }
        assert!(settings(r#"{"memory": {"swappiness": 101}}"#, 1).is_err());
    }
}
