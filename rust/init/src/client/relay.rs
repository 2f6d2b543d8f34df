//! Everything that flows between the user and one container.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::Streams;
use super::frame::Ends;
use super::pump::{Over, Pump, Sink, Source};
use super::signals::Signals;
use super::terminal::RawMode;

/// The pumps of one relay, and the two terminals if it has them.
pub struct Relay {
    input: Option<Pump>,
    outputs: [Option<Pump>; 2],
    /// The master of the container's terminal.
    pub master: Option<OwnedFd>,
    /// The user's, if its keys go to that.
    pub raw_mode: Option<RawMode>,
}

impl Relay {
    /// Nothing flows before the first turn.
    pub fn new(ends: Ends, streams: &Streams, signals: &Signals) -> io::Result<Self> {
        let from_container = |end, number| -> io::Result<_> {
            Ok(Pump::new(Source::of_container(end)?, Sink::of_user(streams.get(number))?))
        };
        let to_container =
            |end| -> io::Result<_> { Ok(Pump::new(Source::of_user(streams.get(0))?, Sink::of_container(end)?)) };
        match ends {
            Ends::Pipes { input, output, error } => Ok(Self {
                input: input.map(to_container).transpose()?,
                outputs: [
                    output.map(|end| from_container(end, 1)).transpose()?,
                    error.map(|end| from_container(end, 2)).transpose()?,
                ],
                master: None,
                raw_mode: None,
            }),
            Ends::Terminal { master, input } => {
                let keys = if input { Some(to_container(master.try_clone()?)?) } else { None };
                let output = from_container(master.try_clone()?, 1)?;
                let raw_mode = if input { enter_raw_mode(streams.get(0), signals) } else { None };
                Ok(Self { input: keys, outputs: [Some(output), None], master: Some(master), raw_mode })
            }
        }
    }

    /// All that still flow.
    pub fn pumps(&self) -> impl Iterator<Item = &Pump> {
        self.input.iter().chain(self.outputs.iter().flatten())
    }

    /// Whether everything that the container has written so far is out.
    pub fn is_drained(&self) -> bool {
        self.outputs.iter().flatten().all(Pump::is_drained)
    }

    /// Copies what can be copied now; returns why an output was given up, if one was.
    ///
    /// A pump that is over is dropped with its descriptors: the container reads the end of its input,
    /// or is told that nobody reads its output.
    pub fn turn(&mut self) -> Option<Errno> {
        turn(&mut self.input);
        let [output, error] = &mut self.outputs;
        turn(output).or(turn(error))
    }
}

fn turn(place: &mut Option<Pump>) -> Option<Errno> {
    let pump = place.as_mut()?;
    pump.turn();
    let over = pump.over()?;
    *place = None;
    match over {
        Over::Source => None,
        Over::Sink(error) => Some(error),
    }
}

fn enter_raw_mode(terminal: BorrowedFd<'_>, signals: &Signals) -> Option<RawMode> {
    let mut mode = RawMode::of(terminal)?;
    signals.watch_stop(true);
    mode.enter();
    Some(mode)
}
