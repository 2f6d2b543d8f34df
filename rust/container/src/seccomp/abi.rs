//! Which system call has which number: one table for the ABIs that a kernel of ours may run.

/// A calling convention with numbers of its own: a column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abi {
    X86_64,
    X86,
    X32,
    Aarch64,
}

/// Added to the number of each x32 call: __X32_SYSCALL_BIT of asm/unistd.h.
pub const X32_BIT: u32 = 0x4000_0000;

const COLUMNS: usize = 4;

/// What the filter is for: the kernel's own ABI and those that it runs beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    X86_64,
    Aarch64,
}

impl Machine {
    /// The one that this is compiled for.
    pub const NATIVE: Self = if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    /// Its own ABI.
    pub fn abi(self) -> Abi {
        match self {
            Self::X86_64 => Abi::X86_64,
            Self::Aarch64 => Abi::Aarch64,
        }
    }
}

impl Abi {
    /// The `arch` of `struct seccomp_data`: AUDIT_ARCH_ of linux/audit.h. x32 shares that of x86_64.
    pub fn audit_arch(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xC000_003E,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xC000_00B7,
        }
    }

    /// What `struct seccomp_data` adds to each number of the table.
    pub fn base(self) -> u32 {
        if matches!(self, Self::X32) { X32_BIT } else { 0 }
    }
}

/// A system call that some ABI has: its row in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call(usize);

/// How many there are.
pub const CALLS: usize = count();

impl Call {
    /// By its name.
    pub fn of(name: &str) -> Option<Self> {
        let name = name.as_bytes();
        let mut place = place_of(name, 0, name.len());
        while let Some(row) = ROWS.get(usize::from(PLACES[place])) {
            if row.name() == name {
                return Some(Self(PLACES[place].into()));
            }
            place = (place + 1) % PLACES.len();
        }
        None
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..CALLS).map(Self)
    }

    /// Below [`CALLS`].
    pub fn index(self) -> usize {
        self.0
    }

    /// Its number in an ABI, without [`Abi::base`].
    pub fn number(self, abi: Abi) -> Option<u16> {
        Some(ROWS[self.0].numbers[abi as usize]).filter(|&number| number != NONE)
    }
}

const TEXT: &[u8] = include_bytes!("syscalls.tbl");

/// A line of the table, read by the compiler: a command that makes one container has no time for it.
#[derive(Clone, Copy)]
struct Row {
    /// Where the name stands in the text.
    start: u16,
    end: u16,
    numbers: [u16; COLUMNS],
}

const NONE: u16 = u16::MAX;

impl Row {
    fn name(&self) -> &'static [u8] {
        &TEXT[usize::from(self.start)..usize::from(self.end)]
    }
}

static ROWS: [Row; CALLS] = rows();

/// The rows by a hash of their names, each at the first free place from its own on: a profile lists hundreds, and a search
/// among the sorted would compare each with nine.
static PLACES: [u16; 1024] = places();

const fn places() -> [u16; 1024] {
    let mut places = [NONE; 1024];
    let rows = rows();
    let mut row = 0;
    while row < CALLS {
        let mut place = place_of(TEXT, rows[row].start as usize, rows[row].end as usize);
        while places[place] != NONE {
            place = (place + 1) % places.len();
        }
        places[place] = row as u16;
        row += 1;
    }
    places
}

/// FNV-1a of `text[start..end]`, folded.
const fn place_of(text: &[u8], start: usize, end: usize) -> usize {
    let mut hash: u32 = 0x811C_9DC5;
    let mut at = start;
    while at < end {
        hash = (hash ^ text[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    (hash ^ hash >> 16) as usize % 1024
}

const fn count() -> usize {
    let (mut count, mut at) = (0, 0);
    while at < TEXT.len() {
        count += (TEXT[at] != b'#') as usize;
        at = after(at, b'\n');
    }
    count
}

/// Behind the next such byte.
const fn after(mut at: usize, byte: u8) -> usize {
    while TEXT[at] != byte {
        at += 1;
    }
    at + 1
}

const fn rows() -> [Row; CALLS] {
    let mut rows = [Row { start: 0, end: 0, numbers: [NONE; COLUMNS] }; CALLS];
    let (mut row, mut at) = (0, 0);
    while at < TEXT.len() {
        if TEXT[at] == b'#' {
            at = after(at, b'\n');
            continue;
        }
        rows[row].start = at as u16;
        at = after(at, b' ');
        rows[row].end = at as u16 - 1;
        let mut column = 0;
        while column < COLUMNS {
            let mut digits = 0;
            let mut number = 0;
            while TEXT[at].is_ascii_digit() {
                number = number * 10 + (TEXT[at] - b'0') as u16;
                digits += 1;
                at += 1;
            }
            if digits > 0 {
                rows[row].numbers[column] = number;
            }
            at = after(at, if column + 1 < COLUMNS { b' ' } else { b'\n' });
            column += 1;
        }
        row += 1;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(abi: Abi, name: &str) -> Option<u32> {
        Call::of(name)?.number(abi).map(|number| abi.base() | u32::from(number))
    }

    #[test]
    fn the_numbers_are_the_kernels() {
        for (abi, name, expected) in [
            (Abi::X86_64, "read", Some(0)),
            (Abi::X86_64, "file_setattr", Some(469)),
            (Abi::X86_64, "uprobe", Some(336)),
            (Abi::X86_64, "socketcall", None),
            (Abi::X86, "socketcall", Some(102)),
            (Abi::X32, "read", Some(X32_BIT)),
            (Abi::X32, "ioctl", Some(X32_BIT | 514)),
            (Abi::Aarch64, "read", Some(63)),
            (Abi::Aarch64, "open", None),
        ] {
            assert_eq!(number(abi, name), expected, "{abi:?} {name}");
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_table_agrees_with_the_c_library() {
        for (name, expected) in [
            ("openat2", libc::SYS_openat2),
            ("clone3", libc::SYS_clone3),
            ("io_uring_setup", libc::SYS_io_uring_setup),
            ("keyctl", libc::SYS_keyctl),
            ("mount_setattr", libc::SYS_mount_setattr),
            ("pkey_free", libc::SYS_pkey_free),
        ] {
            assert_eq!(number(Abi::X86_64, name).map(i64::from), Some(expected), "{name}");
        }
    }

    #[test]
    fn no_two_names_share_a_number() {
        for abi in [Abi::X86_64, Abi::X86, Abi::X32, Abi::Aarch64] {
            let mut known: Vec<u16> = Call::all().filter_map(|call| call.number(abi)).collect();
            let named = known.len();
            known.sort_unstable();
            known.dedup();
            assert_eq!(named, known.len(), "{abi:?}");
            assert!(named > 300, "{abi:?}");
        }
        assert!(ROWS.is_sorted_by(|one, next| one.name() < next.name()));
    }

    #[test]
    fn every_name_is_found_and_no_other() {
        for call in Call::all() {
            let name = std::str::from_utf8(ROWS[call.index()].name()).unwrap();
            assert_eq!(Call::of(name), Some(call), "{name}");
            assert_eq!(Call::of(&format!("{name}_")), None, "{name}");
        }
        assert_eq!(Call::of(""), None);
    }
}
