//! `exec`: one more process in a container, from a document like `process` or from flags.

use std::os::fd::AsRawFd;
use std::path::Path;

use pyrt_container::compile;
use pyrt_container::host::Host;
use pyrt_container::sys;
use serde_json::{Value, json};

use crate::annals::Record;
use crate::arguments::{Arguments, Global, Order, Usage, switch, valued};
use crate::config;
use crate::console::{self, Terminal};
use crate::container::{Status, close_others, execute, warn_of_capabilities, write_pid};
use crate::error::{Error, Result};
use crate::foreground;
use crate::plain;
use crate::process;
use crate::sealed;

use super::create::{CONSOLE, PID_FILE, PIDFD, PRESERVE};
use super::{file, find};

/// How it is called.
pub const USAGE: Usage = Usage {
    words: "ID COMMAND [ARGUMENT ...]",
    count: (1, usize::MAX),
    order: Order::FlagsFirst,
    flags: &[
        valued("process", "FILE", "a document like config.json's process, instead of a command").or('p'),
        switch("detach", "do not wait for the end").or('d'),
        switch("tty", "on a terminal").or('t'),
        CONSOLE,
        PIDFD,
        PID_FILE,
        valued("cwd", "DIR", "working directory in the container"),
        valued("env", "NAME=VALUE", "one more variable").or('e'),
        valued("user", "UID[:GID]", "as whom").or('u'),
        valued("additional-gids", "GID", "one more group").or('g'),
        valued("cap", "CAP_NAME", "one more capability").or('c'),
        switch("no-new-privs", "PR_SET_NO_NEW_PRIVS"),
        valued("apparmor", "PROFILE", "AppArmor's name for what it may do"),
        valued("process-label", "LABEL", "SELinux's context"),
        valued("cgroup", "[CONTROLLER,...:]PATH", "into this group below the container's own"),
        PRESERVE,
        switch("ignore-paused", "also in a container that is paused"),
    ],
    ..Usage::of("exec", "one more process in a container", "exec --tty web ps -o pid,args")
};

/// As runc's: none of the codes that a shell has for a command of its own.
const FAILED: u8 = 255;

/// The verb.
pub fn exec(global: &Global, arguments: &Arguments) -> Result<u8> {
    join(global, arguments).map_err(|error| error.with_code(FAILED))
}

fn join(global: &Global, arguments: &Arguments) -> Result<u8> {
    let (id, command) = (arguments.id()?, &arguments.words[1..]);
    let cgroups = cgroups(arguments)?;
    let pid_file = file(arguments, "pid-file")?;
    let preserve = arguments.number("preserve-fds")?.unwrap_or(0);
    sealed::ensure()?;
    close_others(preserve)?;
    let found = find(global, id)?;
    match found.status {
        Status::Created | Status::Running => {}
        Status::Paused if arguments.has("ignore-paused") => {}
        status => return Err(Error::new(format!("cannot exec in a container that is {}", status.name()))),
    }
    let config = found.annals.read("config.json")?;
    let mut config: Value =
        serde_json::from_slice(&config).map_err(|error| Error::new(format!("config.json: {error}")))?;
    let process = process_document(&config, arguments, command)?;
    forget_paths(&mut config);
    let stays = !arguments.has("detach");
    let terminal = Terminal::choose(process["terminal"] == json!(true), arguments.value("console-socket"), stays)?;
    let (config, process) = (config.to_string(), process.to_string());
    let root = found.record.root_mount.map(|_| &found.record.rootfs);
    let start =
        json!({ "id": id, "lifecycle": { "preserve": preserve, "cgroups": cgroups, "root": root } }).to_string();
    let pidfd = open_first(&found.record)?;
    let wanted = compile::read_process(process.as_bytes())?;
    if plain::is_plain(global.uid) {
        plain::join(found.record.pid, &wanted)?;
    }
    let host = Host::probe()?;
    warn_of_capabilities(global, &wanted, &compile::read(config.as_bytes())?.linux, &host);
    let compiled = compile::compile_exec(config.as_bytes(), process.as_bytes(), start.as_bytes(), pidfd, &host)?;
    if stays {
        foreground::block_signals();
    }
    let running = execute(&compiled, None, &mut |_| ())?;
    drop(compiled);
    // Whoever deletes the container need not wait for this process.
    drop(found);
    if let (Terminal::Socket(socket), Some(master)) = (terminal, running.terminal) {
        console::send(socket, master)?;
        sys::close(master);
    }
    if let Some(socket) = arguments.value("pidfd-socket") {
        console::send_pidfd(socket, "setns", running.pidfd)?;
    }
    if let Some(path) = pid_file {
        write_pid(&path, running.pid)?;
    }
    if !stays {
        return Ok(0);
    }
    let here = running.terminal.filter(|_| matches!(terminal, Terminal::Here));
    foreground::attend(running.pid, here, foreground::hold_signals()?)
}

/// `--cgroup [CONTROLLER[,CONTROLLER...]:]PATH`, below the container's own group; never beside it.
fn cgroups(arguments: &Arguments) -> Result<Vec<(String, String)>> {
    let mut cgroups = Vec::new();
    for given in arguments.values("cgroup").filter(|given| !given.is_empty()) {
        let (controllers, path) = given.split_once(':').unwrap_or(("", given));
        if path.split('/').any(|part| part == "..") {
            return Err(Error::new(format!("--cgroup {given}: contains ..")));
        }
        cgroups.extend(controllers.split(',').map(|controller| (controller.to_owned(), path.to_owned())));
    }
    Ok(cgroups)
}

/// A pidfd of the first process, which is sure to be that one.
fn open_first(record: &Record) -> Result<std::os::fd::OwnedFd> {
    let gone = || Error::new(format!("container not running: {}", record.id));
    let pidfd = process::open(record.pid).map_err(|_| gone())?;
    if !process::is_alive(record.pid, record.start_time) || pidfd.as_raw_fd() < 0 {
        return Err(gone());
    }
    Ok(pidfd)
}

/// What was joined by path is the container's by now, and the path may be gone.
fn forget_paths(config: &mut Value) {
    let namespaces = config.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut);
    for namespace in namespaces.into_iter().flatten().filter_map(Value::as_object_mut) {
        namespace.remove("path");
    }
}

fn process_document(config: &Value, arguments: &Arguments, command: &[String]) -> Result<Value> {
    if let Some(path) = arguments.value("process") {
        let content = config::read(Path::new(path))?;
        return serde_json::from_slice(&content).map_err(|error| Error::new(format!("process: not JSON: {error}")));
    }
    if command.is_empty() {
        return Err(Error::new("process.args: missing: there is nothing to run"));
    }
    let own = config.get("process").filter(|process| process.is_object()).cloned();
    let mut process = own.unwrap_or_else(|| json!({ "cwd": "/", "user": { "uid": 0, "gid": 0 } }));
    process["args"] = json!(command);
    process["terminal"] = json!(arguments.has("tty"));
    if let Some(cwd) = arguments.value("cwd") {
        process["cwd"] = json!(cwd);
    }
    if let Some(profile) = arguments.value("apparmor") {
        process["apparmorProfile"] = json!(profile);
    }
    if let Some(label) = arguments.value("process-label") {
        process["selinuxLabel"] = json!(label);
    }
    if arguments.value("no-new-privs").is_some() {
        process["noNewPrivileges"] = json!(arguments.has("no-new-privs"));
    }
    set_user(&mut process, arguments)?;
    append(&mut process["env"], arguments.values("env").map(|entry| json!(entry)));
    if arguments.values("cap").next().is_some() {
        for set in ["bounding", "effective", "permitted"] {
            append(&mut process["capabilities"][set], arguments.values("cap").map(|name| json!(name)));
        }
    }
    Ok(process)
}

fn set_user(process: &mut Value, arguments: &Arguments) -> Result<()> {
    let parse = |flag: &str, text: &str| {
        text.parse::<u32>()
            .map(|number| json!(number))
            .map_err(|_| Error::new(format!("--{flag} {text}: not a number")))
    };
    if let Some(user) = arguments.value("user") {
        let (uid, gid) = user.split_once(':').map_or((user, None), |(uid, gid)| (uid, Some(gid)));
        process["user"]["uid"] = parse("user", uid)?;
        if let Some(gid) = gid {
            process["user"]["gid"] = parse("user", gid)?;
        }
    }
    let gids = arguments.values("additional-gids").map(|gid| parse("additional-gids", gid));
    let gids = gids.collect::<Result<Vec<Value>>>()?;
    append(&mut process["user"]["additionalGids"], gids.into_iter());
    Ok(())
}

/// Appends to a list that may be missing or null, and leaves it alone if there is nothing to append.
fn append(list: &mut Value, more: impl Iterator<Item = Value>) {
    match (list, more.collect::<Vec<Value>>()) {
        (Value::Array(known), more) => known.extend(more),
        (_, more) if more.is_empty() => {}
        (other, more) => *other = Value::Array(more),
    }
}
