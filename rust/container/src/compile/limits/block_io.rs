//! `linux.resources.blockIO`: shares of devices, which the scheduler BFQ or the controller iocost gives, and rates.

use crate::compile::error::Result;
use crate::spec::{BlockIo, DeviceRate};

use super::{Setting, refuse, setting};

/// The four lists of rates: field, file of version 1, key of version 2's io.max.
fn rates(io: &BlockIo) -> [(&'static str, &'static str, &'static str, &[DeviceRate]); 4] {
    [
        ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps", &io.throttle_read_bps_device),
        ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps", &io.throttle_write_bps_device),
        ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops", &io.throttle_read_iops_device),
        ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops", &io.throttle_write_iops_device),
    ]
}

/// Files of version 1. Its scheduler CFQ, and blkio.weight with it, went in Linux 5.0; BFQ's files are named after it.
pub(super) fn v1(io: &BlockIo, settings: &mut Vec<Setting>) -> Result<()> {
    for (device, weight, field) in weights(io)? {
        let setting = match device {
            None => setting("blkio", "blkio.bfq.weight", weight, &field),
            Some(device) => setting("blkio", "blkio.bfq.weight_device", format!("{device} {weight}"), &field),
        };
        settings.push(setting);
    }
    for (list, file, _, rates) in rates(io) {
        for (index, rate) in rates.iter().enumerate() {
            let field = format!("blockIO.{list}[{index}]");
            let device = device(rate.major, rate.minor, &field)?;
            settings.push(setting("blkio", file, format!("{device} {}", rate.rate), &field));
        }
    }
    Ok(())
}

/// Files of version 2: BFQ's if it is there, as runc has it, else iocost's, which counts to ten thousand.
pub(super) fn v2(io: &BlockIo, settings: &mut Vec<Setting>) -> Result<()> {
    for (device, weight, field) in weights(io)? {
        let whose = device.unwrap_or_else(|| "default".to_owned());
        let mut setting = setting("io", "io.bfq.weight", format!("{whose} {weight}"), &field);
        setting.otherwise = Some(("io.weight".to_owned(), format!("{whose} {}", of_ten_thousand(weight))));
        settings.push(setting);
    }
    for (list, _, key, rates) in rates(io) {
        for (index, rate) in rates.iter().enumerate() {
            let field = format!("blockIO.{list}[{index}]");
            let device = device(rate.major, rate.minor, &field)?;
            let value = if rate.rate == 0 { "max".to_owned() } else { rate.rate.to_string() };
            settings.push(setting("io", "io.max", format!("{device} {key}={value}"), &field));
        }
    }
    Ok(())
}

/// Device (none: all), weight, field.
fn weights(io: &BlockIo) -> Result<Vec<(Option<String>, u16, String)>> {
    let mut weights = Vec::new();
    // Go programs write 0 for what they leave out.
    if let Some(weight) = io.weight.filter(|&weight| weight != 0) {
        weights.push((None, check(weight, "blockIO.weight")?, "blockIO.weight".to_owned()));
    }
    for (index, given) in io.weight_device.iter().enumerate() {
        let field = format!("blockIO.weightDevice[{index}]");
        let device = device(given.major, given.minor, &field)?;
        let Some(weight) = given.weight.filter(|&weight| weight != 0) else { continue };
        weights.push((Some(device), check(weight, &format!("{field}.weight"))?, format!("{field}.weight")));
    }
    Ok(weights)
}

fn check(weight: u16, field: &str) -> Result<u16> {
    if (10..=1000).contains(&weight) {
        return Ok(weight);
    }
    Err(refuse(field, &format!("{weight} is not within 10 to 1000")))
}

/// The straight line of the specification's notes on version 2: 10 to 1000 becomes 1 to 10000.
fn of_ten_thousand(weight: u16) -> u32 {
    1 + (u32::from(weight) - 10) * 9999 / 990
}

fn device(major: i64, minor: i64, field: &str) -> Result<String> {
    for (number, name) in [(major, "major"), (minor, "minor")] {
        if u32::try_from(number).is_err() {
            return Err(refuse(&format!("{field}.{name}"), &format!("{number} is no device number")));
        }
    }
    Ok(format!("{major}:{minor}"))
}
