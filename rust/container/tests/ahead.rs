//! What is left of a child that was begun and is not needed, or whose helper or keeper is killed. Needs root. Alone in its
//! process: it looks at all children.

use pyrt_container::execute::{self, Ahead};
use pyrt_container::plan::{Builder, Op, Part, Plan, TextsBuf};
use pyrt_container::sys::{self, Errno};

/// Each comes at another moment.
const KILLS: usize = 100;
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

/// Children are listed by their age, and those that have ended with them until they are waited for.
fn eldest_child() -> i32 {
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap();
    children.split_whitespace().next().unwrap().parse().unwrap()
}

/// Killed before it has cloned the child, while it does or after that.
fn kill_helper() {
    let ahead = Ahead::begin(FLAGS).unwrap();
    sys::kill(eldest_child(), libc::SIGKILL).unwrap();
    drop(ahead);
    assert_childless();
}

/// The same of a keeper. Helper and child are ours when it is gone, and end.
fn kill_keeper() {
    // SAFETY: glibc's fork leaves its allocator usable, and the fork does not come back from here.
    if unsafe { libc::fork() } == 0 {
        let _ahead = Ahead::begin(FLAGS);
        let _ = sys::kill(sys::pid(), libc::SIGKILL);
    }
    while sys::wait(-1, true).is_ok() {}
}

#[test]
fn nothing() {
    drop(Ahead::begin(FLAGS).unwrap());
    assert_childless();
    let bytes = failing_plan();
    let plan = Plan::parse(&bytes).unwrap();
    assert_eq!(plan.clones_ahead(), Some(FLAGS));
    for ahead in [None, Ahead::begin(FLAGS).unwrap(), Ahead::begin(FLAGS | libc::CLONE_NEWUTS as u64).unwrap()] {
        let failed = execute::start(&plan, &[0, 1, 2], ahead, &mut |_| ()).unwrap_err();
        assert_eq!((failed.part, failed.index, failed.errno), (Part::Keeper, 0, Errno(libc::EBADF)));
    }
    assert_childless();
    sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0).unwrap();
    // SAFETY: alarm(2) takes a number. Whoever stays would be waited for without end.
    unsafe { libc::alarm(60) };
    for _ in 0..KILLS {
        kill_helper();
        kill_keeper();
    }
}
