//! The way of the bytes: compressions as their own tools write them, digests, copies, sources that are slow or silent,
//! and machines that fail.

mod support;

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use pyrt_layers::{Compression, Digest, Error, Fault, Limits, Options, Progress, Reason, Report, extract};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use support::ground::{Ground, content, open};
use support::tars::Tar;

/// What a program makes of its input.
fn through(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let command = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut command = command.unwrap();
    let mut stdin = command.stdin.take().unwrap();
    let input = input.to_vec();
    let feeding = thread::spawn(move || stdin.write_all(&input).unwrap());
    let mut output = Vec::new();
    command.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    feeding.join().unwrap();
    assert!(command.wait().unwrap().success(), "{program} {arguments:?}");
    output
}

fn sha256(bytes: &[u8]) -> String {
    let output = through("sha256sum", &[], bytes);
    format!("sha256:{}", std::str::from_utf8(&output[..64]).unwrap())
}

/// A layer of some size, neither all alike nor without order.
fn layer() -> Vec<u8> {
    let mut state = 1_u32;
    let mut noise = |length: usize| -> Vec<u8> {
        let next = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8 & 0x3f
        });
        next.take(length).collect()
    };
    let mut tar = Tar::new();
    for number in 0..20 {
        tar = tar.file(format!("file{number}"), noise(number * 7001));
    }
    tar.file("text", "all the same ".repeat(50_000)).end()
}

/// Extracts what must be well, and checks all that the report says.
fn check(compressed: &[u8], plain: &[u8], compression: Compression) -> Report {
    let ground = Ground::new();
    let report = ground.extract(compressed).unwrap_or_else(|error| panic!("{compression}: {error}"));
    assert_eq!(report.compression, compression);
    assert_eq!((report.digest.to_string(), report.diff_id.to_string()), (sha256(compressed), sha256(plain)));
    assert_eq!((report.compressed_size, report.size), (compressed.len() as u64, plain.len() as u64));
    assert_eq!(content(&ground.picture(), "text").len(), 650_000);
    report
}

fn refused(layer: &[u8]) -> Reason {
    support::ground::refused(layer)
}

fn garbage(compression: &'static str) -> Reason {
    Reason::TrailingGarbage { compression }
}

#[test]
fn every_compression_is_known_by_its_first_bytes() {
    let plain = layer();
    check(&plain, &plain, Compression::None);
    for (compression, program, arguments) in [
        (Compression::Gzip, "gzip", &["-1"][..]),
        (Compression::Gzip, "gzip", &["-9"]),
        (Compression::Gzip, "pigz", &["-b", "128", "-p", "2"]),
        (Compression::Zstd, "zstd", &["-1"]),
        (Compression::Zstd, "zstd", &["-19", "--check"]),
        (Compression::Zstd, "zstd", &["--no-check", "--long=25"]),
        (Compression::Xz, "xz", &["-0"]),
        (Compression::Xz, "xz", &["-8", "--check=sha256"]),
        (Compression::Bzip2, "bzip2", &["-1"]),
        (Compression::Bzip2, "bzip2", &["-9"]),
    ] {
        check(&through(program, arguments, &plain), &plain, compression);
    }
}

#[test]
fn streams_may_follow_each_other_anywhere() {
    let plain = layer();
    for (compression, program) in [
        (Compression::Gzip, "gzip"),
        (Compression::Zstd, "zstd"),
        (Compression::Xz, "xz"),
        (Compression::Bzip2, "bzip2"),
    ] {
        let parts = [&plain[..700], &plain[700..100_000], b"", &plain[100_000..]];
        let parts = parts.map(|part| through(program, &["-c"], part));
        check(&parts.concat(), &plain, compression);
        check(&[&parts.concat()[..], &[0; 5000]].concat(), &plain, compression);
        let padded = [&parts[0][..], &[0; 8], &parts[1], &parts[2], &[0; 4], &parts[3]].concat();
        check(&padded, &plain, compression);
    }
}

#[test]
fn a_stream_may_end_where_a_buffer_does() {
    let plain = Tar::new().file("text", vec![b'x'; 650_000]).bytes(&[0; 1 << 20]).0;
    for (compression, program) in [
        (Compression::Gzip, "gzip"),
        (Compression::Zstd, "zstd"),
        (Compression::Xz, "xz"),
        (Compression::Bzip2, "bzip2"),
    ] {
        let parts: Vec<_> = plain.chunks(1 << 18).map(|part| through(program, &["-c"], part)).collect();
        check(&parts.concat(), &plain, compression);
        check(&parts.join(&[0; 8][..]), &plain, compression);
    }
}

#[test]
fn thousands_of_members_as_estargz_has_them() {
    let plain = layer();
    let empty = through("gzip", &["-c"], b"");
    let members = [&empty.repeat(5000)[..], &through("gzip", &["-c"], &plain), &empty].concat();
    check(&members, &plain, Compression::Gzip);
}

#[test]
fn what_follows_a_stream_and_is_none_is_refused() {
    let plain = layer();
    for (program, name) in [("gzip", "gzip"), ("zstd", "zstd"), ("xz", "xz"), ("bzip2", "bzip2")] {
        let compressed = through(program, &["-c"], &plain);
        for tail in [&b"g"[..], b"garbage", &plain[..2000], &compressed[..3], b"\0\0\0x"] {
            assert_eq!(refused(&[&compressed[..], tail].concat()), garbage(name), "{program} {}", tail.len());
        }
    }
}

#[test]
fn what_breaks_off_is_refused() {
    let plain = Tar::new().file("a", "x".repeat(5000)).end();
    for program in ["gzip", "zstd", "xz", "bzip2"] {
        let compressed = through(program, &["-c"], &plain);
        for length in [compressed.len() - 1, compressed.len() - 5, compressed.len() / 2, 13] {
            assert_eq!(refused(&compressed[..length]), Reason::Truncated, "{program} {length}");
        }
    }
}

#[test]
fn a_flipped_bit_never_makes_another_tree() {
    let plain = Tar::new().file("a", "some content, and more of it").dir("d").end();
    for program in ["gzip", "zstd", "xz", "bzip2"] {
        let compressed = through(program, &["-c"], &plain);
        let right = Ground::new().extract(&compressed).unwrap().diff_id;
        for at in 0..compressed.len() {
            let mut flipped = compressed.clone();
            flipped[at] ^= 1 << (at % 8);
            match Ground::new().extract(&flipped) {
                // The time or the system in a gzip header may be anything.
                Ok(report) => assert_eq!(report.diff_id, right, "{program}, byte {at}"),
                Err(error) => assert_eq!(error.fault(), Fault::Image, "{program}, byte {at}: {error}"),
            }
        }
    }
}

#[test]
fn skippable_frames_are_skipped() {
    let plain = layer();
    let frame = |magic: u8, content: &[u8]| {
        [&[magic, 0x2a, 0x4d, 0x18][..], &(content.len() as u32).to_le_bytes(), content].concat()
    };
    let compressed = through("zstd", &["-c"], &plain);
    let layer = [&frame(0x50, b""), &compressed, &frame(0x5f, &[9; 300_000])].map(|part| &part[..]).concat();
    check(&layer, &plain, Compression::Zstd);
    assert_eq!(refused(&frame(0x5a, b"nothing else")), Reason::Empty);
    assert_eq!(refused(&[&frame(0x50, b"abc")[..10], b""].concat()), Reason::Truncated);
}

#[test]
fn windows_beyond_the_limit_are_refused() {
    // In a pipe, the tools cannot know that this needs no such window.
    let plain = layer();
    let limit = Limits::default().window;
    let zstd = through("zstd", &["-1", "--long=27", "-c"], &plain);
    assert_eq!(refused(&zstd), Reason::WindowTooLarge { compression: "zstd", limit });
    let xz = through("xz", &["-0", "--lzma2=preset=0,dict=64MiB", "-c"], &plain);
    assert_eq!(refused(&xz), Reason::WindowTooLarge { compression: "xz", limit });
    let limits = Limits { window: 128 << 20, ..Limits::default() };
    Ground::new().extract_with(&zstd, &Options { limits, ..Options::default() }).unwrap();
}

#[test]
fn nothing_in_a_compressed_stream_is_nothing() {
    for program in ["gzip", "zstd", "xz", "bzip2"] {
        assert_eq!(refused(&through(program, &["-c"], b"")), Reason::Empty, "{program}");
    }
}

#[test]
fn a_bomb_is_stopped_at_the_limit() {
    let bomb = through("gzip", &["-9", "-c"], &Tar::new().file("zeros", vec![0; 64 << 20]).end());
    let limits = Limits { size: 1 << 20, ..Limits::default() };
    let ground = Ground::new();
    let error = ground.extract_with(&bomb, &Options { limits, ..Options::default() }).unwrap_err();
    assert!(matches!(error, Error::Stream { reason: Reason::TooLarge { limit: 1_048_576 }, .. }), "{error}");
    assert!(fs::metadata(ground.layer().join("zeros")).map_or(0, |file| file.len()) <= 1 << 20);
}

#[test]
fn the_copy_is_what_came() {
    let compressed = through("gzip", &["-c"], &layer());
    for source in [&compressed, &layer()] {
        let mut blob = tempfile::tempfile().unwrap();
        let progress = Progress::default();
        let options = Options { sync: true, blob: Some(blob.as_fd()), progress: Some(&progress), ..Options::default() };
        let report = Ground::new().extract_with(source, &options).unwrap();
        let mut copy = Vec::new();
        blob.rewind().unwrap();
        blob.read_to_end(&mut copy).unwrap();
        assert!(copy == *source);
        let counted =
            [&progress.compressed, &progress.plain, &progress.entries].map(|count| count.load(Ordering::Relaxed));
        assert_eq!(counted, [report.compressed_size, report.size, report.contents.entries]);
    }
}

#[test]
fn a_socket_may_bring_single_bytes() {
    let plain = Tar::new().file("a", "content").end();
    for layer in [plain.clone(), through("gzip", &["-c"], &plain)] {
        let (source, mut other) = UnixStream::pair().unwrap();
        let writing = thread::spawn(move || layer.iter().for_each(|byte| other.write_all(&[*byte]).unwrap()));
        let ground = Ground::new();
        let report = extract(source.as_fd(), open(&ground.layer()).as_fd(), &Options::default()).unwrap();
        writing.join().unwrap();
        assert_eq!(report.diff_id.to_string(), sha256(&plain));
        assert_eq!(content(&ground.picture(), "a"), b"content");
    }
}

#[test]
fn a_silent_source_does_not_keep_one_from_cancelling() {
    let (source, mut other) = UnixStream::pair().unwrap();
    other.write_all(&layer()[..100_000]).unwrap();
    let (cancel, ground) = (AtomicBool::new(false), Ground::new());
    let options = Options { cancel: Some(&cancel), ..Options::default() };
    let error = thread::scope(|scope| {
        let directory = open(&ground.layer());
        let extracting = scope.spawn(move || extract(source.as_fd(), directory.as_fd(), &options));
        cancel.store(true, Ordering::Relaxed);
        extracting.join().unwrap().unwrap_err()
    });
    assert!(matches!(error, Error::Cancelled));
    assert_eq!(error.fault(), Fault::Caller);
}

#[test]
fn only_an_empty_directory_is_filled() {
    let ground = Ground::new();
    fs::write(ground.layer().join("file"), "").unwrap();
    let error = ground.extract(&Tar::new().file("a", "").end()).unwrap_err();
    let Error::System { source, .. } = &error else { panic!("{error}") };
    assert_eq!(source.raw_os_error(), Some(libc::ENOTEMPTY));
}

#[test]
fn a_full_disk_is_the_machines_fault() {
    let base = tempfile::tempdir().unwrap();
    mount("tmpfs", base.path(), "tmpfs", MountFlags::empty(), Some(c"size=1m")).unwrap();
    fs::create_dir(base.path().join("layer")).unwrap();
    let source = tempfile::tempfile().unwrap();
    (&source).write_all(&Tar::new().file("a/large", vec![1; 3 << 20]).end()).unwrap();
    (&source).rewind().unwrap();
    let result = extract(source.as_fd(), open(&base.path().join("layer")).as_fd(), &Options::default());
    unmount(base.path(), UnmountFlags::DETACH).unwrap();
    let error = result.unwrap_err();
    assert_eq!(error.fault(), Fault::Machine);
    assert_eq!(error.to_string(), r#"cannot write "a/large": No space left on device (os error 28)"#);
}

#[test]
fn a_source_that_cannot_be_read_is_the_machines_fault() {
    let ground = Ground::new();
    let unreadable = File::create(ground.layer().parent().unwrap().join("layer/x")).unwrap();
    fs::remove_file(ground.layer().join("x")).unwrap();
    let error = extract(unreadable.as_fd(), open(&ground.layer()).as_fd(), &Options::default()).unwrap_err();
    assert!(matches!(error, Error::System { operation: "read", .. }), "{error}");
}

#[test]
fn a_digest_prints_as_registries_write_it() {
    assert_eq!(Digest([0xab; 32]).to_string(), format!("sha256:{}", "ab".repeat(32)));
}
