//! Tars that are damaged, or that two readers could take for two different trees: CVE-2025-62518, CVE-2026-33055.
//! All are refused, with the entry and the reason.

mod support;

use pyrt_layers::{Error, Limits, Options, Reason, SparseFault};
use support::ground::{Ground, content, extracted, names, node, refused};
use support::picture::Kind;
use support::tars::{Header, Tar, record};

#[test]
fn an_error_names_entry_place_and_reason() {
    let error = Ground::new().extract(&Tar::new().file("fine", "").dir("a/../b\n").end()).unwrap_err();
    let Error::Entry { entry, offset, reason } = &error else { panic!("{error}") };
    assert_eq!((&entry[..], *offset, reason), (&b"a/../b\n"[..], 512, &Reason::NameClimbs));
    assert_eq!(error.to_string(), r#"entry "a/../b\n" (byte 512 of the tar): its name climbs out by "..""#);
}

#[test]
fn a_size_smuggled_in_is_refused() {
    let inner = Tar::new().file("smuggled", "x").0;
    let size = inner.len().to_string();
    // The header says 0, so that a reader which does not know the record meets the inner header as an entry.
    let layer = Tar::new().pax(&[("size", size.as_bytes())]).header(Header::new(b'0', "a").size(0)).bytes(&inner).end();
    assert_eq!(refused(&layer), Reason::SizeAmbiguous { header: 0, extended: inner.len() as u64 });
    // The record says 0, and the header the size.
    let header = Header::new(b'0', "a").size(inner.len() as u64);
    let layer = Tar::new().pax(&[("size", b"0")]).header(header).bytes(&inner).end();
    assert_eq!(refused(&layer), Reason::SizeAmbiguous { header: inner.len() as u64, extended: 0 });
}

#[test]
fn a_size_smuggled_under_a_symlink_is_refused() {
    let inner = Tar::new().file("smuggled", "x").0;
    let size = inner.len() as u64;
    for flag in [b'1', b'2', b'3', b'4', b'5', b'6'] {
        let header = Header::new(flag, "a").link("b").device(1, 3);
        let by_header = Tar::new().file("b", "").header(header.clone().size(size)).bytes(&inner).end();
        assert_eq!(refused(&by_header), Reason::SizeOfNoFile { size }, "{}", char::from(flag));
        let both = Tar::new().file("b", "").pax(&[("size", size.to_string().as_bytes())]);
        let both = both.header(header.clone().size(size)).bytes(&inner).end();
        assert_eq!(refused(&both), Reason::SizeOfNoFile { size });
        let by_record = Tar::new().file("b", "").pax(&[("size", size.to_string().as_bytes())]);
        let by_record = by_record.header(header).bytes(&inner).end();
        assert_eq!(refused(&by_record), Reason::SizeAmbiguous { header: 0, extended: size });
    }
}

#[test]
fn a_record_may_repeat_the_size_of_the_header() {
    let layer = Tar::new().pax(&[("size", b"1")]).file("a", "x").end();
    assert_eq!(content(&extracted(&layer), "a"), b"x");
    let layer = Tar::new().pax(&[("size", b"1"), ("size", b"2")]).file("a", "x").end();
    assert_eq!(refused(&layer), Reason::RecordRepeated { key: "size" });
}

#[test]
fn a_size_beyond_octal_digits_is_the_records_to_say() {
    let header = Header::new(b'0', "a").size(0);
    let layer = Tar::new().pax(&[("size", b"8589934592")]).header(header).end();
    assert_eq!(refused(&layer), Reason::Truncated);
}

#[test]
fn names_on_which_gnu_and_pax_differ_are_refused() {
    let mixed = |gnu: &str, pax: &str| Tar::new().long_name(gnu).pax(&[("path", pax.as_bytes())]).file("x", "").end();
    assert_eq!(refused(&mixed("a", "b")), Reason::NameAmbiguous);
    assert_eq!(names(&extracted(&mixed("same", "same"))), ["same"]);
    let links = Tar::new().long_link("a").pax(&[("linkpath", b"b")]).symlink("x", "c").end();
    assert_eq!(refused(&links), Reason::NameAmbiguous);
    let other_way = Tar::new().pax(&[("path", b"a")]).long_name("b").file("x", "").end();
    assert_eq!(refused(&other_way), Reason::NameAmbiguous);
}

#[test]
fn extended_headers_come_once_and_before_an_entry() {
    let twice = Tar::new().pax(&[("path", b"a")]).pax(&[("mtime", b"1")]).file("x", "").end();
    assert_eq!(refused(&twice), Reason::HeaderRepeated);
    assert_eq!(refused(&Tar::new().long_name("a").long_name("b").file("x", "").end()), Reason::HeaderRepeated);
    for orphan in [Tar::new().pax(&[("path", b"a")]), Tar::new().long_name("a"), Tar::new().long_link("a")] {
        assert_eq!(refused(&orphan.clone().end()), Reason::HeaderOrphan);
        assert_eq!(refused(&orphan.0), Reason::HeaderOrphan);
    }
    let between = Tar::new().pax(&[("path", b"a")]).global(&[("comment", b"x")]).file("x", "").end();
    assert_eq!(refused(&between), Reason::HeaderOrphan);
}

#[test]
fn a_global_header_alone_is_an_empty_layer() {
    assert_eq!(names(&extracted(&Tar::new().global(&[("comment", b"a commit")]).end())), [""; 0]);
}

#[test]
fn a_global_header_sets_what_is_of_all_entries_only() {
    let layer =
        Tar::new().global(&[("uid", b"7"), ("mtime", b"1.5")]).file("a", "").pax(&[("uid", b"8")]).file("b", "");
    let picture = extracted(&layer.global(&[("uid", b"9")]).file("c", "").end());
    assert_eq!(["a", "b", "c"].map(|name| node(&picture, name).uid), [7, 8, 9]);
    assert_eq!(node(&picture, "c").mtime, 1_500_000_000);
    for key in ["path", "linkpath", "size"] {
        let layer = Tar::new().global(&[(key, b"1")]).file("a", "").end();
        assert_eq!(refused(&layer), Reason::RecordGlobal { key });
    }
    for (key, shown) in [("GNU.sparse.size", "GNU.sparse"), ("SCHILY.xattr.user.a", "SCHILY.xattr")] {
        assert_eq!(
            refused(&Tar::new().global(&[(key, b"1")]).file("a", "").end()),
            Reason::RecordGlobal { key: shown }
        );
    }
}

#[test]
fn records_without_an_end_are_refused() {
    let whole = record("path", b"a/b");
    for broken in [&whole[..whole.len() - 1], b"12 path=a/b", b"99 path=a/b\n", b"0 \n", b"x", b"\0\0\0"] {
        assert_eq!(refused(&Tar::new().extended(b'x', broken).file("a", "").end()), Reason::Record);
    }
    assert_eq!(refused(&Tar::new().extended(b'x', &[0; 600]).file("a", "").end()), Reason::Record);
    assert_eq!(refused(&Tar::new().pax(&[("path", b"a\0b")]).file("a", "").end()), Reason::NulInName);
}

#[test]
fn header_fields_that_overflow_are_refused() {
    let too_much = [0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    for (offset, field, bytes) in [
        (124, "size", &too_much[..]),
        (124, "size", &[0xff; 12]),
        (124, "size", b"00000000019\0"),
        (136, "mtime", &too_much),
        (100, "mode", b"0o00644\0"),
        (108, "uid", b"-000001\0"),
        (116, "gid", b"99\0\0\0\0\0\0"),
    ] {
        let layer = Tar::new().header(Header::new(b'0', "a").at(offset, bytes)).end();
        assert_eq!(refused(&layer), Reason::Number { field });
    }
    let huge = Header::new(b'0', "a").at(124, &[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(refused(&Tar::new().header(huge).end()), Reason::Truncated);
}

#[test]
fn a_wrong_checksum_is_refused() {
    let mut layer = Tar::new().file("a", "x").file("b", "y").end();
    layer[1024 + 5] ^= 1;
    let error = Ground::new().extract(&layer).unwrap_err();
    assert!(matches!(error, Error::Entry { offset: 1024, reason: Reason::Checksum, .. }), "{error}");
}

#[test]
fn unknown_types_are_refused() {
    for flag in [b'8', b'9', b'A', b'D', b'M', b'N', b'V', b'X', b'Z', 0xff] {
        let layer = Tar::new().header(Header::new(flag, "a")).end();
        assert_eq!(refused(&layer), Reason::Type { flag: char::from(flag) });
    }
}

#[test]
fn an_archive_that_breaks_off_is_refused() {
    let whole = Tar::new().file("a", [1; 1000]).pax(&[("path", b"b")]).file("x", "y").end();
    for length in [1, 511, 513, 1024, 1511, 2048 - 512 + 1, 2100, 2560, 3071] {
        let reason = refused(&whole[..length]);
        assert!(matches!(reason, Reason::Truncated | Reason::HeaderOrphan), "{length}: {reason}");
    }
    assert_eq!(refused(b""), Reason::Empty);
}

/// `umoci insert` ends its layers with the last byte of the last file.
#[test]
fn the_padding_behind_the_last_file_may_be_missing() {
    let whole = Tar::new().file("a", [1; 1000]).0;
    for length in 512 + 1000..=whole.len() {
        let ground = Ground::new();
        ground.extract(&whole[..length]).unwrap();
    }
}

#[test]
fn the_end_may_be_two_blocks_of_zeros_or_one_or_none() {
    let entries = Tar::new().file("a", "x");
    for layer in [entries.0.clone(), entries.clone().bytes(&[0; 512]).0, entries.clone().end()] {
        assert_eq!(names(&extracted(&layer)), ["a"]);
    }
    let after = entries.clone().bytes(&[0; 1024]).file("b", "after the end").0;
    assert_eq!(names(&extracted(&after)), ["a"]);
    assert_eq!(refused(&entries.bytes(&[0; 512]).file("b", "x").end()), Reason::LoneZeroBlock);
    assert_eq!(names(&extracted(&Tar::new().end())), [""; 0]);
}

#[test]
fn what_comes_after_the_end_belongs_to_the_digest() {
    let short = Tar::new().file("a", "x").end();
    let long = [&short[..], &[7; 100_000]].concat();
    let (one, other) = (Ground::new().extract(&short).unwrap(), Ground::new().extract(&long).unwrap());
    assert_ne!(one.diff_id, other.diff_id);
    assert_eq!(other.size, long.len() as u64);
}

#[test]
fn the_last_of_two_entries_counts() {
    let layer = Tar::new()
        .file("a", "first")
        .file("a", "last")
        .dir("d")
        .file("d/x", "")
        .file("d", "file")
        .symlink("s", "first")
        .symlink("s", "last")
        .header(Header::new(b'5', "e").mode(0o700))
        .pax(&[("SCHILY.xattr.user.old", b"1")])
        .header(Header::new(b'5', "f").mode(0o700))
        .header(Header::new(b'5', "f").mode(0o750).mtime(5))
        .file("e", "file")
        .header(Header::new(b'6', "e"))
        .end();
    let picture = extracted(&layer);
    assert_eq!(names(&picture), ["a", "d", "e", "f", "s"]);
    assert_eq!((content(&picture, "a"), content(&picture, "d")), (&b"last"[..], &b"file"[..]));
    assert_eq!(node(&picture, "s").kind, Kind::Symlink(b"last".to_vec()));
    assert_eq!(node(&picture, "e").kind, Kind::Fifo);
    let directory = node(&picture, "f");
    assert_eq!((directory.mode, directory.mtime, directory.xattrs.len()), (0o750, 5_000_000_000, 0));
}

#[test]
fn a_file_that_is_replaced_keeps_its_other_name() {
    let picture = extracted(&Tar::new().file("a", "first").hardlink("b", "a").file("a", "last").end());
    assert_eq!((content(&picture, "a"), content(&picture, "b")), (&b"last"[..], &b"first"[..]));
}

#[test]
fn orphan_sparse_entries_are_refused() {
    let sparse = |records: &[(&str, &[u8])]| refused(&Tar::new().pax(records).file("a", "x").end());
    assert_eq!(sparse(&[("GNU.sparse.numbytes", b"1")]), Reason::Sparse(SparseFault::Incomplete));
    assert_eq!(sparse(&[("GNU.sparse.offset", b"1")]), Reason::Sparse(SparseFault::Incomplete));
    assert_eq!(sparse(&[("GNU.sparse.size", b"1")]), Reason::Sparse(SparseFault::Incomplete));
    let on_link = Tar::new().pax(&[("GNU.sparse.size", b"1"), ("GNU.sparse.numblocks", b"0")]).symlink("a", "b").end();
    assert_eq!(refused(&on_link), Reason::Sparse(SparseFault::NoFile));
    // An old GNU header that promises a further block and ends.
    let header = Header::new(b'S', "a").gnu().at(482, &[1]);
    assert_eq!(refused(&Tar::new().header(header).0), Reason::Truncated);
    let not_gnu = Header::new(b'S', "a").at(483, b"00000000001\0");
    assert_eq!(refused(&Tar::new().header(not_gnu).end()), Reason::Sparse(SparseFault::Mixed));
}

#[test]
fn sparse_maps_that_lie_are_refused() {
    let map = |map: &str, blocks: &str| {
        let records = [
            ("GNU.sparse.size", &b"100"[..]),
            ("GNU.sparse.numblocks", blocks.as_bytes()),
            ("GNU.sparse.map", map.as_bytes()),
        ];
        refused(&Tar::new().pax(&records).file("a", "xy").end())
    };
    assert_eq!(map("0,1,0,1", "2"), Reason::Sparse(SparseFault::Order));
    assert_eq!(map("99,2", "1"), Reason::Sparse(SparseFault::Order));
    assert_eq!(map("0,1", "1"), Reason::Sparse(SparseFault::Sum));
    assert_eq!(map("0,3", "1"), Reason::Sparse(SparseFault::Sum));
    assert_eq!(map("18446744073709551615,2", "1"), Reason::Sparse(SparseFault::Order));
}

#[test]
fn holes_beyond_the_limit_are_a_bomb() {
    let records: [(&str, &[u8]); 3] =
        [("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9000000000000000000")];
    let mut map = b"0\n".to_vec();
    map.resize(512, 0);
    let layer = Tar::new().pax(&records).file("a", map);
    assert_eq!(refused(&layer.end()), Reason::TooLarge { limit: 512 << 30 });
}

#[test]
fn limits_hold() {
    let with = |limits: Limits, layer: Vec<u8>| {
        let error = Ground::new().extract_with(&layer, &Options { limits, ..Options::default() }).unwrap_err();
        error.reason().unwrap().clone()
    };
    let limits = Limits { entries: 2, ..Limits::default() };
    assert_eq!(with(limits, Tar::new().dir("a").dir("b").dir("c").end()), Reason::TooManyEntries { limit: 2 });
    let limits = Limits { size: 100_000, ..Limits::default() };
    assert_eq!(with(limits, Tar::new().file("a", vec![0; 100_000]).end()), Reason::TooLarge { limit: 100_000 });
    let limits = Limits { header: 1000, ..Limits::default() };
    let layer = Tar::new().pax(&[("comment", &[b'x'; 1000])]).file("a", "").end();
    assert_eq!(with(limits, layer), Reason::HeaderTooLarge { limit: 1000 });
    let limits = Limits { depth: 2, ..Limits::default() };
    assert_eq!(with(limits, Tar::new().file("a/b/c/d", "").end()), Reason::TooDeep { limit: 2 });
    let limits = Limits { path: 5, ..Limits::default() };
    assert_eq!(with(limits, Tar::new().file("aaa/bbb", "").end()), Reason::PathTooLong { limit: 5 });
    let limits = Limits { sparse: 1, ..Limits::default() };
    let records: [(&str, &[u8]); 3] =
        [("GNU.sparse.size", b"9"), ("GNU.sparse.numblocks", b"2"), ("GNU.sparse.map", b"0,1,2,1")];
    let layer = Tar::new().pax(&records).file("a", "xy").end();
    assert_eq!(with(limits, layer), Reason::Sparse(SparseFault::TooLong { limit: 1 }));
}
