//! From rules to instructions: numbers with one outcome become ranges, ranges a balanced tree, conditions chains.
//!
//! ```text
//! load arch
//! is it ours? ------------- no -> is it x86 and listed? -- no -> kill
//!  | yes                           | yes
//! load number                     load number
//! tree over ranges                 tree over ranges
//!  | leaf: return, or
//! check arguments, rule by rule -> return
//! ```
//!
//! The kernel runs the program once for each number when it is loaded, to learn which are always allowed, so the depth
//! of the tree is what a load costs.

use super::abi::{Abi, CALLS, Call, Machine, X32_BIT};
use super::assembler::{AND, Assembler, IF_AT_LEAST, IF_EQUAL, IF_GREATER, Instruction, LOAD, Label};
use super::profile::{Action, Comparison, Condition, Profile};

/// What happens to one call.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    /// The first whose conditions all hold decides.
    checks: Vec<(Vec<Condition>, Action)>,
    /// What is done if none does.
    otherwise: Action,
}

impl Outcome {
    fn always(action: Action) -> Self {
        Self { checks: Vec::new(), otherwise: action }
    }
}

/// Outcomes that are the same are one: this one.
type Number = u16;

/// What happens to each call, whatever its number.
struct Outcomes {
    list: Vec<Outcome>,
    of_call: [Number; CALLS],
    /// Of what has no name.
    of_unknown: Number,
}

/// Numbers from `first` up to the next range's.
struct Range {
    first: u32,
    outcome: Number,
}

/// The program of a profile.
pub fn generate(profile: &Profile, machine: Machine) -> Vec<Instruction> {
    let mut outcomes = Outcomes::of(profile);
    let enosys = add(&mut outcomes.list, Outcome::always(Action::ENOSYS));
    let mut generator =
        Generator { assembler: Assembler::default(), chains: vec![None; outcomes.list.len()], outcomes };
    let mut start = generator.assembler.ret(Action::KILL_PROCESS.0);
    let beside = (machine == Machine::X86_64 && profile.listed.contains(&Abi::X86)).then_some(Abi::X86);
    for abi in beside.into_iter().chain([machine.abi()]) {
        let mut ranges = generator.outcomes.ranges(abi);
        if abi == Abi::X86_64 && profile.listed.contains(&Abi::X32) {
            join(&mut ranges, generator.outcomes.ranges(Abi::X32));
        } else if abi == Abi::X86_64 {
            join(&mut ranges, [Range { first: X32_BIT, outcome: enosys }]);
        }
        let tree = generator.tree(&ranges);
        let tree = generator.assembler.step(LOAD, NUMBER, tree);
        start = generator.assembler.branch(IF_EQUAL, abi.audit_arch(), tree, start);
    }
    generator.assembler.step(LOAD, ARCH, start);
    generator.assembler.finish()
}

impl Outcomes {
    fn of(profile: &Profile) -> Self {
        let mut outcomes = Self { list: Vec::new(), of_call: [0; CALLS], of_unknown: 0 };
        let mut otherwise = [None; CALLS];
        let mut checked = Vec::new();
        for rule in &profile.rules {
            for call in &rule.calls {
                if rule.conditions.is_empty() {
                    otherwise[call.index()].get_or_insert(rule.action);
                } else {
                    checked.push((*call, rule));
                }
            }
        }
        for (number, action) in outcomes.of_call.iter_mut().zip(otherwise) {
            *number = add(&mut outcomes.list, Outcome::always(action.unwrap_or(profile.default)));
        }
        // A stable sort: rules of one call stay in their order.
        checked.sort_by_key(|(call, _)| *call);
        for same in checked.chunk_by(|(one, _), (other, _)| one == other) {
            let call = same[0].0.index();
            let checks = same.iter().map(|(_, rule)| (rule.conditions.clone(), rule.action)).collect();
            let outcome = Outcome { checks, otherwise: otherwise[call].unwrap_or(profile.default) };
            outcomes.of_call[call] = add(&mut outcomes.list, outcome);
        }
        let unknown = if profile.default.lets_pass() { profile.default } else { Action::ENOSYS };
        outcomes.of_unknown = add(&mut outcomes.list, Outcome::always(unknown));
        outcomes
    }

    /// All numbers of an ABI, first to last.
    fn ranges(&self, abi: Abi) -> Vec<Range> {
        /// No ABI has as many.
        const NUMBERS: usize = 1024;
        let mut table = [self.of_unknown; NUMBERS];
        for call in Call::all() {
            if let Some(number) = call.number(abi) {
                table[usize::from(number)] = self.of_call[call.index()];
            }
        }
        let mut ranges = Vec::new();
        for (number, &outcome) in (abi.base()..).zip(&table) {
            join(&mut ranges, [Range { first: number, outcome }]);
        }
        ranges
    }
}

/// A handful, so looking through them is quick.
fn add(list: &mut Vec<Outcome>, outcome: Outcome) -> Number {
    let known = list.iter().position(|known| *known == outcome);
    known.unwrap_or_else(|| {
        list.push(outcome);
        list.len() - 1
    }) as Number
}

/// Adds ranges that come later; what continues the last is part of it.
fn join(ranges: &mut Vec<Range>, more: impl IntoIterator<Item = Range>) {
    for range in more {
        if ranges.last().is_none_or(|last: &Range| last.outcome != range.outcome) {
            ranges.push(range);
        }
    }
}

/// Offsets in `struct seccomp_data` of linux/seccomp.h.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

struct Generator {
    assembler: Assembler,
    outcomes: Outcomes,
    /// Of each outcome, once it is there: many calls may share one.
    chains: Vec<Option<Label>>,
}

impl Generator {
    fn tree(&mut self, ranges: &[Range]) -> Label {
        if let [range] = ranges {
            return self.outcome(range.outcome);
        }
        let (lower, upper) = ranges.split_at(ranges.len() / 2);
        let first = upper[0].first;
        let upper = self.tree(upper);
        let lower = self.tree(lower);
        self.assembler.branch(IF_AT_LEAST, first, upper, lower)
    }

    fn outcome(&mut self, number: Number) -> Label {
        if let Some(label) = self.chains[usize::from(number)] {
            return label;
        }
        let Outcome { checks, otherwise } = self.outcomes.list[usize::from(number)].clone();
        let mut next = self.assembler.ret(otherwise.0);
        if checks.is_empty() {
            return next;
        }
        for (conditions, action) in checks.iter().rev() {
            let mut holds = self.assembler.ret(action.0);
            for condition in conditions.iter().rev() {
                holds = self.condition(condition, holds, next);
            }
            next = holds;
        }
        self.chains[usize::from(number)] = Some(next);
        next
    }

    /// BPF has 32 bits: the upper half is looked at first, the lower if that leaves it open.
    fn condition(&mut self, condition: &Condition, yes: Label, no: Label) -> Label {
        let halves = Halves::of(condition);
        match condition.comparison {
            Comparison::Equal => self.equal(halves, u64::MAX, yes, no),
            Comparison::NotEqual => self.equal(halves, u64::MAX, no, yes),
            Comparison::MaskedEqual(mask) => self.equal(halves, mask, yes, no),
            Comparison::Greater => self.greater(halves, IF_GREATER, yes, no),
            Comparison::GreaterOrEqual => self.greater(halves, IF_AT_LEAST, yes, no),
            Comparison::LessOrEqual => self.greater(halves, IF_GREATER, no, yes),
            Comparison::Less => self.greater(halves, IF_AT_LEAST, no, yes),
        }
    }

    fn equal(&mut self, halves: Halves, mask: u64, yes: Label, no: Label) -> Label {
        let lower = self.equal_half(halves.lower_at, halves.lower, mask as u32, yes, no);
        self.equal_half(halves.upper_at, halves.upper, (mask >> 32) as u32, lower, no)
    }

    fn equal_half(&mut self, at: u32, value: u32, mask: u32, yes: Label, no: Label) -> Label {
        if mask == 0 {
            return yes;
        }
        let compared = self.assembler.branch(IF_EQUAL, value, yes, no);
        let masked = if mask == u32::MAX { compared } else { self.assembler.step(AND, mask, compared) };
        self.assembler.step(LOAD, at, masked)
    }

    fn greater(&mut self, halves: Halves, lower_code: u16, yes: Label, no: Label) -> Label {
        let lower = self.assembler.branch(lower_code, halves.lower, yes, no);
        let lower = self.assembler.step(LOAD, halves.lower_at, lower);
        let equal = self.assembler.branch(IF_EQUAL, halves.upper, lower, no);
        let upper = self.assembler.branch(IF_GREATER, halves.upper, yes, equal);
        self.assembler.step(LOAD, halves.upper_at, upper)
    }
}

/// A 64-bit argument as two words: where they lie on this machine, and what they are compared with.
#[derive(Clone, Copy)]
struct Halves {
    upper_at: u32,
    upper: u32,
    lower_at: u32,
    lower: u32,
}

impl Halves {
    fn of(condition: &Condition) -> Self {
        let at = ARGUMENTS + 8 * condition.argument;
        let (lower, upper) = if cfg!(target_endian = "big") { (4, 0) } else { (0, 4) };
        let (upper_at, lower_at) = (at + upper, at + lower);
        Self { upper_at, upper: (condition.value >> 32) as u32, lower_at, lower: condition.value as u32 }
    }
}
