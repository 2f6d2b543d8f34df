//! Extracts a layer from a file or standard input, and prints what it was: `extract DIRECTORY [LAYER]`.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Instant;

use pyrt_layers::{Options, extract};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let directory = arguments.next().ok_or("usage: extract DIRECTORY [LAYER]")?;
    std::fs::create_dir(&directory)?;
    let directory = File::open(directory)?;
    let source = File::open(arguments.next().unwrap_or_else(|| "/dev/stdin".into()))?;
    let begun = Instant::now();
    let report = extract(source.as_fd(), directory.as_fd(), &Options::default())?;
    println!("{:?} {} -> {}", begun.elapsed(), report.digest, report.diff_id);
    println!("{report:#?}");
    Ok(())
}
