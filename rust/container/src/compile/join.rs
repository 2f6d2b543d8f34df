//! One more process in a running container: it joins what the first one has.

use crate::plan::{Op, Slot};
use crate::spec::NamespaceKind;

use super::cgroups::Placement;
use super::identity::{Identity, write_become_root};
use super::ids::Ids;
use super::namespaces::Namespaces;
use super::opened::Writer;
use super::start::Start;
use super::{write_keyring, write_placement};

/// Both lists.
pub(super) fn write(
    (namespaces, ids): (&Namespaces, &Ids<'_>),
    (first, root): (Slot, Option<Slot>),
    placement: &Placement,
    identity: &Identity<'_>,
    start: &Start<'_>,
    writer: &mut Writer,
) {
    if namespaces.is_own(NamespaceKind::Pid) {
        writer.plan.keeper(Op::JoinPidNamespace { pidfd: first });
    }
    writer.plan.keeper(Op::Clone { flags: 0, cgroup: placement.clone_into });
    let attributes = identity.write_keeper(writer);
    identity.write_gifts(writer);
    writer.plan.keeper(Op::Release {});
    identity.write_note(writer);
    identity.write_first_affinity(writer);
    writer.plan.child(Op::DieWithKeeper {});
    write_placement(placement, writer);
    if namespaces.join_flags() != 0 {
        writer.plan.child(Op::JoinNamespaces { fd: first, flags: namespaces.join_flags() });
    }
    if let Some(root) = root {
        writer.plan.child(Op::TakeRoot { root });
    }
    writer.plan.child(Op::AwaitKeeper {});
    if ids.mapped {
        write_become_root(writer);
    }
    writer.plan.child(Op::NewSession {});
    write_keyring(start, writer);
    identity.write_stdio(false, writer);
    identity.write_last_affinity(writer);
    identity.write_bounding_set(writer);
    identity.write_last(attributes, false, writer);
}
