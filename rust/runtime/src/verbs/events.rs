//! `events`: what a container uses, in the words of runc.

use std::fs;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use pyrt_container::sys;
use serde_json::{Map, Value, json};

use crate::annals::{Cgroup, Record};
use crate::arguments::{Arguments, Global, Usage, switch, valued};
use crate::cgroups::{self, is_v2, keyed, number};
use crate::container::{Status, print};
use crate::error::{Error, Result};
use crate::oom::Watch;
use crate::process;

use super::look;

/// How it is called.
pub const USAGE: Usage = Usage {
    flags: &[
        switch("stats", "print once and end"),
        valued("interval", "TIME", "between two of them, like 1m30s; 5s if absent"),
    ],
    ..Usage::of("events", "print what a container uses, and each want of memory (JSON)", "events --stats web")
};

/// The verb: statistics once with `--stats`, else again and again until the container ends, and each want of memory between.
pub fn events(global: &Global, arguments: &Arguments) -> Result<u8> {
    let id = arguments.id()?;
    let interval = parse(arguments.value("interval").unwrap_or("5s"))?;
    let (record, status) = look(global, id)?;
    if matches!(status, Status::Stopped | Status::Creating) {
        return Err(Error::new(format!("container not running: it is {}", status.name())));
    }
    let mut watch = if arguments.has("stats") { None } else { Watch::begin(&record.cgroups)? };
    let tell = |record: &Record| print(&json!({ "type": "stats", "id": id, "data": stats(record) }).to_string());
    tell(&record)?;
    if arguments.has("stats") {
        return Ok(0);
    }
    let Ok(first) = process::open(record.pid) else { return Ok(0) };
    let mut next = Instant::now() + interval;
    while process::is_alive(record.pid, record.start_time) {
        let readable = |fd: RawFd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut entries = [readable(first.as_raw_fd()), readable(watch.as_ref().map_or(-1, Watch::as_raw_fd))];
        let left = next.saturating_duration_since(Instant::now()).as_millis();
        sys::poll(&mut entries, i32::try_from(left).unwrap_or(i32::MAX))
            .map_err(|errno| Error::call("waiting for events", errno))?;
        // Of the last want, which ends the container, version 2 may tell later than of the end.
        let may_be = entries.iter().any(|entry| entry.revents != 0);
        if may_be && watch.as_mut().is_some_and(Watch::look) {
            print(&json!({ "type": "oom", "id": id }).to_string())?;
        }
        if Instant::now() >= next {
            next += interval;
            tell(&record)?;
        }
    }
    Ok(0)
}

/// Numbers with units, as Go writes durations.
fn parse(text: &str) -> Result<Duration> {
    let duration = duration(text).filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| Error::new(format!("--interval {text}: not a time like 5s or 1m30s")))
}

fn duration(text: &str) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?);
        let end = behind.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let unit = match unit {
            "ns" => 1e-9,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        sum = sum.checked_add(Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()?)?;
        rest = behind;
    }
    Some(sum)
}

fn stats(record: &Record) -> Value {
    let groups = &record.cgroups;
    json!({
        "cpu": cpu(groups),
        "cpuset": cpuset(groups),
        "memory": memory(groups),
        "pids": pids(groups),
        "blkio": block_io(groups),
        "hugetlb": huge_pages(groups),
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

const MICROSECOND: u64 = 1000;
/// USER_HZ: what cpuacct.stat counts in, a hundred to the second.
const TICK: u64 = 10_000_000;

fn cpu(groups: &[Cgroup]) -> Value {
    let throttling = |group: &Path, unit: u64, time: &str| {
        json!({
            "periods": keyed(group, "cpu.stat", "nr_periods").unwrap_or(0),
            "throttledPeriods": keyed(group, "cpu.stat", "nr_throttled").unwrap_or(0),
            "throttledTime": keyed(group, "cpu.stat", time).unwrap_or(0) * unit,
        })
    };
    match (cgroups::of(groups, "cpu"), cgroups::of(groups, "cpuacct")) {
        (Some(group), _) if is_v2(group) => {
            let of = |key: &str| keyed(group, "cpu.stat", key).unwrap_or(0) * MICROSECOND;
            let usage = json!({ "total": of("usage_usec"), "kernel": of("system_usec"), "user": of("user_usec") });
            json!({ "usage": usage, "throttling": throttling(group, MICROSECOND, "throttled_usec") })
        }
        (cpu, Some(group)) => {
            let of = |key: &str| keyed(group, "cpuacct.stat", key).unwrap_or(0) * TICK;
            let each = fs::read_to_string(group.join("cpuacct.usage_percpu")).unwrap_or_default();
            let each: Vec<u64> = each.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let total = number(group, "cpuacct.usage").unwrap_or(0);
            let usage = json!({ "total": total, "percpu": each, "kernel": of("system"), "user": of("user") });
            let throttling = cpu.map_or_else(|| json!({}), |cpu| throttling(cpu, 1, "throttled_time"));
            json!({ "usage": usage, "throttling": throttling })
        }
        _ => json!({ "usage": {}, "throttling": {} }),
    }
}

fn memory(groups: &[Cgroup]) -> Value {
    let Some(group) = cgroups::of(groups, "memory") else { return json!({}) };
    let raw: Map<String, Value> = fs::read_to_string(group.join("memory.stat"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            line.split_once(' ').and_then(|(key, value)| Some((key.to_owned(), json!(value.parse::<u64>().ok()?))))
        })
        .collect();
    if is_v2(group) {
        let entry = |kind: &str| {
            let file = |name: &str| number(group, &format!("{kind}.{name}"));
            let failures = keyed(group, &format!("{kind}.events"), "max").unwrap_or(0);
            let (limit, max) = (file("max").unwrap_or(u64::MAX), file("peak").unwrap_or(0));
            json!({ "limit": limit, "usage": file("current").unwrap_or(0), "max": max, "failcnt": failures })
        };
        let cache = raw.get("file").cloned().unwrap_or(json!(0));
        return json!({ "cache": cache, "usage": entry("memory"), "swap": entry("memory.swap"), "raw": raw });
    }
    let entry = |kind: &str| {
        let file = |name: &str| number(group, &format!("{kind}.{name}")).unwrap_or(0);
        let (limit, usage) = (file("limit_in_bytes"), file("usage_in_bytes"));
        json!({ "limit": limit, "usage": usage, "max": file("max_usage_in_bytes"), "failcnt": file("failcnt") })
    };
    let cache = raw.get("cache").cloned().unwrap_or(json!(0));
    json!({
        "cache": cache,
        "usage": entry("memory"),
        "swap": entry("memory.memsw"),
        "kernel": entry("memory.kmem"),
        "kernelTCP": entry("memory.kmem.tcp"),
        "raw": raw,
    })
}

/// Files of version 1 and the names that runc gives them.
const CPUSET: [(&str, &str); 9] = [
    ("cpuset.cpu_exclusive", "cpu_exclusive"),
    ("cpuset.mem_hardwall", "mem_hardwall"),
    ("cpuset.mem_exclusive", "mem_exclusive"),
    ("cpuset.memory_migrate", "memory_migrate"),
    ("cpuset.memory_spread_page", "memory_spread_page"),
    ("cpuset.memory_spread_slab", "memory_spread_slab"),
    ("cpuset.memory_pressure", "memory_pressure"),
    ("cpuset.sched_load_balance", "sched_load_balance"),
    ("cpuset.sched_relax_domain_level", "sched_relax_domain_level"),
];

/// On version 2 runc tells nothing either.
fn cpuset(groups: &[Cgroup]) -> Value {
    let Some(group) = cgroups::of(groups, "cpuset").filter(|group| !is_v2(group)) else { return json!({}) };
    let text = |file: &str| fs::read_to_string(group.join(file)).unwrap_or_default();
    let mut cpuset = json!({ "cpus": members(&text("cpuset.cpus")), "mems": members(&text("cpuset.mems")) });
    for (file, name) in CPUSET {
        cpuset[name] = json!(text(file).trim().parse::<i64>().unwrap_or(0));
    }
    cpuset
}

/// Each number of a list like `0-3,7`.
fn members(list: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u16>().ok()?..=last.parse().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

/// By their size, as the kernel names it in the files' names: `hugetlb.2MB.max`.
fn huge_pages(groups: &[Cgroup]) -> Value {
    let mut sizes = Map::new();
    let Some(group) = cgroups::of(groups, "hugetlb") else { return Value::Object(sizes) };
    let (usage, max) = if is_v2(group) { ("current", None) } else { ("usage_in_bytes", Some("max_usage_in_bytes")) };
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let size = name.to_str().and_then(|name| name.strip_prefix("hugetlb.")?.strip_suffix(usage)?.strip_suffix('.'));
        let Some(size) = size.filter(|size| !size.contains('.')) else { continue };
        let file = |what: &str| number(group, &format!("hugetlb.{size}.{what}")).unwrap_or(0);
        let failures = keyed(group, &format!("hugetlb.{size}.events"), "max").unwrap_or_else(|| file("failcnt"));
        sizes.insert(size.to_owned(), json!({ "usage": file(usage), "max": max.map_or(0, file), "failcnt": failures }));
    }
    Value::Object(sizes)
}

fn pids(groups: &[Cgroup]) -> Value {
    let Some(group) = cgroups::of(groups, "pids") else { return json!({}) };
    let mut pids = json!({ "current": number(group, "pids.current").unwrap_or(0) });
    if let Some(limit) = number(group, "pids.max") {
        pids["limit"] = json!(limit);
    }
    pids
}

/// Bytes and requests a device: version 1 has a line `MAJOR:MINOR Read 4096` each, version 2 one with `rbytes=4096`.
fn block_io(groups: &[Cgroup]) -> Value {
    let Some(group) = cgroups::of(groups, "blkio").or_else(|| cgroups::of(groups, "io")) else { return json!({}) };
    if is_v2(group) {
        let lines = fs::read_to_string(group.join("io.stat")).unwrap_or_default();
        let entries = |read: &str, write: &str| -> Vec<Value> {
            lines.lines().flat_map(|line| v2_entries(line, read, write)).collect()
        };
        return json!({
            "ioServiceBytesRecursive": entries("rbytes", "wbytes"),
            "ioServicedRecursive": entries("rios", "wios"),
        });
    }
    let entries = |file: &str| -> Vec<Value> {
        let lines = fs::read_to_string(group.join(file)).unwrap_or_default();
        lines.lines().filter_map(v1_entry).collect()
    };
    json!({
        "ioServiceBytesRecursive": entries("blkio.throttle.io_service_bytes_recursive"),
        "ioServicedRecursive": entries("blkio.throttle.io_serviced_recursive"),
    })
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn v1_entry(line: &str) -> Option<Value> {
    let mut words = line.split(' ');
    let (major, minor) = device(words.next()?)?;
    let (op, value) = (words.next()?, words.next()?.parse::<u64>().ok()?);
    Some(json!({ "major": major, "minor": minor, "op": op, "value": value }))
}

fn v2_entries(line: &str, read: &str, write: &str) -> Vec<Value> {
    let mut words = line.split(' ');
    let Some((major, minor)) = words.next().and_then(device) else { return Vec::new() };
    let entry = |word: &str| {
        let (key, value) = word.split_once('=')?;
        let op = if key == read {
            "Read"
        } else if key == write {
            "Write"
        } else {
            return None;
        };
        Some(json!({ "major": major, "minor": minor, "op": op, "value": value.parse::<u64>().ok()? }))
    };
    words.filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_go() {
        for (text, milliseconds) in [("5s", 5_000), ("1m30s", 90_000), ("1.5s", 1_500), ("2h", 7_200_000), ("20ms", 20)]
        {
            assert_eq!(parse(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        for text in ["", "5", "s", "0s", "-1s", "1x", "1s2", "1.2.3s", "99999999999999999999h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_have_members() {
        assert_eq!(members("0-2,7\n"), [0, 1, 2, 7]);
        assert!(members("\n").is_empty());
    }

    #[test]
    fn both_versions_of_block_io_read_alike() {
        let expected = json!({ "major": 8, "minor": 16, "op": "Read", "value": 4096 });
        assert_eq!(v1_entry("8:16 Read 4096"), Some(expected.clone()));
        assert_eq!(v1_entry("Total 4096"), None);
        assert_eq!(v2_entries("8:16 rbytes=4096 rios=1 dios=0", "rbytes", "wbytes"), [expected]);
    }
}
