//! `linux.resources.devices`: which devices a container may open and make.

mod program;

use crate::spec::DeviceRule;

use super::error::{Error, Result};
use super::limits::Setting;

const FIELD: &str = "linux.resources.devices";

/// What every container may do once there are rules, as runc and crun have it: make any node (to have one is not
/// to open it), and open the default devices and terminals.
const ALWAYS: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// /dev/net/tun, which runc and crun add to these: images of private networks make it and have but CAP_NET_ADMIN.
const TUN: &str = "c 10:200 rwm";

fn setting(allow: bool, value: String, field: String) -> Setting {
    let file = if allow { "devices.allow" } else { "devices.deny" };
    Setting { controller: "devices".to_owned(), file: file.to_owned(), value, field, otherwise: None }
}

/// Writes to version 1's devices.allow and devices.deny, in order. No rules: no writes. `with_tun` as runc.
pub(super) fn for_v1(rules: &[DeviceRule<'_>], with_tun: bool) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for (index, rule) in rules.iter().enumerate() {
        let field = format!("{FIELD}[{index}]");
        settings.extend(lines(rule, &field)?.into_iter().map(|line| setting(rule.allow, line, field.clone())));
    }
    // Once everything is allowed the default devices are, too.
    if !rules.is_empty() && !rules.iter().all(is_allow_all) {
        let always = ALWAYS.into_iter().chain(Some(TUN).filter(|_| with_tun));
        settings.extend(always.map(|line| setting(true, line.to_owned(), FIELD.to_owned())));
    }
    Ok(settings)
}

/// Version 2 has no such files: a program decides. None if everything is allowed.
pub(super) fn for_v2(rules: &[DeviceRule<'_>], with_tun: bool) -> Result<Option<Vec<u8>>> {
    // The lines of version 1 are the rules, checked and with the defaults behind them.
    let settings = for_v1(rules, with_tun)?;
    if rules.iter().all(is_allow_all) {
        return Ok(None);
    }
    let numbers: Vec<program::Rule> = settings.iter().map(numbers).collect();
    Ok(Some(program::assemble(&numbers)))
}

/// A line like `c 1:3 rwm` in numbers.
fn numbers(setting: &Setting) -> program::Rule {
    let mut words = setting.value.split([' ', ':']);
    let mut word = || words.next().unwrap_or_default();
    let kind = match word() {
        "c" => Some(program::CHARACTER),
        "b" => Some(program::BLOCK),
        _ => None,
    };
    let (major, minor) = (word().parse().ok(), word().parse().ok());
    let rights = [('r', program::READ), ('w', program::WRITE), ('m', program::MKNOD)];
    let letters = word();
    let access = rights.iter().filter(|(letter, _)| letters.contains(*letter)).fold(0, |bits, (_, bit)| bits | bit);
    program::Rule { allow: setting.file == "devices.allow", kind, major, minor, access }
}

/// Whether nothing is left to what holds outside of the container.
pub(super) fn are_about_all(rules: &[DeviceRule<'_>]) -> bool {
    rules.iter().any(is_about_all)
}

fn is_about_all(rule: &DeviceRule<'_>) -> bool {
    let any = |number: Option<i64>| number.is_none_or(|number| number == -1);
    let access = rule.access.as_deref().unwrap_or("rwm");
    let all = "rwm".chars().all(|letter| access.contains(letter));
    any(rule.major) && any(rule.minor) && all && matches!(rule.kind.as_deref(), None | Some("a" | ""))
}

fn is_allow_all(rule: &DeviceRule<'_>) -> bool {
    rule.allow && is_about_all(rule)
}

fn number(value: Option<i64>, field: String) -> Result<Option<u32>> {
    match value {
        None | Some(-1) => Ok(None),
        Some(number) => match u32::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Error::spec(field, format!("{number} is no device number"))),
        },
    }
}

fn lines(rule: &DeviceRule<'_>, field: &str) -> Result<Vec<String>> {
    let access = rule.access.as_deref().filter(|access| !access.is_empty()).unwrap_or("rwm");
    if access.chars().any(|letter| !"rwm".contains(letter)) {
        return Err(Error::spec(format!("{field}.access"), format!("{access:?} has other letters than r, w, m")));
    }
    let major = number(rule.major, format!("{field}.major"))?;
    let minor = number(rule.minor, format!("{field}.minor"))?;
    let text = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    let line = |kind: &str| format!("{kind} {}:{} {access}", text(major), text(minor));
    match rule.kind.as_deref() {
        // The kernel takes an "a" for everything, whatever comes after it (Documentation/admin-guide/cgroup-v1/devices.rst).
        None | Some("a" | "") if major.is_none() && minor.is_none() && access.len() == 3 => Ok(vec![line("a")]),
        None | Some("a" | "") => Ok(vec![line("c"), line("b")]),
        Some("c" | "u") => Ok(vec![line("c")]),
        Some("b") => Ok(vec![line("b")]),
        Some(kind) => Err(Error::spec(format!("{field}.type"), format!("{kind:?} is not one of a, c, b"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(json: &str) -> std::result::Result<Vec<String>, String> {
        let rules: Vec<DeviceRule<'_>> = serde_json::from_str(json).unwrap();
        let settings = for_v1(&rules, false).map_err(|error| error.to_string())?;
        Ok(settings.into_iter().map(|setting| format!("{} {}", &setting.file[8..], setting.value)).collect())
    }

    #[test]
    fn rules_keep_their_order_and_the_defaults_follow() {
        let json = r#"[{"allow": false, "access": "rwm"},
                       {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
                       {"allow": true, "major": 7, "access": "r"}]"#;
        let lines = written(json).unwrap();
        assert_eq!(lines[..4], ["deny a *:* rwm", "allow c 10:229 rw", "allow c 7:* r", "allow b 7:* r"]);
        assert_eq!(lines.len(), 4 + ALWAYS.len());
    }

    #[test]
    fn no_rules_and_rules_that_allow_all_need_no_defaults() {
        assert_eq!(written("[]").unwrap(), [""; 0]);
        assert_eq!(written(r#"[{"allow": true, "access": "rwm"}]"#).unwrap(), ["allow a *:* rwm"]);
    }

    #[test]
    fn nonsense_names_its_field() {
        let cases = [
            (r#"[{"allow": true, "access": "rx"}]"#, "linux.resources.devices[0].access"),
            (r#"[{"allow": true, "type": "z"}]"#, "linux.resources.devices[0].type"),
            (r#"[{"allow": true, "major": -2}]"#, "linux.resources.devices[0].major"),
            (r#"[{"allow": true, "minor": 99999999999}]"#, "linux.resources.devices[0].minor"),
        ];
        for (json, field) in cases {
            assert!(written(json).unwrap_err().starts_with(field), "{json}");
        }
    }

    #[test]
    fn version_2_needs_no_program_where_all_is_allowed() {
        let program = |json: &'static str| for_v2(&serde_json::from_str::<Vec<DeviceRule<'_>>>(json).unwrap(), false);
        assert_eq!(program("[]").unwrap(), None);
        assert_eq!(program(r#"[{"allow": true, "type": "a", "access": "rwm"}]"#).unwrap(), None);
        assert!(program(r#"[{"allow": false}]"#).unwrap().is_some());
        assert_eq!(
            program(r#"[{"allow": true, "access": "x"}]"#).unwrap_err().path,
            "linux.resources.devices[0].access"
        );
    }

    #[test]
    fn lines_are_read_as_numbers() {
        let rule = |file: &str, line: &str| {
            let allow = file == "allow";
            numbers(&setting(allow, line.to_owned(), String::new()))
        };
        let numbers = program::Rule {
            allow: true,
            kind: Some(program::CHARACTER),
            major: Some(136),
            minor: None,
            access: program::READ | program::WRITE | program::MKNOD,
        };
        assert_eq!(rule("allow", "c 136:* rwm"), numbers);
        let numbers = program::Rule { allow: false, kind: None, major: None, minor: None, access: program::ALL };
        assert_eq!(rule("deny", "a *:* rwm"), numbers);
    }
}
