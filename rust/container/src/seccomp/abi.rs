//! Which system call has which number: one table for the ABIs that a kernel of ours may run.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

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

    /// The number of a call as `struct seccomp_data` shows it.
    pub fn number(self, name: &str) -> Option<u32> {
        TABLE.numbers.get(name)?[self as usize]
    }

    /// Every number that has a name, as `struct seccomp_data` shows it.
    pub fn known(self) -> &'static BTreeSet<u32> {
        &TABLE.known[self as usize]
    }
}

/// Whether any of the ABIs has a call of this name.
pub fn is_known(name: &str) -> bool {
    TABLE.numbers.contains_key(name)
}

struct Table {
    numbers: HashMap<&'static str, [Option<u32>; COLUMNS]>,
    known: [BTreeSet<u32>; COLUMNS],
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table { numbers: HashMap::new(), known: Default::default() };
    for line in include_str!("syscalls.tbl").lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        let mut row = [None; COLUMNS];
        for (column, word) in words.enumerate() {
            let bit = if column == Abi::X32 as usize { X32_BIT } else { 0 };
            row[column] = word.parse().ok().map(|number: u32| number | bit);
            table.known[column].extend(row[column]);
        }
        table.numbers.insert(name, row);
    }
    table
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_kernels() {
        for (abi, name, number) in [
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
            assert_eq!(abi.number(name), number, "{abi:?} {name}");
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_table_agrees_with_the_c_library() {
        for (name, number) in [
            ("openat2", libc::SYS_openat2),
            ("clone3", libc::SYS_clone3),
            ("io_uring_setup", libc::SYS_io_uring_setup),
            ("keyctl", libc::SYS_keyctl),
            ("mount_setattr", libc::SYS_mount_setattr),
            ("pkey_free", libc::SYS_pkey_free),
        ] {
            assert_eq!(Abi::X86_64.number(name).map(i64::from), Some(number), "{name}");
        }
    }

    #[test]
    fn no_two_names_share_a_number() {
        for abi in [Abi::X86_64, Abi::X86, Abi::X32, Abi::Aarch64] {
            let named = TABLE.numbers.values().filter(|row| row[abi as usize].is_some()).count();
            assert_eq!(named, abi.known().len(), "{abi:?}");
            assert!(named > 300, "{abi:?}");
        }
    }
}
