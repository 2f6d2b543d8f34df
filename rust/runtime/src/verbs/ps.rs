//! `ps`: the processes of a container, as numbers or as ps(1) of the host shows them.

use std::process::Command;

use crate::arguments::{Arguments, Global, Order, Usage, valued};
use crate::cgroups;
use crate::container::print;
use crate::error::{Error, Result};

use super::look;

/// How it is called.
pub const USAGE: Usage = Usage {
    words: "ID [OPTION OF PS ...]",
    count: (1, usize::MAX),
    order: Order::FlagsFirst,
    flags: &[valued("format", "FORMAT", "table (if absent) or json").or('f')],
    ..Usage::of("ps", "print the processes of a container, as ps(1) shows them", "ps web -o pid,args")
};

/// The verb.
pub fn ps(global: &Global, arguments: &Arguments) -> Result<u8> {
    let (id, options) = (arguments.id()?, &arguments.words[1..]);
    let (record, _) = look(global, id)?;
    let pids = cgroups::processes(&record.cgroups);
    match arguments.value("format") {
        Some("json") => print(&serde_json::json!(pids).to_string())?,
        None | Some("table") => print(&of_host(options, &pids)?)?,
        Some(other) => return Err(Error::new(format!("--format {other}: table or json"))),
    }
    Ok(0)
}

/// The lines of ps(1) whose column PID names one of ours, and the heading.
fn of_host(options: &[String], pids: &[i32]) -> Result<String> {
    let usual = ["-ef".to_owned()];
    let options = if options.is_empty() { &usual[..] } else { options };
    let output = Command::new("ps").args(options).output().map_err(|error| Error::new(format!("ps: {error}")))?;
    if !output.status.success() {
        return Err(Error::new(format!("ps: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let heading = lines.next().unwrap_or_default();
    let column = heading.split_whitespace().position(|word| word == "PID");
    let column = column.ok_or_else(|| Error::new("ps: these options leave the column PID out"))?;
    let is_ours = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse::<i32>().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    Ok([heading].into_iter().chain(lines.filter(is_ours)).collect::<Vec<_>>().join("\n"))
}
