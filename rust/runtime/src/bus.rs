//! As much of D-Bus (specification 0.42) as talking to systemd takes: one connection, calls, and their answers.
//! No introspection, no threads; what comes meanwhile and is a signal is kept for whoever waits for one.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};

/// A unit is made in milliseconds; a machine that takes longer does not answer at all.
const PATIENCE: Duration = Duration::from_secs(30);
/// The specification's own limit is 128 MiB; nothing that we ask for comes near this one.
const LONGEST: usize = 1 << 20;

/// A value that a call takes. Those of a(sv) are [`Value::Variant`].
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// b
    Bool(bool),
    /// t
    Number(u64),
    /// s
    Text(String),
    /// ay
    Bytes(Vec<u8>),
    /// au
    Numbers(Vec<u32>),
    /// a(sv)
    Properties(Vec<(String, Value)>),
    /// a(sa(sv)), empty
    NoUnits,
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::Bool(_) => "b",
            Self::Number(_) => "t",
            Self::Text(_) => "s",
            Self::Bytes(_) => "ay",
            Self::Numbers(_) => "au",
            Self::Properties(_) => "a(sv)",
            Self::NoUnits => "a(sa(sv))",
        }
    }
}

/// A message in the making: everything is aligned to its own size, counted from the beginning.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: u32) {
        self.align(4);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u32);
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(signature.len() as u8);
        self.0.extend_from_slice(signature.as_bytes());
        self.0.push(0);
    }

    /// An array: its length does not count what lies between itself and the first element.
    fn array(&mut self, align: usize, fill: impl FnOnce(&mut Self)) {
        self.number(0);
        let at = self.0.len() - 4;
        self.align(align);
        let first = self.0.len();
        fill(self);
        let length = (self.0.len() - first) as u32;
        self.0[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(on) => self.number(u32::from(*on)),
            Value::Number(number) => {
                self.align(8);
                self.0.extend_from_slice(&number.to_le_bytes());
            }
            Value::Text(text) => self.text(text),
            Value::Bytes(bytes) => self.array(1, |out| out.0.extend_from_slice(bytes)),
            Value::Numbers(numbers) => self.array(4, |out| numbers.iter().for_each(|number| out.number(*number))),
            Value::Properties(list) => self.array(8, |out| {
                for (name, value) in list {
                    out.align(8);
                    out.text(name);
                    out.signature(value.signature());
                    out.value(value);
                }
            }),
            Value::NoUnits => self.array(8, |_| {}),
        }
    }

    /// One of the header's fields.
    fn field(&mut self, code: u8, kind: &str, text: &str) {
        self.align(8);
        self.0.push(code);
        self.signature(kind);
        if kind == "g" { self.signature(text) } else { self.text(text) }
    }
}

/// A message that has come.
#[derive(Debug, Default)]
struct Message {
    kind: u8,
    answers: u32,
    member: String,
    error: String,
    signature: String,
    body: Vec<u8>,
}

/// Walks what has come; all of it is systemd's, but a message cut short must be an error and no panic.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|taken| taken[0])
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4);
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.number()? as usize;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Some(text)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.byte()? as usize;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Some(text)
    }

    /// The header's fields that matter here.
    fn fields(&mut self, message: &mut Message) -> Option<()> {
        let end = self.number()? as usize;
        self.align(8);
        let end = self.at + end;
        while self.at < end {
            self.align(8);
            let code = self.byte()?;
            match (code, self.signature()?.as_str()) {
                (3, "s") => message.member = self.text()?,
                (4, "s") => message.error = self.text()?,
                (5, "u") => message.answers = self.number()?,
                (8, "g") => message.signature = self.signature()?,
                (_, "u") => drop(self.number()?),
                (_, "g") => drop(self.signature()?),
                (_, "s" | "o") => drop(self.text()?),
                _ => return None,
            }
        }
        Some(())
    }
}

/// A connection to systemd.
#[derive(Debug)]
pub struct Bus {
    stream: UnixStream,
    serial: u32,
    signals: VecDeque<Message>,
}

fn broken(what: impl std::fmt::Display) -> Error {
    Error::new(format!("talking to systemd: {what}"))
}

const SYSTEMD: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

impl Bus {
    /// Connects: to systemd itself, or to the bus that it is on. `uid` is ours, as the other side numbers it.
    pub fn connect(private: &Path, bus: &Path, uid: u32) -> Result<Self> {
        let of_bus = |error| broken(format!("{}: {error}", bus.display()));
        let (stream, shared) = match UnixStream::connect(private) {
            Ok(stream) => (stream, false),
            Err(_) => (UnixStream::connect(bus).map_err(of_bus)?, true),
        };
        stream.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
        let mut bus = Self { stream, serial: 0, signals: VecDeque::new() };
        bus.authenticate(uid)?;
        if shared {
            let name = "org.freedesktop.DBus";
            bus.call_of(name, "/org/freedesktop/DBus", name, "Hello", &[])?;
            let rule = format!("type='signal',interface='{SYSTEMD}.Manager',member='JobRemoved'");
            bus.call_of(name, "/org/freedesktop/DBus", name, "AddMatch", &[Value::Text(rule)])?;
            bus.call("Subscribe", &[])?;
        }
        Ok(bus)
    }

    /// "Authentication Protocol", EXTERNAL: the socket itself says who we are.
    ///
    /// BEGIN goes with it, as sd-bus has it: systemd takes what comes in one piece with BEGIN for a part of that, and looks at a
    /// short message behind it only when something else comes.
    fn authenticate(&mut self, uid: u32) -> Result<()> {
        let digits: String = uid.to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
        self.stream.write_all(format!("\0AUTH EXTERNAL {digits}\r\nBEGIN\r\n").as_bytes()).map_err(broken)?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).map_err(broken)?;
            line.push(byte[0]);
        }
        if !line.starts_with(b"OK ") {
            return Err(broken(String::from_utf8_lossy(&line).trim()));
        }
        Ok(())
    }

    /// A method of systemd's manager; what it returns if that is one object or text, else "".
    pub fn call(&mut self, method: &str, arguments: &[Value]) -> Result<String> {
        self.call_of(SYSTEMD, OBJECT, &format!("{SYSTEMD}.Manager"), method, arguments)
    }

    /// A property of systemd's manager that is a text.
    pub fn property(&mut self, name: &str) -> Result<String> {
        let arguments = [Value::Text(format!("{SYSTEMD}.Manager")), Value::Text(name.to_owned())];
        self.call_of(SYSTEMD, OBJECT, "org.freedesktop.DBus.Properties", "Get", &arguments)
    }

    fn call_of(
        &mut self,
        peer: &str,
        object: &str,
        interface: &str,
        method: &str,
        arguments: &[Value],
    ) -> Result<String> {
        self.serial += 1;
        let serial = self.serial;
        let mut body = Writer::default();
        arguments.iter().for_each(|argument| body.value(argument));
        let mut message = Writer(vec![b'l', METHOD_CALL, 0, 1]);
        message.number(body.0.len() as u32);
        message.number(serial);
        message.array(8, |out| {
            out.field(1, "o", object);
            out.field(2, "s", interface);
            out.field(3, "s", method);
            out.field(6, "s", peer);
            let signature: String = arguments.iter().map(Value::signature).collect();
            if !signature.is_empty() {
                out.field(8, "g", &signature);
            }
        });
        message.align(8);
        message.0.extend_from_slice(&body.0);
        self.stream.write_all(&message.0).map_err(broken)?;
        loop {
            let message = self.receive()?;
            match message.kind {
                METHOD_RETURN if message.answers == serial => return Ok(first_text(&message).unwrap_or_default()),
                ERROR if message.answers == serial => {
                    let text = first_text(&message).unwrap_or_default();
                    return Err(Error::new(format!("{method}: {text} ({})", message.error)));
                }
                SIGNAL => self.signals.push_back(message),
                _ => {}
            }
        }
    }

    /// Waits until a job of systemd's is over; how it has ended ("done").
    pub fn await_job(&mut self, job: &str) -> Result<String> {
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self.receive()?,
            };
            if message.kind != SIGNAL || message.member != "JobRemoved" || message.signature != "uoss" {
                continue;
            }
            let mut reader = Reader { bytes: &message.body, at: 0 };
            let ended = (|| {
                reader.number()?;
                let (which, _unit, result) = (reader.text()?, reader.text()?, reader.text()?);
                Some((which, result))
            })();
            match ended {
                Some((which, result)) if which == job => return Ok(result),
                _ => {}
            }
        }
    }

    fn receive(&mut self) -> Result<Message> {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head).map_err(broken)?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
        let (body, fields) = (word(4), word(12));
        if head[0] != b'l' || body > LONGEST || fields > LONGEST {
            return Err(broken("a message that makes no sense"));
        }
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        self.stream.read_exact(&mut rest).map_err(broken)?;
        let whole = [head.as_slice(), &rest].concat();
        let mut message = Message { kind: head[1], ..Message::default() };
        let mut reader = Reader { bytes: &whole, at: 12 };
        reader.fields(&mut message).ok_or_else(|| broken("a message that makes no sense"))?;
        message.body = whole[whole.len() - body..].to_vec();
        Ok(message)
    }
}

/// The first text or object of a body, also inside a variant.
fn first_text(message: &Message) -> Option<String> {
    let mut reader = Reader { bytes: &message.body, at: 0 };
    let signature = match message.signature.as_str() {
        "v" => reader.signature()?,
        other => other.to_owned(),
    };
    signature.starts_with(['s', 'o']).then(|| reader.text())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_where_the_specification_wants_them() {
        let mut out = Writer::default();
        out.value(&Value::Text("ab".to_owned()));
        out.value(&Value::Properties(vec![("A".to_owned(), Value::Bool(true)), ("B".to_owned(), Value::Number(7))]));
        let expected: Vec<u8> = [
            [2, 0, 0, 0, b'a', b'b', 0, 0].as_slice(),
            &[40, 0, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, b'A', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0],
            &[1, 0, 0, 0, b'B', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(out.0[..expected.len()], expected);
        assert_eq!(out.0[expected.len()..], [7, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_message_cut_short_is_none() {
        let mut out = Writer(vec![0; 12]);
        out.array(8, |out| {
            out.field(3, "s", "Removed");
            out.field(8, "g", "uoss");
        });
        let mut message = Message::default();
        assert!(Reader { bytes: &out.0, at: 12 }.fields(&mut message).is_some());
        assert_eq!((message.member.as_str(), message.signature.as_str()), ("Removed", "uoss"));
        for length in 12..out.0.len() {
            assert!(Reader { bytes: &out.0[..length], at: 12 }.fields(&mut Message::default()).is_none());
        }
    }
}
