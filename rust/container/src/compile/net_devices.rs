//! `linux.netDevices`: devices of the host that become the container's.

use std::ffi::CString;

use crate::plan::{Op, Slot};
use crate::spec::{Linux, NamespaceKind};

use super::error::{Error, Result};
use super::namespaces::{Namespaces, Origin};
use super::opened::Writer;

/// IFNAMSIZ of linux/if.h, without the NUL.
const LONGEST: usize = 15;

/// Checked names, and where the devices go.
#[derive(Debug)]
pub(super) struct NetDevices {
    namespace: Option<Slot>,
    devices: Vec<(CString, CString)>,
}

impl NetDevices {
    /// Whether the host has them is found when they are moved.
    pub fn of(linux: &Linux<'_>, namespaces: &Namespaces) -> Result<Self> {
        let mut devices: Vec<(CString, CString)> = Vec::new();
        for (name, device) in linux.net_devices.iter() {
            let field = format!("linux.netDevices.{name}");
            check(name, &field)?;
            let inside = device.name.as_ref().filter(|inside| !inside.is_empty()).unwrap_or(name);
            let at = format!("{field}.name");
            check(inside, &at)?;
            let (name, inside) = (name.to_c_string(), inside.to_c_string());
            if !inside.as_bytes().contains(&b'%') && devices.iter().any(|(_, taken)| *taken == inside) {
                return Err(Error::spec(at, "another device gets this name"));
            }
            devices.push((name, inside));
        }
        let namespace = match namespaces.of(NamespaceKind::Network) {
            Origin::Host if !devices.is_empty() => {
                let message = "needs a network namespace: the devices are in the host's already";
                return Err(Error::spec("linux.netDevices", message));
            }
            Origin::Joined(slot) => Some(slot),
            _ => None,
        };
        Ok(Self { namespace, devices })
    }

    /// The keeper's part, once there is a child.
    pub fn write(&self, writer: &mut Writer) {
        for (name, inside) in &self.devices {
            writer.plan.keeper(Op::MoveNetDevice { namespace: self.namespace, name, inside });
        }
    }
}

/// dev_valid_name() of the kernel, and its template.
fn check(name: &str, field: &str) -> Result<()> {
    let odd = |letter: char| letter == '/' || letter == ':' || letter.is_whitespace();
    let template = name.contains('%') && (name.matches('%').count() != 1 || !name.contains("%d"));
    if name.is_empty() || name.len() > LONGEST || matches!(name, "." | "..") || name.contains(odd) || template {
        return Err(Error::spec(field, format!("{name:?} is no name of a network device")));
    }
    Ok(())
}
