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

use std::collections::{BTreeMap, HashMap};

use super::abi::{Abi, Machine};
use super::assembler::{AND, Assembler, IF_AT_LEAST, IF_EQUAL, IF_GREATER, Instruction, LOAD, Label};
use super::profile::{Action, Comparison, Condition, Profile};

/// What happens to one call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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

/// Numbers from `first` up to the next range's.
struct Range {
    first: u32,
    outcome: Outcome,
}

/// The program of a profile.
pub fn generate(profile: &Profile, machine: Machine) -> Vec<Instruction> {
    let mut generator = Generator { assembler: Assembler::default(), chains: HashMap::new() };
    let mut start = generator.assembler.ret(Action::KILL_PROCESS.0);
    let beside = (machine == Machine::X86_64 && profile.listed.contains(&Abi::X86)).then_some(Abi::X86);
    for abi in beside.into_iter().chain([machine.abi()]) {
        let tree = generator.tree(&ranges(profile, abi));
        let tree = generator.assembler.step(LOAD, NUMBER, tree);
        start = generator.assembler.branch(IF_EQUAL, abi.audit_arch(), tree, start);
    }
    generator.assembler.step(LOAD, ARCH, start);
    generator.assembler.finish()
}

/// Offsets in `struct seccomp_data` of linux/seccomp.h.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// What happens to each call that the rules name.
fn outcomes(profile: &Profile, abi: Abi) -> BTreeMap<u32, Outcome> {
    let mut named: BTreeMap<u32, (Vec<_>, Option<Action>)> = BTreeMap::new();
    for rule in &profile.rules {
        for number in rule.names.iter().filter_map(|name| abi.number(name)) {
            let (checks, otherwise) = named.entry(number).or_default();
            if rule.conditions.is_empty() {
                otherwise.get_or_insert(rule.action);
            } else {
                checks.push((rule.conditions.clone(), rule.action));
            }
        }
    }
    let resolve =
        |(checks, otherwise): (_, Option<_>)| Outcome { checks, otherwise: otherwise.unwrap_or(profile.default) };
    named.into_iter().map(|(number, rules)| (number, resolve(rules))).collect()
}

/// All numbers, first to last, for the ABI and for x32 where that shares its `arch`.
fn ranges(profile: &Profile, abi: Abi) -> Vec<Range> {
    let unknown = if profile.default.lets_pass() { profile.default } else { Action::ENOSYS };
    let mut ranges = vec![Range { first: 0, outcome: Outcome::always(unknown) }];
    add_ranges(&mut ranges, profile, abi, unknown);
    if abi == Abi::X86_64 {
        if profile.listed.contains(&Abi::X32) {
            add_ranges(&mut ranges, profile, Abi::X32, unknown);
        } else {
            add_range(&mut ranges, super::abi::X32_BIT, Outcome::always(Action::ENOSYS));
        }
    }
    ranges
}

fn add_ranges(ranges: &mut Vec<Range>, profile: &Profile, abi: Abi, unknown: Action) {
    let mut outcomes = outcomes(profile, abi);
    for number in abi.known() {
        add_range(ranges, number, outcomes.remove(&number).unwrap_or(Outcome::always(profile.default)));
        // Ended at once; the next number, if it has a name, takes this place.
        add_range(ranges, number + 1, Outcome::always(unknown));
    }
}

fn add_range(ranges: &mut Vec<Range>, first: u32, outcome: Outcome) {
    if ranges.last().is_some_and(|last| last.first == first) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|last| last.outcome != outcome) {
        ranges.push(Range { first, outcome });
    }
}

struct Generator {
    assembler: Assembler,
    /// Chains that are already there: many calls may share one.
    chains: HashMap<Outcome, Label>,
}

impl Generator {
    fn tree(&mut self, ranges: &[Range]) -> Label {
        if let [range] = ranges {
            return self.outcome(&range.outcome);
        }
        let (lower, upper) = ranges.split_at(ranges.len() / 2);
        let first = upper[0].first;
        let upper = self.tree(upper);
        let lower = self.tree(lower);
        self.assembler.branch(IF_AT_LEAST, first, upper, lower)
    }

    fn outcome(&mut self, outcome: &Outcome) -> Label {
        if let Some(&label) = self.chains.get(outcome) {
            return label;
        }
        let mut next = self.assembler.ret(outcome.otherwise.0);
        if outcome.checks.is_empty() {
            return next;
        }
        for (conditions, action) in outcome.checks.iter().rev() {
            let mut holds = self.assembler.ret(action.0);
            for condition in conditions.iter().rev() {
                holds = self.condition(condition, holds, next);
            }
            next = holds;
        }
        self.chains.insert(outcome.clone(), next);
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
