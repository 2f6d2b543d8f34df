//! Why a command could not be executed: what execve(2) says with one number, told apart by the file itself.

use std::ffi::CStr;

use crate::compile::describe;
use crate::plan::Texts;
use crate::sys::Errno;

/// What the exit code of `pyrt run` depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A step before the command: 125.
    Other,
    /// The command, or what it needs, is not there: 127.
    NotFound,
    /// It is there and can't be executed: 126.
    NotExecutable,
}

/// An explained command.
#[derive(Debug)]
pub(super) struct Command {
    pub sentence: String,
    pub path: String,
    pub kind: Kind,
    pub hint: Option<String>,
}

impl Command {
    fn new(kind: Kind, path: &str, sentence: String) -> Self {
        Self { sentence, path: path.to_owned(), kind, hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// `evidence` is the candidate's path, NUL, and the first bytes of its file; see [`crate::protocol::Report::Failed`].
pub(super) fn explain(
    candidates: Texts<'_>,
    arguments: Texts<'_>,
    environment: Texts<'_>,
    errno: Errno,
    evidence: &[u8],
) -> Command {
    let (path, head) = match evidence.iter().position(|&byte| byte == 0) {
        Some(end) => (String::from_utf8_lossy(&evidence[..end]), &evidence[end + 1..]),
        None => (String::from_utf8_lossy(evidence), &[][..]),
    };
    let text = |text: Option<&CStr>| text.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
    let path = if path.is_empty() { text(candidates.iter().next()) } else { path.into_owned() };
    match errno.0 {
        libc::ENOENT if head.is_empty() => not_found(&text(arguments.iter().next()), &path, environment),
        libc::ENOENT => missing_requirement(&path, head),
        libc::EISDIR => Command::new(Kind::NotExecutable, &path, format!("exec {path}: it is a directory"))
            .hint("name a program in it"),
        libc::EACCES => not_permitted(&path, head),
        libc::ENOEXEC => no_program(&path, head),
        libc::ENOTDIR => not_found(&text(arguments.iter().next()), &path, environment),
        libc::EPERM => Command::new(Kind::NotExecutable, &path, format!("exec {path}: operation not permitted"))
            .hint("the seccomp filter may forbid execve, or the file's capabilities are not to be had"),
        libc::ELOOP => {
            Command::new(Kind::NotExecutable, &path, format!("exec {path}: its symbolic links go in a circle"))
                .hint("the image is at fault, not the command")
        }
        libc::E2BIG => Command::new(Kind::Other, &path, format!("exec {path}: arguments and environment are too long"))
            .hint("one argument may have 128 KiB, all together a quarter of the stack limit"),
        libc::ETXTBSY => Command::new(Kind::NotExecutable, &path, format!("exec {path}: somebody is writing to it"))
            .hint("try again when they have closed it"),
        libc::ENOMEM => Command::new(Kind::Other, &path, format!("exec {path}: not enough memory"))
            .hint("the memory limit is too small to start this program"),
        _ => Command::new(Kind::NotExecutable, &path, format!("exec {path}: {}", describe(errno))),
    }
}

fn not_found(command: &str, path: &str, environment: Texts<'_>) -> Command {
    if command.contains('/') {
        return Command::new(Kind::NotFound, path, format!("no such file: {command}")).hint(ABSENT);
    }
    let searched = environment.iter().filter_map(|entry| entry.to_bytes().strip_prefix(b"PATH=")).last().map_or_else(
        || "the usual directories (PATH is not set)".to_owned(),
        |value| format!("PATH {}", String::from_utf8_lossy(value)),
    );
    let found = Command::new(Kind::NotFound, command, format!("no such command: {command}; looked in {searched}"));
    if command.contains(char::is_whitespace) {
        return found.hint("this is one word to pyrt; give the arguments as words of their own");
    }
    if command.starts_with('-') {
        return found.hint("options of pyrt's own come before the image's name");
    }
    found.hint(ABSENT)
}

const ABSENT: &str = "it is not in the image, or goes by another name there";

/// The file is there, so what it names is not.
fn missing_requirement(path: &str, head: &[u8]) -> Command {
    if let Some(interpreter) = shebang(head) {
        return missing_interpreter(path, &interpreter);
    }
    match elf_loader(head) {
        Some(loader) => Command::new(
            Kind::NotFound,
            path,
            format!("exec {path}: the loader {loader} of this program is not in the image"),
        )
        .hint(loader_hint(&loader)),
        None => Command::new(Kind::NotFound, path, format!("exec {path}: what it needs to be run is not in the image"))
            .hint("a loader or an interpreter is missing; take an image that has it"),
    }
}

fn loader_hint(loader: &str) -> &'static str {
    if loader.contains("musl") {
        "the program was built for musl; take an Alpine image or a static build"
    } else if loader.contains("ld-linux") {
        "the program was built for glibc; take an image that has it, or a static build"
    } else {
        "take an image that has it, or a static build"
    }
}

fn missing_interpreter(path: &str, interpreter: &[u8]) -> Command {
    let windows = interpreter.ends_with(b"\r");
    let interpreter = String::from_utf8_lossy(interpreter.trim_ascii_end());
    let sentence = format!("exec {path}: the interpreter {interpreter} of this script is not in the image");
    let command = Command::new(Kind::NotFound, path, sentence);
    if windows {
        return command.hint(
            "the script's lines end as on Windows, so the name ends in a carriage return; convert it (dos2unix)",
        );
    }
    command.hint("take an image that has it, or run the script with another: sh SCRIPT")
}

/// The word after `#!`, with a carriage return if there is one.
fn shebang(head: &[u8]) -> Option<Vec<u8>> {
    let line = head.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let start = line.iter().position(|&byte| byte != b' ' && byte != b'\t')?;
    let word = line[start..].split(|&byte| byte == b' ' || byte == b'\t').next()?;
    Some(word.to_vec())
}

fn not_permitted(path: &str, head: &[u8]) -> Command {
    let sentence = format!("exec {path}: permission denied");
    let command = Command::new(Kind::NotExecutable, path, sentence);
    // A script that may be executed whose interpreter may not gives the same number.
    match shebang(head) {
        Some(interpreter) => {
            let interpreter = String::from_utf8_lossy(interpreter.trim_ascii_end()).into_owned();
            command.hint(format!("neither the file nor its interpreter {interpreter} may lack its x bit for this user"))
        }
        None => command.hint("the file has no x bit for this user, or lies on a noexec mount"),
    }
}

fn no_program(path: &str, head: &[u8]) -> Command {
    if let Some(machine) = elf_machine(head) {
        let sentence = match machine_name(machine) {
            Some(name) if !is_native(machine) => {
                format!("exec {path}: a program for {name}, this machine is {}", std::env::consts::ARCH)
            }
            _ => format!("exec {path}: this kernel does not execute this kind of program"),
        };
        return Command::new(Kind::NotExecutable, path, sentence)
            .hint("take an image for this machine's architecture (--platform)");
    }
    let sentence = match head {
        [] => format!("exec {path}: the file is empty"),
        [b'M', b'Z', ..] => format!("exec {path}: a Windows program"),
        [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] => format!("exec {path}: a macOS program"),
        _ if is_text(head) => format!("exec {path}: text without a #! line, so the kernel has no program to run it"),
        _ => format!("exec {path}: not a program that this kernel knows"),
    };
    let command = Command::new(Kind::NotExecutable, path, sentence);
    match head {
        [] => command.hint("the image is damaged, or was built wrong"),
        [b'M', b'Z', ..] | [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] => command.hint("take a program for Linux"),
        [0xef, 0xbb, 0xbf, b'#', b'!', ..] => command.hint("a byte order mark comes before #!; take it out"),
        _ if is_text(head) => command.hint(format!("run it with its interpreter: sh {path}")),
        _ => command.hint("is it data, or a program for another system?"),
    }
}

fn is_text(head: &[u8]) -> bool {
    !head.contains(&0)
}

/// The machine of an ELF file (elf(5), e_machine).
fn elf_machine(head: &[u8]) -> Option<u16> {
    let elf = Elf::parse(head)?;
    elf.half(18)
}

/// Text of the PT_INTERP segment.
fn elf_loader(head: &[u8]) -> Option<String> {
    const PT_INTERP: u64 = 3;
    let elf = Elf::parse(head)?;
    let (table, size, count) = if elf.wide {
        (elf.long(32)?, elf.half(54)?, elf.half(56)?)
    } else {
        (u64::from(elf.word(28)?), elf.half(42)?, elf.half(44)?)
    };
    (0..u64::from(count)).find_map(|index| {
        let entry = usize::try_from(table.checked_add(index * u64::from(size))?).ok()?;
        if u64::from(elf.word(entry)?) != PT_INTERP {
            return None;
        }
        let (offset, length) = if elf.wide {
            (elf.long(entry.checked_add(8)?)?, elf.long(entry.checked_add(32)?)?)
        } else {
            (u64::from(elf.word(entry.checked_add(4)?)?), u64::from(elf.word(entry.checked_add(16)?)?))
        };
        let offset = usize::try_from(offset).ok()?;
        let bytes = head.get(offset..offset.checked_add(usize::try_from(length).ok()?)?)?;
        Some(String::from_utf8_lossy(bytes.split(|&byte| byte == 0).next()?).into_owned())
    })
}

/// The first bytes of an ELF file; every look is within bounds.
struct Elf<'a> {
    head: &'a [u8],
    wide: bool,
    big_endian: bool,
}

impl<'a> Elf<'a> {
    fn parse(head: &'a [u8]) -> Option<Self> {
        let (wide, big_endian) = match head {
            [0x7f, b'E', b'L', b'F', class @ 1..=2, order @ 1..=2, ..] => (*class == 2, *order == 2),
            _ => return None,
        };
        Some(Self { head, wide, big_endian })
    }

    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let mut bytes: [u8; N] = self.head.get(at..at.checked_add(N)?)?.try_into().ok()?;
        if self.big_endian {
            bytes.reverse();
        }
        Some(bytes)
    }

    fn half(&self, at: usize) -> Option<u16> {
        self.bytes(at).map(u16::from_le_bytes)
    }

    fn word(&self, at: usize) -> Option<u32> {
        self.bytes(at).map(u32::from_le_bytes)
    }

    fn long(&self, at: usize) -> Option<u64> {
        self.bytes(at).map(u64::from_le_bytes)
    }
}

/// Machines that images are made for (elf.h, EM_), as container platforms call them.
const MACHINES: [(u16, &str, &str); 10] = [
    (3, "x86", "386"),
    (8, "mips", "mips"),
    (20, "powerpc", "ppc"),
    (21, "powerpc64", "ppc64le"),
    (22, "s390x", "s390x"),
    (40, "arm", "arm"),
    (62, "x86_64", "amd64"),
    (183, "aarch64", "arm64"),
    (243, "riscv64", "riscv64"),
    (258, "loongarch64", "loong64"),
];

fn machine_name(machine: u16) -> Option<String> {
    let known = MACHINES.iter().find(|(number, _, _)| *number == machine);
    known.map(|(_, name, platform)| if name == platform { (*name).to_owned() } else { format!("{name} ({platform})") })
}

fn is_native(machine: u16) -> bool {
    MACHINES.iter().any(|(number, name, _)| *number == machine && *name == std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::TextsBuf;

    fn explained(command: &CStr, environment: &[&CStr], errno: i32, evidence: &[u8]) -> Command {
        let words: TextsBuf = [command].into_iter().collect();
        let environment: TextsBuf = environment.iter().copied().collect();
        explain(words.as_texts(), words.as_texts(), environment.as_texts(), Errno(errno), evidence)
    }

    fn evidence(path: &str, head: &[u8]) -> Vec<u8> {
        [path.as_bytes(), &[0], head].concat()
    }

    #[test]
    fn a_command_that_is_nowhere_names_where_it_was_looked_for() {
        let found = explained(c"foo", &[c"A=1", c"PATH=/bin:/usr/bin"], libc::ENOENT, b"/bin/foo\0");
        assert_eq!(found.sentence, "no such command: foo; looked in PATH /bin:/usr/bin");
        assert_eq!((found.kind, found.path.as_str()), (Kind::NotFound, "foo"));
        let found = explained(c"/app", &[], libc::ENOENT, b"/app\0");
        assert_eq!(found.sentence, "no such file: /app");
        let found = explained(c"ls -l", &[], libc::ENOENT, b"/bin/ls -l\0");
        assert!(found.hint.unwrap().contains("words of their own"));
    }

    #[test]
    fn a_missing_interpreter_is_named() {
        let found = explained(c"/app", &[], libc::ENOENT, &evidence("/app", b"#! /bin/bash -e\necho"));
        assert_eq!(found.sentence, "exec /app: the interpreter /bin/bash of this script is not in the image");
        assert_eq!(found.kind, Kind::NotFound);
        assert!(found.hint.unwrap().contains("an image that has it"));
        let found = explained(c"/app", &[], libc::ENOENT, &evidence("/app", b"#!/bin/sh\r\necho\r\n"));
        assert_eq!(found.sentence, "exec /app: the interpreter /bin/sh of this script is not in the image");
        assert!(found.hint.unwrap().contains("carriage return"));
    }

    #[test]
    fn a_missing_loader_is_named() {
        let program = std::fs::read("/bin/ls").unwrap();
        let found = explained(c"/app", &[], libc::ENOENT, &evidence("/app", &program[..4096]));
        assert!(found.sentence.starts_with("exec /app: the loader /lib"), "{}", found.sentence);
        assert!(found.sentence.ends_with(" of this program is not in the image"));
        assert_eq!(found.kind, Kind::NotFound);
    }

    #[test]
    fn another_machine_is_named() {
        let mut program = std::fs::read("/bin/ls").unwrap()[..4096].to_vec();
        let foreign: u16 = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
        program[18..20].copy_from_slice(&foreign.to_le_bytes());
        let found = explained(c"/app", &[], libc::ENOEXEC, &evidence("/app", &program));
        let name = if foreign == 183 { "aarch64 (arm64)" } else { "x86_64 (amd64)" };
        let expected = format!("exec /app: a program for {name}, this machine is {}", std::env::consts::ARCH);
        assert_eq!(found.sentence, expected);
        assert_eq!(found.kind, Kind::NotExecutable);
    }

    #[test]
    fn what_is_no_program_is_told_apart() {
        let cases: [(i32, &[u8], &str); 7] = [
            (libc::ENOEXEC, b"", "the file is empty"),
            (libc::ENOEXEC, b"echo hello\n", "text without a #! line"),
            (libc::ENOEXEC, b"MZ\x90\0", "a Windows program"),
            (libc::ENOEXEC, b"\xcf\xfa\xed\xfe", "a macOS program"),
            (libc::ENOEXEC, b"\0\x01\x02", "not a program that this kernel knows"),
            (libc::EISDIR, b"", "it is a directory"),
            (libc::EACCES, b"\x7fELF", "permission denied"),
        ];
        for (errno, head, words) in cases {
            let found = explained(c"/app", &[], errno, &evidence("/app", head));
            assert!(found.sentence.contains(words), "{}", found.sentence);
            assert_eq!(found.kind, Kind::NotExecutable);
        }
    }

    #[test]
    fn no_header_leads_out_of_bounds() {
        let program = std::fs::read("/bin/ls").unwrap()[..4096].to_vec();
        for position in 0..128 {
            for value in [0, 0x7f, 0xff] {
                let mut broken = program.clone();
                broken[position] = value;
                let _ = (elf_loader(&broken), elf_machine(&broken));
            }
        }
        for length in 0..128 {
            let _ = (elf_loader(&program[..length]), elf_machine(&program[..length]));
        }
    }
}
