//! The option words of a mount, as mount(8), runc and crun know them.

use std::ffi::{CStr, CString};

use crate::spec::Text;

use super::error::{Error, Result};

pub(super) const RDONLY: u64 = 0x01;
pub(super) const NOSUID: u64 = 0x02;
pub(super) const NODEV: u64 = 0x04;
pub(super) const NOEXEC: u64 = 0x08;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
/// The access time bits are one number: to set it, all of them are cleared (mount_setattr(2)).
const ATIME: u64 = 0x70;
const RELATIME: u64 = 0x00;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x20_0000;

/// MS_SHARED and its kin.
pub(super) const PRIVATE: u64 = libc::MS_PRIVATE;

#[derive(Clone, Copy)]
enum Word {
    /// Changes nothing.
    Default,
    Bind {
        recursive: bool,
    },
    Set(u64),
    Clear(u64),
    AccessTime(u64),
    SetAll(u64),
    ClearAll(u64),
    AccessTimeOfAll(u64),
    Propagation {
        kind: u64,
        recursive: bool,
    },
    CopyUp(bool),
    Idmap {
        recursive: bool,
    },
    Remount,
}

fn word(text: &str) -> Option<Word> {
    use Word::{AccessTime, AccessTimeOfAll, Bind, Clear, ClearAll, CopyUp, Default, Idmap, Remount, Set, SetAll};
    let propagation = |kind: u64, recursive: bool| Word::Propagation { kind, recursive };
    Some(match text {
        // Of mand and iversion mount(2) has nothing left but their numbers.
        "defaults" | "async" | "loud" | "silent" | "mand" | "nomand" | "nolazytime" | "iversion" | "noiversion"
        | "norelatime" | "nostrictatime" => Default,
        "bind" => Bind { recursive: false },
        "rbind" => Bind { recursive: true },
        "ro" => Set(RDONLY),
        "rw" => Clear(RDONLY),
        "nosuid" => Set(NOSUID),
        "suid" => Clear(NOSUID),
        "nodev" => Set(NODEV),
        "dev" => Clear(NODEV),
        "noexec" => Set(NOEXEC),
        "exec" => Clear(NOEXEC),
        "nodiratime" => Set(NODIRATIME),
        "diratime" => Clear(NODIRATIME),
        "nosymfollow" => Set(NOSYMFOLLOW),
        "symfollow" => Clear(NOSYMFOLLOW),
        "atime" | "relatime" => AccessTime(RELATIME),
        "noatime" => AccessTime(NOATIME),
        "strictatime" => AccessTime(STRICTATIME),
        "rro" => SetAll(RDONLY),
        "rrw" => ClearAll(RDONLY),
        "rnosuid" => SetAll(NOSUID),
        "rsuid" => ClearAll(NOSUID),
        "rnodev" => SetAll(NODEV),
        "rdev" => ClearAll(NODEV),
        "rnoexec" => SetAll(NOEXEC),
        "rexec" => ClearAll(NOEXEC),
        "rnodiratime" => SetAll(NODIRATIME),
        "rdiratime" => ClearAll(NODIRATIME),
        "rnosymfollow" => SetAll(NOSYMFOLLOW),
        "rsymfollow" => ClearAll(NOSYMFOLLOW),
        "ratime" | "rrelatime" | "rnostrictatime" => AccessTimeOfAll(RELATIME),
        "rnoatime" => AccessTimeOfAll(NOATIME),
        "rstrictatime" | "rnorelatime" => AccessTimeOfAll(STRICTATIME),
        "private" => propagation(PRIVATE, false),
        "rprivate" => propagation(PRIVATE, true),
        "shared" => propagation(libc::MS_SHARED, false),
        "rshared" => propagation(libc::MS_SHARED, true),
        "slave" => propagation(libc::MS_SLAVE, false),
        "rslave" => propagation(libc::MS_SLAVE, true),
        "unbindable" => propagation(libc::MS_UNBINDABLE, false),
        "runbindable" => propagation(libc::MS_UNBINDABLE, true),
        "tmpcopyup" => CopyUp(true),
        "notmpcopyup" => CopyUp(false),
        "idmap" => Idmap { recursive: false },
        "ridmap" => Idmap { recursive: true },
        "remount" => Remount,
        _ => return None,
    })
}

/// Words of a file system that mount(2) takes as flags: with a bind mount it passes them over.
const OF_EVERY_FILE_SYSTEM: [&CStr; 3] = [c"sync", c"dirsync", c"lazytime"];

/// Bits that are set and cleared on a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub set: u64,
    pub clear: u64,
}

impl Attributes {
    fn set(&mut self, bits: u64) {
        self.set |= bits;
        self.clear &= !bits;
    }

    fn clear(&mut self, bits: u64) {
        self.set &= !bits;
        self.clear |= bits;
    }

    fn access_time(&mut self, number: u64) {
        self.set = self.set & !ATIME | number;
        self.clear |= ATIME;
    }

    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// What the words of one mount say.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// `bind` or `rbind`; the value is whether mounts below it come along.
    pub bind: Option<bool>,
    /// Of what is mounted at the destination already.
    pub remount: bool,
    /// Of the mount itself.
    pub own: Attributes,
    /// Of the mount and all below it.
    pub all: Attributes,
    /// MS_ kinds and whether they go down to mounts below.
    pub propagation: Vec<(u64, bool)>,
    /// Copy what lies at the destination.
    pub copy_up: bool,
    /// `idmap` or `ridmap`; the value is whether mounts below are covered.
    pub idmap: Option<bool>,
    /// What only the file system itself understands, and its index in the list.
    pub data: Vec<(usize, CString)>,
}

impl Options {
    /// Reads the words; `path` is the JSON path of their list.
    pub fn parse(words: &[Text<'_>], path: &str) -> Result<Self> {
        let mut options = Self::default();
        for (index, text) in words.iter().enumerate() {
            match word(text) {
                Some(word) => options.apply(word),
                None if text.is_empty() => return Err(Error::spec(format!("{path}[{index}]"), "empty")),
                None => options.data.push((index, text.to_c_string())),
            }
        }
        Ok(options)
    }

    fn apply(&mut self, word: Word) {
        match word {
            Word::Default => {}
            Word::Remount => self.remount = true,
            Word::Bind { recursive } => self.bind = Some(recursive),
            Word::Set(bits) => self.own.set(bits),
            Word::Clear(bits) => self.own.clear(bits),
            Word::AccessTime(number) => self.own.access_time(number),
            Word::SetAll(bits) => self.all.set(bits),
            Word::ClearAll(bits) => self.all.clear(bits),
            Word::AccessTimeOfAll(number) => self.all.access_time(number),
            Word::Propagation { kind, recursive } => self.propagation.push((kind, recursive)),
            Word::CopyUp(wanted) => self.copy_up = wanted,
            Word::Idmap { recursive } => self.idmap = Some(recursive),
        }
    }

    /// The bits with which a new file system is mounted: there is nothing yet that could be cleared.
    pub fn for_new_mount(&self) -> u64 {
        self.own.set | self.all.set
    }

    /// Whether `key=...` is among the file system's own words.
    pub fn has(&self, key: &str) -> bool {
        self.data.iter().any(|(_, word)| {
            word.to_bytes().strip_prefix(key.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'='))
        })
    }

    /// Refuses words that a bind mount, which has no file system of its own to make, can't take.
    pub fn refuse_data(&self, words: &[Text<'_>], path: &str, what: &str) -> Result<()> {
        match self.data.iter().find(|(_, word)| !OF_EVERY_FILE_SYSTEM.contains(&word.as_c_str())) {
            None => Ok(()),
            Some((index, _)) => {
                let word = &words[*index];
                Err(Error::spec(format!("{path}[{index}]"), format!("{word}: no option of {what}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&'static str]) -> Result<Options> {
        let words: Vec<Text<'_>> = words.iter().map(|word| Text::from(*word)).collect();
        Options::parse(&words, "mounts[0].options")
    }

    #[test]
    fn the_last_word_wins() {
        let options = parse(&["ro", "nosuid", "rw", "noatime", "strictatime"]).unwrap();
        assert_eq!(options.own, Attributes { set: NOSUID | STRICTATIME, clear: RDONLY | ATIME });
    }

    #[test]
    fn words_with_an_r_reach_below() {
        let options = parse(&["rbind", "rro", "rnoatime", "rslave"]).unwrap();
        assert_eq!(options.bind, Some(true));
        assert!(options.own.is_empty());
        assert_eq!(options.all, Attributes { set: RDONLY | NOATIME, clear: ATIME });
        assert_eq!(options.propagation, [(libc::MS_SLAVE, true)]);
    }

    #[test]
    fn other_words_are_the_file_systems() {
        let options = parse(&["size=64m", "tmpcopyup", "mode=1777"]).unwrap();
        let data: Vec<_> = options.data.iter().map(|(index, word)| (*index, word.to_str().unwrap())).collect();
        assert_eq!(data, [(0, "size=64m"), (2, "mode=1777")]);
        assert!(options.copy_up && options.has("size") && !options.has("siz"));
    }

    #[test]
    fn what_makes_no_sense_names_its_place() {
        assert_eq!(parse(&[""]).unwrap_err().path, "mounts[0].options[0]");
    }
}
