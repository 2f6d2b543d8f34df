//! The keeper: makes one container, is the parent of its PID 1, and tells the engine what becomes of it.
//!
//! The words between the two are drawn in `pyrt_container::protocol`.

use pyrt_container::execute::{self, Failed, Running};
use pyrt_container::plan::{Part, Plan};
use pyrt_container::protocol::{MAX_DESCRIPTORS, Report, Start};
use pyrt_container::sys::{self, Errno, Fd};

/// The first two descriptors of a `Start`; the container's follow.
const PLAN: usize = 0;
const CONTROL: usize = 1;
const CONTAINER: usize = 2;

/// Waits for one `Start` on the engine's socket and serves that container to its end.
pub fn main(engine: Fd, token: Fd) -> ! {
    let mut message = [0; 64];
    let mut descriptors = [-1; MAX_DESCRIPTORS];
    let received = sys::receive_packet(engine, &mut message, &mut descriptors);
    let begun = sys::monotonic();
    // The spawner may fork the next one.
    let _ = sys::write(token, b"!");
    sys::close(token);
    sys::close(engine);
    let _ = sys::prctl(libc::PR_SET_NAME, c"pyrt-keeper".as_ptr() as u64, 0);
    // Ignored in the spawner, which would keep us from learning how the container ended.
    default_sigchld();
    match received {
        Ok((length, passed)) if length > 0 && passed > CONTAINER => {
            keep(&message[..length], &descriptors[..passed], begun);
            sys::exit(0)
        }
        // The engine is gone, or sent what no engine of ours sends.
        _ => sys::exit(0),
    }
}

fn default_sigchld() {
    // SAFETY: SIG_DFL installs no code.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

fn keep(message: &[u8], descriptors: &[Fd], begun: u64) {
    let control = descriptors[CONTROL];
    let refused = |errno| Failed { part: Part::Keeper, index: 0, errno, evidence: Vec::new() };
    let Some(start) = Start::decode(message) else {
        return report_failure(control, refused(Errno(libc::EPROTO)));
    };
    let bytes = match map(descriptors[PLAN]) {
        Ok(bytes) => bytes,
        Err(errno) => return report_failure(control, refused(errno)),
    };
    let plan = match Plan::parse(bytes) {
        Ok(plan) => plan,
        Err(malformed) => {
            let evidence = malformed.to_string().into_bytes();
            return report_failure(control, Failed { evidence, ..refused(Errno(0)) });
        }
    };
    match execute::start(&plan, &descriptors[CONTAINER..]) {
        Ok(running) => attend(control, start, running, begun),
        Err(failed) => report_failure(control, failed),
    }
}

/// The plan where the engine has written it: a sealed memfd, so that it can't change under us.
fn map(memfd: Fd) -> sys::Result<&'static [u8]> {
    let length = sys::stat_at(memfd, c"")?.st_size as usize;
    if length == 0 {
        return Err(Errno(libc::EINVAL));
    }
    // SAFETY: a new private mapping; it is never unmapped, so it is valid for as long as this process.
    unsafe {
        let start = libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_PRIVATE, memfd, 0);
        if start == libc::MAP_FAILED {
            return Err(Errno(libc::ENOMEM));
        }
        Ok(std::slice::from_raw_parts(start.cast::<u8>(), length))
    }
}

fn report_failure(control: Fd, failed: Failed) {
    let Failed { part, index, errno, evidence } = failed;
    let _ = sys::send_packet(control, &Report::Failed { part, index, errno: errno.0, evidence }.encode(), &[]);
}

/// From `Started` to the end of file.
fn attend(control: Fd, start: Start, mut running: Running, begun: u64) {
    let timings = std::mem::take(&mut running.timings);
    let started = Report::Started { pid: running.pid as u32, warnings: running.warnings, timings, begun };
    let mut descriptors = vec![running.pidfd];
    descriptors.extend(running.terminal);
    // The engine may be gone by now; then the wait below notices it.
    let _ = sys::send_packet(control, &started.encode(), &descriptors);
    running.close_stdio();
    if let Some(master) = running.terminal {
        sys::close(master);
    }
    wait_for_end(control, start, &mut running);
    let Ok(ended) = running.reap() else { return };
    let time = sys::realtime();
    let accounts = running.accounts();
    let exited = Report::Exited {
        code: ended.code,
        signal: ended.signal,
        oom_kills: accounts.oom_kills,
        memory_peak: accounts.memory_peak,
        cpu_usec: if accounts.cpu_usec > 0 { accounts.cpu_usec } else { ended.cpu_usec },
        pids_refused: accounts.pids_refused,
        ended: time,
    };
    let _ = sys::send_packet(control, &exited.encode(), &[]);
    running.clean_up();
}

/// A container that lives longer than this has its start behind it. Milliseconds.
const SETTLED: i32 = 50;

/// Returns when the process has ended; kills it when an attached engine has closed its side.
fn wait_for_end(control: Fd, start: Start, running: &mut Running) {
    let mut entries = [
        libc::pollfd { fd: running.pidfd, events: libc::POLLIN, revents: 0 },
        libc::pollfd { fd: control, events: 0, revents: 0 },
    ];
    let mut patience = SETTLED;
    loop {
        let ready = sys::poll(&mut entries, patience);
        if ready.is_err() || entries[0].revents != 0 {
            return;
        }
        if entries[1].revents != 0 {
            if start.attached {
                let _ = sys::signal_pidfd(running.pidfd, libc::SIGKILL);
            }
            // poll(2) passes over negative numbers.
            entries[1].fd = -1;
        }
        if ready == Ok(0) {
            running.let_go();
            patience = -1;
        }
    }
}
