//! What is left of a child that was begun and is not needed. Needs root. Alone in its process: it looks at all children.

use pyrt_container::execute::{self, Ahead};
use pyrt_container::plan::{Builder, Op, Part, Plan, TextsBuf};
use pyrt_container::sys::{self, Errno};

const FLAGS: u64 = (libc::CLONE_NEWPID | libc::CLONE_NEWNS) as u64;

fn assert_childless() {
    assert_eq!(sys::wait(-1, false).err(), Some(Errno(libc::ECHILD)));
}

/// Its first step can't be done.
fn failing_plan() -> Vec<u8> {
    let mut plan = Builder::default();
    let (dir, out) = (plan.slot(), plan.slot());
    plan.keeper(Op::OpenAt { dir, name: c"tasks", flags: libc::O_RDONLY, out });
    plan.keeper(Op::Clone { flags: FLAGS, cgroup: None });
    let words: TextsBuf = [c"/bin/true"].into_iter().collect();
    let words = words.as_texts();
    plan.child(Op::Exec { candidates: words, arguments: words, environment: words });
    plan.finish()
}

#[test]
fn nothing() {
    drop(Ahead::begin(FLAGS).unwrap());
    assert_childless();
    let bytes = failing_plan();
    let plan = Plan::parse(&bytes).unwrap();
    assert_eq!(plan.clones_ahead(), Some(FLAGS));
    for ahead in [None, Ahead::begin(FLAGS).unwrap(), Ahead::begin(FLAGS | libc::CLONE_NEWUTS as u64).unwrap()] {
        let failed = execute::start(&plan, &[0, 1, 2], ahead).unwrap_err();
        assert_eq!((failed.part, failed.index, failed.errno), (Part::Keeper, 0, Errno(libc::EBADF)));
    }
    assert_childless();
}
