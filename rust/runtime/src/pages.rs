//! Whether the memory of a checkpoint is all there. criu 3.17 looks for what is missing for ever.
//!
//! An image is two magic numbers and messages, each after its length (criu.org/Images). In `pagemap-PID.img` the first names
//! `pages-ID.img`, each other one a run of pages that follow each other in there (criu.org/Memory_dumps). Which processes
//! there are says `pstree.img`: a folder may have images of an earlier checkpoint as well, of others that are gone.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::criu::numbers;
use crate::error::{Error, Result};

const MAGIC: usize = 8;
/// Of a run's flags (field 4): its pages are here, and not in the parent's images.
const PRESENT: u64 = 1 << 2;

/// Refuses images whose pages are cut off. What can't be read otherwise criu names itself.
pub fn check(images: &Path) -> Result<()> {
    let mut needed: BTreeMap<u64, u64> = BTreeMap::new();
    let read = |name: &str| fs::read(images.join(name)).unwrap_or_default();
    for pid in messages(&read("pstree.img")).filter_map(|process| field(process, 1)) {
        let (id, pages) = run_lengths(&read(&format!("pagemap-{pid}.img")));
        let most = needed.entry(id).or_default();
        *most = (*most).max(pages);
    }
    // SAFETY: sysconf(3) takes a number.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(0);
    for (id, pages) in needed.into_iter().filter(|(_, pages)| *pages > 0) {
        let path = images.join(format!("pages-{id}.img"));
        let (length, wanted) = (fs::metadata(&path).map_or(0, |data| data.len()), pages.saturating_mul(page));
        if length < wanted {
            let message = format!("{}: {length} bytes of {wanted}: it is cut off", path.display());
            return Err(Error::new(message));
        }
    }
    Ok(())
}

/// The number of a file of pages, and how many have to be in it.
fn run_lengths(image: &[u8]) -> (u64, u64) {
    let mut messages = messages(image);
    let id = messages.next().and_then(|head| field(head, 1)).unwrap_or(0);
    let here = |run: &&[u8]| match field(run, 4) {
        Some(flags) => flags & PRESENT != 0,
        None => field(run, 3).is_none_or(|in_parent| in_parent == 0),
    };
    (id, messages.filter(here).filter_map(|run| field(run, 2)).fold(0, u64::saturating_add))
}

fn messages(image: &[u8]) -> Messages<'_> {
    Messages(image.get(MAGIC..).unwrap_or_default())
}

fn field(message: &[u8], place: u64) -> Option<u64> {
    numbers(message).find(|(field, _)| *field == place).map(|(_, number)| number)
}

/// Up to where they make no sense.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let (message, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        self.0 = rest;
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_are_here_are_counted() {
        let message = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat();
        let image = [
            b"magicmag".to_vec(),
            message(b"\x08\x07"),
            // vaddr, nr_pages, flags; then in the words of older ones: in_parent, or nothing.
            message(b"\x08\x01\x10\x05\x20\x04"),
            message(b"\x08\x01\x10\x09\x20\x01"),
            message(b"\x08\x01\x10\x09\x18\x01"),
            message(b"\x08\x01\x10\x02"),
        ]
        .concat();
        assert_eq!(run_lengths(&image), (7, 7));
        for length in 0..image.len() {
            assert!(run_lengths(&image[..length]).1 <= 7);
        }
    }
}
