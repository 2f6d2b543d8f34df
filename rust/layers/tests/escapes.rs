//! Layers that try to reach the host, as the field has seen them: CVE-2014-6407, 2021-32760, 2021-29136, 2025-47290
//! and kin. Every one is refused, or lands inside the layer; the canary beside it stays as it was in any case.

mod support;

use pyrt_layers::Reason;
use support::ground::{Ground, content, extracted, is_same, names, node, refused};
use support::picture::Kind;
use support::tars::{Header, Tar};

#[test]
fn names_that_climb_are_refused() {
    for name in ["../outside/etc/passwd", "a/../../outside/x", "..", "/../outside/x", "./../x", "a/.."] {
        assert_eq!(refused(&Tar::new().file(name, "x").end()), Reason::NameClimbs, "{name}");
        assert_eq!(refused(&Tar::new().pax(&[("path", name.as_bytes())]).file("a", "x").end()), Reason::NameClimbs);
        assert_eq!(refused(&Tar::new().long_name(name).file("a", "x").end()), Reason::NameClimbs);
        assert_eq!(refused(&Tar::new().dir(name).end()), Reason::NameClimbs);
    }
}

#[test]
fn absolute_names_are_below_the_root() {
    let ground = Ground::new();
    let name = ground.outside().join("etc/passwd");
    let name = name.to_str().unwrap();
    ground.extract(&Tar::new().pax(&[("path", name.as_bytes())]).file("a", "mine").end()).unwrap();
    assert_eq!(content(&ground.picture(), &name[1..]), b"mine");
}

#[test]
fn a_symlink_up_and_out_leads_no_further_than_the_root() {
    for target in ["../outside", "../../../../../../outside", "/outside", "/../outside"] {
        let layer = Tar::new().symlink("up", target).file("up/etc/passwd", "mine").end();
        let picture = extracted(&layer);
        assert_eq!(node(&picture, "up").kind, Kind::Symlink(target.into()));
        assert_eq!(content(&picture, "outside/etc/passwd"), b"mine", "{target}");
    }
}

#[test]
fn an_absolute_symlink_to_the_canary_leads_into_the_layer() {
    let ground = Ground::new();
    let outside = ground.outside();
    let layer = Tar::new()
        .pax(&[("linkpath", outside.to_str().unwrap().as_bytes())])
        .symlink("out", "x")
        .file("out/etc/passwd", "mine")
        .dir("out/etc")
        .file("out/new", "mine")
        .end();
    ground.extract(&layer).unwrap();
    let inside = format!("{}/etc/passwd", outside.to_str().unwrap().trim_start_matches('/'));
    assert_eq!(content(&ground.picture(), &inside), b"mine");
}

#[test]
fn a_file_replaces_a_symlink_and_does_not_write_through_it() {
    let picture = extracted(&Tar::new().symlink("a", "../outside/etc/passwd").file("a", "mine").end());
    assert_eq!(content(&picture, "a"), b"mine");
    assert_eq!(names(&picture), ["a"]);
}

#[test]
fn a_directory_replaces_a_symlink_and_takes_its_mode_for_itself() {
    let picture = extracted(
        &Tar::new().symlink("a", "../outside").header(Header::new(b'5', "a").mode(0o700)).file("a/etc", "mine").end(),
    );
    assert_eq!((node(&picture, "a").kind.clone(), node(&picture, "a").mode), (Kind::Directory, 0o700));
    assert_eq!(content(&picture, "a/etc"), b"mine");
}

#[test]
fn a_directory_becomes_a_symlink_and_a_directory_again() {
    let layer = Tar::new()
        .dir("a")
        .file("a/old", "old")
        .symlink("a", "../outside")
        .file("a/through", "x")
        .dir("a")
        .file("a/new", "new")
        .end();
    let picture = extracted(&layer);
    assert_eq!(names(&picture), ["a", "a/new", "outside", "outside/through"]);
}

#[test]
fn links_among_parents_are_followed_as_in_a_container() {
    let layer = Tar::new()
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .file("lib/a", "a")
        .symlink("run", "/var/run")
        .symlink("var/run", "../real")
        .file("run/b", "b")
        .symlink("one", "lib/../lib/./")
        .file("one/c", "c")
        .end();
    let picture = extracted(&layer);
    for (name, text) in [("usr/lib/a", "a"), ("real/b", "b"), ("usr/lib/c", "c")] {
        assert_eq!(content(&picture, name), text.as_bytes());
    }
}

#[test]
fn links_that_go_round_are_refused() {
    let layer = Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", "x").end();
    assert_eq!(refused(&layer), Reason::LinkLoop);
    assert_eq!(refused(&Tar::new().symlink("a", "a/b").file("a/x", "x").end()), Reason::LinkLoop);
}

#[test]
fn a_file_is_nobodys_parent() {
    assert_eq!(refused(&Tar::new().file("a", "x").file("a/b", "x").end()), Reason::ParentNotDirectory);
    assert_eq!(refused(&Tar::new().header(Header::new(b'6', "a")).dir("a/b").end()), Reason::ParentNotDirectory);
}

#[test]
fn the_root_stays_a_directory() {
    for name in ["/", ".", "./", "//", ""] {
        for flag in [b'1', b'2', b'3', b'6', b'7'] {
            let header = Header::new(flag, name).link("target").device(1, 3);
            let reason = refused(&Tar::new().file("target", "").header(header).end());
            assert_eq!(reason, Reason::RootReplaced, "{name:?} {}", char::from(flag));
        }
    }
    assert_eq!(refused(&Tar::new().file("", "x").end()), Reason::RootReplaced);
}

#[test]
fn the_root_takes_what_its_entry_says() {
    let picture =
        extracted(&Tar::new().header(Header::new(b'5', "./").mode(0o711).owner(5, 6).mtime(7)).file("a", "").end());
    let root = node(&picture, ".");
    assert_eq!((root.mode, root.uid, root.gid, root.mtime), (0o711, 5, 6, 7_000_000_000));
}

#[test]
fn hard_links_stay_inside() {
    for target in ["../outside/etc/passwd", "a/../../outside/etc/passwd", ".."] {
        assert_eq!(refused(&Tar::new().hardlink("x", target).end()), Reason::LinkClimbs, "{target}");
    }
    let ground = Ground::new();
    let target = ground.outside().join("etc/passwd");
    let layer = Tar::new().pax(&[("linkpath", target.to_str().unwrap().as_bytes())]).hardlink("x", "y").end();
    let reason = ground.extract(&layer).unwrap_err();
    assert!(matches!(reason.reason(), Some(Reason::LinkTargetMissing { .. })), "{reason}");
}

#[test]
fn a_hard_link_through_a_symlink_out_stays_inside() {
    let layer = Tar::new().symlink("out", "../outside/etc").hardlink("x", "out/passwd").end();
    assert!(matches!(refused(&layer), Reason::LinkTargetMissing { .. }));
    let layer = Tar::new()
        .file("outside/etc/passwd", "mine")
        .symlink("out", "../outside/etc")
        .hardlink("x", "out/passwd")
        .end();
    assert!(is_same(&extracted(&layer), "x", "outside/etc/passwd"));
}

#[test]
fn a_hard_link_to_a_symlink_is_one_more_symlink() {
    let layer =
        Tar::new().symlink("link", "../outside/etc/passwd").hardlink("again", "link").file("again", "mine").end();
    let picture = extracted(&layer);
    assert_eq!(content(&picture, "again"), b"mine");
    assert_eq!(node(&picture, "link").kind, Kind::Symlink(b"../outside/etc/passwd".to_vec()));

    let picture = extracted(&Tar::new().symlink("link", "target").hardlink("again", "link").file("target", "t").end());
    assert!(is_same(&picture, "link", "again"));
    assert_eq!(content(&picture, "target"), b"t");
}

#[test]
fn a_hard_link_needs_a_file_of_this_layer() {
    let missing = |layer: Tar| matches!(refused(&layer.end()), Reason::LinkTargetMissing { .. });
    assert!(missing(Tar::new().hardlink("x", "nothing")));
    assert!(missing(Tar::new().hardlink("x", "no/where")));
    assert!(missing(Tar::new().file("file", "").hardlink("x", "file/below")));
    assert!(missing(Tar::new().file(".wh.gone", "").hardlink("x", "gone")));
    assert!(missing(Tar::new().file(".wh.gone", "").hardlink("x", ".wh.gone")));
    assert!(missing(Tar::new().hardlink("x", "x")));
    assert!(missing(Tar::new().dir("a").file("a/b", "").hardlink("a", "a/b")));
    let reason = refused(&Tar::new().dir("a").hardlink("x", "a").end());
    assert!(matches!(reason, Reason::LinkToDirectory { .. }), "{reason}");
}

#[test]
fn a_hard_link_to_itself_loses_nothing() {
    let picture =
        extracted(&Tar::new().file("a", "x").hardlink("a", "a").hardlink("b", "a").hardlink("b", "./a").end());
    assert_eq!(content(&picture, "a"), b"x");
    assert!(is_same(&picture, "a", "b"));
}

#[test]
fn links_need_targets() {
    assert_eq!(refused(&Tar::new().symlink("a", "").end()), Reason::LinkEmpty);
    assert_eq!(refused(&Tar::new().hardlink("a", "").end()), Reason::LinkEmpty);
    assert_eq!(refused(&Tar::new().hardlink("a", "./").end()), Reason::LinkEmpty);
    let long = Tar::new().long_link("t".repeat(4096)).symlink("a", "").end();
    assert_eq!(refused(&long), Reason::LinkTooLong { limit: 4095 });
    let nul = Tar::new().pax(&[("linkpath", b"a\0b")]).symlink("a", "x").end();
    assert_eq!(refused(&nul), Reason::NulInName);
}

#[test]
fn a_linked_directory_cannot_be_made_into_one_of_ours() {
    // The parent was a directory, is in the cache, and becomes a link: the cache must forget it.
    let layer = Tar::new().dir("a/b").file("a/b/one", "1").symlink("a", "elsewhere").file("a/b/two", "2").end();
    let picture = extracted(&layer);
    assert_eq!(names(&picture), ["a", "elsewhere", "elsewhere/b", "elsewhere/b/two"]);
}

#[test]
fn a_changed_link_leads_where_it_points_now() {
    let layer = Tar::new().symlink("l", "one").file("l/a", "a").symlink("l", "two").file("l/b", "b").end();
    assert_eq!(names(&extracted(&layer)), ["l", "one", "one/a", "two", "two/b"]);
}

#[test]
fn devices_out_of_range_are_refused() {
    for (major, minor) in [(1 << 12, 0), (0, 1 << 20), (0o7777777, 0o7777777)] {
        let layer = Tar::new().header(Header::new(b'3', "d").device(major, minor)).end();
        assert!(matches!(refused(&layer), Reason::Device { .. }), "{major}:{minor}");
    }
    let negative = Header::new(b'4', "d").device(0, 0).at(329, &[0xff; 8]);
    assert_eq!(refused(&Tar::new().header(negative).end()), Reason::Device { major: -1, minor: 0 });
}

#[test]
fn owners_out_of_range_are_refused() {
    for id in ["4294967295", "4294967296", "9223372036854775807"] {
        for key in ["uid", "gid"] {
            let layer = Tar::new().pax(&[(key, id.as_bytes())]).file("a", "").end();
            assert!(matches!(refused(&layer), Reason::Owner { .. }), "{key} {id}");
        }
    }
    let layer = Tar::new().pax(&[("uid", b"4294967294")]).file("a", "").end();
    assert_eq!(node(&extracted(&layer), "a").uid, 4_294_967_294);
    let negative = Tar::new().header(Header::new(b'0', "a").at(108, &[0xff; 8])).end();
    assert_eq!(refused(&negative), Reason::Owner { id: -1 });
    let wrapped = Tar::new().pax(&[("uid", b"18446744073709551616")]).file("a", "").end();
    assert_eq!(refused(&wrapped), Reason::Number { field: "uid" });
}

#[test]
fn forged_overlay_attributes_are_left_out() {
    let ground = Ground::new();
    let forged: Vec<(&str, &[u8])> = vec![
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.trusted.overlay.metacopy", b""),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.security.selinux", b"label"),
        ("SCHILY.xattr.security.ima", b"x"),
        ("SCHILY.xattr.system.nfs4_acl", b"x"),
        ("SCHILY.xattr.user.fine", b"kept"),
    ];
    let layer = Tar::new().pax(&forged).dir("d").pax(&forged).file("f", "").end();
    let report = ground.extract(&layer).unwrap();
    let picture = ground.picture();
    for name in ["d", "f"] {
        assert_eq!(node(&picture, name).xattrs.keys().collect::<Vec<_>>(), ["user.fine"], "{name}");
    }
    assert_eq!(report.contents.dropped_xattrs, 16);
}

#[test]
fn a_forged_overlay_whiteout_is_a_whiteout_and_no_more() {
    let layer = Tar::new().header(Header::new(b'3', "gone").device(0, 0)).file("here", "x");
    let layer = layer.header(Header::new(b'3', "here").device(0, 0)).end();
    let picture = extracted(&layer);
    assert_eq!(node(&picture, "gone").kind, Kind::Character(0));
    assert_eq!(content(&picture, "here"), b"x");
}
