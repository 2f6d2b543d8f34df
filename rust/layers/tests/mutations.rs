//! Archives that nobody would write: broken at random, and put together at random. Nothing may panic, nothing outside
//! may change, every error is the image's, and whatever came to be can be removed again.
//!
//! The random numbers are always the same. `PYRT_MUTATIONS=1000000 cargo test --release` goes further.

mod support;

use std::ffi::OsStr;
use std::os::fd::AsFd;

use pyrt_layers::{Fault, Limits, Options, remove_tree};
use support::ground::{Ground, open};
use support::tars::{BLOCK, Header, Tar};

/// Numbers without a pattern (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

fn rounds() -> usize {
    std::env::var("PYRT_MUTATIONS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1500)
}

/// Extracts over and over on the same ground.
fn try_all(mut archive: impl FnMut(usize) -> Vec<u8>) -> [usize; 2] {
    let ground = Ground::new();
    let mut outcomes = [0, 0];
    let limits = Limits { size: 1 << 24, ..Limits::default() };
    for round in 0..rounds() {
        let archive = archive(round);
        let source = tempfile::tempfile().unwrap();
        rustix::io::pwrite(&source, &archive, 0).unwrap();
        let options = Options { limits, ..Options::default() };
        match pyrt_layers::extract(source.as_fd(), open(&ground.layer()).as_fd(), &options) {
            Ok(_) => outcomes[0] += 1,
            Err(error) => {
                assert_eq!(error.fault(), Fault::Image, "round {round}: {error}");
                outcomes[1] += 1;
            }
        }
        remove_tree(open(ground.layer().parent().unwrap()).as_fd(), OsStr::new("layer")).unwrap();
        std::fs::create_dir(ground.layer()).unwrap();
        if round % 100 == 0 {
            ground.check_outside();
        }
    }
    ground.check_outside();
    outcomes
}

/// Well-formed, with everything in it.
fn whole() -> Vec<u8> {
    let sparse_map = {
        let mut map = b"2\n0\n512\n4096\n512\n".to_vec();
        map.resize(BLOCK, 0);
        map
    };
    Tar::new()
        .global(&[("comment", b"all kinds")])
        .dir("d")
        .file("d/f", [1; 700])
        .symlink("s", "../outside")
        .hardlink("h", "d/f")
        .pax(&[("path", b"d/long"), ("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"b"), ("size", b"3")])
        .file("x", "abc")
        .long_name("d/gnu")
        .long_link("target")
        .symlink("x", "y")
        .header(Header::new(b'3', "null").device(1, 3))
        .header(Header::new(b'6', "pipe"))
        .file("d/.wh.gone", "")
        .file("d/.wh..wh..opq", "")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"d/sparse"),
            ("GNU.sparse.realsize", b"9000"),
        ])
        .file("x", [sparse_map, vec![7; 1024]].concat())
        .header(
            Header::new(b'S', "old").gnu().size(512).at(386, b"00000000000\x0000000001000\0").at(483, b"00000001000\0"),
        )
        .content(&[5; 512])
        .end()
}

/// Gives all that might be headers a right checksum, so that damage gets past the first door.
fn mend(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(BLOCK) {
        if block[257..262] == *b"ustar" {
            let header = Header(<[u8; BLOCK]>::try_from(&block[..]).unwrap());
            block.copy_from_slice(&header.block());
        }
    }
}

#[test]
fn bytes_changed_at_random() {
    let whole = whole();
    let mut random = Random(42);
    let [well, refused] = try_all(|_| {
        let mut archive = whole.clone();
        for _ in 0..=random.below(6) {
            let at = random.below(archive.len());
            match random.below(4) {
                0 => archive[at] ^= 1 << random.below(8),
                1 => archive[at] = *random.one(&[&0, &0xff, &b'/', &b'.', &b'0', &b'7', &0x80, &b' ']),
                2 => {
                    let from = random.below(archive.len() - 32);
                    let length = random.below(32).min(archive.len() - at);
                    archive.copy_within(from..from + length, at);
                }
                // Rather where names, sizes and types are.
                _ => {
                    let place = at / BLOCK * BLOCK + random.one(&[&0, &100, &124, &156, &157, &257, &329, &345, &482]);
                    archive[place] = random.below(256) as u8;
                }
            }
        }
        if random.below(4) > 0 {
            mend(&mut archive);
        }
        archive
    });
    assert!(well > 0 && refused > 0, "{well} {refused}");
}

#[test]
fn blocks_moved_doubled_and_lost_at_random() {
    let whole = whole();
    let mut random = Random(7);
    try_all(|_| {
        let mut blocks: Vec<_> = whole.chunks_exact(BLOCK).map(<[u8]>::to_vec).collect();
        for _ in 0..=random.below(4) {
            let (first, second) = (random.below(blocks.len()), random.below(blocks.len()));
            match random.below(3) {
                0 => blocks.swap(first, second),
                1 => blocks.insert(first, blocks[second].clone()),
                _ => drop(blocks.remove(first)),
            }
        }
        blocks.concat()
    });
}

#[test]
fn entries_in_any_order_with_names_that_get_in_each_others_way() {
    const NAMES: [&str; 16] = [
        "a",
        "b",
        "a/b",
        "b/a",
        "a/b/c",
        "./a",
        "/a/",
        "a/.wh.b",
        ".wh.a",
        ".wh..wh..opq",
        "a/.wh..wh..opq",
        "c",
        "c/a",
        "c/b/d",
        ".",
        "a/b/.wh.c",
    ];
    const TARGETS: [&str; 14] = [
        "a",
        "b",
        "../outside",
        "/outside/etc",
        "..",
        ".",
        "/",
        "c",
        "a/b",
        "../../a",
        "b/../a",
        "/c/b",
        "missing",
        ".wh.a",
    ];
    let mut random = Random(3);
    let [well, refused] = try_all(|_| {
        let mut tar = Tar::new();
        for _ in 0..=random.below(12) {
            let name = random.one(&NAMES);
            tar = match random.below(8) {
                0 | 1 => tar.file(name, "content"),
                2 | 3 => tar.dir(name),
                4 | 5 => tar.symlink(name, random.one(&TARGETS)),
                6 => tar.hardlink(name, random.one(&NAMES)),
                _ => tar.header(Header::new(*random.one(&[&b'3', &b'6']), name)),
            };
        }
        tar.end()
    });
    assert!(well > 0 && refused > 0, "{well} {refused}");
}

#[test]
fn compressed_streams_changed_at_random() {
    use flate2::write::GzEncoder;
    use std::io::Write;
    let gzip = {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&whole()).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(&whole()[..], 3).unwrap();
    let mut random = Random(99);
    try_all(|round| {
        let mut archive = if round % 2 == 0 { gzip.clone() } else { zstd.clone() };
        for _ in 0..=random.below(3) {
            let at = random.below(archive.len());
            archive[at] = random.below(256) as u8;
        }
        archive.truncate(archive.len() - random.below(2) * random.below(archive.len()));
        archive
    });
}
