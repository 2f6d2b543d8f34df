//! Priorities, processors and personality of a process, as the kernel's numbers.

use crate::spec::{IoPriority, MemoryPolicy, Personality, Process, Scheduler, Text};

use super::error::{Error, Result};
use super::limits::{MAX_CPUS, parse_list};

/// MIN_NICE and MAX_NICE of linux/sched/prio.h; the kernel takes what is beyond for the nearest of them.
const NICE: std::ops::RangeInclusive<i32> = -20..=19;

/// `struct sched_attr` (sched_setattr(2)).
pub(super) fn scheduler(given: &Scheduler<'_>, path: &str) -> Result<Vec<u8>> {
    let policy: u32 = match &*given.policy {
        "SCHED_OTHER" => 0,
        "SCHED_FIFO" => 1,
        "SCHED_RR" => 2,
        "SCHED_BATCH" => 3,
        "SCHED_IDLE" => 5,
        "SCHED_DEADLINE" => 6,
        other => return Err(Error::spec(format!("{path}.policy"), format!("{other:?} is no policy of this kernel"))),
    };
    let mut flags = 0u64;
    for (index, flag) in given.flags.iter().enumerate() {
        flags |= match &**flag {
            "SCHED_FLAG_RESET_ON_FORK" => 0x01,
            "SCHED_FLAG_RECLAIM" => 0x02,
            "SCHED_FLAG_DL_OVERRUN" => 0x04,
            "SCHED_FLAG_KEEP_POLICY" => 0x08,
            "SCHED_FLAG_KEEP_PARAMS" => 0x10,
            other => return Err(Error::spec(format!("{path}.flags[{index}]"), format!("{other:?}: not supported"))),
        };
    }
    let Ok(priority) = u32::try_from(given.priority) else {
        return Err(Error::spec(format!("{path}.priority"), format!("{} is below 0", given.priority)));
    };
    if !NICE.contains(&given.nice) {
        return Err(Error::spec(format!("{path}.nice"), format!("{} is not within -20 to 19", given.nice)));
    }
    const SIZE: u32 = 48;
    let mut attributes = Vec::with_capacity(SIZE as usize);
    attributes.extend_from_slice(&SIZE.to_ne_bytes());
    attributes.extend_from_slice(&policy.to_ne_bytes());
    attributes.extend_from_slice(&flags.to_ne_bytes());
    attributes.extend_from_slice(&given.nice.to_ne_bytes());
    attributes.extend_from_slice(&priority.to_ne_bytes());
    for time in [given.runtime, given.deadline, given.period] {
        attributes.extend_from_slice(&time.to_ne_bytes());
    }
    Ok(attributes)
}

/// The number that ioprio_set(2) takes.
pub(super) fn io_priority(given: &IoPriority<'_>, path: &str) -> Result<u32> {
    let class = match &*given.class {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => return Err(Error::spec(format!("{path}.class"), format!("{other:?} is no class"))),
    };
    if given.priority > 7 {
        return Err(Error::spec(format!("{path}.priority"), format!("{} is not within 0 to 7", given.priority)));
    }
    // IOPRIO_PRIO_VALUE (linux/ioprio.h).
    Ok(class << 13 | given.priority)
}

/// The number that personality(2) takes.
pub(super) fn persona(given: &Personality<'_>) -> Result<u64> {
    match &*given.domain {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        other => Err(Error::spec("linux.personality.domain", format!("{other:?} is neither LINUX nor LINUX32"))),
    }
}

/// Mode and nodes as set_mempolicy(2) takes them (linux/mempolicy.h).
pub(super) fn memory_policy(given: &MemoryPolicy<'_>) -> Result<(u32, Vec<u8>)> {
    const FIELD: &str = "linux.memoryPolicy";
    let (mode, wants_nodes) = match &*given.mode {
        "MPOL_DEFAULT" => (0, Some(false)),
        "MPOL_PREFERRED" => (1, None),
        "MPOL_BIND" => (2, Some(true)),
        "MPOL_INTERLEAVE" => (3, Some(true)),
        "MPOL_LOCAL" => (4, Some(false)),
        "MPOL_PREFERRED_MANY" => (5, Some(true)),
        "MPOL_WEIGHTED_INTERLEAVE" => (6, Some(true)),
        other => return Err(Error::spec(format!("{FIELD}.mode"), format!("{other:?} is no mode"))),
    };
    let mut flags = 0u32;
    for (index, flag) in given.flags.iter().enumerate() {
        flags |= match &**flag {
            "MPOL_F_NUMA_BALANCING" => 1 << 13,
            "MPOL_F_RELATIVE_NODES" => 1 << 14,
            "MPOL_F_STATIC_NODES" => 1 << 15,
            other => return Err(Error::spec(format!("{FIELD}.flags[{index}]"), format!("{other:?} is no flag"))),
        };
    }
    let nodes = given.nodes.as_deref().filter(|nodes| !nodes.is_empty());
    let field = || format!("{FIELD}.nodes");
    match (nodes, wants_nodes) {
        (Some(_), Some(false)) => Err(Error::spec(field(), format!("{} takes no nodes", &*given.mode))),
        (None, Some(true)) => Err(Error::spec(field(), format!("missing: {} needs at least one", &*given.mode))),
        (nodes, _) => {
            let numbers = nodes.map(parse_list).transpose().map_err(|message| Error::spec(field(), message))?;
            Ok((mode | flags, bits(&numbers.unwrap_or_default())))
        }
    }
}

/// Masks of `execCPUAffinity`: before and after the process joins its cgroup.
pub(super) fn affinity(process: &Process<'_>, path: &str) -> Result<[Option<Vec<u8>>; 2]> {
    let Some(given) = &process.exec_cpu_affinity else { return Ok([None, None]) };
    let mask = |list: &Option<Text<'_>>, name: &str| match list.as_deref().filter(|list| !list.is_empty()) {
        None => Ok(None),
        Some(list) => {
            let numbers = parse_list(list).map_err(|message| Error::spec(format!("{path}.{name}"), message))?;
            Ok(Some(bits(&numbers)))
        }
    };
    Ok([mask(&given.initial, "initial")?, mask(&given.last, "final")?])
}

/// Bits in longs, as sched_setaffinity(2) and set_mempolicy(2) take them.
fn bits(numbers: &[usize]) -> Vec<u8> {
    let mut mask = vec![0; MAX_CPUS / 8];
    numbers.iter().for_each(|number| mask[number / 8] |= 1 << (number % 8));
    let used = mask.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    mask.truncate(used.next_multiple_of(size_of::<u64>()));
    mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_whole_words() {
        assert_eq!(bits(&[0, 9]), [1, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bits(&[64]).len(), 16);
    }

    #[test]
    fn priorities_are_the_kernels_numbers() {
        let json = r#"{"class": "IOPRIO_CLASS_BE", "priority": 4}"#;
        assert_eq!(io_priority(&serde_json::from_str(json).unwrap(), "p").unwrap(), 0x4004);
        let json = r#"{"policy": "SCHED_BATCH", "nice": -5}"#;
        let attributes = scheduler(&serde_json::from_str(json).unwrap(), "p").unwrap();
        assert_eq!((attributes.len(), attributes[4], attributes[16]), (48, 3, 0xfb));
    }
}
