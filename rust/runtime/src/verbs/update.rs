//! `update`: other limits for a container that is there, from a document like `linux.resources` or from flags.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use pyrt_container::compile;
use pyrt_container::host::Host;
use serde_json::{Value, json};

use crate::annals::Cgroup;
use crate::arguments::{Arguments, Global, Usage, valued};
use crate::cgroups;
use crate::config;
use crate::container::Status;
use crate::error::{Error, Result};

use super::find;

/// How it is called.
pub const USAGE: Usage = Usage {
    flags: &[
        valued("resources", "FILE", "a document like linux.resources (- is standard input), instead of all others")
            .or('r'),
        valued("memory", "BYTES", "limit of memory, also with a unit: 64m; -1 is none"),
        valued("memory-reservation", "BYTES", "what is left to it when memory is short"),
        valued("memory-swap", "BYTES", "limit of memory and swap together"),
        valued("cpu-period", "MICROSECONDS", "of which the quota is a part"),
        valued("cpu-quota", "MICROSECONDS", "processor time in a period"),
        valued("cpu-burst", "MICROSECONDS", "processor time saved up from earlier periods"),
        valued("cpu-share", "WEIGHT", "relative to other containers"),
        valued("cpu-rt-period", "MICROSECONDS", "of which the real-time quota is a part"),
        valued("cpu-rt-runtime", "MICROSECONDS", "real-time processor time in such a period"),
        valued("cpu-idle", "0|1", "1: only when nobody else wants to run"),
        valued("cpuset-cpus", "LIST", "processors, like 0-3,7"),
        valued("cpuset-mems", "LIST", "memory nodes, like 0-3,7"),
        valued("pids-limit", "NUMBER", "limit of processes; -1 is none"),
        valued("blkio-weight", "WEIGHT", "10 to 1000"),
        valued("kernel-memory", "BYTES", "accepted, changes nothing"),
        valued("kernel-memory-tcp", "BYTES", "accepted, changes nothing"),
        valued("l3-cache-schema", "SCHEMA", "not supported"),
        valued("mem-bw-schema", "SCHEMA", "not supported"),
    ],
    ..Usage::of("update", "change the limits of a container", "update --memory 64m --pids-limit 100 web")
};

/// A flag, and the field that it sets.
const NUMBERS: [(&str, &str); 12] = [
    ("cpu-period", "/cpu/period"),
    ("cpu-quota", "/cpu/quota"),
    ("cpu-burst", "/cpu/burst"),
    ("cpu-share", "/cpu/shares"),
    ("cpu-rt-period", "/cpu/realtimePeriod"),
    ("cpu-rt-runtime", "/cpu/realtimeRuntime"),
    ("cpu-idle", "/cpu/idle"),
    ("memory", "/memory/limit"),
    ("memory-reservation", "/memory/reservation"),
    ("memory-swap", "/memory/swap"),
    ("pids-limit", "/pids/limit"),
    ("blkio-weight", "/blockIO/weight"),
];
const TEXTS: [(&str, &str); 2] = [("cpuset-cpus", "/cpu/cpus"), ("cpuset-mems", "/cpu/mems")];

/// Of Intel's resource director, as `linux.intelRdt` is.
const REFUSED: [&str; 2] = ["l3-cache-schema", "mem-bw-schema"];
/// Kernels have lost them, and engines pass them still.
const IDLE: [&str; 2] = ["kernel-memory", "kernel-memory-tcp"];

/// Controller, file, value.
type Limit = (String, String, String);

/// The verb.
pub fn update(global: &Global, arguments: &Arguments) -> Result<u8> {
    let found = find(global, arguments.id()?)?;
    if matches!(found.status, Status::Stopped | Status::Creating) {
        return Err(Error::new(format!("container not running: it is {}", found.status.name())));
    }
    if let Some(flag) = REFUSED.into_iter().find(|flag| arguments.value(flag).is_some()) {
        return Err(Error::new(format!("--{flag}: not supported")));
    }
    for flag in IDLE.into_iter().filter(|flag| arguments.value(flag).is_some()) {
        global.log.warn(&Error::new(format!("--{flag}: kernels have no such limit any more, ignored")));
    }
    let resources = match arguments.value("resources") {
        Some("-") => {
            let mut text = Vec::new();
            std::io::stdin().read_to_end(&mut text).map_err(|error| Error::new(format!("standard input: {error}")))?;
            text
        }
        Some(path) => config::read(Path::new(path))?,
        None => from_flags(arguments)?.to_string().into_bytes(),
    };
    let resources = config::known_resources(resources, &global.log);
    let limits = compile::cgroup_limits(&resources, &Host::probe()?)?;
    if let Some(unit) = &found.record.unit {
        unit.change(&limits)?;
    }
    write(&found.record.cgroups, &limits)?;
    Ok(0)
}

fn from_flags(arguments: &Arguments) -> Result<Value> {
    let mut resources = json!({});
    let mut put = |pointer: &str, value: Value| {
        let mut parts = pointer.split('/').skip(1);
        if let (Some(group), Some(field)) = (parts.next(), parts.next()) {
            resources[group][field] = value;
        }
    };
    for (flag, pointer) in NUMBERS {
        let number = match arguments.value(flag) {
            Some(text) if flag.starts_with("memory") => Some(bytes(flag, text)?),
            _ => arguments.number::<i64>(flag)?,
        };
        if let Some(number) = number {
            put(pointer, json!(number));
        }
    }
    for (flag, pointer) in TEXTS {
        if let Some(text) = arguments.value(flag) {
            put(pointer, json!(text));
        }
    }
    Ok(resources)
}

/// A number of bytes, also with a unit, of 1024 each time: `64m`, `1GiB`. -1 is no limit.
fn bytes(flag: &str, text: &str) -> Result<i64> {
    let lower = text.to_ascii_lowercase();
    let end =
        lower.find(|letter: char| !letter.is_ascii_digit() && letter != '-' && letter != '.').unwrap_or(lower.len());
    let shift = match &lower[end..] {
        "" | "b" => Some(0),
        "k" | "kb" | "kib" => Some(10),
        "m" | "mb" | "mib" => Some(20),
        "g" | "gb" | "gib" => Some(30),
        "t" | "tb" | "tib" => Some(40),
        _ => None,
    };
    let number = shift.and_then(|shift| match lower[..end].parse::<i64>() {
        Ok(number) => number.checked_mul(1 << shift),
        Err(_) if lower[..end].contains('.') => scaled(&lower[..end], shift),
        Err(_) => None,
    });
    number.ok_or_else(|| Error::new(format!("--{flag} {text}: not a number of bytes")))
}

/// Of a number with a point.
fn scaled(text: &str, shift: u32) -> Option<i64> {
    let number = text.parse::<f64>().ok()? * f64::from(shift).exp2();
    (0.0..i64::MAX as f64).contains(&number).then_some(number as i64)
}

/// Writes all; what is refused is tried again when the rest is written. Memory may not be above memory and swap together,
/// nor a burst above a quota, at any moment: whether up or down, one of the two orders is right.
fn write(groups: &[Cgroup], limits: &[Limit]) -> Result<()> {
    let refused: Vec<&Limit> = limits.iter().filter(|limit| write_one(groups, limit).is_err()).collect();
    refused.into_iter().try_for_each(|limit| write_one(groups, limit))
}

fn write_one(groups: &[Cgroup], (controller, file, value): &Limit) -> Result<()> {
    let group = cgroups::of(groups, controller);
    let group = group.ok_or_else(|| Error::new(format!("{file}: the container has no cgroup of {controller}")))?;
    let path = group.join(file);
    fs::write(&path, value).map_err(|error| Error::file("writing", &path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_units() {
        for (text, number) in
            [("-1", -1), ("4096", 4096), ("64m", 64 << 20), ("64MiB", 64 << 20), ("1Gb", 1 << 30), ("1.5k", 1536)]
        {
            assert_eq!(bytes("memory", text).unwrap(), number, "{text}");
        }
        for text in ["", "m", "1.5.1g", ".", "1x", "99999999t"] {
            assert!(bytes("memory", text).is_err(), "{text}");
        }
    }
}
