//! Pictures of trees: everything that an archive can set, to be compared.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What a tree looks like, by path.
pub type Picture = BTreeMap<String, Node>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub kind: Kind,
    /// Permissions; of a symbolic link 0.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Nanoseconds since the epoch.
    pub mtime: i128,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// First path of the same file, if that is another.
    pub same_as: Option<String>,
}

#[derive(Clone, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Character(u64),
    Block(u64),
    Fifo,
    Socket,
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(content) => {
                write!(out, "file of {} bytes {:.40}", content.len(), content.escape_ascii().to_string())
            }
            Self::Symlink(target) => write!(out, "link to {}", target.escape_ascii()),
            Self::Character(device) => write!(out, "character device {device:#x}"),
            Self::Block(device) => write!(out, "block device {device:#x}"),
            Self::Directory => out.write_str("directory"),
            Self::Fifo => out.write_str("pipe"),
            Self::Socket => out.write_str("socket"),
        }
    }
}

/// Takes a picture of the tree below `root`, which is "." in it.
pub fn picture(root: &Path) -> Picture {
    let mut picture = Picture::new();
    let mut seen = HashMap::new();
    add(root, ".".to_owned(), &mut picture, &mut seen);
    picture
}

fn add(path: &Path, name: String, picture: &mut Picture, seen: &mut HashMap<u64, String>) {
    let metadata = path.symlink_metadata().unwrap();
    let file_type = metadata.file_type();
    let kind = match () {
        () if file_type.is_dir() => Kind::Directory,
        () if file_type.is_file() => Kind::File(fs::read(path).unwrap()),
        () if file_type.is_symlink() => Kind::Symlink(fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec()),
        () if file_type.is_char_device() => Kind::Character(metadata.rdev()),
        () if file_type.is_block_device() => Kind::Block(metadata.rdev()),
        () if file_type.is_fifo() => Kind::Fifo,
        () => Kind::Socket,
    };
    let same_as = match file_type.is_dir() {
        true => None,
        false => match seen.entry(metadata.ino()) {
            std::collections::hash_map::Entry::Occupied(first) => Some(first.get().clone()),
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(name.clone());
                None
            }
        },
    };
    let node = Node {
        mode: if file_type.is_symlink() { 0 } else { metadata.mode() & 0o7777 },
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
        xattrs: xattrs(path),
        kind,
        same_as,
    };
    picture.insert(name.clone(), node);
    if file_type.is_dir() {
        let mut children: Vec<_> = fs::read_dir(path).unwrap().map(|child| child.unwrap().file_name()).collect();
        children.sort();
        for child in children {
            add(&path.join(&child), join(&name, &child), picture, seen);
        }
    }
}

fn join(parent: &str, name: &OsStr) -> String {
    let name = name.as_bytes().escape_ascii();
    if parent == "." { name.to_string() } else { format!("{parent}/{name}") }
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    let names = names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    names.map(|name| (String::from_utf8(name.to_vec()).unwrap(), xattr(path, name))).collect()
}

fn xattr(path: &Path, name: &[u8]) -> Vec<u8> {
    let mut value = vec![0; 65536];
    let length = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
    value.truncate(length);
    value
}
