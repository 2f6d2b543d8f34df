//! The command line, as runc reads it: `-flag` and `--flag`, a value after `=` or in the next word.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::log::Log;

/// A flag of a verb.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// One letter that means the same.
    pub letter: Option<char>,
    /// Whether a value follows.
    pub valued: bool,
}

/// A flag without a value.
pub const fn switch(name: &'static str) -> Flag {
    Flag { name, letter: None, valued: false }
}

/// A flag with a value.
pub const fn valued(name: &'static str) -> Flag {
    Flag { name, letter: None, valued: true }
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

/// Where flags may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Anywhere.
    Mixed,
    /// Before the first other word: what follows is somebody else's command line.
    FlagsFirst,
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
    pub fn parse(words: &[String], flags: &[Flag], order: Order) -> Result<Self> {
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
            let flag = flags.iter().find(|flag| flag.is_called(name));
            let flag = flag.ok_or_else(|| Error::new(format!("no such flag: {word}")))?;
            let value = match (value, flag.valued) {
                (Some(value), _) => value.to_owned(),
                (None, false) => "true".to_owned(),
                (None, true) => rest.next().ok_or_else(|| Error::new(format!("{word} needs a value")))?.clone(),
            };
            parsed.given.push((flag.name, value));
        }
        Ok(parsed)
    }

    /// Whether a switch is on.
    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| !matches!(value, "false" | "0" | "f"))
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

    /// The first word, and that there are not more than `most`.
    pub fn id(&self, most: usize) -> Result<&str> {
        if self.words.len() > most {
            return Err(Error::new(format!("{:?} is one word too many", self.words[most])));
        }
        let id = self.words.first().ok_or_else(|| Error::new("the id of a container is missing"))?;
        check_id(id)?;
        Ok(id)
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

const GLOBAL: [Flag; 10] = [
    valued("root"),
    valued("log"),
    valued("log-format"),
    valued("criu"),
    valued("rootless"),
    switch("debug"),
    switch("systemd-cgroup"),
    switch("help").or('h'),
    switch("version").or('v'),
    valued("cgroup-manager"),
];

/// The verb and its own words.
#[derive(Debug)]
pub struct Verb {
    /// Its name.
    pub name: String,
    /// All that comes after it.
    pub words: Vec<String>,
}

impl Global {
    /// Reads what comes before the verb.
    pub fn parse(words: &[String]) -> Result<(Self, Verb)> {
        let arguments = Arguments::parse(words, &GLOBAL, Order::FlagsFirst)?;
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
        let log = Log { path: arguments.value("log").map(absolute).transpose()?, json };
        // A name alone is looked for in PATH.
        let criu = match arguments.value("criu").unwrap_or("criu") {
            path if path.contains('/') => absolute(path)?,
            name => PathBuf::from(name),
        };
        let mut words = arguments.words.iter().cloned();
        let name = match words.next() {
            _ if arguments.has("version") => "version".to_owned(),
            Some(name) if !arguments.has("help") => name,
            _ => "help".to_owned(),
        };
        Ok((Self { uid, root, log, systemd, criu }, Verb { name, words: words.collect() }))
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
        let flags = [valued("bundle").or('b'), switch("force").or('f')];
        for line in ["--bundle /b --force x", "-b /b -f x", "-bundle=/b x --force", "x --bundle=/b --force=true"] {
            let parsed = Arguments::parse(&words(line), &flags, Order::Mixed).unwrap();
            assert_eq!((parsed.value("bundle"), parsed.has("force")), (Some("/b"), true), "{line}");
            assert_eq!(parsed.words, ["x"]);
        }
    }

    #[test]
    fn a_command_keeps_its_own_flags() {
        let flags = [switch("tty").or('t')];
        for line in ["-t x ls -l --tty", "-t -- x ls -l --tty"] {
            let parsed = Arguments::parse(&words(line), &flags, Order::FlagsFirst).unwrap();
            assert_eq!(parsed.words, ["x", "ls", "-l", "--tty"]);
        }
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
        let flags = [valued("bundle")];
        let error = |line: &str| Arguments::parse(&words(line), &flags, Order::Mixed).unwrap_err().to_string();
        assert_eq!(error("--bundel x"), "no such flag: --bundel");
        assert_eq!(error("--bundle"), "--bundle needs a value");
    }
}
