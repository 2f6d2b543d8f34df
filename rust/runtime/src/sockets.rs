//! Sockets that systemd has opened for a container (sd_listen_fds(3)): they are its descriptors from 3 on, and it is
//! told so as if systemd had started it itself.

use pyrt_container::sys;
use serde_json::{Value, json};

use crate::config::Document;
use crate::error::{Error, Result};

/// How many there are, and what they are called.
#[derive(Debug, Default)]
pub struct Sockets {
    count: u32,
    names: Option<String>,
}

impl Sockets {
    /// What the environment says, if it is meant for this process.
    pub fn given() -> Result<Self> {
        let is_for_us = variable("LISTEN_PID").is_some_and(|pid| pid == sys::pid().to_string());
        let Some(count) = variable("LISTEN_FDS").filter(|_| is_for_us) else { return Ok(Self::default()) };
        let count = count.parse().map_err(|_| Error::new(format!("LISTEN_FDS={count}: not a number")))?;
        Ok(Self { count, names: variable("LISTEN_FDNAMES") })
    }

    /// How many descriptors from 3 on they are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The document of a container that is told. In a pid namespace of its own it is process 1.
    pub fn pass_on(&self, plain: Document) -> Result<Document> {
        if self.count == 0 {
            return Ok(plain);
        }
        let Ok(mut document) = serde_json::from_slice::<Value>(plain.bytes) else { return Ok(plain) };
        let Some(process) = document["process"].as_object_mut() else { return Ok(plain) };
        let entries = [Some(format!("LISTEN_FDS={}", self.count)), Some("LISTEN_PID=1".to_owned())];
        let names = self.names.as_ref().map(|names| format!("LISTEN_FDNAMES={names}"));
        let entries = entries.into_iter().chain([names]).flatten().map(Value::String);
        match process.get_mut("env") {
            Some(Value::Array(list)) => list.extend(entries),
            _ => drop(process.insert("env".to_owned(), json!(entries.collect::<Vec<Value>>()))),
        }
        Ok(Document::read(document.to_string().into_bytes())?)
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
