//! The program does what the rules say: an interpreter of the kernel's BPF against a plain reading of the profile, for
//! every number and arguments around every value that a rule compares with.

use super::abi::{Abi, Machine, X32_BIT};
use super::profile::{self, Action, Comparison, Condition, Profile};
use super::*;

/// `struct seccomp_data`, without the instruction pointer, which rules can't name.
#[derive(Clone, Copy, Debug)]
struct Call {
    number: u32,
    arch: u32,
    arguments: [u64; 6],
}

impl Call {
    fn word(&self, at: u32) -> u32 {
        match at {
            0 => self.number,
            4 => self.arch,
            16..64 if at % 8 == 0 => self.arguments[(at as usize - 16) / 8] as u32,
            16..64 if at % 8 == 4 => (self.arguments[(at as usize - 16) / 8] >> 32) as u32,
            _ => panic!("load from {at}"),
        }
    }
}

/// Runs a program as the kernel would; also checks that each jump stays inside.
fn run(program: &[u8], call: &Call) -> u32 {
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let bytes: [u8; 8] = program[at * 8..at * 8 + 8].try_into().unwrap();
        let code = u16::from_ne_bytes([bytes[0], bytes[1]]);
        let k = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let jump = |holds: bool| usize::from(if holds { bytes[2] } else { bytes[3] });
        at += 1;
        match code {
            0x20 => accumulator = call.word(k),
            0x54 => accumulator &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(accumulator == k),
            0x25 => at += jump(accumulator > k),
            0x35 => at += jump(accumulator >= k),
            0x06 => return k,
            _ => panic!("instruction {code:#x}"),
        }
    }
}

fn holds(condition: &Condition, call: &Call) -> bool {
    let (argument, value) = (call.arguments[condition.argument as usize], condition.value);
    match condition.comparison {
        Comparison::Equal => argument == value,
        Comparison::NotEqual => argument != value,
        Comparison::Less => argument < value,
        Comparison::LessOrEqual => argument <= value,
        Comparison::Greater => argument > value,
        Comparison::GreaterOrEqual => argument >= value,
        Comparison::MaskedEqual(mask) => argument & mask == value,
    }
}

/// What the documentation of this module promises, rule by rule.
fn expected(profile: &Profile, machine: Machine, call: &Call) -> u32 {
    let x86_64 = machine == Machine::X86_64;
    let abi = if x86_64 && call.arch == Abi::X86.audit_arch() && profile.listed.contains(&Abi::X86) {
        Abi::X86
    } else if call.arch != machine.abi().audit_arch() {
        return Action::KILL_PROCESS.0;
    } else if x86_64 && call.number >= X32_BIT {
        if !profile.listed.contains(&Abi::X32) {
            return Action::ENOSYS.0;
        }
        Abi::X32
    } else {
        machine.abi()
    };
    let is_this =
        |known: &abi::Call| known.number(abi).is_some_and(|number| abi.base() | u32::from(number) == call.number);
    if !abi::Call::all().any(|known| is_this(&known)) {
        return if profile.default.lets_pass() { profile.default.0 } else { Action::ENOSYS.0 };
    }
    let named = |rule: &&profile::Rule| rule.calls.iter().any(is_this);
    let applies = |rule: &&profile::Rule| rule.conditions.iter().all(|condition| holds(condition, call));
    let conditional = profile.rules.iter().filter(named).filter(|rule| !rule.conditions.is_empty()).find(applies);
    let plain = || profile.rules.iter().filter(named).find(|rule| rule.conditions.is_empty());
    conditional.or_else(plain).map_or(profile.default, |rule| rule.action).0
}

/// xorshift64*: the same sequence in each run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % below
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.next(from.len())].clone()
    }
}

const VALUES: [u64; 9] = [0, 1, 0x5412, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 32, (7 << 32) | 5, u64::MAX];
const OPERATORS: [&str; 7] = ["EQ", "NE", "LT", "LE", "GT", "GE", "MASKED_EQ"];
const ACTIONS: [&str; 8] = [
    r#""SCMP_ACT_ALLOW""#,
    r#""SCMP_ACT_ERRNO""#,
    r#""SCMP_ACT_ERRNO","errnoRet":22"#,
    r#""SCMP_ACT_KILL""#,
    r#""SCMP_ACT_KILL_PROCESS""#,
    r#""SCMP_ACT_TRAP""#,
    r#""SCMP_ACT_LOG""#,
    r#""SCMP_ACT_TRACE","errnoRet":7"#,
];

fn random_rule(random: &mut Random, names: &[&str]) -> String {
    let names: Vec<_> = (0..1 + random.next(12)).map(|_| format!("\"{}\"", random.pick(names))).collect();
    let conditions: Vec<_> = (0..random.next(4))
        .map(|_| {
            let (index, op) = (random.next(6), random.pick(&OPERATORS));
            let (value, two) = (random.pick(&VALUES), random.pick(&VALUES));
            format!(r#"{{"index":{index},"value":{value},"valueTwo":{two},"op":"SCMP_CMP_{op}"}}"#)
        })
        .collect();
    let (names, action) = (names.join(","), random.pick(&ACTIONS));
    format!(r#"{{"names":[{names}],"action":{action},"args":[{}]}}"#, conditions.join(","))
}

fn random_profile(random: &mut Random) -> String {
    let names: Vec<&str> =
        include_str!("syscalls.tbl").lines().skip(2).map(|line| line.split(' ').next().unwrap()).collect();
    let rules: Vec<_> = (0..random.next(60)).map(|_| random_rule(random, &names)).collect();
    let default = random.pick(&["ALLOW", "ERRNO", "KILL", "LOG", "TRAP"]);
    let listed = random.pick(&[
        "[]",
        r#"["SCMP_ARCH_X86_64"]"#,
        r#"["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"]"#,
        r#"["SCMP_ARCH_AARCH64","SCMP_ARCH_ARM","SCMP_ARCH_X32"]"#,
    ]);
    let rules = rules.join(",");
    format!(r#"{{"defaultAction":"SCMP_ACT_{default}","architectures":{listed},"syscalls":[{rules}]}}"#)
}

fn numbers() -> impl Iterator<Item = u32> {
    let edges = [0x3FFF_FFFF, X32_BIT - 1, u32::MAX, 0x8000_0000, 100_000];
    (0..600).flat_map(|number| [number, number | X32_BIT]).chain(edges)
}

fn agree(json: &str, machine: Machine, random: &mut Random, samples: usize) {
    let profile = profile::parse(json).unwrap();
    let filter = compile_for(json, machine).unwrap();
    for arch in [Abi::X86_64.audit_arch(), Abi::X86.audit_arch(), Abi::Aarch64.audit_arch(), 0x1234] {
        for number in numbers() {
            for _ in 0..samples {
                let near =
                    |random: &mut Random| random.pick(&VALUES).wrapping_add(random.next(3) as u64).wrapping_sub(1);
                let call = Call { number, arch, arguments: std::array::from_fn(|_| near(random)) };
                assert_eq!(run(&filter.program, &call), expected(&profile, machine, &call), "{call:x?} in {json}");
            }
        }
    }
}

#[test]
fn every_number_and_argument_gets_what_the_rules_say() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for _ in 0..10 {
        let json = random_profile(&mut random);
        agree(&json, Machine::X86_64, &mut random, 4);
        agree(&json, Machine::Aarch64, &mut random, 4);
    }
}

fn decide(json: &str, number: u32, arguments: &[u64]) -> u32 {
    let filter = compile_for(json, Machine::X86_64).unwrap();
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    run(&filter.program, &Call { number, arch: Abi::X86_64.audit_arch(), arguments: all })
}

const ALLOW: u32 = 0x7FFF_0000;
const fn errno(number: u32) -> u32 {
    0x0005_0000 | number
}

#[test]
fn a_rule_with_arguments_comes_before_one_without() {
    for order in [[0, 1], [1, 0]] {
        let rules = [
            r#"{"names":["ioctl"],"action":"SCMP_ACT_ALLOW"}"#,
            r#"{"names":["ioctl"],"action":"SCMP_ACT_ERRNO",
                "args":[{"index":1,"value":4294967295,"valueTwo":21522,"op":"SCMP_CMP_MASKED_EQ"}]}"#,
        ];
        let json =
            format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{},{}]}}"#, rules[order[0]], rules[order[1]]);
        assert_eq!(decide(&json, 16, &[0, 0x5401]), ALLOW);
        assert_eq!(decide(&json, 16, &[0, 0x5412]), errno(1));
        // The kernel takes the lower half for the request; the upper is the caller's to fill (CVE-2019-7303).
        assert_eq!(decide(&json, 16, &[0, 0xDEAD_0000_5412]), errno(1));
    }
}

#[test]
fn a_rule_whose_action_is_the_default_is_not_skipped() {
    let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"architectures":["SCMP_ARCH_X86"],"syscalls":[
        {"names":["socketcall"],"action":"SCMP_ACT_ERRNO","errnoRet":1},
        {"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":40,"op":"SCMP_CMP_LT"}]},
        {"names":["socket","socketcall"],"action":"SCMP_ACT_ALLOW"}]}"#;
    let filter = compile_for(json, Machine::X86_64).unwrap();
    let socketcall = Call { number: 102, arch: Abi::X86.audit_arch(), arguments: [1, 0, 0, 0, 0, 0] };
    assert_eq!(run(&filter.program, &socketcall), errno(1));
}

#[test]
fn two_conditions_on_one_argument_are_alternatives() {
    let json = r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
        {"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[
        {"index":0,"value":0,"op":"SCMP_CMP_EQ"},{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]}]}"#;
    assert_eq!([0, 8, 9].map(|persona| decide(json, 135, &[persona])), [ALLOW, ALLOW, errno(1)]);
}

#[test]
fn what_has_no_name_is_not_there_unless_the_default_lets_it_pass() {
    let strict = r#"{"defaultAction":"SCMP_ACT_KILL",
        "syscalls":[{"names":["read","of_the_future"],"action":"SCMP_ACT_ALLOW"}]}"#;
    assert_eq!([0, 1, 400, 470].map(|number| decide(strict, number, &[])), [ALLOW, 0, errno(38), errno(38)]);
    let lax = r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#;
    assert_eq!([0, 400, 470, X32_BIT].map(|number| decide(lax, number, &[])), [ALLOW, ALLOW, ALLOW, errno(38)]);
}

#[test]
fn jumps_of_any_length_arrive() {
    // Each call has a chain of its own that no other shares, so that the tree spans thousands of instructions.
    let names: Vec<_> =
        include_str!("syscalls.tbl").lines().skip(2).filter_map(|line| line.split(' ').next()).collect();
    let rules: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            format!(
                r#"{{"names":["{name}"],"action":"SCMP_ACT_ERRNO","errnoRet":{index},
                     "args":[{{"index":2,"value":{},"op":"SCMP_CMP_GT"}}]}}"#,
                index + 70_000
            )
        })
        .collect();
    let json = format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{}]}}"#, rules.join(","));
    let filter = compile_for(&json, Machine::X86_64).unwrap();
    assert!(filter.program.len() / 8 > 2000);
    agree(&json, Machine::X86_64, &mut Random(1), 2);
}

#[test]
fn a_program_that_the_kernel_would_not_take_is_refused() {
    let conditions: Vec<_> =
        (0..3000).map(|value| format!(r#"{{"index":0,"value":{value},"op":"SCMP_CMP_EQ"}}"#)).collect();
    let json = format!(
        r#"{{"defaultAction":"SCMP_ACT_ERRNO",
            "syscalls":[{{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{}]}}]}}"#,
        conditions.join(",")
    );
    assert!(matches!(compile(&json), Err(Error::TooLong(length)) if length > LONGEST));
}

#[test]
fn what_is_not_honoured_is_named() {
    let rule = |rule: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":["read"],{rule}}}]}}"#);
    let condition = |text: &str| rule(&format!(r#""action":"SCMP_ACT_ALLOW","args":[{text}]"#));
    for (json, field) in [
        (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#.into(), "linux.seccomp.defaultAction"),
        (r#"{"defaultAction":"nothing"}"#.into(), "linux.seccomp.defaultAction"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}"#.into(), "linux.seccomp.defaultErrnoRet"),
        (rule(r#""action":"SCMP_ACT_NOTIFY""#), "linux.seccomp.listenerPath"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerMetadata":"x"}"#.into(), "linux.seccomp.listenerMetadata"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["Z80"]}"#.into(), "linux.seccomp.architectures[0]"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["FAST"]}"#.into(), "linux.seccomp.flags[0]"),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}"#.into(),
            "linux.seccomp.flags[0]",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["riad"],"action":"SCMP_ACT_KILL"}]}"#.into(),
            "linux.seccomp.syscalls[0].names",
        ),
        (rule(r#""action":"SCMP_ACT_ERRNO","errnoRet":4096"#), "linux.seccomp.syscalls[0].errnoRet"),
        (rule(r#""action":"SCMP_ACT_ALLOW","errnoRet":1"#), "linux.seccomp.syscalls[0].errnoRet"),
        (condition(r#"{"index":6,"value":0,"op":"SCMP_CMP_EQ"}"#), "linux.seccomp.syscalls[0].args[0].index"),
        (condition(r#"{"index":0,"value":0,"op":"IS"}"#), "linux.seccomp.syscalls[0].args[0].op"),
        (condition(r#"{"index":0,"value":-1,"op":"SCMP_CMP_EQ"}"#), "linux.seccomp.syscalls[0].args[0].value"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[]}"#.into(), "linux.seccomp.archMap"),
        (r#"{"#.to_string(), "linux.seccomp"),
    ] {
        assert_eq!(compile(&json).unwrap_err().field(), field, "{json}");
    }
    let unknown = compile(r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[]}"#).unwrap_err();
    assert!(unknown.to_string().contains("archMap"), "{unknown}");
}

#[test]
fn flags_and_absent_fields() {
    let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"","syscalls":null,
        "flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_SPEC_ALLOW"]}"#;
    assert_eq!(compile(json).unwrap().flags, 6);
}

#[test]
fn the_same_bytes_are_compiled_once_and_the_memory_is_bounded() {
    let profile = |errno: usize| format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":{errno}}}"#);
    let first = compile(&profile(0)).unwrap();
    for errno in 0..4 * REMEMBERED {
        compile(&profile(errno)).unwrap();
    }
    assert_eq!(compile(&profile(0)).unwrap(), first);
    assert!(recall(&profile(0)).is_some());
    assert!(CACHE.lock().unwrap().len() <= REMEMBERED);
}
