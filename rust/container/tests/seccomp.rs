//! The kernel takes the filters and does what they say: a forked child loads one and tries.

use std::io::Read;
use std::os::fd::FromRawFd;

use pyrt_container::{seccomp, sys};

/// A call and the error number that it should come back with, 0 for none.
type Probe = (i64, [i64; 6], i32);

/// Runs `probes` in a child under `filter`; returns the error numbers, fewer if the child was ended.
fn under(filter: &seccomp::Filter, probes: &[Probe]) -> (Vec<i32>, sys::Ended) {
    let [reader, writer] = sys::pipe().unwrap();
    // SAFETY: the child makes plain system calls only, then exits without running anything of this process.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let loaded =
            sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).and_then(|()| sys::load_seccomp(filter.flags, &filter.program));
        if loaded.is_err() {
            sys::exit(99);
        }
        for (number, arguments, _) in probes {
            let [a, b, c, d, e, f] = *arguments;
            // SAFETY: the probes are calls that are refused, or that touch nothing with these arguments.
            let result = unsafe { libc::syscall(*number, a, b, c, d, e, f) };
            // SAFETY: the location of this thread's errno is always valid.
            let errno = if result < 0 { unsafe { *libc::__errno_location() } } else { 0 };
            let _ = sys::write(writer, &errno.to_ne_bytes());
        }
        sys::exit(0);
    }
    sys::close(writer);
    let mut bytes = Vec::new();
    // SAFETY: the descriptor is ours and nobody else's.
    unsafe { std::fs::File::from_raw_fd(reader) }.read_to_end(&mut bytes).unwrap();
    let ended = sys::wait(pid, true).unwrap().unwrap();
    (bytes.chunks_exact(4).map(|word| i32::from_ne_bytes(word.try_into().unwrap())).collect(), ended)
}

fn compile(rules: &str) -> seccomp::Filter {
    seccomp::compile(&format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{rules}]}}"#)).unwrap()
}

const NEEDED: &str = r#"{"names":["write","exit_group","close","getpid"],"action":"SCMP_ACT_ALLOW"}"#;

#[test]
fn the_kernel_answers_as_the_rules_say() {
    let filter = compile(&format!(
        r#"{NEEDED},
        {{"names":["uname"],"action":"SCMP_ACT_ERRNO","errnoRet":71}},
        {{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[
            {{"index":0,"value":1,"op":"SCMP_CMP_EQ"}},
            {{"index":1,"value":15,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"}}]}},
        {{"names":["ioctl"],"action":"SCMP_ACT_ALLOW"}},
        {{"names":["ioctl"],"action":"SCMP_ACT_ERRNO","args":[
            {{"index":1,"value":4294967295,"valueTwo":21522,"op":"SCMP_CMP_MASKED_EQ"}}]}}"#
    ));
    let probes = [
        (libc::SYS_getpid, [0; 6], 0),
        (libc::SYS_getppid, [0; 6], libc::EPERM),
        (libc::SYS_uname, [0; 6], libc::EREMOTE + 5),
        (libc::SYS_socket, [1, 1, 0, 0, 0, 0], 0),
        (libc::SYS_socket, [1, 1 | libc::SOCK_CLOEXEC as i64, 0, 0, 0, 0], 0),
        (libc::SYS_socket, [1, 2, 0, 0, 0, 0], libc::EPERM),
        (libc::SYS_socket, [2, 1, 0, 0, 0, 0], libc::EPERM),
        (libc::SYS_socket, [1 | 1 << 32, 1, 0, 0, 0, 0], libc::EPERM),
        (libc::SYS_ioctl, [-1, 0x5401, 0, 0, 0, 0], libc::EBADF),
        (libc::SYS_ioctl, [-1, 0x5412, 0, 0, 0, 0], libc::EPERM),
        (libc::SYS_ioctl, [-1, 0x5412 | 1 << 40, 0, 0, 0, 0], libc::EPERM),
        (9999, [0; 6], libc::ENOSYS),
    ];
    let (errors, ended) = under(&filter, &probes);
    assert_eq!(ended.code, Some(0));
    assert_eq!(errors, probes.map(|(_, _, errno)| errno));
}

#[test]
fn a_call_that_kills_does() {
    let filter = compile(&format!(r#"{NEEDED},{{"names":["getppid"],"action":"SCMP_ACT_KILL_PROCESS"}}"#));
    let (errors, ended) = under(&filter, &[(libc::SYS_getpid, [0; 6], 0), (libc::SYS_getppid, [0; 6], 0)]);
    assert_eq!((errors, ended.signal), (vec![0], Some(libc::SIGSYS)));
}

#[test]
fn the_longest_program_loads() {
    let rules: Vec<_> = (0..790)
        .map(|value| {
            format!(
                r#"{{"names":["getppid"],"action":"SCMP_ACT_ERRNO","errnoRet":{value},
                     "args":[{{"index":3,"value":{value},"op":"SCMP_CMP_EQ"}}]}}"#
            )
        })
        .collect();
    let filter = compile(&format!("{NEEDED},{}", rules.join(",")));
    assert!(filter.program.len() / 8 > 3900);
    let (errors, ended) = under(&filter, &[(libc::SYS_getppid, [0, 0, 0, 500, 0, 0], 500)]);
    assert_eq!((errors, ended.code), (vec![500], Some(0)));
}

/// `PYRT_PROFILE=profile.json cargo test --release -p pyrt-container --test seccomp -- --ignored --nocapture`
#[test]
#[ignore = "a measurement, of the profile in the file that PYRT_PROFILE names"]
fn how_long_it_takes() {
    let json = std::fs::read_to_string(std::env::var_os("PYRT_PROFILE").expect("PYRT_PROFILE")).unwrap();
    let mut spaced = json.clone();
    let compiled = quickest(|| {
        // Another text of the same meaning, so that nothing is remembered.
        spaced.push(' ');
        seccomp::compile(&spaced).unwrap();
    });
    let filter = seccomp::compile(&json).unwrap();
    let recalled = quickest(|| drop(seccomp::compile(&json).unwrap()));
    println!("{} instructions; compiled in {compiled:?}, recalled in {recalled:?}", filter.program.len() / 8);
    let [reader, writer] = sys::pipe().unwrap();
    for _ in 0..5 {
        // SAFETY: as in `under`.
        if unsafe { libc::fork() } == 0 {
            let _ = sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0);
            let before = sys::monotonic();
            let loaded = sys::load_seccomp(filter.flags, &filter.program);
            let taken = sys::monotonic() - before;
            let _ = sys::write(writer, &taken.to_ne_bytes());
            sys::exit(i32::from(loaded.is_err()));
        }
        let mut taken = [0; 8];
        sys::read(reader, &mut taken).unwrap();
        let ended = sys::wait(-1, true).unwrap().unwrap();
        println!("loaded in {} us (exit code {:?})", u64::from_ne_bytes(taken) / 1000, ended.code);
    }
}

fn quickest(mut work: impl FnMut()) -> std::time::Duration {
    let once = |_| {
        let before = std::time::Instant::now();
        work();
        before.elapsed()
    };
    (0..50).map(once).min().unwrap()
}
