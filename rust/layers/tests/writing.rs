//! Layers that are written: what comes back is what was there, to us, to other tools, and to overlayfs.

mod support;

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use pyrt_layers::{Compression, Error, Fault, Overlay, Packing, WriteOptions, Written, write_layer};
use rustix::fs::XattrFlags;
use support::ground::{Ground, content, extracted, is_opaque, is_whiteout, names, open};
use support::growth::{grow, grow_long_names};
use support::mounted::Mounted;
use support::picture::{Picture, picture};
use support::tars::Tar;

fn write_with(directory: &Path, options: &WriteOptions<'_>) -> Result<(Written, Vec<u8>), Error> {
    let mut sink = tempfile::tempfile().unwrap();
    let written = write_layer(open(directory).as_fd(), sink.as_fd(), options)?;
    let mut layer = Vec::new();
    sink.rewind().unwrap();
    sink.read_to_end(&mut layer).unwrap();
    Ok((written, layer))
}

fn write(directory: &Path) -> Vec<u8> {
    write_with(directory, &WriteOptions::default()).unwrap().1
}

fn grown() -> tempfile::TempDir {
    let base = tempfile::tempdir().unwrap();
    fs::set_permissions(base.path(), fs::Permissions::from_mode(0o750)).unwrap();
    grow(base.path());
    grow_long_names(base.path());
    base
}

#[test]
fn what_is_written_comes_back() {
    let tree = grown();
    assert_eq!(extracted(&write(tree.path())), picture(tree.path()));
}

#[test]
fn gnu_tar_reads_it_too() {
    let (tree, base) = (grown(), tempfile::tempdir().unwrap());
    let tar = base.path().join("tar");
    fs::write(&tar, write(tree.path())).unwrap();
    let into = base.path().join("into");
    fs::create_dir(&into).unwrap();
    let arguments = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"];
    assert!(Command::new("tar").args(arguments).arg(&tar).arg("-C").arg(&into).status().unwrap().success());
    assert_eq!(picture(&into), picture(tree.path()));
}

#[test]
fn one_tree_makes_one_layer() {
    let tree = grown();
    let first = write(tree.path());
    // Another order of making, another order in the directory.
    let copy = tempfile::tempdir().unwrap();
    let ground = Ground::new();
    ground.extract(&first).unwrap();
    fs::rename(ground.layer(), copy.path().join("again")).unwrap();
    assert!(first == write(&copy.path().join("again")));
}

#[test]
fn every_packing_is_what_its_tool_reads() {
    let tree = grown();
    let plain = write(tree.path());
    for (packing, compression, tool) in [
        (Packing::None, Compression::None, "cat"),
        (Packing::Gzip(6), Compression::Gzip, "gunzip"),
        (Packing::Zstd(3), Compression::Zstd, "zstd"),
    ] {
        let (written, packed) = write_with(tree.path(), &WriteOptions { packing, ..WriteOptions::default() }).unwrap();
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("layer"), &packed).unwrap();
        let mut command = Command::new(tool);
        if tool == "zstd" {
            command.args(["-d", "-c"]);
        }
        let output = command.stdin(File::open(base.path().join("layer")).unwrap()).output().unwrap();
        assert!(output.stdout == plain, "{tool}");
        let report = Ground::new().extract(&packed).unwrap();
        assert_eq!((written.digest, written.diff_id), (report.digest, report.diff_id));
        assert_eq!((written.compressed_size, written.size), (report.compressed_size, report.size));
        assert_eq!((written.compression, report.compression), (compression, compression));
        assert_eq!(written.entries, report.contents.entries);
    }
}

#[test]
fn whiteouts_and_opaque_directories_come_back() {
    let layer = Tar::new()
        .dir("d")
        .file("d/.wh.gone", "")
        .file("d/f", "x")
        .dir("o")
        .file("o/.wh..wh..opq", "")
        .file("o/g", "y")
        .file(".wh..wh..opq", "");
    let ground = Ground::new();
    ground.extract(&layer.end()).unwrap();
    let back = extracted(&write(&ground.layer()));
    assert_eq!(back, ground.picture());
    assert!(is_whiteout(&back, "d/gone") && is_opaque(&back, "o") && is_opaque(&back, "."));
}

/// The merged tree of an extracted layer over a lower one.
fn merged(upper: &[u8], lower: &Path) -> Picture {
    let ground = Ground::new();
    ground.extract(upper).unwrap();
    let base = tempfile::tempdir().unwrap();
    let at = base.path().join("merged");
    let _mounted = Mounted::new(&at, &[&ground.layer(), lower], None);
    without_times(picture(&at))
}

/// Directories that were only copied up have times that depend on the moment.
fn without_times(mut picture: Picture) -> Picture {
    picture.values_mut().for_each(|node| node.mtime = 0);
    picture
}

#[test]
fn what_a_container_did_comes_back() {
    let (lower, base) = (grown(), tempfile::tempdir().unwrap());
    ["upper", "work"].iter().for_each(|name| fs::create_dir(base.path().join(name)).unwrap());
    let at = base.path().join("merged");
    let mounted = Mounted::new(&at, &[lower.path()], Some(base.path()));
    fs::remove_file(at.join("empty file")).unwrap();
    fs::remove_dir_all(at.join("usr")).unwrap();
    fs::create_dir_all(at.join("usr/bin")).unwrap();
    fs::write(at.join("usr/bin/new"), "new").unwrap();
    fs::remove_dir(at.join("empty")).unwrap();
    fs::write(at.join("empty"), "a file now").unwrap();
    fs::remove_file(at.join("bin")).unwrap();
    fs::create_dir(at.join("bin")).unwrap();
    fs::write(at.join("setgid/more"), "x").unwrap();
    fs::rename(at.join("dangling"), at.join("setgid/moved")).unwrap();
    fs::set_permissions(at.join("sparse"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("x", at.join("link")).unwrap();
    let expected = without_times(picture(&at));
    drop(mounted);
    assert_eq!(merged(&write(&base.path().join("upper")), lower.path()), expected);
}

#[test]
fn sockets_are_left_out_and_counted() {
    let base = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(base.path().join("socket")).unwrap();
    fs::write(base.path().join("file"), "x").unwrap();
    let (written, layer) = write_with(base.path(), &WriteOptions::default()).unwrap();
    assert_eq!((written.sockets, names(&extracted(&layer))), (1, vec!["file"]));
}

#[test]
fn what_no_layer_can_say_is_refused() {
    let refused = |grow: &dyn Fn(&Path)| {
        let base = tempfile::tempdir().unwrap();
        grow(base.path());
        let error = write_with(base.path(), &WriteOptions::default()).unwrap_err();
        assert_eq!(error.fault(), Fault::Machine);
        error.to_string()
    };
    let name = refused(&|base| fs::write(base.join(".wh.file"), "").unwrap());
    assert_eq!(name, r#"".wh.file" cannot be written into a layer: its name is that of a whiteout"#);
    for (attribute, why) in [("redirect", "renamed"), ("metacopy", "attributes")] {
        let error = refused(&|base| {
            fs::create_dir(base.join("d")).unwrap();
            let attribute = format!("trusted.overlay.{attribute}");
            rustix::fs::setxattr(base.join("d"), attribute, b"x", XattrFlags::empty()).unwrap();
        });
        assert!(error.ends_with(why), "{error}");
    }
}

#[test]
fn attributes_of_overlayfs_are_not_told() {
    let base = tempfile::tempdir().unwrap();
    fs::create_dir(base.path().join("d")).unwrap();
    for (name, value) in
        [("trusted.overlay.origin", "x"), ("trusted.overlay.impure", "y"), ("user.overlay.opaque", "y")]
    {
        rustix::fs::setxattr(base.path().join("d"), name, value.as_bytes(), XattrFlags::empty()).unwrap();
    }
    let back = extracted(&write(base.path()));
    assert!(back["d"].xattrs.is_empty(), "{:?}", back["d"].xattrs);
    let options = WriteOptions { overlay: Overlay::User, ..WriteOptions::default() };
    assert!(is_opaque(&extracted(&write_with(base.path(), &options).unwrap().1), "d"));
}

#[test]
fn depth_does_not_matter() {
    let ground = Ground::new();
    let mut layer = Tar::new();
    for depth in [1500_usize, 100, 1501, 70] {
        let path = "directory/".repeat(depth);
        layer = layer.pax(&[("path", format!("{path}{depth}").as_bytes())]).file("x", "x");
    }
    ground.extract(&layer.end()).unwrap();
    let written = write(&ground.layer());
    let again = Ground::new();
    again.extract(&written).unwrap();
    assert!(write(&again.layer()) == written);
    for ground in [ground, again] {
        let base = open(ground.layer().parent().unwrap());
        pyrt_layers::remove_tree(base.as_fd(), "layer".as_ref()).unwrap();
    }
}

#[test]
fn a_full_sink_is_the_machines_fault() {
    let tree = grown();
    let full = File::options().write(true).open("/dev/full").unwrap();
    for packing in [Packing::None, Packing::Gzip(1), Packing::Zstd(1)] {
        let options = WriteOptions { packing, ..WriteOptions::default() };
        let error = write_layer(open(tree.path()).as_fd(), full.as_fd(), &options).unwrap_err();
        let Error::System { source, .. } = &error else { panic!("{error}") };
        assert_eq!(source.raw_os_error(), Some(libc::ENOSPC));
    }
}

#[test]
fn it_can_be_cancelled() {
    let tree = grown();
    let cancel = AtomicBool::new(true);
    let options = WriteOptions { cancel: Some(&cancel), ..WriteOptions::default() };
    assert!(matches!(write_with(tree.path(), &options), Err(Error::Cancelled)));
}

#[test]
fn an_empty_directory_is_an_empty_layer() {
    let base = tempfile::tempdir().unwrap();
    let picture = extracted(&write(base.path()));
    assert_eq!(names(&picture), [""; 0]);
    fs::write(base.path().join("f"), "x").unwrap();
    assert_eq!(content(&extracted(&write(base.path())), "f"), b"x");
}
