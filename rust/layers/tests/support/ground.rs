//! Ground to extract a layer on, with a canary beside it that no layer may touch.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use pyrt_layers::{Error, Options, Reason, Report, extract};

use super::picture::{Kind, Node, Picture, picture};

/// `layer`, empty, between `outside` trees: one beside it, with links and directories that invite.
pub struct Ground {
    base: tempfile::TempDir,
    before: Picture,
}

impl Ground {
    pub fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let outside = base.path().join("outside");
        fs::create_dir_all(outside.join("etc")).unwrap();
        fs::write(outside.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        fs::set_permissions(outside.join("etc/passwd"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("etc/passwd", outside.join("link")).unwrap();
        rustix::fs::setxattr(outside.join("etc"), "trusted.canary", b"1", rustix::fs::XattrFlags::empty()).unwrap();
        let before = picture(&outside);
        fs::create_dir(base.path().join("layer")).unwrap();
        Self { base, before }
    }

    pub fn layer(&self) -> PathBuf {
        self.base.path().join("layer")
    }

    pub fn outside(&self) -> PathBuf {
        self.base.path().join("outside")
    }

    /// Extracts, and sees that nothing else was touched.
    pub fn extract(&self, layer: &[u8]) -> Result<Report, Error> {
        self.extract_with(layer, &Options::default())
    }

    pub fn extract_with(&self, layer: &[u8], options: &Options<'_>) -> Result<Report, Error> {
        let source = self.base.path().join("source");
        File::create(&source).unwrap().write_all(layer).unwrap();
        let directory = File::open(self.layer()).unwrap();
        let result = extract(File::open(&source).unwrap().as_fd(), directory.as_fd(), options);
        fs::remove_file(source).unwrap();
        self.check_outside();
        result
    }

    pub fn check_outside(&self) {
        assert_eq!(picture(&self.outside()), self.before, "the layer has touched what is outside of it");
        let mut beside: Vec<_> =
            fs::read_dir(self.base.path()).unwrap().map(|name| name.unwrap().file_name()).collect();
        beside.sort();
        assert_eq!(beside, ["layer", "outside"], "the layer has made something outside of it");
    }

    pub fn picture(&self) -> Picture {
        picture(&self.layer())
    }
}

/// The tree that a layer becomes.
pub fn extracted(layer: &[u8]) -> Picture {
    let ground = Ground::new();
    ground.extract(layer).unwrap();
    ground.picture()
}

/// The reason for which a layer is refused; nothing outside was touched.
pub fn refused(layer: &[u8]) -> Reason {
    match Ground::new().extract(layer) {
        Err(error) => error.reason().unwrap_or_else(|| panic!("not the image's fault: {error}")).clone(),
        Ok(report) => panic!("extracted: {report:?}"),
    }
}

/// Names in a picture but for the root.
pub fn names(picture: &Picture) -> Vec<&str> {
    picture.keys().map(String::as_str).filter(|&name| name != ".").collect()
}

pub fn content<'picture>(picture: &'picture Picture, name: &str) -> &'picture [u8] {
    match &node(picture, name).kind {
        Kind::File(content) => content,
        other => panic!("{name} is a {other:?}"),
    }
}

pub fn node<'picture>(picture: &'picture Picture, name: &str) -> &'picture Node {
    picture.get(name).unwrap_or_else(|| panic!("no {name} in {picture:#?}"))
}

pub fn is_whiteout(picture: &Picture, name: &str) -> bool {
    node(picture, name).kind == Kind::Character(0)
}

pub fn is_opaque(picture: &Picture, name: &str) -> bool {
    node(picture, name).xattrs.get("trusted.overlay.opaque").is_some_and(|value| value == b"y")
}

/// Whether two names are of one file.
pub fn is_same(picture: &Picture, first: &str, second: &str) -> bool {
    let origin = |name: &str| node(picture, name).same_as.clone().unwrap_or_else(|| name.to_owned());
    origin(first) == origin(second)
}

/// An open directory for a descriptor.
pub fn open(path: &Path) -> File {
    File::open(path).unwrap()
}
