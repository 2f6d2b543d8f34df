//! One file a verb, or a few that belong together. A verb reads its own flags, and returns the exit code.

mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod inspect;
mod kill;
mod pause;
mod ps;
mod restore;
mod spec;
mod update;

use crate::annals::{self, Annals, Record};
use crate::arguments::{Arguments, Global, Verb};
use crate::container::{Status, print};
use crate::error::{Error, Result};

/// Of runc's documentation: which verbs there are.
const HELP: &str = "usage: pyrt-runtime [--root DIR] [--log FILE] [--log-format text|json] VERB ...

  create   make a container from a bundle; its process waits
  start    let it run
  run      both, and wait for its end
  exec     one more process in a container
  kill     send a signal
  delete   remove what is left of a container
  state    print the state of a container (JSON)
  list     print all containers
  ps       print the processes of a container
  pause    freeze a container
  resume   thaw it
  update   change its limits
  events   print its statistics (JSON)
  spec     write a config.json to begin with
  features print what is supported (JSON)
  checkpoint write a container down, through criu
  restore  bring it back

The flags are those of runc.";

/// Runs a verb.
pub fn run(global: &Global, verb: &Verb) -> Result<u8> {
    let words = &verb.words;
    match verb.name.as_str() {
        // podman asks so whether there are checkpoints.
        _ if matches!(&words[..], [word] if word == "--help" || word == "-h") => print(HELP).map(|()| 0),
        "create" => create::create(global, words),
        "run" => create::run(global, words),
        "start" => create::start(global, words),
        "exec" => exec::exec(global, words),
        "kill" => kill::kill(global, words),
        "delete" => delete::delete(global, words),
        "state" => inspect::state(global, words),
        "list" => inspect::list(global, words),
        "ps" => ps::ps(global, words),
        "pause" => pause::pause(global, words),
        "resume" => pause::resume(global, words),
        "update" => update::update(global, words),
        "events" => events::events(global, words),
        "spec" => spec::spec(words),
        "features" => features::features(),
        "checkpoint" => checkpoint::checkpoint(global, words),
        "restore" => restore::restore(global, words),
        "version" => version(),
        "help" => print(HELP).map(|()| 0),
        other => Err(Error::new(format!("no such verb: {other}")).hint("pyrt-runtime --help")),
    }
}

/// Three lines as runc prints them: engines read the first and the third.
fn version() -> Result<u8> {
    let version = env!("CARGO_PKG_VERSION");
    print(&format!("pyrt-runtime version {version}\nspec: {}", features::NEWEST))?;
    Ok(0)
}

/// A container that is there, locked.
struct Found {
    annals: Annals,
    record: Record,
    status: Status,
}

/// Locks a container and looks what it is doing.
fn find(global: &Global, id: &str) -> Result<Found> {
    let annals = Annals::open(&global.root, id)?;
    let record = annals::peek(&global.root, id)?;
    let record = record.ok_or_else(|| Error::new(format!("container {id} is only half created")))?;
    let status = Status::of(&record, &annals.path(""));
    Ok(Found { annals, record, status })
}

/// The same, for whoever changes nothing and must not wait.
fn look(global: &Global, id: &str) -> Result<(Record, Status)> {
    let record = annals::peek(&global.root, id)?;
    let record = record.ok_or_else(|| Error::new(format!("container {id} is only half created")))?;
    let status = Status::of(&record, &global.root.join(id));
    Ok((record, status))
}

/// A flag that names a file, from the working directory that we were started in.
fn file(arguments: &Arguments, name: &str) -> Result<Option<std::path::PathBuf>> {
    let absolute = |path: &str| std::path::absolute(path).map_err(|error| Error::new(format!("--{name}: {error}")));
    arguments.value(name).map(absolute).transpose()
}
