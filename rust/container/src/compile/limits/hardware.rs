//! Limits of what a machine has few of, huge pages and RDMA handles, and marks on the packets that it sends.

use crate::compile::error::Result;
use crate::spec::Resources;

use super::{Setting, only_v1, refuse, setting};

/// Files of version 1.
pub(super) fn v1(resources: &Resources<'_>, settings: &mut Vec<Setting>) -> Result<()> {
    huge_pages(resources, ["rsvd.limit_in_bytes", "limit_in_bytes"], settings)?;
    rdma(resources, settings)?;
    let Some(network) = &resources.network else { return Ok(()) };
    // 0 is what a new group has.
    if let Some(class) = network.class_id.filter(|&class| class != 0) {
        settings.push(setting("net_cls", "net_cls.classid", class, "network.classID"));
    }
    for (index, given) in network.priorities.iter().enumerate() {
        let field = format!("network.priorities[{index}]");
        check_word(&given.name, &format!("{field}.name"))?;
        settings.push(setting("net_prio", "net_prio.ifpriomap", format!("{} {}", given.name, given.priority), &field));
    }
    Ok(())
}

/// Files of version 2, where firewalls match on the group itself and nobody marks packets.
pub(super) fn v2(resources: &Resources<'_>, settings: &mut Vec<Setting>) -> Result<()> {
    huge_pages(resources, ["rsvd.max", "max"], settings)?;
    rdma(resources, settings)?;
    match &resources.network {
        Some(network) if network.class_id.is_some_and(|class| class != 0) => Err(only_v1("network.classID")),
        Some(network) if !network.priorities.is_empty() => Err(only_v1("network.priorities")),
        _ => Ok(()),
    }
}

/// What is reserved and what is used (the specification: reservation, where the kernel counts it; ours all do).
fn huge_pages(resources: &Resources<'_>, files: [&str; 2], settings: &mut Vec<Setting>) -> Result<()> {
    for (index, given) in resources.hugepage_limits.iter().enumerate() {
        let field = format!("hugepageLimits[{index}]");
        let size = &*given.page_size;
        if !is_page_size(size) {
            let message = format!("{size:?} is no size like 64KB, 2MB, 1GB");
            return Err(refuse(&format!("{field}.pageSize"), &message));
        }
        settings.extend(files.map(|file| setting("hugetlb", &format!("hugetlb.{size}.{file}"), given.limit, &field)));
    }
    Ok(())
}

fn is_page_size(size: &str) -> bool {
    let number = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit));
    number.is_some_and(|number| number.parse::<u32>().is_ok_and(|parsed| parsed.to_string() == number))
}

fn rdma(resources: &Resources<'_>, settings: &mut Vec<Setting>) -> Result<()> {
    for (device, limits) in resources.rdma.iter() {
        let field = format!("rdma.{device}");
        check_word(device, &field)?;
        let parts = [("hca_handle", limits.hca_handles), ("hca_object", limits.hca_objects)];
        let parts = parts.iter().filter_map(|(key, limit)| limit.map(|limit| format!(" {key}={limit}")));
        let limits: String = parts.collect();
        if limits.is_empty() {
            return Err(refuse(&field, "neither hcaHandles nor hcaObjects is given"));
        }
        settings.push(setting("rdma", "rdma.max", format!("{device}{limits}"), &field));
    }
    Ok(())
}

/// A name that goes into a line of words.
fn check_word(name: &str, field: &str) -> Result<()> {
    if !name.is_empty() && !name.contains(|letter: char| letter.is_whitespace()) {
        return Ok(());
    }
    Err(refuse(field, &format!("{name:?} is no name of a device")))
}
