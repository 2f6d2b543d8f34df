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
use crate::arguments::{Arguments, Called, GLOBAL, Global, List, Usage};
use crate::container::{Status, print};
use crate::error::{Error, Result};

/// A verb: how it is called, and what then happens; that returns the exit code.
type Verb = (Usage, fn(&Global, &Arguments) -> Result<u8>);

const VERBS: [Verb; 17] = [
    (create::CREATE, create::create),
    (create::START, create::start),
    (create::RUN, create::run),
    (exec::USAGE, exec::exec),
    (kill::USAGE, kill::kill),
    (delete::USAGE, delete::delete),
    (inspect::STATE, inspect::state),
    (inspect::LIST, inspect::list),
    (ps::USAGE, ps::ps),
    (pause::PAUSE, pause::pause),
    (pause::RESUME, pause::resume),
    (update::USAGE, update::update),
    (events::USAGE, events::events),
    (spec::USAGE, spec::spec),
    (features::USAGE, features::features),
    (checkpoint::USAGE, checkpoint::checkpoint),
    (restore::USAGE, restore::restore),
];

/// Runs a verb.
pub fn run(global: &Global, called: &Called) -> Result<u8> {
    let find = |name: &str| {
        let found = VERBS.iter().find(|(usage, _)| usage.name == name);
        found.ok_or_else(|| Error::new(format!("no such verb: {name}")).hint("pyrt-runtime --help"))
    };
    match called {
        Called::Version => version(),
        Called::Help(None) => help(),
        Called::Help(Some(name)) => print(&find(name)?.0.to_string()).map(|()| 0),
        Called::Verb { name, words } => {
            let (usage, act) = find(name)?;
            match usage.read(words)? {
                Some(arguments) => act(global, &arguments),
                None => print(&usage.to_string()).map(|()| 0),
            }
        }
    }
}

fn help() -> Result<u8> {
    let verbs: Vec<String> = VERBS.iter().map(|(usage, _)| format!("  {:<10}  {}", usage.name, usage.about)).collect();
    let flags = List(GLOBAL);
    print(&format!(
        "usage: pyrt-runtime [FLAG ...] VERB ...\n\n{}\n\n{flags}\n\nThe verbs and their flags are those of runc: pyrt-runtime VERB --help",
        verbs.join("\n")
    ))?;
    Ok(0)
}

/// Two lines as runc prints them: engines look for what stands before and after "version", and for "spec:".
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
