//! The state of a container (runtime.md, "State"), as hooks and `state` print it.

use serde::Serialize;

use super::{Map, Spec, Text};

/// The document. The process id comes last, so that it can be filled in by who knows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State<'a> {
    /// Version of the specification.
    pub oci_version: &'a str,
    /// The container.
    pub id: &'a str,
    /// creating, created, running, stopped.
    pub status: &'a str,
    /// Absolute directory.
    pub bundle: &'a str,
    /// As in config.json.
    pub annotations: &'a Map<'a, Text<'a>>,
}

impl<'a> State<'a> {
    /// Of a container that `spec` describes.
    pub fn of(spec: &'a Spec<'a>, id: &'a str, bundle: Option<&'a str>, status: &'a str) -> Self {
        let bundle = bundle.unwrap_or_default();
        Self { oci_version: &spec.oci_version, id, status, bundle, annotations: &spec.annotations }
    }

    /// All of it up to where the digits of the process id go; what comes after them is one brace.
    pub fn up_to_pid(&self) -> Vec<u8> {
        let mut document = serde_json::to_vec(self).unwrap_or_default();
        document.pop();
        document.extend_from_slice(b",\"pid\":");
        document
    }
}
