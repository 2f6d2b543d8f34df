//! Classic BPF, written from the last instruction to the first.
//!
//! Jumps of classic BPF go forward only, so that what is written first is what lies last: every target is known when
//! a jump to it is written. A conditional jump reaches 255 instructions; what is further away is reached through a
//! jump of 32 bits, or, if it is a return, through a copy of it.

/// `struct sock_filter` of linux/filter.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    pub code: u16,
    pub on_true: u8,
    pub on_false: u8,
    pub k: u32,
}

impl Instruction {
    /// As it lies in memory.
    pub fn bytes(&self) -> [u8; 8] {
        let mut bytes = [0; 8];
        bytes[..2].copy_from_slice(&self.code.to_ne_bytes());
        bytes[2] = self.on_true;
        bytes[3] = self.on_false;
        bytes[4..].copy_from_slice(&self.k.to_ne_bytes());
        bytes
    }
}

/// BPF_LD | BPF_W | BPF_ABS.
pub const LOAD: u16 = 0x20;
/// BPF_ALU | BPF_AND | BPF_K.
pub const AND: u16 = 0x54;
/// BPF_JMP | BPF_JA.
pub const JUMP: u16 = 0x05;
/// BPF_JMP | BPF_JEQ | BPF_K.
pub const IF_EQUAL: u16 = 0x15;
/// BPF_JMP | BPF_JGT | BPF_K.
pub const IF_GREATER: u16 = 0x25;
/// BPF_JMP | BPF_JGE | BPF_K.
pub const IF_AT_LEAST: u16 = 0x35;
/// BPF_RET | BPF_K.
pub const RETURN: u16 = 0x06;

/// A place in the program, counted from its end: how many instructions there were when it had been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// How far a conditional jump reaches.
const REACH: usize = 255;

/// The program so far, last instruction first.
#[derive(Debug, Default)]
pub struct Assembler {
    reversed: Vec<Instruction>,
    /// The last return of each value.
    returns: Vec<(u32, Label)>,
}

impl Assembler {
    /// The program, first instruction first.
    pub fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }

    /// Ends the filter with this SECCOMP_RET_ value; takes an equal return that is near.
    pub fn ret(&mut self, value: u32) -> Label {
        match self.returns.iter().find(|(known, _)| *known == value) {
            Some((_, label)) if self.offset(*label) < REACH / 2 => *label,
            _ => self.push(RETURN, 0, 0, value),
        }
    }

    /// An instruction that does not jump, followed by `next`.
    pub fn step(&mut self, code: u16, k: u32, next: Label) -> Label {
        if next.0 != self.reversed.len() {
            self.bring_near(next);
        }
        self.push(code, 0, 0, k)
    }

    /// Compares the accumulator with `k`.
    pub fn branch(&mut self, code: u16, k: u32, on_true: Label, on_false: Label) -> Label {
        if on_true == on_false {
            return on_true;
        }
        let on_true = self.within_reach(on_true);
        let on_false = self.within_reach(on_false);
        let (on_true, on_false) = (self.offset(on_true), self.offset(on_false));
        self.push(code, on_true as u8, on_false as u8, k)
    }

    /// `label`, or a stand-in that a conditional jump reaches, even if one more instruction is written before it.
    fn within_reach(&mut self, label: Label) -> Label {
        if self.offset(label) < REACH { label } else { self.bring_near(label) }
    }

    fn bring_near(&mut self, label: Label) -> Label {
        let target = self.reversed[label.0 - 1];
        if target.code == RETURN {
            return self.push(RETURN, 0, 0, target.k);
        }
        let offset = self.offset(label) as u32;
        self.push(JUMP, 0, 0, offset)
    }

    /// How many instructions the next one to be written skips to get to `label`.
    fn offset(&self, label: Label) -> usize {
        self.reversed.len() - label.0
    }

    fn push(&mut self, code: u16, on_true: u8, on_false: u8, k: u32) -> Label {
        self.reversed.push(Instruction { code, on_true, on_false, k });
        let label = Label(self.reversed.len());
        if code == RETURN {
            match self.returns.iter_mut().find(|(known, _)| *known == k) {
                Some((_, last)) => *last = label,
                None => self.returns.push((k, label)),
            }
        }
        label
    }
}
