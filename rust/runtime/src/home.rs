//! `$HOME`, where config.json says nothing of it: what the container's /etc/passwd has for the user, else `/`. The
//! specification is silent; engines leave it to the runtime, because runc and crun do so.

use std::path::Path;

use pyrt_container::lookup::read_image_file;
use pyrt_container::spec::Process;

const NAME: &str = "HOME=";
/// More users than that no image has.
const LONGEST: usize = 1 << 20;

/// The variable for a process that has none, or an empty one; `root` is the container's. It goes after all others.
pub fn missing(process: &Process<'_>, root: &Path) -> Option<String> {
    let has_one = process.env.iter().any(|entry| entry.strip_prefix(NAME).is_some_and(|home| !home.is_empty()));
    if has_one {
        return None;
    }
    // A file that can't be read is none: a link out of the root, or what is no file at all.
    let users = read_image_file(&[root], "/etc/passwd", LONGEST).ok().flatten().unwrap_or_default();
    let home = of_user(&String::from_utf8_lossy(&users), process.user.uid).unwrap_or_else(|| "/".to_owned());
    Some(format!("{NAME}{home}"))
}

/// The sixth field of the line that has the id in its third (passwd(5)).
fn of_user(users: &str, uid: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let is_here = fields.get(2)?.parse() == Ok(uid);
        fields
            .get(5)
            .filter(|home| is_here && home.starts_with('/') && !home.contains('\0'))
            .map(|home| (*home).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_homes() {
        let users = "# users\nroot:x:0:0:root:/root:/bin/sh\nbob:x:7:7::/home/bob:\nnone:x:8:8:::\nshort:x:9\n";
        for (uid, home) in [(0, Some("/root")), (7, Some("/home/bob")), (8, None), (9, None), (10, None)] {
            assert_eq!(of_user(users, uid).as_deref(), home);
        }
    }
}
