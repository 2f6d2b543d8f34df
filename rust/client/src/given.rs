//! What execve(2) has given this process.

use core::ffi::CStr;

/// Arguments, the program's name first, and environment.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// Not empty, but for callers that mean harm.
    pub arguments: &'a [&'a CStr],
    /// NAME=value, as a rule.
    pub environment: &'a [&'a CStr],
}

impl<'a> Given<'a> {
    /// What comes after the program's name.
    pub fn words(&self) -> &'a [&'a CStr] {
        self.arguments.get(1..).unwrap_or_default()
    }

    /// What of the environment names a variable.
    pub fn variables(&self) -> impl Iterator<Item = (&'a [u8], &'a CStr)> {
        self.environment.iter().filter_map(|entry| {
            let bytes = entry.to_bytes();
            // A name may begin with "=", as the C library has it, and is never empty.
            let end = bytes.iter().skip(1).position(|byte| *byte == b'=')? + 1;
            Some((&bytes[..end], *entry))
        })
    }

    /// The value of a variable that has one.
    pub fn variable(&self, name: &str) -> Option<&'a [u8]> {
        let entries = self.environment.iter().map(|entry| entry.to_bytes());
        let mut values = entries.filter_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        values.next().filter(|value| !value.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_no_variable_is_left_out() {
        let environment = [c"A=1=2", c"=B=3", c"no variable", c"=", c"", c"EMPTY="];
        let given = Given { arguments: &[], environment: &environment };
        let names: Vec<_> = given.variables().map(|(name, _)| name).collect();
        assert_eq!(names, [b"A".as_slice(), b"=B", b"EMPTY"]);
        assert_eq!(given.variable("A"), Some(b"1=2".as_slice()));
        assert_eq!((given.variable("EMPTY"), given.variable("B")), (None, None));
        assert!(given.words().is_empty());
    }
}
