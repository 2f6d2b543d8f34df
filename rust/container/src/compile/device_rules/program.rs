//! Device rules of cgroup v2: a program of BPF_PROG_TYPE_CGROUP_DEVICE, which the kernel asks about every open and mknod.
//!
//! ```text
//! r2 = type, r3 = access asked for, r4 = major, r5 = minor
//! for each rule, the last first:
//!     not this device: next
//!     denies one of r3: return 0
//!     allows: r3 &= ~rule; nothing left: return 1
//! return 0
//! ```
//!
//! So every right that is asked for is decided by the last rule that speaks of it, and what no rule speaks of is denied,
//! as with version 1's files after `deny a`.

/// Kinds of devices and of access (linux/bpf.h, BPF_DEVCG_).
pub(super) const BLOCK: u16 = 1;
pub(super) const CHARACTER: u16 = 2;
pub(super) const MKNOD: u16 = 1;
pub(super) const READ: u16 = 2;
pub(super) const WRITE: u16 = 4;
pub(super) const ALL: u16 = MKNOD | READ | WRITE;

/// One rule in numbers; `None` is any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub allow: bool,
    pub kind: Option<u16>,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: u16,
}

impl Rule {
    /// Whether nothing that comes before it matters.
    fn decides_all(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none() && self.access == ALL
    }
}

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// Codes of Documentation/bpf/standardization/instruction-set.rst.
const LOAD_WORD: u8 = 0x61;
const COPY: u8 = 0xbc;
const SET: u8 = 0xb4;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP: u8 = 0x05;
const JUMP_IF_NOT: u8 = 0x56;
const JUMP_IF_ANY: u8 = 0x46;
const EXIT: u8 = 0x95;

/// `struct bpf_insn` one after the other.
#[derive(Default)]
struct Assembler(Vec<u8>);

impl Assembler {
    fn put(&mut self, code: u8, target: u8, source: u8, offset: i16, number: u32) {
        self.0.extend_from_slice(&[code, target | source << 4]);
        self.0.extend_from_slice(&offset.to_ne_bytes());
        self.0.extend_from_slice(&number.to_ne_bytes());
    }

    fn end(&mut self, allow: bool) {
        self.put(SET, RESULT, 0, 0, u32::from(allow));
        self.put(EXIT, 0, 0, 0, 0);
    }

    /// `struct bpf_cgroup_dev_ctx`: access << 16 | type, major, minor.
    fn begin(&mut self) {
        self.put(LOAD_WORD, ACCESS, CONTEXT, 0, 0);
        self.put(LOAD_WORD, MAJOR, CONTEXT, 4, 0);
        self.put(LOAD_WORD, MINOR, CONTEXT, 8, 0);
        self.put(COPY, KIND, ACCESS, 0, 0);
        self.put(AND, KIND, 0, 0, 0xffff);
        self.put(SHIFT_RIGHT, ACCESS, 0, 0, 16);
    }

    fn rule(&mut self, rule: &Rule) {
        let mut verdict = Self::default();
        if rule.allow {
            verdict.put(AND, ACCESS, 0, 0, !u32::from(rule.access));
            verdict.put(JUMP_IF_NOT, ACCESS, 0, 2, 0);
        } else {
            verdict.put(JUMP_IF_ANY, ACCESS, 0, 1, u32::from(rule.access));
            verdict.put(JUMP, 0, 0, 2, 0);
        }
        verdict.end(rule.allow);
        let checks = [(KIND, rule.kind.map(u32::from)), (MAJOR, rule.major), (MINOR, rule.minor)];
        let checks: Vec<(u8, u32)> =
            checks.into_iter().filter_map(|(register, number)| Some((register, number?))).collect();
        let length = verdict.0.len() / 8;
        for (index, (register, number)) in checks.iter().enumerate() {
            let left = checks.len() - index - 1 + length;
            self.put(JUMP_IF_NOT, *register, 0, left as i16, *number);
        }
        self.0.append(&mut verdict.0);
    }
}

/// The program of rules that are written in the order in which they are meant.
pub(super) fn assemble(rules: &[Rule]) -> Vec<u8> {
    let mut program = Assembler::default();
    program.begin();
    for rule in rules.iter().rev() {
        // The verifier refuses what can't be reached.
        if rule.decides_all() {
            program.end(rule.allow);
            return program.0;
        }
        program.rule(rule);
    }
    program.end(false);
    program.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the few instructions that are used, as the kernel does.
    fn run(program: &[u8], kind: u16, major: u32, minor: u32, access: u16) -> bool {
        let context = [u32::from(access) << 16 | u32::from(kind), major, minor];
        let mut registers = [0u32; 6];
        let mut at = 0usize;
        loop {
            let insn = &program[at * 8..at * 8 + 8];
            let (target, source) = (usize::from(insn[1] & 0xf), usize::from(insn[1] >> 4));
            let offset = i16::from_ne_bytes([insn[2], insn[3]]);
            let number = u32::from_ne_bytes([insn[4], insn[5], insn[6], insn[7]]);
            at += 1;
            let jumps = match insn[0] {
                LOAD_WORD => {
                    assert_eq!(source, usize::from(CONTEXT));
                    registers[target] = context[offset as usize / 4];
                    false
                }
                COPY => {
                    registers[target] = registers[source];
                    false
                }
                SET => {
                    registers[target] = number;
                    false
                }
                AND => {
                    registers[target] &= number;
                    false
                }
                SHIFT_RIGHT => {
                    registers[target] >>= number;
                    false
                }
                JUMP => true,
                JUMP_IF_NOT => registers[target] != number,
                JUMP_IF_ANY => registers[target] & number != 0,
                EXIT => return registers[usize::from(RESULT)] == 1,
                other => panic!("{other:#x}"),
            };
            if jumps {
                at += offset as usize;
            }
        }
    }

    fn rule(allow: bool, kind: Option<u16>, major: Option<u32>, minor: Option<u32>, access: u16) -> Rule {
        Rule { allow, kind, major, minor, access }
    }

    /// What the words above say, without a program.
    fn judge(rules: &[Rule], kind: u16, major: u32, minor: u32, access: u16) -> bool {
        [MKNOD, READ, WRITE].into_iter().filter(|bit| access & bit != 0).all(|bit| {
            let speaks = |rule: &&Rule| {
                rule.kind.is_none_or(|known| known == kind)
                    && rule.major.is_none_or(|known| known == major)
                    && rule.minor.is_none_or(|known| known == minor)
                    && rule.access & bit != 0
            };
            rules.iter().rev().find(speaks).is_some_and(|rule| rule.allow)
        })
    }

    fn lists() -> Vec<Vec<Rule>> {
        let any = |allow: bool| rule(allow, None, None, None, ALL);
        let null = rule(true, Some(CHARACTER), Some(1), Some(3), READ | WRITE);
        let disks = rule(true, Some(BLOCK), Some(8), None, READ);
        let no_writing = rule(false, Some(BLOCK), Some(8), Some(0), WRITE);
        let huge = rule(true, Some(CHARACTER), Some(u32::MAX), Some(1 << 31), ALL);
        let make = rule(true, None, None, None, MKNOD);
        vec![
            vec![],
            vec![any(false)],
            vec![any(true)],
            vec![any(false), null],
            vec![null, any(false)],
            vec![any(true), no_writing],
            vec![any(false), make, null, disks, no_writing, huge],
            vec![any(false), disks, rule(true, Some(BLOCK), Some(8), Some(0), WRITE), no_writing],
            vec![any(true), rule(false, None, None, Some(3), READ), null],
        ]
    }

    #[test]
    fn the_last_rule_that_speaks_of_a_right_decides() {
        for rules in lists() {
            let program = assemble(&rules);
            for kind in [BLOCK, CHARACTER] {
                for (major, minor) in [(1, 3), (1, 5), (8, 0), (8, 1), (u32::MAX, 1 << 31), (0, 0)] {
                    for access in 1..=ALL {
                        let expected = judge(&rules, kind, major, minor, access);
                        let found = run(&program, kind, major, minor, access);
                        assert_eq!(found, expected, "{kind} {major}:{minor} {access} of {rules:?}");
                    }
                }
            }
        }
    }

    /// The verifier reads every path; without the right to load anything there is nobody to ask.
    #[test]
    fn the_kernel_takes_the_programs() {
        for rules in lists() {
            match crate::sys::load_device_program(&assemble(&rules)) {
                Ok(fd) => crate::sys::close(fd),
                Err(crate::sys::Errno(libc::EPERM)) => return,
                Err(errno) => panic!("{errno:?} for {rules:?}"),
            }
        }
    }
}
