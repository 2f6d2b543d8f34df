//! Layers of a million entries, of thousands of levels, of huge headers: in time, and in less than 64 MiB of memory.
//!
//! A program of one test, as what it measures is of the whole process. In debug builds there are fewer entries.

mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use pyrt_layers::{Options, Report, extract, remove_tree};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use support::tars::{Header, Tar, record};

const ENTRIES: usize = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
const DEPTH: usize = 4096;
const CEILING: u64 = 64 << 20;

/// A file system in memory, gone at the end.
struct Memory(tempfile::TempDir);

impl Memory {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        mount("tmpfs", base.path(), "tmpfs", MountFlags::empty(), Some(c"size=4g,nr_inodes=0")).unwrap();
        Self(base)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::DETACH).unwrap();
    }
}

fn resident_peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Extracts what `write` writes, while it writes, watches the memory, and removes the layer again.
fn extract_stream(base: &Path, what: &str, write: impl FnOnce(&mut dyn Write) + Send + 'static) -> Report {
    fs::create_dir(base.join("layer")).unwrap();
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let (source, sink) = UnixStream::pair().unwrap();
    let writing = thread::spawn(move || write(&mut BufWriter::new(sink)));
    let directory = File::open(base.join("layer")).unwrap();
    let report = extract(source.as_fd(), directory.as_fd(), &Options::default());
    writing.join().unwrap();
    let peak = resident_peak();
    println!("{what}: {} KiB resident at most", peak >> 10);
    assert!(peak < CEILING, "{what}: {} MiB resident", peak >> 20);
    check_times(&base.join("layer"));
    remove_tree(File::open(base).unwrap().as_fd(), OsStr::new("layer")).unwrap();
    assert!(!base.join("layer").exists());
    report.unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// Sees that the directories near the top have the times of their entries, and not of their last change.
fn check_times(layer: &Path) {
    use std::os::unix::fs::MetadataExt;
    let directories = fs::read_dir(layer).unwrap().map(|entry| entry.unwrap().metadata().unwrap());
    for directory in directories.filter(fs::Metadata::is_dir).take(1000) {
        assert_eq!(directory.mtime(), 1_000_000_000);
    }
}

fn put(sink: &mut dyn Write, tar: Tar) {
    sink.write_all(&tar.0).unwrap();
}

/// As much history as is allowed, all of it in use.
fn large_window(program: &str, arguments: &[&str], sink: &mut dyn Write) {
    let command = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut command = command.unwrap();
    let mut stdin = command.stdin.take().unwrap();
    let feeding = thread::spawn(move || {
        stdin.write_all(&Header::new(b'0', "zeros").size(64 << 20).block()).unwrap();
        (0..64).for_each(|_| stdin.write_all(&vec![0; 1 << 20]).unwrap());
    });
    io::copy(command.stdout.as_mut().unwrap(), sink).unwrap();
    feeding.join().unwrap();
    assert!(command.wait().unwrap().success());
}

/// A quarter directories, a quarter files in them in another order, and twice as many links.
fn many_entries(sink: &mut dyn Write) {
    let quarter = ENTRIES / 4;
    let directory = |number: usize| format!("d{}/e{number}", number % 100);
    (0..100).for_each(|number| put(sink, Tar::new().dir(format!("d{number}"))));
    (0..quarter).for_each(|number| put(sink, Tar::new().dir(directory(number))));
    // 7919 is prime to both, so that this meets every directory once, in no order.
    let mixed = |number: usize| directory(number * 7919 % quarter);
    (0..quarter).for_each(|number| put(sink, Tar::new().file(format!("{}/file", mixed(number)), "x")));
    (0..quarter).for_each(|number| put(sink, Tar::new().symlink(format!("{}/link", directory(number)), "file")));
    (0..quarter).for_each(|number| {
        put(sink, Tar::new().hardlink(format!("{}/hard", directory(number)), format!("{}/file", directory(number))));
    });
}

fn long_path(sink: &mut dyn Write, path: &str, header: Header) {
    put(sink, Tar::new().pax(&[("path", path.as_bytes())]).header(header));
}

/// Every level down to the deepest, and back up with a file in each.
fn deep(sink: &mut dyn Write) {
    let path = |depth: usize, name: &str| "d/".repeat(depth) + name;
    (1..=DEPTH).for_each(|depth| long_path(sink, &path(depth, ""), Header::new(b'5', "x").mode(0o755)));
    (0..=DEPTH).rev().step_by(16).for_each(|depth| long_path(sink, &path(depth, "f"), Header::new(b'0', "x")));
}

/// More deep branches than are open at once, in turns, through a symbolic link as well.
fn deep_branches(sink: &mut dyn Write) {
    put(sink, Tar::new().symlink("link", "b0"));
    for round in 0..3 {
        for branch in 0..50 {
            let path = format!("b{branch}/{}f{round}", "d/".repeat(DEPTH - 1));
            long_path(sink, &path, Header::new(b'0', "x"));
        }
        let path = format!("link/{}through{round}", "d/".repeat(DEPTH - 1));
        long_path(sink, &path, Header::new(b'0', "x"));
    }
}

/// Headers as large as they may be, again and again.
fn large_headers(sink: &mut dyn Write) {
    for number in 0..100 {
        let records = record("comment", &vec![b'x'; (1 << 20) - 100]);
        put(sink, Tar::new().extended(b'x', &records).file(format!("f{number}"), ""));
    }
    let map: Vec<_> = (0..60_000_u64).map(|piece| format!("{},1", piece * 100)).collect();
    let map = map.join(",");
    for number in 0..20 {
        let records: [(&str, &[u8]); 3] =
            [("GNU.sparse.size", b"6000000"), ("GNU.sparse.numblocks", b"60000"), ("GNU.sparse.map", map.as_bytes())];
        put(sink, Tar::new().pax(&records).file(format!("s{number}"), vec![1; 60_000]));
    }
}

#[test]
fn memory_stays_bounded_whatever_the_layer() {
    let memory = Memory::new();
    let base = memory.0.path();
    let report = extract_stream(base, "many entries", many_entries);
    assert_eq!(report.contents.entries as usize, ENTRIES + 100);
    let report = extract_stream(base, "deep", deep);
    assert_eq!(report.contents.entries as usize, DEPTH + DEPTH / 16 + 1);
    let report = extract_stream(base, "deep branches", deep_branches);
    assert_eq!(report.contents.implied as usize, 50 * DEPTH);
    extract_stream(base, "large headers", large_headers);
    extract_stream(base, "window of zstd", |sink| large_window("zstd", &["-1", "--long=25", "-c"], sink));
    extract_stream(base, "window of xz", |sink| large_window("xz", &["-c", "--lzma2=preset=0,dict=32MiB"], sink));
}
