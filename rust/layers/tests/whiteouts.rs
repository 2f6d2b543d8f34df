//! Whiteouts and opaque directories of the OCI image specification, in overlay's form; and what overlayfs makes of it.

mod support;

use pyrt_layers::{Options, Overlay, Reason};
use support::ground::{Ground, content, extracted, is_opaque, is_whiteout, names, node, refused};
use support::mounted::Mounted;
use support::picture::{Kind, picture};
use support::tars::{Header, Tar};

#[test]
fn a_whiteout_is_a_device_without_numbers_or_rights() {
    let picture = extracted(&Tar::new().dir("d").file("d/.wh.gone", "").file(".wh..hidden", "").end());
    assert_eq!(names(&picture), [".hidden", "d", "d/gone"]);
    assert!(is_whiteout(&picture, "d/gone") && is_whiteout(&picture, ".hidden"));
    assert_eq!(node(&picture, "d/gone").mode, 0);
}

#[test]
fn an_opaque_marker_marks_its_directory_wherever_it_stands() {
    for layer in [
        Tar::new().dir("d").file("d/.wh..wh..opq", "").file("d/f", "x"),
        Tar::new().dir("d").file("d/f", "x").file("d/.wh..wh..opq", ""),
        Tar::new().file("d/.wh..wh..opq", "").dir("d").file("d/f", "x"),
    ] {
        let picture = extracted(&layer.end());
        assert_eq!(names(&picture), ["d", "d/f"]);
        assert!(is_opaque(&picture, "d"));
    }
}

#[test]
fn an_opaque_root_is_reported() {
    let ground = Ground::new();
    let report = ground.extract(&Tar::new().file("a", "").file(".wh..wh..opq", "").end()).unwrap();
    assert!(report.contents.opaque_root);
    assert!(is_opaque(&ground.picture(), "."));
    let report = Ground::new().extract(&Tar::new().file("d/.wh..wh..opq", "").end()).unwrap();
    assert!(!report.contents.opaque_root);
}

#[test]
fn whiteouts_that_name_no_file_are_refused() {
    for (name, reason) in [
        (".wh.", Reason::WhiteoutUnnamed),
        ("d/.wh.", Reason::WhiteoutUnnamed),
        (".wh..", Reason::WhiteoutOfDirectory),
        ("d/.wh..", Reason::WhiteoutOfDirectory),
        (".wh...", Reason::WhiteoutOfDirectory),
        ("d/.wh...", Reason::WhiteoutOfDirectory),
        (".wh.d/f", Reason::BelowWhiteout),
    ] {
        assert_eq!(refused(&Tar::new().dir("d").file(name, "").end()), reason, "{name}");
    }
    assert!(is_whiteout(&extracted(&Tar::new().file(".wh....", "").end()), "..."));
}

#[test]
fn a_whiteout_is_an_empty_file_or_a_link_of_one() {
    for flag in [b'2', b'3', b'4', b'5', b'6'] {
        for name in [".wh.a", ".wh..wh..opq"] {
            let layer = Tar::new().header(Header::new(flag, name).link("x").device(1, 3)).end();
            assert_eq!(refused(&layer), Reason::WhiteoutKind, "{name} {}", char::from(flag));
        }
    }
    let layer = Tar::new().file(".wh..wh.aufs", "").hardlink(".wh.a", ".wh..wh.aufs").end();
    assert_eq!(names(&extracted(&layer)), ["a"]);
}

#[test]
fn what_aufs_kept_for_itself_is_left_out() {
    let layer = Tar::new()
        .file(".wh..wh.aufs", "")
        .dir(".wh..wh.plnk")
        .file(".wh..wh.plnk/12.34", "content")
        .dir(".wh..wh.orph")
        .file("a", "")
        .end();
    assert_eq!(names(&extracted(&layer)), ["a"]);
}

#[test]
fn a_file_of_the_layer_outlives_a_whiteout_of_its_name_before_or_after() {
    for layer in [Tar::new().file(".wh.a", "").file("a", "x"), Tar::new().file("a", "x").file(".wh.a", "")] {
        assert_eq!(content(&extracted(&layer.end()), "a"), b"x");
    }
    for layer in [Tar::new().file(".wh.a", "").symlink("a", "x"), Tar::new().symlink("a", "x").file(".wh.a", "")] {
        assert_eq!(node(&extracted(&layer.end()), "a").kind, Kind::Symlink(b"x".to_vec()));
    }
}

#[test]
fn a_directory_of_the_layer_that_is_whited_out_too_hides_the_one_below() {
    for layer in [
        Tar::new().file(".wh.d", "").dir("d").file("d/f", "x"),
        Tar::new().dir("d").file("d/f", "x").file(".wh.d", ""),
        Tar::new().file(".wh.d", "").file("d/f", "x"),
        Tar::new().file("d/f", "x").file(".wh.d", "").dir("d"),
    ] {
        let picture = extracted(&layer.end());
        assert_eq!(names(&picture), ["d", "d/f"]);
        assert!(is_opaque(&picture, "d"));
    }
}

#[test]
fn nested_whiteouts_in_either_order() {
    for layer in [Tar::new().file(".wh.d", "").file("d/.wh.f", ""), Tar::new().file("d/.wh.f", "").file(".wh.d", "")] {
        let picture = extracted(&layer.end());
        assert!(is_opaque(&picture, "d") && is_whiteout(&picture, "d/f"));
    }
}

#[test]
fn a_directory_in_the_place_of_a_file_hides_what_is_below() {
    let picture = extracted(&Tar::new().file("d", "x").dir("d").file("d/f", "").end());
    assert!(is_opaque(&picture, "d"));
    let picture = extracted(&Tar::new().dir("d").dir("d").end());
    assert!(!is_opaque(&picture, "d"));
}

#[test]
fn whiteouts_under_a_dead_symlink_land_where_it_points_inside() {
    let layer = Tar::new().symlink("dead", "../../outside/missing").file("dead/.wh.f", "").end();
    let picture = extracted(&layer);
    assert!(is_whiteout(&picture, "outside/missing/f"));
    let layer = Tar::new().symlink("dead", "missing").file(".wh.dead", "").end();
    assert_eq!(node(&extracted(&layer), "dead").kind, Kind::Symlink(b"missing".to_vec()));
}

#[test]
fn no_link_makes_a_directory_that_is_named_as_a_whiteout() {
    let layer = Tar::new().symlink("a", ".wh.b").file("a/f", "").end();
    assert_eq!(refused(&layer), Reason::BelowWhiteout);
}

#[test]
fn an_overlay_in_a_user_namespace_has_its_own_mark() {
    let ground = Ground::new();
    let options = Options { overlay: Overlay::User, ..Options::default() };
    ground.extract_with(&Tar::new().file("d/.wh..wh..opq", "").end(), &options).unwrap();
    assert_eq!(node(&ground.picture(), "d").xattrs.keys().collect::<Vec<_>>(), ["user.overlay.opaque"]);
}

#[test]
fn overlayfs_shows_what_the_layers_say() {
    let lower = Tar::new()
        .dir("keep")
        .file("keep/a", "lower")
        .file("keep/b", "lower")
        .dir("opaque")
        .file("opaque/a", "lower")
        .dir("replaced")
        .file("replaced/a", "lower")
        .dir("gone")
        .file("gone/a", "lower")
        .file("file", "lower")
        .file("same", "lower")
        .end();
    let upper = Tar::new()
        .file("keep/.wh.a", "")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/b", "upper")
        .file(".wh.replaced", "")
        .file("replaced/b", "upper")
        .file(".wh.gone", "")
        .file("file", "upper")
        .end();
    let (low, up) = (Ground::new(), Ground::new());
    low.extract(&lower).unwrap();
    up.extract(&upper).unwrap();
    let base = tempfile::tempdir().unwrap();
    let at = base.path().join("merged");
    let mounted = Mounted::new(&at, &[&up.layer(), &low.layer()], None);
    let merged = picture(&at);
    drop(mounted);
    assert_eq!(names(&merged), ["file", "keep", "keep/b", "opaque", "opaque/b", "replaced", "replaced/b", "same"]);
    for (name, text) in [("file", "upper"), ("keep/b", "lower"), ("opaque/b", "upper"), ("same", "lower")] {
        assert_eq!(content(&merged, name), text.as_bytes(), "{name}");
    }
}
