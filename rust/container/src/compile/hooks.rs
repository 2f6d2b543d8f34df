//! Hooks: programs of the host that the specification wants to be run while a container is made.
//!
//! Each is told the state of the container on standard input. The process id in it is known to the executor alone,
//! so the document is cut in two there. Those after the start and after the end are the caller's to run.

use std::ffi::CString;

use crate::plan::{Op, Slot, TextsBuf};
use crate::spec::{Hook, Spec, State, Text};

use super::error::{Error, Result};
use super::opened::Writer;
use super::paths::c;
use super::start::Start;

/// A checked hook.
#[derive(Debug)]
pub(super) struct Ready {
    path: CString,
    arguments: TextsBuf,
    environment: TextsBuf,
    before: Vec<u8>,
    timeout: u32,
}

/// The hooks that a plan runs.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    /// By the keeper, when all but the change of root is done.
    pub keeper: Vec<Ready>,
    /// By the child, at the same time.
    pub container: Vec<Ready>,
    /// By the child, when it is started.
    pub start: Vec<Ready>,
}

/// After the process id: nothing but the end of the document.
const AFTER: &[u8] = b"}";

impl Hooks {
    /// Checks all hooks, also those that are the caller's to run.
    pub fn of(spec: &Spec<'_>, start: &Start<'_>) -> Result<Self> {
        let mut hooks = Self::default();
        let Some(given) = &spec.hooks else { return Ok(hooks) };
        let kinds = [
            ("prestart", &given.prestart),
            ("createRuntime", &given.create_runtime),
            ("createContainer", &given.create_container),
            ("startContainer", &given.start_container),
            ("poststart", &given.poststart),
            ("poststop", &given.poststop),
        ];
        for (kind, list) in kinds {
            for (index, hook) in list.iter().enumerate() {
                if start.lifecycle.is_none() {
                    return Err(Error::spec(format!("hooks.{kind}"), "not supported"));
                }
                // runtime.md, "State": created is what comes after step 2 of the lifecycle, and hooks begin at step 3.
                let before = State::of(spec, &start.id, start.bundle.as_deref(), "created").up_to_pid();
                let ready = ready(hook, &format!("hooks.{kind}[{index}]"), before)?;
                match kind {
                    "prestart" | "createRuntime" => hooks.keeper.push(ready),
                    "createContainer" => hooks.container.push(ready),
                    "startContainer" => hooks.start.push(ready),
                    _ => {}
                }
            }
        }
        Ok(hooks)
    }

    /// Whether any wants to see the mounts before the root is changed.
    pub fn come_before_pivot(&self) -> bool {
        !self.keeper.is_empty() || !self.container.is_empty()
    }

    /// The keeper's part, while the child waits.
    pub fn write_keeper(&self, writer: &mut Writer) {
        if self.come_before_pivot() {
            writer.plan.keeper(Op::AwaitChild {});
            self.keeper.iter().for_each(|hook| writer.plan.keeper(hook.op(None)));
            writer.plan.keeper(Op::Release {});
        }
    }

    /// The child's part, before the root is changed; `host` is the root that the programs lie below.
    pub fn write_child(&self, host: Slot, writer: &mut Writer) {
        if !self.come_before_pivot() {
            return;
        }
        writer.plan.child(Op::CallKeeper {});
        writer.plan.child(Op::AwaitKeeper {});
        self.container.iter().for_each(|hook| writer.plan.child(hook.op(Some(host))));
    }
}

impl Ready {
    pub fn op(&self, root: Option<Slot>) -> Op<'_> {
        let (arguments, environment) = (self.arguments.as_texts(), self.environment.as_texts());
        Op::RunHook {
            path: &self.path,
            arguments,
            environment,
            before: &self.before,
            after: AFTER,
            timeout: self.timeout,
            root,
        }
    }
}

fn ready(hook: &Hook<'_>, field: &str, before: Vec<u8>) -> Result<Ready> {
    if !hook.path.starts_with('/') {
        return Err(Error::spec(format!("{field}.path"), format!("{:?} is not an absolute path", &*hook.path)));
    }
    let timeout = match hook.timeout {
        None => 0,
        Some(seconds) if seconds > 0 => u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(1000),
        Some(seconds) => return Err(Error::spec(format!("{field}.timeout"), format!("{seconds} is not above 0"))),
    };
    let texts = |list: &[Text<'_>]| list.iter().map(Text::to_c_string).collect::<Vec<_>>();
    let collect = |list: &[CString]| list.iter().map(CString::as_c_str).collect::<TextsBuf>();
    let (arguments, environment) = (texts(&hook.args), texts(&hook.env));
    let path = c(&hook.path);
    // Without arguments the name is the path, as execv(3) wants one.
    let arguments = if arguments.is_empty() { vec![path.clone()] } else { arguments };
    Ok(Ready { path, arguments: collect(&arguments), environment: collect(&environment), before, timeout })
}
