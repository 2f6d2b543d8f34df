//! `state` and `list`.

use std::fs;

use serde_json::{Value, json};

use crate::annals::{self, Record};
use crate::arguments::{Arguments, Global, Usage, switch, valued};
use crate::container::{Status, print};
use crate::error::{Error, Result};

use super::look;

/// How `state` is called.
pub const STATE: Usage = Usage::of("state", "print the state of a container (JSON)", "state web");

/// One container, as JSON.
pub fn state(global: &Global, arguments: &Arguments) -> Result<u8> {
    let (record, status) = look(global, arguments.id()?)?;
    let document = describe(&record, status);
    print(&serde_json::to_string_pretty(&document).unwrap_or_default())?;
    Ok(0)
}

/// The document of the specification with what runc adds.
fn describe(record: &Record, status: Status) -> Value {
    let pid = if status == Status::Stopped { 0 } else { record.pid };
    let mut document = json!({
        "ociVersion": record.oci_version,
        "id": record.id,
        "pid": pid,
        "status": status.name(),
        "bundle": record.bundle,
        "rootfs": record.rootfs,
        "created": record.created,
        "owner": owner(record.uid),
    });
    if !record.annotations.is_empty() {
        document["annotations"] = json!(record.annotations);
    }
    document
}

/// The user's name, or as runc writes one without.
fn owner(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    named.unwrap_or_else(|| format!("#{uid}"))
}

/// How `list` is called.
pub const LIST: Usage = Usage {
    words: "",
    count: (0, 0),
    flags: &[
        valued("format", "FORMAT", "table (if absent) or json").or('f'),
        switch("quiet", "print the ids alone").or('q'),
    ],
    ..Usage::of("list", "print all containers", "list --format json")
};

/// All containers.
pub fn list(global: &Global, arguments: &Arguments) -> Result<u8> {
    let mut found = Vec::new();
    for id in annals::ids(&global.root)? {
        // Whatever vanishes while we look is not there.
        if let Ok((record, status)) = look(global, &id) {
            found.push(describe(&record, status));
        }
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match (arguments.has("quiet"), arguments.value("format")) {
        (true, _) => found.iter().try_for_each(|container| print(&text(&container["id"])))?,
        (false, Some("json")) => print(&Value::from(found).to_string())?,
        (false, None | Some("table")) => {
            let columns = ["id", "pid", "status", "bundle", "created", "owner"];
            let mut rows: Vec<Vec<String>> = vec![columns.iter().map(|column| column.to_uppercase()).collect()];
            rows.extend(found.iter().map(|container| columns.iter().map(|column| text(&container[column])).collect()));
            print(&table(&rows))?;
        }
        (false, Some(other)) => return Err(Error::new(format!("--format {other}: table or json"))),
    }
    Ok(0)
}

/// As runc's: columns as wide as their widest cell and three spaces more, and at least twelve.
fn table(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let line = |row: &Vec<String>| {
        let cell = |(at, cell)| format!("{cell:<wide$}", wide = (width(at) + 3).max(12));
        row.iter().enumerate().map(cell).collect::<String>().trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
