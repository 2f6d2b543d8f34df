//! Who gets what `linux.seccomp` notifies: the connection, and the container process state that goes ahead
//! (config-linux.md, "The Container Process State").

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use serde_json::json;

use crate::plan::{Op, Slot};
use crate::seccomp::Filter;
use crate::spec::{Spec, State};
use crate::sys::Errno;

use super::error::{Error, Result, describe};
use super::opened::Opened;
use super::start::Start;

const PATH: &str = "linux.seccomp.listenerPath";

/// An agent that waits.
#[derive(Debug)]
pub(super) struct Agent {
    connection: Slot,
    before: Vec<u8>,
    between: Vec<u8>,
}

impl Agent {
    /// `None` if nothing is notified: then the path means nothing.
    pub fn open(
        filter: Option<&Filter>,
        spec: &Spec<'_>,
        start: &Start<'_>,
        opened: &mut Opened,
    ) -> Result<Option<Self>> {
        let Some(notify) = filter.and_then(|filter| filter.notify.as_ref()) else { return Ok(None) };
        if start.lifecycle.is_none() {
            return Err(Error::spec(PATH, "system calls can't be handed to a listener"));
        }
        let connection = UnixStream::connect(&notify.path).map_err(|error| {
            let errno = Errno(error.raw_os_error().unwrap_or(0));
            Error::host(PATH, format!("{}: {}", notify.path, describe(errno))).hint("is the seccomp agent running?")
        })?;
        let connection = opened.add(OwnedFd::from(connection), format!("the seccomp agent {}", notify.path));
        let state = State::of(spec, &start.id, start.bundle.as_deref(), "creating").up_to_pid();
        let head = json!({ "ociVersion": &*spec.oci_version, "fds": ["seccompFd"], "metadata": notify.metadata });
        let mut between = head.to_string().into_bytes();
        between[0] = b',';
        let before = [b"{\"state\":".as_slice(), &state].concat();
        // The state ends after its process id; then comes the process id of the document, which is the same.
        let tail = [b"}".as_slice(), &between[..between.len() - 1], b",\"pid\":"].concat();
        Ok(Some(Self { connection, before, between: tail }))
    }

    /// Loads the filter.
    pub fn op<'o>(&'o self, filter: &'o Filter) -> Op<'o> {
        let Self { connection: agent, before, between } = self;
        // In one thread there is nothing to be kept in step, and the kernel takes the flag with no listener.
        const TSYNC: u64 = 1;
        let flags = filter.flags & !TSYNC;
        Op::LoadSeccompFor { flags, program: &filter.program, agent: *agent, before, between, after: b"}" }
    }
}
