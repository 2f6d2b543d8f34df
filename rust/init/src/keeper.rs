//! The keeper: makes one container, is the parent of its PID 1, and tells the engine what becomes of it.
//!
//! The words between the two are drawn in `pyrt_container::protocol`. An attached container dies with its engine;
//! what a detached one needs more is in `detached`.

mod audience;
mod detached;
mod freezer;
mod journal;
mod log;

use pyrt_container::execute::{self, Ahead, Failed, Given, Read, Running};
use pyrt_container::plan::{Part, Plan};
use pyrt_container::protocol::{Detached, MAX_DESCRIPTORS, MAX_MESSAGE, Report, Start, Stdio};
use pyrt_container::sys::{self, Ended, Errno, Fd, Mapping};

use crate::foresight::{self, Hint, Hints};
use detached::{Doors, Pipes};
use freezer::Freezer;

/// The first descriptors of a `Start`. Standard input, output and error of an attached container follow, or
/// what its keeper keeps of a detached one; then what the plan has opened.
const PLAN: usize = 0;
const CONTROL: usize = 1;
const CONTAINER: usize = 2;
const OPENED: usize = CONTAINER + 3;

/// Waits for one `Start` on the engine's socket and serves that container to its end.
pub fn main(engine: Fd, token: Fd, hints: Hints) -> ! {
    // Ignored in the spawner, which would keep us from learning how a child has ended.
    default_sigchld();
    let ahead = foresight::await_engine(engine, hints);
    let received = receive(engine);
    let begun = sys::monotonic();
    // The spawner may fork the next one.
    let _ = sys::write(token, b"!");
    sys::close(token);
    sys::close(engine);
    let _ = sys::prctl(libc::PR_SET_NAME, c"pyrt-keeper".as_ptr() as u64, 0);
    let origin = Origin { begun, ahead, hint: Hint::of(hints) };
    match received {
        Ok((start, descriptors)) if descriptors.len() >= OPENED => keep(start, &descriptors, origin),
        // The engine is gone, or sent what no engine of ours sends.
        _ => drop(origin),
    }
    sys::exit(0)
}

/// What was there before the container.
struct Origin {
    /// When the engine was heard.
    begun: u64,
    /// Until it is the container's, or one that does not fit.
    ahead: Option<Ahead>,
    hint: Hint,
}

/// The message lies in memory of its own: on the stack or the heap it would take its place for as long as the container runs.
fn receive(engine: Fd) -> sys::Result<(Option<Start>, Vec<Fd>)> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let mapping = Mapping::new(MAX_MESSAGE, protection, flags, -1)?;
    // SAFETY: the mapping is that long, and nobody else knows of it.
    let message = unsafe { std::slice::from_raw_parts_mut(mapping.start(), MAX_MESSAGE) };
    let mut descriptors = [-1; MAX_DESCRIPTORS];
    let (length, passed) = sys::receive_packet(engine, message, &mut descriptors)?;
    Ok((Start::decode(&message[..length]), descriptors[..passed].to_vec()))
}

fn default_sigchld() {
    // SAFETY: SIG_DFL installs no code.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

fn keep(start: Option<Start>, descriptors: &[Fd], origin: Origin) {
    let control = descriptors[CONTROL];
    let Some(start) = start else {
        return report_failure(control, refused(Errno(libc::EPROTO)));
    };
    match start.detached {
        None => keep_attached(start.limit, descriptors, origin),
        Some(detached) => keep_detached(detached, start.limit, descriptors, origin),
    }
}

/// What the keeper of a detached container has before that runs.
struct Lasting {
    detached: Detached,
    doors: Doors,
    pipes: sys::Result<Pipes>,
}

impl Lasting {
    /// Of the descriptors for the keeper; `None` if there are too few. Returns those that follow them as well.
    fn begin(detached: Detached, control: Fd, descriptors: &[Fd]) -> Option<(Self, &[Fd])> {
        let ([folder, listener, names], rest) = descriptors.split_first_chunk()?;
        let (journald, rest) = match rest {
            [first, rest @ ..] if !detached.journal.is_empty() => (Some(*first), rest),
            all => (None, all),
        };
        let doors = Doors { control, folder: *folder, listener: *listener, names: *names, journald };
        let pipes = Pipes::make(detached.input);
        Some((Self { detached, doors, pipes }, rest))
    }

    /// The container's ends.
    fn stdio(&self) -> sys::Result<[Fd; 3]> {
        self.pipes.as_ref().map(|pipes| pipes.theirs).map_err(|&errno| errno)
    }

    fn keep(self, made: Result<Running, Failed>, limit: u64, origin: &mut Origin) {
        let Doors { control, names, .. } = self.doors;
        match made.and_then(|running| Ok((running, self.pipes.map_err(refused)?))) {
            Ok((mut running, pipes)) => {
                let started = report_start(control, &mut running, origin, &[]);
                detached::keep(self.doors, self.detached, running, pipes, started, Deadline::after(limit));
            }
            Err(failed) => {
                report_failure(control, failed);
                let _ = sys::unlinkat(names, &self.detached.name, 0);
            }
        }
    }
}

/// A container that dies with its engine, unless it was parked and is detached when it is woken.
fn keep_attached(limit: u64, descriptors: &[Fd], mut origin: Origin) {
    let control = descriptors[CONTROL];
    let mut lasting = None;
    let made = make(descriptors[PLAN], &descriptors[CONTAINER..], &mut origin, &mut |message, passed| {
        let given = Stdio::decode(message).and_then(|stdio| give(stdio, control, passed, &mut lasting));
        given.unwrap_or_else(|| {
            passed.iter().copied().for_each(sys::close);
            Err(Errno(libc::EPIPE))
        })
    });
    match (lasting, made) {
        (Some(lasting), made) => lasting.keep(made, limit, &mut origin),
        (None, Ok(running)) => attend(control, limit, running, &mut origin),
        (None, Err(failed)) => report_failure(control, failed),
    }
}

/// What a parked container is given to go on; `None` if too little has come for that.
fn give(
    Stdio { detached, command }: Stdio<'static>,
    control: Fd,
    passed: &[Fd],
    lasting: &mut Option<Lasting>,
) -> Option<sys::Result<Given>> {
    let Some(detached) = detached else {
        return Some(Ok(Given { stdio: passed.try_into().ok()?, command }));
    };
    let (begun, _) = Lasting::begin(detached, control, passed)?;
    let stdio = lasting.insert(begun).stdio();
    Some(stdio.map(|stdio| Given { stdio, command }))
}

fn keep_detached(detached: Detached, limit: u64, descriptors: &[Fd], mut origin: Origin) {
    let control = descriptors[CONTROL];
    let Some((lasting, opened)) = Lasting::begin(detached, control, &descriptors[CONTAINER..]) else {
        return report_failure(control, refused(Errno(libc::EPROTO)));
    };
    let made = lasting.stdio().map_err(refused).and_then(|stdio| {
        let given: Vec<Fd> = stdio.into_iter().chain(opened.iter().copied()).collect();
        make(descriptors[PLAN], &given, &mut origin, &mut |_, _| Err(Errno(libc::EPROTO)))
    });
    lasting.keep(made, limit, &mut origin);
}

fn refused(errno: Errno) -> Failed {
    Failed { part: Part::Keeper, index: 0, errno, evidence: Vec::new() }
}

/// Makes the container of the plan in `memfd`; `read`: see [`execute::start_parked`]. What it takes of the stack is given
/// back: see [`settle`].
#[inline(never)]
fn make(memfd: Fd, descriptors: &[Fd], origin: &mut Origin, read: &mut Read<'_>) -> Result<Running, Failed> {
    let (mapping, length) = map(memfd).map_err(refused)?;
    // SAFETY: the mapping is that long, nobody writes to it, and it goes when nobody looks at the plan any more.
    let bytes = unsafe { std::slice::from_raw_parts(mapping.start(), length) };
    let plan = Plan::parse(bytes).map_err(|malformed| {
        let evidence = malformed.to_string().into_bytes();
        Failed { evidence, ..refused(Errno(0)) }
    })?;
    let flags = plan.clones_ahead();
    origin.hint.set(flags, plan.waits());
    let fitting = origin.ahead.take_if(|ahead| Some(ahead.flags()) == flags);
    let mut running = execute::start_parked(&plan, descriptors, fitting, read)?;
    running.needs_no_more(mapping, origin.ahead.take());
    Ok(running)
}

/// The plan where the engine has written it: a sealed memfd, so that it can't change under us.
fn map(memfd: Fd) -> sys::Result<(Mapping, usize)> {
    let length = sys::stat_at(memfd, c"")?.st_size as usize;
    if length == 0 {
        return Err(Errno(libc::EINVAL));
    }
    let mapping = Mapping::new(length, libc::PROT_READ, libc::MAP_PRIVATE, memfd);
    sys::close(memfd);
    Ok((mapping?, length))
}

fn report_failure(control: Fd, failed: Failed) {
    let Failed { part, index, errno, evidence } = failed;
    let _ = sys::send_packet(control, &Report::Failed { part, index, errno: errno.0, evidence }.encode(), &[]);
}

/// Tells the engine that the process runs, and gives it a pidfd and `more`. The engine may be gone by now.
fn report_start(control: Fd, running: &mut Running, origin: &mut Origin, more: &[Fd]) -> Report {
    let timings = std::mem::take(&mut running.timings);
    let started = Report::Started { pid: running.pid as u32, warnings: running.warnings, timings, begun: origin.begun };
    let descriptors: Vec<Fd> = std::iter::once(running.pidfd).chain(more.iter().copied()).collect();
    let _ = sys::send_packet(control, &started.encode(), &descriptors);
    running.close_stdio();
    origin.hint.give();
    started
}

/// From `Started` to the end of file, for a container that does not outlive its engine.
fn attend(control: Fd, limit: u64, mut running: Running, origin: &mut Origin) {
    let master = running.terminal;
    report_start(control, &mut running, origin, master.as_slice());
    if let Some(master) = master {
        sys::close(master);
    }
    let mut deadline = Deadline::after(limit);
    wait_for_end(control, &mut deadline, &mut running);
    let Ok(end) = running.reap() else { return };
    let exited = ended(&running, end, sys::realtime(), deadline.has_passed, 0);
    let _ = sys::send_packet(control, &exited.encode(), &[]);
    running.clean_up();
    deadline.clean_up();
}

/// What there is to tell of the end.
fn ended(running: &Running, end: Ended, time: u64, timed_out: bool, lost_output: u64) -> Report {
    let accounts = running.accounts();
    Report::Exited {
        code: end.code,
        signal: end.signal,
        oom_kills: accounts.oom_kills,
        memory_peak: accounts.memory_peak,
        cpu_usec: if accounts.cpu_usec > 0 { accounts.cpu_usec } else { end.cpu_usec },
        pids_refused: accounts.pids_refused,
        timed_out,
        lost_output,
        ended: time,
    }
}

/// Returns when the process has ended; kills it when its time is up or its engine has closed its side.
fn wait_for_end(control: Fd, deadline: &mut Deadline, running: &mut Running) {
    let mut entries = [
        libc::pollfd { fd: running.pidfd, events: libc::POLLIN, revents: 0 },
        libc::pollfd { fd: control, events: 0, revents: 0 },
    ];
    loop {
        let ready = sys::poll(&mut entries, deadline.patience());
        if ready.is_err() || entries[0].revents != 0 {
            return;
        }
        if entries[1].revents != 0 {
            deadline.kill(running);
            // poll(2) passes over negative numbers.
            entries[1].fd = -1;
        }
        if deadline.pass(running) {
            settle(running);
        }
    }
}

/// Gives back all that the start has taken and nothing else needs.
fn settle(running: &mut Running) {
    running.let_go();
    sys::shrink_stack();
    // SAFETY: glibc's own business.
    unsafe { libc::malloc_trim(0) };
}

/// A container that lives longer than this has its start behind it. Nanoseconds.
const SETTLED: u64 = 50_000_000;

/// What a keeper does when it is left alone: first it lets go of what the start needed, then it waits for the limit.
struct Deadline {
    settled: Option<u64>,
    limit: Option<u64>,
    /// The process was killed because its time was up.
    has_passed: bool,
    /// The group in which it was paused when it was killed.
    thawed: Option<Freezer>,
}

impl Deadline {
    /// `limit` nanoseconds from now; 0 for none.
    fn after(limit: u64) -> Self {
        let now = sys::monotonic();
        let limit = (limit > 0).then(|| now.saturating_add(limit));
        Self { settled: Some(now + SETTLED), limit, has_passed: false, thawed: None }
    }

    /// Milliseconds until something is to be done, rounded up; -1 for never: as poll(2) wants it.
    fn patience(&self) -> i32 {
        let next = self.settled.into_iter().chain(self.limit).min();
        next.map_or(-1, |time| {
            let left = time.saturating_sub(sys::monotonic()).div_ceil(1_000_000);
            i32::try_from(left).unwrap_or(i32::MAX)
        })
    }

    /// Does what is due; true once, when the start lies behind.
    fn pass(&mut self, running: &Running) -> bool {
        let now = sys::monotonic();
        if self.limit.is_some_and(|limit| now >= limit) {
            self.limit = None;
            self.has_passed = self.kill(running);
        }
        self.settled.take_if(|settled| now >= *settled).is_some()
    }

    /// Kills the process, also where it is paused; false if it has ended.
    fn kill(&mut self, running: &Running) -> bool {
        let sent = sys::signal_pidfd(running.pidfd, libc::SIGKILL).is_ok();
        self.thawed = self.thawed.take().or_else(|| Freezer::thaw(running.pid));
        sent
    }

    /// After the end, once nothing is left of the container.
    fn clean_up(self) {
        if let Some(freezer) = self.thawed {
            freezer.remove();
        }
    }
}
