//! The command line, as runc reads it: `-flag` and `--flag`, a value after `=` or in the next word.

use std::fmt;
use std::path::{Component, PathBuf};

use crate::error::{Error, Result};
use crate::log::Log;

/// A flag of a verb.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// One letter that means the same.
    pub letter: Option<char>,
    /// What the help calls the value, if one follows.
    pub value: Option<&'static str>,
    /// What the help says.
    pub about: &'static str,
}

/// A flag without a value.
pub const fn switch(name: &'static str, about: &'static str) -> Flag {
    Flag { name, letter: None, value: None, about }
}

/// A flag with a value.
pub const fn valued(name: &'static str, value: &'static str, about: &'static str) -> Flag {
    Flag { name, letter: None, value: Some(value), about }
}

impl Flag {
    /// The same with a letter.
    pub const fn or(mut self, letter: char) -> Self {
        self.letter = Some(letter);
        self
    }

    fn is_called(&self, word: &str) -> bool {
        self.name == word || self.letter.is_some_and(|letter| word.chars().eq([letter]))
    }
}

/// Every verb has it.
pub const HELP: Flag = switch("help", "print this").or('h');

/// Where flags may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Anywhere.
    Mixed,
    /// Before the first other word: what follows is somebody else's command line.
    FlagsFirst,
}

/// How a verb is called.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// The verb.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// The words that are no flags, as the help writes them.
    pub words: &'static str,
    /// The fewest and the most of them.
    pub count: (usize, usize),
    /// Where flags may stand.
    pub order: Order,
    /// All but [`HELP`].
    pub flags: &'static [Flag],
    /// How it is called for example, without the program's name.
    pub example: &'static str,
}

impl Usage {
    /// A verb of one container without flags, to be changed by whoever has more.
    pub const fn of(name: &'static str, about: &'static str, example: &'static str) -> Self {
        Self { name, about, words: "ID", count: (1, 1), order: Order::Mixed, flags: &[], example }
    }

    /// Reads the words after the verb; `None` if they ask for help.
    pub fn read(&self, words: &[String]) -> Result<Option<Arguments>> {
        let parsed = Arguments::parse(words, self.flags, self.order).map_err(|error| self.hint(error))?;
        if parsed.has(HELP.name) {
            return Ok(None);
        }
        let (least, most) = self.count;
        if let Some(extra) = parsed.words.get(most) {
            return Err(self.hint(Error::new(format!("{extra:?} is one word too many"))));
        }
        if parsed.words.len() < least {
            return Err(self.hint(Error::new("the id of a container is missing")));
        }
        Ok(Some(parsed))
    }

    fn hint(&self, error: Error) -> Error {
        error.hint(format!("pyrt-runtime {} --help", self.name))
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, about, words, example, .. } = self;
        let words = if words.is_empty() { String::new() } else { format!(" {words}") };
        write!(f, "usage: pyrt-runtime {name} [FLAG ...]{words}\n\n{about}\n\n{}", List(self.flags))?;
        write!(f, "\n\nexample: pyrt-runtime {example}")
    }
}

/// Flags as the help shows them.
pub struct List(pub &'static [Flag]);

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = |flag: &Flag| {
            let letter = flag.letter.map_or_else(|| "    ".to_owned(), |letter| format!("-{letter}, "));
            let value = flag.value.map_or_else(String::new, |value| format!(" {value}"));
            format!("{letter}--{}{value}", flag.name)
        };
        let wide = self.0.iter().chain([&HELP]).map(|flag| left(flag).len()).max().unwrap_or(0);
        for flag in self.0 {
            writeln!(f, "  {:<wide$}  {}", left(flag), flag.about)?;
        }
        write!(f, "  {:<wide$}  {}", left(&HELP), HELP.about)
    }
}

/// A parsed command line.
#[derive(Debug, Default)]
pub struct Arguments {
    given: Vec<(&'static str, String)>,
    /// What is no flag.
    pub words: Vec<String>,
}

impl Arguments {
    /// Reads `words` by a table of flags.
    fn parse(words: &[String], flags: &[Flag], order: Order) -> Result<Self> {
        let mut parsed = Self::default();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            if word == "--" {
                parsed.words.extend(rest.by_ref().cloned());
                break;
            }
            let Some(text) = word.strip_prefix('-').filter(|text| !text.is_empty()) else {
                parsed.words.push(word.clone());
                if order == Order::FlagsFirst {
                    parsed.words.extend(rest.by_ref().cloned());
                }
                continue;
            };
            let text = text.strip_prefix('-').unwrap_or(text);
            let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
            let flag = flags.iter().chain([&HELP]).find(|flag| flag.is_called(name));
            let flag = flag.ok_or_else(|| Error::new(format!("no such flag: {word}")))?;
            let value = match (value, flag.value) {
                (Some(value), None) => {
                    truth(value).ok_or_else(|| Error::new(format!("{word}: true or false")))?.to_string()
                }
                (Some(value), Some(_)) => value.to_owned(),
                (None, None) => "true".to_owned(),
                (None, Some(_)) => rest.next().ok_or_else(|| Error::new(format!("{word} needs a value")))?.clone(),
            };
            parsed.given.push((flag.name, value));
        }
        Ok(parsed)
    }

    /// Whether a switch is on.
    pub fn has(&self, name: &str) -> bool {
        self.value(name) == Some("true")
    }

    /// The last value of a flag; an empty one counts as none.
    pub fn value(&self, name: &str) -> Option<&str> {
        let last = self.given.iter().rev().find(|(given, _)| *given == name);
        last.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// All values of a flag.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.given.iter().filter(move |(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// A number, if the flag is given.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        let parse = |value: &str| value.parse().map_err(|_| Error::new(format!("--{name} {value}: not a number")));
        self.value(name).map(parse).transpose()
    }

    /// The first word.
    pub fn id(&self) -> Result<&str> {
        let id = self.words.first().ok_or_else(|| Error::new("the id of a container is missing"))?;
        check_id(id)?;
        Ok(id)
    }
}

/// As Go's strconv.ParseBool reads it, and so runc.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// As long as a directory's name.
const MAX_ID: usize = 255;

/// An id is the name of a directory: nothing in it may lead elsewhere.
pub fn check_id(id: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    let shown: String = id.chars().take(64).collect();
    if id.len() > MAX_ID {
        return Err(Error::new(format!("{shown:?}... has {} characters, an id at most {MAX_ID}", id.len())));
    }
    if id.bytes().all(|byte| byte == b'.') || !id.bytes().all(plain) {
        return Err(
            Error::new(format!("{shown:?} is no id").to_owned()).hint("letters, digits, _, +, - and . make one")
        );
    }
    Ok(())
}

/// What comes before the verb.
#[derive(Debug)]
pub struct Global {
    /// Who calls: another than root makes containers in user namespaces ([`crate::plain`]).
    pub uid: u32,
    /// Where the state directories are.
    pub root: PathBuf,
    /// Where errors go.
    pub log: Log,
    /// cgroups are made by systemd.
    pub systemd: bool,
    /// criu's file, or its name.
    pub criu: PathBuf,
}

/// What may come before the verb.
pub const GLOBAL: &[Flag] = &[
    valued("root", "DIR", "where the state of containers is kept; /run/pyrt-runtime if absent"),
    valued("log", "FILE", "takes errors and warnings as well"),
    valued("log-format", "FORMAT", "text (if absent) or json"),
    switch("systemd-cgroup", "systemd makes the groups; linux.cgroupsPath is slice:prefix:name"),
    valued("criu", "FILE", "criu's program, for checkpoint and restore"),
    switch("version", "print the version").or('v'),
    valued("rootless", "WORD", "accepted, changes nothing"),
    switch("debug", "accepted, changes nothing"),
    valued("cgroup-manager", "NAME", "systemd: the same as --systemd-cgroup"),
];

/// What the command line asks for.
#[derive(Debug)]
pub enum Called {
    /// A verb, and all that comes after it.
    Verb {
        /// Perhaps there is none of that name.
        name: String,
        /// Flags and others.
        words: Vec<String>,
    },
    /// What there is, or how a verb is called.
    Help(Option<String>),
    /// Which version this is.
    Version,
}

impl Global {
    /// Reads what comes before the verb.
    pub fn parse(words: &[String]) -> Result<(Self, Called)> {
        let arguments = Arguments::parse(words, GLOBAL, Order::FlagsFirst)?;
        let json = match arguments.value("log-format") {
            None | Some("text") => false,
            Some("json") => true,
            Some(other) => return Err(Error::new(format!("--log-format {other}: text or json"))),
        };
        let systemd = arguments.has("systemd-cgroup") || arguments.value("cgroup-manager") == Some("systemd");
        // The bundle becomes the working directory later.
        let absolute = |path: &str| std::path::absolute(path).map_err(|error| Error::new(format!("{path}: {error}")));
        // SAFETY: geteuid(2) takes nothing and can't fail.
        let uid = unsafe { libc::geteuid() };
        let root = arguments.value("root").map(absolute).transpose()?.unwrap_or_else(|| default_root(uid));
        // There every directory would be a container, and one that is only half created is removed.
        if root.components().all(|part| matches!(part, Component::RootDir | Component::ParentDir)) {
            return Err(Error::new(format!("--root {}: is the root of the file system", root.display())));
        }
        let log = Log { path: arguments.value("log").map(absolute).transpose()?, json };
        // A name alone is looked for in PATH.
        let criu = match arguments.value("criu").unwrap_or("criu") {
            path if path.contains('/') => absolute(path)?,
            name => PathBuf::from(name),
        };
        let mut words = arguments.words.iter().cloned();
        let called = match words.next() {
            _ if arguments.has("version") => Called::Version,
            Some(name) if name == "help" || arguments.has(HELP.name) => {
                Called::Help(words.next().filter(|_| name == "help"))
            }
            None => Called::Help(None),
            Some(name) => Called::Verb { name, words: words.collect() },
        };
        Ok((Self { uid, root, log, systemd, criu }, called))
    }
}

/// As runc chooses it: a plain user has a place of its own, also where a user namespace calls it root.
fn default_root(uid: u32) -> PathBuf {
    let is_root = uid == 0 && !pyrt_container::host::is_nested();
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(folder) if !is_root => PathBuf::from(folder).join("pyrt-runtime"),
        _ => PathBuf::from("/run/pyrt-runtime"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn flags_are_read_as_runc_reads_them() {
        let flags = [valued("bundle", "DIR", "").or('b'), switch("force", "").or('f')];
        for line in ["--bundle /b --force x", "-b /b -f x", "-bundle=/b x --force", "x --bundle=/b --force=true"] {
            let parsed = Arguments::parse(&words(line), &flags, Order::Mixed).unwrap();
            assert_eq!((parsed.value("bundle"), parsed.has("force")), (Some("/b"), true), "{line}");
            assert_eq!(parsed.words, ["x"]);
        }
    }

    #[test]
    fn a_switch_is_turned_off() {
        for (word, is_on) in [("--force", true), ("--force=T", true), ("--force=0", false), ("--force=False", false)] {
            let parsed = Arguments::parse(&words(word), &[switch("force", "")], Order::Mixed).unwrap();
            assert_eq!(parsed.has("force"), is_on, "{word}");
        }
    }

    #[test]
    fn a_command_keeps_its_own_flags() {
        let flags = [switch("tty", "").or('t')];
        for line in ["-t x ls -l --tty", "-t -- x ls -l --tty"] {
            let parsed = Arguments::parse(&words(line), &flags, Order::FlagsFirst).unwrap();
            assert_eq!(parsed.words, ["x", "ls", "-l", "--tty"]);
        }
    }

    #[test]
    fn what_a_command_asks_for_is_no_cry_for_help() {
        let usage = Usage {
            words: "ID COMMAND",
            count: (1, usize::MAX),
            order: Order::FlagsFirst,
            ..Usage::of("exec", "", "")
        };
        assert!(usage.read(&words("-h x")).unwrap().is_none());
        assert!(usage.read(&words("x ls --help")).unwrap().is_some());
    }

    #[test]
    fn ids_lead_nowhere() {
        for id in ["a", "A.b_c-d+e", &"x".repeat(255)] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", "a/b", "../a", "a b", "\u{e4}", "a\n", &"x".repeat(256)] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let flags = [valued("bundle", "DIR", ""), switch("force", "")];
        let error = |line: &str| Arguments::parse(&words(line), &flags, Order::Mixed).unwrap_err().to_string();
        assert_eq!(error("--bundel x"), "no such flag: --bundel");
        assert_eq!(error("--bundle"), "--bundle needs a value");
        assert_eq!(error("--force=maybe"), "--force=maybe: true or false");
    }
}
