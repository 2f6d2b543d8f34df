//! `ps`: the processes of a container, as numbers or as ps(1) of the host shows them.

use std::process::Command;

use crate::arguments::{Arguments, Flag, Global, Order, valued};
use crate::cgroups;
use crate::container::print;
use crate::error::{Error, Result};

use super::look;

const FLAGS: [Flag; 1] = [valued("format").or('f')];

/// The verb.
pub fn ps(global: &Global, words: &[String]) -> Result<u8> {
    let arguments = Arguments::parse(words, &FLAGS, Order::FlagsFirst)?;
    let (id, options) = arguments.words.split_first().ok_or_else(|| Error::new("the id of a container is missing"))?;
    crate::arguments::check_id(id)?;
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
