//! Host and domain name.

use crate::plan::Op;
use crate::spec::{NamespaceKind, Spec};

use super::error::{Error, Result};
use super::namespaces::Namespaces;
use super::opened::Writer;

/// __NEW_UTS_LEN (linux/utsname.h).
const LONGEST: usize = 64;

/// Checks both names.
pub(super) fn check(spec: &Spec<'_>, namespaces: &Namespaces) -> Result<()> {
    for (name, field) in [(&spec.hostname, "hostname"), (&spec.domainname, "domainname")] {
        let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else { continue };
        if name.len() > LONGEST {
            return Err(Error::spec(field, format!("longer than {LONGEST} bytes")));
        }
        if !namespaces.is_own(NamespaceKind::Uts) {
            return Err(Error::spec(field, "needs a uts namespace, or it would be the host's"));
        }
    }
    Ok(())
}

/// The child's part.
pub(super) fn write(spec: &Spec<'_>, writer: &mut Writer) {
    if let Some(name) = spec.hostname.as_deref().filter(|name| !name.is_empty()) {
        writer.plan.child(Op::SetHostname { name: name.as_bytes() });
    }
    if let Some(name) = spec.domainname.as_deref().filter(|name| !name.is_empty()) {
        writer.plan.child(Op::SetDomainname { name: name.as_bytes() });
    }
}
