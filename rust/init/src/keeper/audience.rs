//! The engines that listen to the keeper of a detached container: they come, ask, and go as they like.

use std::ffi::CStr;

use pyrt_container::protocol::{Ask, MAX_MESSAGE, Report};
use pyrt_container::sys::{self, Errno, Fd};

/// One more is refused: each is a process of the host's root, and there are few.
const MOST: usize = 64;

/// Where a keeper can be found, and who has found it.
pub struct Audience {
    listener: Fd,
    names: Fd,
    engines: Vec<Fd>,
    /// The exit is in a journal.
    pub has_recorded: bool,
}

/// The way to a container's standard input, as far as the keeper has one to give away.
pub struct Input {
    /// A pipe's write end, or a terminal's master.
    pub fd: Option<Fd>,
    pub terminal: bool,
}

impl Audience {
    /// `first` is the socket of the engine that asked for the container.
    pub fn new(first: Fd, listener: Fd, names: Fd) -> Self {
        let _ = sys::set_nonblocking(first);
        let _ = sys::set_nonblocking(listener);
        Self { listener, names, engines: vec![first], has_recorded: false }
    }

    /// What to wait for: the door, then everybody.
    pub fn watched(&self) -> impl Iterator<Item = Fd> + '_ {
        std::iter::once(self.listener).chain(self.engines.iter().copied())
    }

    /// Lets in who is at the door, and tells them what there is to know already.
    pub fn welcome(&mut self, reports: &[(Report, Option<Fd>)]) {
        while let Ok(engine) = sys::accept(self.listener) {
            if self.engines.len() >= MOST {
                sys::close(engine);
                continue;
            }
            for (report, descriptor) in reports {
                let _ = sys::send_packet(engine, &report.encode(), descriptor.as_slice());
            }
            self.engines.push(engine);
        }
    }

    /// Serves one engine that has something to say, or has gone.
    pub fn hear(&mut self, engine: Fd, input: &mut Input) {
        let mut message = [0; MAX_MESSAGE];
        match sys::receive_packet(engine, &mut message, &mut []) {
            Err(Errno(libc::EAGAIN | libc::EINTR)) => {}
            Ok((length, _)) if length > 0 => match Ask::decode(&message[..length]) {
                Some(ask) => self.answer(engine, ask, input),
                None => self.dismiss(engine),
            },
            _ => self.dismiss(engine),
        }
    }

    fn answer(&mut self, engine: Fd, ask: Ask, input: &mut Input) {
        match ask {
            Ask::Attach => {
                let attached = Report::Attached { terminal: input.terminal };
                let _ = sys::send_packet(engine, &attached.encode(), input.fd.as_slice());
            }
            Ask::CloseInput if !input.terminal => {
                if let Some(pipe) = input.fd.take() {
                    sys::close(pipe);
                }
            }
            Ask::CloseInput => {}
            Ask::Recorded => self.has_recorded = true,
        }
    }

    fn dismiss(&mut self, engine: Fd) {
        self.engines.retain(|&other| other != engine);
        sys::close(engine);
    }

    /// Tells everybody. Who does not read is not waited for: they find the same on the disk.
    pub fn tell(&self, report: &Report) {
        let bytes = report.encode();
        for &engine in &self.engines {
            let _ = sys::send_packet(engine, &bytes, &[]);
        }
    }

    /// Takes the name away: nobody comes any more. Who is at the door finds it closed.
    pub fn end(&self, name: &CStr) {
        let _ = sys::unlinkat(self.names, name, 0);
        sys::close(self.listener);
    }
}
