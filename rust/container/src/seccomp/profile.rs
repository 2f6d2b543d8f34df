//! The JSON of `linux.seccomp` (OCI runtime specification 1.3, config-linux.md), checked and in numbers.

use serde::Deserialize;

use crate::json;
use crate::spec::Text;

use super::{Error, Notify, abi};

/// What to do with a call: a SECCOMP_RET_ value of linux/seccomp.h, data included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action(pub u32);

impl Action {
    /// Somebody else is asked.
    pub const NOTIFY: Self = Self(0x7FC0_0000);
    /// Ends the process.
    pub const KILL_PROCESS: Self = Self(0x8000_0000);
    /// The call is not there.
    pub const ENOSYS: Self = Self(0x0005_0000 | libc::ENOSYS as u32);

    /// Whether a call may happen all the same: allowed, logged, or left to a tracer.
    pub fn lets_pass(self) -> bool {
        matches!(self.0 & 0xFFFF_0000, 0x7FFF_0000 | 0x7FFC_0000 | 0x7FF0_0000)
    }
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// Equal in the bits of this mask; the value has no others.
    MaskedEqual(u64),
}

/// One comparison of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    pub argument: u32,
    pub comparison: Comparison,
    pub value: u64,
}

/// Calls, what must all hold of their arguments, and what is then done.
#[derive(Clone, Debug)]
pub struct Rule {
    pub calls: Vec<abi::Call>,
    pub conditions: Vec<Condition>,
    pub action: Action,
}

/// A whole profile.
#[derive(Clone, Debug)]
pub struct Profile {
    pub default: Action,
    /// ABIs listed, of those that there are tables for.
    pub listed: Vec<abi::Abi>,
    pub flags: u64,
    pub notify: Option<Notify>,
    pub rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawProfile<'a> {
    #[serde(borrow)]
    default_action: Text<'a>,
    default_errno_ret: Option<u32>,
    #[serde(borrow)]
    architectures: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    flags: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    listener_path: Option<Text<'a>>,
    #[serde(borrow)]
    listener_metadata: Option<Text<'a>>,
    #[serde(borrow)]
    syscalls: Option<Vec<RawRule<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawRule<'a> {
    #[serde(borrow)]
    names: Vec<Text<'a>>,
    #[serde(borrow)]
    action: Text<'a>,
    errno_ret: Option<u32>,
    #[serde(borrow)]
    args: Option<Vec<RawCondition<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawCondition<'a> {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    #[serde(borrow)]
    op: Text<'a>,
}

fn refused<T>(field: impl Into<String>, problem: impl Into<String>) -> Result<T, Error> {
    Err(Error::Refused { field: field.into(), problem: problem.into() })
}

/// Reads and checks a profile.
pub fn parse(document: &str) -> Result<Profile, Error> {
    let raw: RawProfile<'_> = json::parse_text(document, "linux.seccomp")
        .map_err(|wrong| Error::Refused { field: wrong.path, problem: wrong.message })?;
    let default =
        action(&raw.default_action, raw.default_errno_ret, "linux.seccomp", "defaultAction", "defaultErrnoRet")?;
    let mut rules = Vec::new();
    for (index, rule) in raw.syscalls.unwrap_or_default().into_iter().enumerate() {
        read_rule(rule, &format!("linux.seccomp.syscalls[{index}]"), default, &mut rules)?;
    }
    let notify = notify(default, &rules, raw.listener_path, raw.listener_metadata)?;
    let flags = flags(raw.flags, notify.is_some())?;
    Ok(Profile { default, listed: architectures(raw.architectures)?, flags, notify, rules })
}

/// Checks that notifications can be answered: the call that hands the listener out can't itself wait for an answer.
fn notify(
    default: Action,
    rules: &[Rule],
    path: Option<Text<'_>>,
    metadata: Option<Text<'_>>,
) -> Result<Option<Notify>, Error> {
    let path = path.filter(|path| !path.is_empty());
    let metadata = metadata.filter(|metadata| !metadata.is_empty());
    if metadata.is_some() && path.is_none() {
        return refused("linux.seccomp.listenerMetadata", "needs linux.seccomp.listenerPath");
    }
    if default == Action::NOTIFY {
        return refused("linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY can't be the default: nobody could be told");
    }
    let mut notified = rules.iter().filter(|rule| rule.action == Action::NOTIFY).peekable();
    if notified.peek().is_none() {
        return Ok(None);
    }
    let hands_out = abi::Call::of("sendmsg");
    if notified.any(|rule| rule.calls.iter().any(|&call| Some(call) == hands_out)) {
        return refused("linux.seccomp.syscalls", "sendmsg can't be notified: by it the listener is handed out");
    }
    match path {
        Some(path) => Ok(Some(Notify { path: path.to_string(), metadata: metadata.unwrap_or_default().to_string() })),
        None => refused("linux.seccomp.listenerPath", "missing: SCMP_ACT_NOTIFY needs somebody to tell"),
    }
}

/// EPERM: what a refusal says if the profile does not.
const EPERM: u32 = libc::EPERM as u32;
/// MAX_ERRNO of the kernel; it lowers what is above.
const MAX_ERRNO: u32 = 4095;

fn action(name: &str, errno: Option<u32>, at: &str, name_field: &str, errno_field: &str) -> Result<Action, Error> {
    let plain = match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0x0000_0000,
        "SCMP_ACT_KILL_PROCESS" => Action::KILL_PROCESS.0,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_LOG" => 0x7FFC_0000,
        "SCMP_ACT_ALLOW" => 0x7FFF_0000,
        "SCMP_ACT_ERRNO" if errno.unwrap_or(EPERM) <= MAX_ERRNO => {
            return Ok(Action(0x0005_0000 | errno.unwrap_or(EPERM)));
        }
        "SCMP_ACT_TRACE" if errno.unwrap_or(EPERM) <= 0xFFFF => {
            return Ok(Action(0x7FF0_0000 | errno.unwrap_or(EPERM)));
        }
        "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE" => return refused(format!("{at}.{errno_field}"), "too large"),
        "SCMP_ACT_NOTIFY" => Action::NOTIFY.0,
        _ => return refused(format!("{at}.{name_field}"), format!("{name:?} is not an action")),
    };
    match errno {
        Some(_) => refused(format!("{at}.{errno_field}"), format!("{name} returns no error number")),
        None => Ok(Action(plain)),
    }
}

fn read_rule(raw: RawRule<'_>, at: &str, default: Action, rules: &mut Vec<Rule>) -> Result<(), Error> {
    let action = action(&raw.action, raw.errno_ret, at, "action", "errnoRet")?;
    if raw.names.is_empty() {
        return refused(format!("{at}.names"), "empty");
    }
    let mut calls = Vec::with_capacity(raw.names.len());
    for name in &raw.names {
        match abi::Call::of(name) {
            Some(call) => calls.push(call),
            // A call that is to be stopped and has no number here would pass by the default.
            None if default.lets_pass() && !action.lets_pass() => {
                let problem = format!("{:?} is not a system call of Linux 6.18", &**name);
                return refused(format!("{at}.names"), problem);
            }
            None => {}
        }
    }
    let mut conditions = Vec::new();
    for (index, condition) in raw.args.unwrap_or_default().into_iter().enumerate() {
        conditions.push(read_condition(&condition, &format!("{at}.args[{index}]"))?);
    }
    let seen = conditions.iter().fold(0u32, |seen, condition: &Condition| seen | 1 << condition.argument);
    if seen.count_ones() as usize == conditions.len() {
        rules.push(Rule { calls, conditions, action });
    } else {
        rules.extend(conditions.into_iter().map(|one| Rule { calls: calls.clone(), conditions: vec![one], action }));
    }
    Ok(())
}

fn read_condition(raw: &RawCondition<'_>, at: &str) -> Result<Condition, Error> {
    if raw.index > 5 {
        return refused(format!("{at}.index"), "a system call has the arguments 0 to 5");
    }
    let comparison = match &*raw.op {
        "SCMP_CMP_EQ" => Comparison::Equal,
        "SCMP_CMP_NE" => Comparison::NotEqual,
        "SCMP_CMP_LT" => Comparison::Less,
        "SCMP_CMP_LE" => Comparison::LessOrEqual,
        "SCMP_CMP_GT" => Comparison::Greater,
        "SCMP_CMP_GE" => Comparison::GreaterOrEqual,
        // The specification has the mask in `value`; libseccomp ignores bits of the other outside of it.
        "SCMP_CMP_MASKED_EQ" => {
            let value = raw.value_two & raw.value;
            return Ok(Condition { argument: raw.index, comparison: Comparison::MaskedEqual(raw.value), value });
        }
        other => return refused(format!("{at}.op"), format!("{other:?} is not a comparison")),
    };
    Ok(Condition { argument: raw.index, comparison, value: raw.value })
}

/// What the specification lists: those without a table here are of machines that this is not, or denied.
pub const ARCHITECTURES: [&str; 23] = [
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
];

fn architectures(names: Option<Vec<Text<'_>>>) -> Result<Vec<abi::Abi>, Error> {
    let mut listed = Vec::new();
    for (index, name) in names.unwrap_or_default().iter().enumerate() {
        match &**name {
            "SCMP_ARCH_X86_64" => listed.push(abi::Abi::X86_64),
            "SCMP_ARCH_X86" => listed.push(abi::Abi::X86),
            "SCMP_ARCH_X32" => listed.push(abi::Abi::X32),
            "SCMP_ARCH_AARCH64" => listed.push(abi::Abi::Aarch64),
            known if ARCHITECTURES.contains(&known) => {}
            _ => return refused(format!("linux.seccomp.architectures[{index}]"), format!("{:?} is not one", &**name)),
        }
    }
    Ok(listed)
}

const FOR_LISTENERS: &str = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";

/// SECCOMP_FILTER_FLAG_ of linux/seccomp.h.
pub const FLAGS: [(&str, u64); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", 1 << 0),
    ("SECCOMP_FILTER_FLAG_LOG", 1 << 1),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", 1 << 2),
    (FOR_LISTENERS, 1 << 5),
];

fn flags(names: Option<Vec<Text<'_>>>, notifies: bool) -> Result<u64, Error> {
    let mut flags = 0;
    for (index, name) in names.unwrap_or_default().iter().enumerate() {
        let wrong = |problem| refused(format!("linux.seccomp.flags[{index}]"), problem);
        flags |= match FLAGS.iter().find(|(known, _)| *known == &**name) {
            Some((FOR_LISTENERS, _)) if !notifies => return wrong(format!("{name} is for listeners")),
            Some((_, bit)) => bit,
            None => return wrong(format!("{:?} is not a flag", &**name)),
        };
    }
    Ok(flags)
}
