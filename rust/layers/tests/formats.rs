//! Tars that other people's tools write, in every format they know, against what those tools make of them themselves.

mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::Mode;
use support::ground::{Ground, content, extracted, is_same, node};
use support::growth::{RAW_NAME, grow, grow_long_names, times};
use support::picture::{Kind, Node, Picture, picture};
use support::tars::{Header, Tar};

fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// What GNU tar makes of a tar.
fn by_gnu_tar(tar: &Path) -> Picture {
    let base = tempfile::tempdir().unwrap();
    let arguments = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-owner", "-xpf"];
    let into = base.path().to_str().unwrap();
    run("tar", &[&arguments[..], &[tar.to_str().unwrap(), "-C", into]].concat());
    picture(base.path())
}

/// Extracts the tar both ways and compares.
fn compare(tar: &Path, what: &str) -> Picture {
    let ground = Ground::new();
    ground.extract(&fs::read(tar).unwrap()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let (ours, mut theirs) = (ground.picture(), by_gnu_tar(tar));
    for (name, node) in theirs.iter_mut().filter(|(_, node)| node.kind == Kind::Directory) {
        // GNU tar 1.34 forgets the times of some directories with long names; then they are of today.
        if node.mtime > 1_600_000_000_000_000_000 {
            node.mtime = ours[name].mtime;
        }
    }
    for (name, node) in &theirs {
        assert_eq!(ours.get(name), Some(node), "{what}: {name}");
    }
    assert_eq!(ours.len(), theirs.len(), "{what}");
    ours
}

/// A grown tree, and a place for a tar of it.
fn grown(long_names: bool) -> (tempfile::TempDir, String, String) {
    let base = tempfile::tempdir().unwrap();
    let tree = base.path().join("tree");
    fs::create_dir(&tree).unwrap();
    grow(&tree);
    if long_names {
        grow_long_names(&tree);
    }
    let tar = base.path().join("tar").to_str().unwrap().to_owned();
    (base, tree.to_str().unwrap().to_owned(), tar)
}

#[test]
fn gnu_tar_in_all_its_formats() {
    for (format, long_names) in [("v7", false), ("oldgnu", true), ("gnu", true), ("ustar", false), ("posix", true)] {
        let (_base, tree, tar) = grown(long_names);
        if format == "v7" {
            ["pipe", "null", "disk"].iter().for_each(|name| fs::remove_file(Path::new(&tree).join(name)).unwrap());
        }
        run("tar", &["--format", format, "-C", &tree, "-cf", &tar, "."]);
        compare(Path::new(&tar), format);
    }
}

#[test]
fn gnu_tar_keeps_everything_in_pax_records() {
    let (_base, tree, tar) = grown(true);
    run("tar", &["--format=posix", "--xattrs", "--xattrs-include=*", "-C", &tree, "-cf", &tar, "."]);
    let ours = compare(Path::new(&tar), "posix with attributes");
    let original = picture(Path::new(&tree));
    for (name, node) in &original {
        let one = |node: &Node| Node { same_as: None, ..node.clone() };
        assert_eq!(ours.get(name).map(one), Some(one(node)), "{name}");
    }
    assert!(is_same(&ours, "usr/bin/tool", "usr/bin/linked"));
}

#[test]
fn gnu_tar_with_holes_in_every_version() {
    for options in [
        &["--format=oldgnu"][..],
        &["--format=gnu"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        let (_base, tree, tar) = grown(true);
        // More pieces than a header and one further block have room for.
        let many = File::create(Path::new(&tree).join("many")).unwrap();
        (0..100_u64).for_each(|piece| many.write_all_at(&[piece as u8; 4096], piece << 16).unwrap());
        times(Path::new(&tree));
        run("tar", &[options, &["-S", "-C", &tree, "-cf", &tar, "."]].concat());
        assert!(fs::metadata(&tar).unwrap().len() < 5 << 20, "the tar holds the holes");
        compare(Path::new(&tar), &format!("{options:?}"));
    }
}

#[test]
fn holes_stay_holes() {
    let (_base, tree, tar) = grown(false);
    run("tar", &["--format=posix", "-S", "-C", &tree, "-cf", &tar, "sparse", "hole"]);
    let ground = Ground::new();
    ground.extract(&fs::read(tar).unwrap()).unwrap();
    use std::os::unix::fs::MetadataExt;
    let sparse = fs::metadata(ground.layer().join("sparse")).unwrap();
    assert_eq!(sparse.len(), 10 << 20);
    assert!(sparse.blocks() < 100, "{} blocks", sparse.blocks());
}

#[test]
fn bsdtar_in_all_its_formats() {
    for (format, long_names) in [("gnutar", true), ("ustar", false), ("pax", true)] {
        let (_base, tree, tar) = grown(long_names);
        run("bsdtar", &["--format", format, "--no-xattrs", "-C", &tree, "-cf", &tar, "."]);
        compare(Path::new(&tar), format);
    }
}

#[test]
fn pythons_tarfile_in_all_its_formats() {
    const SCRIPT: &str = "import sys, tarfile
tar = tarfile.open(sys.argv[2], 'w', format=getattr(tarfile, sys.argv[3]), errors='surrogateescape')
tar.add(sys.argv[1], arcname='.')
tar.close()";
    for (format, long_names) in [("USTAR_FORMAT", false), ("GNU_FORMAT", true), ("PAX_FORMAT", true)] {
        let (_base, tree, tar) = grown(long_names);
        run("python3", &["-c", SCRIPT, &tree, &tar, format]);
        compare(Path::new(&tar), format);
    }
}

#[test]
fn python_and_bsdtar_extract_the_same() {
    let (base, tree, tar) = grown(true);
    // bsdtar has its doubts about this one.
    fs::remove_file(Path::new(&tree).join(OsStr::from_bytes(RAW_NAME))).unwrap();
    run("tar", &["--format=posix", "-C", &tree, "-cf", &tar, "."]);
    let ground = Ground::new();
    ground.extract(&fs::read(&tar).unwrap()).unwrap();
    let ours = ground.picture();
    let rough = |picture: Picture| -> Vec<(String, Kind, u32, u32)> {
        picture.into_iter().map(|(name, node)| (name, node.kind, node.mode, node.gid)).collect()
    };
    for (number, (program, script)) in [
        ("bsdtar", None),
        ("python3", Some("import sys, tarfile; tarfile.open(sys.argv[2]).extractall(sys.argv[1], numeric_owner=True)")),
    ]
    .into_iter()
    .enumerate()
    {
        let into = base.path().join(number.to_string());
        fs::create_dir(&into).unwrap();
        match script {
            None => run(program, &["-xpf", &tar, "-C", into.to_str().unwrap()]),
            Some(script) => run(program, &["-c", script, into.to_str().unwrap(), &tar]),
        };
        assert_eq!(rough(ours.clone()), rough(picture(&into)), "{program}");
    }
}

#[test]
fn a_mebibyte_of_numbers_in_base_256() {
    let wide = |value: u64| [&[0x80, 0, 0, 0][..], &value.to_be_bytes()].concat();
    let header = Header::new(b'0', "a").gnu().at(124, &wide(3)).at(136, &wide(1 << 33));
    let header = header.at(108, &[0x80, 0, 0, 0, 0, 0x20, 0, 0]);
    let picture = extracted(&Tar::new().header(header).content(b"abc").end());
    assert_eq!(content(&picture, "a"), b"abc");
    assert_eq!((node(&picture, "a").uid, node(&picture, "a").mtime), (0x20_0000, (1 << 33) * 1_000_000_000));
    let before = Header::new(b'0', "a").at(136, &[0xff; 12]);
    assert_eq!(node(&extracted(&Tar::new().header(before).end()), "a").mtime, -1_000_000_000);
}

#[test]
fn a_directory_in_the_way_of_old_tars() {
    for flag in [0, b'0'] {
        let picture = extracted(&Tar::new().header(Header::new(flag, "old/")).file("old/a", "").end());
        assert_eq!(node(&picture, "old").kind, Kind::Directory);
    }
    assert_eq!(content(&extracted(&Tar::new().header(Header::new(b'7', "c").size(1)).content(b"x").end()), "c"), b"x");
}

#[test]
fn capabilities_and_set_id_bits_outlive_the_change_of_owner() {
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let layer = Tar::new()
        .pax(&[("SCHILY.xattr.security.capability", capability), ("SCHILY.xattr.user.a", b"b")])
        .header(Header::new(b'0', "ping").mode(0o4755).owner(1000, 1000).size(4))
        .content(b"ping")
        .end();
    let ping = extracted(&layer)["ping"].clone();
    assert_eq!((ping.mode, ping.uid), (0o4755, 1000));
    assert_eq!(ping.xattrs["security.capability"], capability);
    assert_eq!(ping.xattrs.len(), 2);
}

#[test]
fn a_default_acl_is_of_its_directory_alone() {
    // Version 2; user::rwx, user 1000 rwx, group::r-x, mask::rwx, other::---.
    let acl = [
        &[2_u8, 0, 0, 0][..],
        &[1, 0, 7, 0, 0xff, 0xff, 0xff, 0xff],
        &[2, 0, 7, 0, 0xe8, 3, 0, 0],
        &[4, 0, 5, 0, 0xff, 0xff, 0xff, 0xff],
        &[16, 0, 7, 0, 0xff, 0xff, 0xff, 0xff],
        &[32, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
    ]
    .concat();
    let mut layer = Tar::new().pax(&[("SCHILY.xattr.system.posix_acl_default", &acl)]).dir("d").file("d/f", "");
    for number in 0..40 {
        layer = layer.dir(format!("other{number}"));
    }
    let picture = extracted(&layer.file("d/g", "").dir("d/h").end());
    assert_eq!(node(&picture, "d").xattrs["system.posix_acl_default"], acl);
    for name in ["d/f", "d/g", "d/h"] {
        assert!(node(&picture, name).xattrs.is_empty(), "{name}: {:?}", node(&picture, name).xattrs);
    }
    assert_eq!(node(&picture, "d/f").mode, 0o644);
}

#[test]
fn directories_get_their_times_last_however_often_one_comes_back_to_them() {
    let mut layer = Tar::new();
    for number in 0..100 {
        layer = layer.header(Header::new(b'5', format!("d{number}")).mode(0o755).mtime(1000 + number));
    }
    for round in 0..3 {
        for number in 0..100 {
            layer = layer.file(format!("d{number}/f{round}"), "x");
        }
    }
    let picture = extracted(&layer.symlink("d5/s", "x").hardlink("d6/h", "d7/f1").file("d8/f1", "again").end());
    for number in 0..100 {
        assert_eq!(node(&picture, &format!("d{number}")).mtime, (1000 + number) * 1_000_000_000, "{number}");
    }
}

#[test]
fn the_umask_of_the_program_does_not_matter() {
    // The thread that unpacks has one of its own; the program's must stay.
    let before = rustix::process::umask(Mode::from_raw_mode(0o077));
    let layer =
        Tar::new().dir("d").header(Header::new(b'0', "d/f").mode(0o666)).header(Header::new(b'6', "p").mode(0o666));
    let picture = extracted(&layer.file("implied/f", "").end());
    assert_eq!(rustix::process::umask(before), Mode::from_raw_mode(0o077));
    let modes = ["d", "d/f", "p", "implied"].map(|name| node(&picture, name).mode);
    assert_eq!(modes, [0o755, 0o666, 0o666, 0o755]);
}

#[test]
fn what_the_layer_implies_is_roots_and_as_old_as_what_implied_it() {
    let ground = Ground::new();
    let layer = Tar::new().header(Header::new(b'0', "a/b/f").owner(7, 7).mtime(9)).file("a/g", "").end();
    let report = ground.extract(&layer).unwrap();
    let picture = ground.picture();
    for name in [".", "a", "a/b"] {
        let node = node(&picture, name);
        assert_eq!((node.mode, node.uid, node.gid, node.mtime), (0o755, 0, 0, 9_000_000_000), "{name}");
    }
    assert_eq!((report.contents.entries, report.contents.implied), (2, 2));
}
