//! Files of images without a mount: overlayfs's rules, and nothing that leads out of the image. Needs root, for whiteouts.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use pyrt_container::lookup::{Error, read_image_file};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat, setxattr};

struct Layers(PathBuf);

impl Layers {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pyrt-lookup-{}-{name}", std::process::id()));
        for layer in ["top", "middle", "bottom"] {
            std::fs::create_dir_all(path.join(layer).join("etc")).unwrap();
        }
        Self(path)
    }

    fn write(&self, file: &str) {
        let path = self.0.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, file).unwrap();
    }

    fn whiteout(&self, file: &str) {
        mknodat(CWD, self.0.join(file), FileType::CharacterDevice, Mode::empty(), makedev(0, 0)).unwrap();
    }

    fn read(&self, path: &str) -> Result<Option<String>, Error> {
        let layers = ["top", "middle", "bottom"].map(|layer| self.0.join(layer));
        let layers: Vec<&Path> = layers.iter().map(PathBuf::as_path).collect();
        let content = read_image_file(&layers, path, 100)?;
        Ok(content.map(|content| String::from_utf8(content).unwrap()))
    }

    fn found(&self, path: &str) -> Option<String> {
        self.read(path).unwrap()
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_topmost_wins_and_directories_are_merged() {
    let layers = Layers::new("merged");
    layers.write("top/etc/passwd");
    layers.write("bottom/etc/passwd");
    layers.write("bottom/etc/group");
    assert_eq!(layers.found("/etc/passwd").unwrap(), "top/etc/passwd");
    assert_eq!(layers.found("//etc/./group").unwrap(), "bottom/etc/group");
    assert_eq!(layers.found("/etc/../../etc/group").unwrap(), "bottom/etc/group");
    assert_eq!(layers.found("/etc/shadow"), None);
    assert_eq!(layers.found("/no/such/folder"), None);
    assert_eq!(layers.found("/etc/passwd/below"), None);
}

#[test]
fn whiteouts_and_opaque_directories_hide() {
    let layers = Layers::new("hidden");
    layers.write("bottom/etc/passwd");
    layers.whiteout("middle/etc/passwd");
    assert_eq!(layers.found("/etc/passwd"), None);
    layers.write("top/etc/passwd");
    assert_eq!(layers.found("/etc/passwd").unwrap(), "top/etc/passwd");

    layers.write("bottom/opt/old/file");
    layers.write("middle/opt/old/other");
    setxattr(layers.0.join("middle/opt/old"), "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
    assert_eq!(layers.found("/opt/old/file"), None);
    assert_eq!(layers.found("/opt/old/other").unwrap(), "middle/opt/old/other");

    layers.write("bottom/srv/a");
    layers.whiteout("middle/srv");
    layers.write("top/srv/b");
    assert_eq!(layers.found("/srv/a"), None);
    assert_eq!(layers.found("/srv/b").unwrap(), "top/srv/b");
}

#[test]
fn a_directory_hides_files_below_and_a_file_hides_directories() {
    let layers = Layers::new("kinds");
    layers.write("bottom/a");
    layers.write("top/a/inner");
    assert_eq!(layers.found("/a/inner").unwrap(), "top/a/inner");
    layers.write("bottom/b/inner");
    layers.write("top/b");
    assert_eq!(layers.found("/b/inner"), None);
    assert_eq!(layers.found("/b").unwrap(), "top/b");
}

#[test]
fn links_stay_inside() {
    let layers = Layers::new("links");
    layers.write("bottom/usr/lib/passwd");
    symlink("/usr/lib/passwd", layers.0.join("top/etc/passwd")).unwrap();
    assert_eq!(layers.found("/etc/passwd").unwrap(), "bottom/usr/lib/passwd");
    symlink("../../../../../usr/lib/passwd", layers.0.join("top/etc/relative")).unwrap();
    assert_eq!(layers.found("/etc/relative").unwrap(), "bottom/usr/lib/passwd");
    symlink("usr/lib", layers.0.join("top/lib")).unwrap();
    assert_eq!(layers.found("/lib/passwd").unwrap(), "bottom/usr/lib/passwd");
    symlink(&layers.0, layers.0.join("top/etc/host")).unwrap();
    assert_eq!(layers.found("/etc/host/bottom/usr/lib/passwd"), None);
    symlink("loop", layers.0.join("top/loop")).unwrap();
    assert!(matches!(layers.read("/loop"), Err(Error::Links(_))));
    symlink("nowhere", layers.0.join("top/dangling")).unwrap();
    assert_eq!(layers.found("/dangling"), None);
}

#[test]
fn only_regular_files_are_opened_and_only_so_much_is_read() {
    let layers = Layers::new("regular");
    mknodat(CWD, layers.0.join("top/fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    mknodat(CWD, layers.0.join("top/zero"), FileType::CharacterDevice, Mode::from_raw_mode(0o600), makedev(1, 5))
        .unwrap();
    for path in ["/fifo", "/zero", "/etc", "/"] {
        assert!(matches!(layers.read(path), Err(Error::NotRegular(_))), "{path}");
    }
    std::fs::write(layers.0.join("top/big"), [b'x'; 101]).unwrap();
    assert_eq!(layers.read("/big").unwrap_err().to_string(), "/big is longer than 100 bytes");
    std::fs::write(layers.0.join("top/fits"), [b'x'; 100]).unwrap();
    assert_eq!(layers.found("/fits").unwrap().len(), 100);
    for path in ["", "etc/passwd", "/etc/\0"] {
        assert!(matches!(layers.read(path), Err(Error::Path(_))), "{path:?}");
    }
    assert_eq!(layers.found(&format!("/{}", "x".repeat(300))), None);
}
