//! Documents, and what is wrong in them by its JSON path. The path costs time, so it is only looked for when there is
//! something to complain about.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// "linux.resources.memory.limit", or "".
    pub path: String,
    /// The end of a sentence.
    pub message: String,
}

/// Reads a JSON document; `root` is put before the path of whatever is wrong in it.
pub(crate) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], root: &str) -> Result<T, Wrong> {
    // Looked through once as a whole: of bytes each string would be on its own.
    match std::str::from_utf8(bytes) {
        Ok(text) => parse_text(text, root),
        Err(error) => Err(locate::<T>(bytes, root, error.to_string())),
    }
}

/// The same of a text.
pub(crate) fn parse_text<'a, T: Deserialize<'a>>(text: &'a str, root: &str) -> Result<T, Wrong> {
    serde_json::from_str(text).map_err(|error| locate::<T>(text.as_bytes(), root, error.to_string()))
}

fn locate<'a, T: Deserialize<'a>>(bytes: &'a [u8], root: &str, error: String) -> Wrong {
    let mut input = serde_json::Deserializer::from_slice(bytes);
    let (path, error) = match serde_path_to_error::deserialize::<_, T>(&mut input) {
        Err(error) => (error.path().to_string(), error.into_inner().to_string()),
        // Something comes after the document, or what is no text stands where nobody reads it.
        Ok(_) => (String::new(), error),
    };
    // "." is the whole, "?" a name that has not ended.
    let path = join(root, path.trim_end_matches(['.', '?']));
    // Where an enumeration takes a word and gets something else, serde_json calls that no value.
    match serde_json::from_slice::<IgnoredAny>(bytes) {
        Err(_) => Wrong { path, message: format!("not JSON: {error}") },
        Ok(_) => match error.split(" at line ").next().unwrap_or_default() {
            "expected value" => Wrong { path, message: "expected a string".to_owned() },
            message => complain(path, message),
        },
    }
}

fn join(parent: &str, name: &str) -> String {
    match (parent, name) {
        ("", name) => name.to_owned(),
        (parent, "") => parent.to_owned(),
        (parent, name) if name.starts_with('[') => format!("{parent}{name}"),
        (parent, name) => format!("{parent}.{name}"),
    }
}

/// What is said of a field that the specification does not have.
pub const UNKNOWN_FIELD: &str = "no such field in the specification";

/// Serde names a missing or an unknown field in its message; here it belongs to the path.
fn complain(path: String, message: &str) -> Wrong {
    let kinds =
        [("unknown field `", UNKNOWN_FIELD), ("missing field `", "missing"), ("duplicate field `", "given twice")];
    for (start, what) in kinds {
        if let Some((field, _)) = message.strip_prefix(start).and_then(|rest| rest.split_once('`')) {
            let is_named = path == field || path.ends_with(&format!(".{field}"));
            return Wrong { path: if is_named { path } else { join(&path, field) }, message: what.to_owned() };
        }
    }
    // The names of our types are nobody's business.
    let message = match message.split_once("expected struct ") {
        Some((before, _)) => format!("{before}expected an object"),
        None => message.to_owned(),
    };
    Wrong { path, message }
}
