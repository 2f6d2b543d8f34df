//! Everything that flows between the user and one container.

use libc::pollfd;

use crate::frame::Ends;
use crate::pump::{NOWHERE, Over, Pump, Sink, Source};
use crate::signals::Signals;
use crate::sys::{self, Errno, Owned};
use crate::terminal::RawMode;

/// Pumps of one relay: of input, output and errors.
pub const PUMPS: usize = 3;

/// The pumps of one relay, and the two terminals if it has them.
pub struct Relay {
    pumps: [Option<Pump>; PUMPS],
    /// The master of the container's terminal.
    pub master: Option<Owned>,
    /// The user's, if its keys go to that.
    pub raw_mode: Option<RawMode>,
}

fn to_container(end: Owned) -> sys::Result<Pump> {
    Ok(Pump::new(Source::of_user(0)?, Sink::of_container(end)?))
}

fn from_container(end: Owned, number: sys::Fd) -> sys::Result<Pump> {
    Ok(Pump::new(Source::of_container(end)?, Sink::of_user(number)?))
}

impl Relay {
    /// Nothing flows before the first turn.
    pub fn new(ends: Ends, signals: &Signals) -> sys::Result<Self> {
        match ends {
            Ends::Pipes { input, output, error } => Ok(Self {
                pumps: [
                    input.map(to_container).transpose()?,
                    output.map(|end| from_container(end, 1)).transpose()?,
                    error.map(|end| from_container(end, 2)).transpose()?,
                ],
                master: None,
                raw_mode: None,
            }),
            Ends::Terminal { master, input } => {
                let keys = if input { Some(to_container(sys::duplicate(master.fd())?)?) } else { None };
                let output = from_container(sys::duplicate(master.fd())?, 1)?;
                let raw_mode = if input { enter_raw_mode(signals) } else { None };
                Ok(Self { pumps: [keys, Some(output), None], master: Some(master), raw_mode })
            }
        }
    }

    /// What each pump waits for: a source and a sink.
    pub fn interest(&self) -> [pollfd; 2 * PUMPS] {
        let [input, output, error] =
            self.pumps.each_ref().map(|pump| pump.as_ref().map_or([NOWHERE; 2], Pump::interest));
        [input[0], input[1], output[0], output[1], error[0], error[1]]
    }

    /// Whether everything that the container has written so far is out.
    pub fn is_drained(&self) -> bool {
        self.pumps[1..].iter().flatten().all(Pump::is_drained)
    }

    /// Copies what can be copied now, by what poll(2) said of each pump; returns why an output was given up, if one was.
    ///
    /// A pump that is over is dropped with its descriptors: the container reads the end of its input,
    /// or is told that nobody reads its output.
    pub fn turn(&mut self, news: &[i16; 2 * PUMPS]) -> Option<Errno> {
        let [input, output, error] = &mut self.pumps;
        turn(input, [news[0], news[1]]);
        turn(output, [news[2], news[3]]).or(turn(error, [news[4], news[5]]))
    }
}

fn turn(place: &mut Option<Pump>, news: [i16; 2]) -> Option<Errno> {
    let pump = place.as_mut()?;
    pump.turn(news);
    let over = pump.over()?;
    *place = None;
    match over {
        Over::Source => None,
        Over::Sink(error) => Some(error),
    }
}

fn enter_raw_mode(signals: &Signals) -> Option<RawMode> {
    let mut mode = RawMode::of(0)?;
    signals.watch_stop(true);
    mode.enter();
    Some(mode)
}
