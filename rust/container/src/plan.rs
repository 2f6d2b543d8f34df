//! A container as a list of operations.
//!
//! A [`Plan`] has two lists. The **keeper's** runs with the host's rights: it makes cgroups, clones
//! the child, writes its id maps and prepares mounts that stay detached. The **child's** runs inside
//! the new namespaces and ends in `Exec`. Both are flat bytes, so that a plan can be kept, sent
//! through a memfd, printed, fuzzed, and walked by a child that must not allocate.
//!
//! ```text
//! header   magic "pyrtplan", version u32, keeper ops u32, child ops u32, keeper bytes u32
//! keeper   op, op, ...          op = code u16, length of the fields u32, fields
//! child    op, op, ...
//! ```
//!
//! Fields are little-endian and unaligned; a text is `u32 length, bytes, NUL` so that it can be handed
//! to the kernel where it lies. Descriptors are named by [`Slot`]: an index into a table that starts
//! with what the engine sent and grows as operations open things.

use std::ffi::CStr;

/// First bytes of every plan.
pub const MAGIC: &[u8; 8] = b"pyrtplan";
/// Changes whenever an operation or a field does; an old keeper refuses a newer plan.
pub const VERSION: u32 = 8;
/// A bit of clone(2) and unshare(2) that the C library does not have.
pub(crate) const CLONE_NEWTIME: u64 = 0x80;
/// Size of the descriptor table of one execution.
pub const SLOTS: usize = 768;
/// Most operations in one plan, both lists together; also the length of the timing table.
pub const MAX_OPS: usize = 1024;

/// Index into the descriptor table of an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// Standard input, output and error of the container's process.
pub const STDIN: Slot = Slot(0);
/// See [`STDIN`].
pub const STDOUT: Slot = Slot(1);
/// See [`STDIN`].
pub const STDERR: Slot = Slot(2);
/// First slot of the descriptors that were opened while the plan was compiled.
pub const FIRST_OPENED: Slot = Slot(3);

/// Several NUL-terminated texts, one after the other, in the plan's own bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Texts<'a> {
    count: u32,
    bytes: &'a [u8],
}

impl<'a> Texts<'a> {
    /// How many texts there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The texts in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a CStr> + use<'a> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            let text = CStr::from_bytes_until_nul(rest).ok()?;
            rest = &rest[text.count_bytes() + 1..];
            Some(text)
        })
    }
}

impl std::fmt::Debug for Texts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Texts while a plan is being written: joined once, borrowed as [`Texts`].
#[derive(Clone, Debug, Default)]
pub struct TextsBuf {
    count: u32,
    bytes: Vec<u8>,
}

impl TextsBuf {
    /// Adds one text.
    pub fn push(&mut self, text: &CStr) {
        self.count += 1;
        self.bytes.extend_from_slice(text.to_bytes_with_nul());
    }

    /// The texts as an operation takes them.
    pub fn as_texts(&self) -> Texts<'_> {
        Texts { count: self.count, bytes: &self.bytes }
    }
}

impl<'a> FromIterator<&'a CStr> for TextsBuf {
    fn from_iter<I: IntoIterator<Item = &'a CStr>>(texts: I) -> Self {
        let mut buffer = Self::default();
        for text in texts {
            buffer.push(text);
        }
        buffer
    }
}

/// Slots of several descriptors.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Slots<'a>(&'a [u8]);

impl<'a> Slots<'a> {
    /// The slots in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Slot> + use<'a> {
        self.0.chunks_exact(2).map(|pair| Slot(u16::from_le_bytes([pair[0], pair[1]])))
    }
}

impl std::fmt::Debug for Slots<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().map(|slot| slot.0)).finish()
    }
}

/// Encodes slots for [`Op::Overlay`].
pub fn pack_slots(slots: &[Slot]) -> Vec<u8> {
    slots.iter().flat_map(|slot| slot.0.to_le_bytes()).collect()
}

/// Borrows packed slots.
pub fn as_slots(packed: &[u8]) -> Slots<'_> {
    Slots(packed)
}

/// Why bytes are not a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Does not begin with [`MAGIC`].
    #[error("not a plan")]
    Magic,
    /// Written by another version of pyrt.
    #[error("plan of version {0}, this keeper reads version {VERSION}")]
    Version(u32),
    /// Ends inside an operation or has bytes left over.
    #[error("plan ends in the middle of an operation")]
    Truncated,
    /// An operation code that this version does not know.
    #[error("unknown operation {0}")]
    Code(u16),
    /// A text without its NUL or with one inside, a slot out of range, too many operations.
    #[error("a field of operation {0} is out of bounds")]
    Field(u16),
}

/// How a field lies in the plan's bytes.
pub(crate) trait Field<'a>: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn take(input: &mut &'a [u8]) -> Option<Self>;
}

pub(crate) fn split<'a>(input: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, rest) = input.split_at_checked(count)?;
    *input = rest;
    Some(head)
}

macro_rules! number_fields {
    ($($kind:ty),*) => {$(
        impl<'a> Field<'a> for $kind {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn take(input: &mut &'a [u8]) -> Option<Self> {
                Some(Self::from_le_bytes(split(input, size_of::<Self>())?.try_into().ok()?))
            }
        }
    )*};
}
number_fields!(u16, u32, i32, u64, i64);

impl<'a> Field<'a> for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(input: &mut &'a [u8]) -> Option<Self> {
        match split(input, 1)?[0] {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl<'a> Field<'a> for Slot {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(input: &mut &'a [u8]) -> Option<Self> {
        u16::take(input).filter(|&slot| usize::from(slot) < SLOTS).map(Slot)
    }
}

impl<'a> Field<'a> for Option<Slot> {
    fn put(&self, out: &mut Vec<u8>) {
        self.map_or(u16::MAX, |slot| slot.0).put(out);
    }
    fn take(input: &mut &'a [u8]) -> Option<Self> {
        match u16::take(input)? {
            u16::MAX => Some(None),
            slot if usize::from(slot) < SLOTS => Some(Some(Slot(slot))),
            _ => None,
        }
    }
}

impl<'a> Field<'a> for &'a [u8] {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        out.extend_from_slice(self);
    }
    fn take(input: &mut &'a [u8]) -> Option<Self> {
        let length = u32::take(input)?;
        split(input, length as usize)
    }
}

impl<'a> Field<'a> for &'a CStr {
    fn put(&self, out: &mut Vec<u8>) {
        self.to_bytes_with_nul().put(out);
    }
    fn take(input: &mut &'a [u8]) -> Option<Self> {
        CStr::from_bytes_with_nul(<&[u8]>::take(input)?).ok()
    }
}

impl<'a> Field<'a> for Texts<'a> {
    fn put(&self, out: &mut Vec<u8>) {
        self.count.put(out);
        self.bytes.put(out);
    }
    fn take(input: &mut &'a [u8]) -> Option<Self> {
        let count = u32::take(input)?;
        let bytes = <&[u8]>::take(input)?;
        let ends = bytes.last().is_none_or(|&last| last == 0);
        let texts = bytes.iter().filter(|&&byte| byte == 0).count();
        (ends && texts == count as usize).then_some(Self { count, bytes })
    }
}

impl<'a> Field<'a> for Slots<'a> {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(input: &mut &'a [u8]) -> Option<Self> {
        let packed = <&[u8]>::take(input)?;
        let slots = Self(packed);
        let fits = packed.len() % 2 == 0 && slots.iter().all(|slot| usize::from(slot.0) < SLOTS);
        fits.then_some(slots)
    }
}

macro_rules! operations {
    ($($(#[$doc:meta])* $code:literal $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty),* $(,)? })*) => {
        /// One step in the making of a container.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the fields are named after the kernel's arguments")]
        pub enum Op<'a> {
            $($(#[$doc])* $name { $($(#[$field_doc])* $field: $kind),* },)*
        }

        impl<'a> Op<'a> {
            /// The operation's name, as `pyrt explain` prints it.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name { .. } => stringify!($name),)* }
            }

            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$name { $($field),* } => {
                        ($code as u16).put(out);
                        let at = out.len();
                        0u32.put(out);
                        $($field.put(out);)*
                        let length = (out.len() - at - 4) as u32;
                        out[at..at + 4].copy_from_slice(&length.to_le_bytes());
                    })*
                }
            }

            /// Takes the next operation off `input`. Never allocates.
            #[allow(unused_mut, unused_variables, reason = "an operation may have no fields")]
            fn take(input: &mut &'a [u8]) -> Result<Self, Malformed> {
                let code = u16::take(input).ok_or(Malformed::Truncated)?;
                let length = u32::take(input).ok_or(Malformed::Truncated)?;
                let mut fields = split(input, length as usize).ok_or(Malformed::Truncated)?;
                let op = match code {
                    $($code => Self::$name {
                        $($field: <$kind as Field<'a>>::take(&mut fields).ok_or(Malformed::Field(code))?),*
                    },)*
                    unknown => return Err(Malformed::Code(unknown)),
                };
                if fields.is_empty() { Ok(op) } else { Err(Malformed::Field(code)) }
            }
        }
    };
}

operations! {
    // ---- the keeper's, with the host's rights -------------------------------------------------

    /// Makes the directory `name` below `parent` (or takes it if it is there) and opens it with O_PATH.
    /// For cgroups. Removed by the keeper when the container has ended, if this operation made it.
    1 CgroupCreate { parent: Slot, name: &'a CStr, out: Slot }
    /// Writes `data` in one write(2) to the file `name` of the directory `dir`: a limit.
    /// With `optional`, ENOENT, EACCES, EPERM and EINVAL are let pass.
    2 WriteAt { dir: Slot, name: &'a CStr, data: &'a [u8], optional: bool }
    /// openat(2) with `flags` | O_CLOEXEC; of a cgroup's own files only, so no symlink is met.
    3 OpenAt { dir: Slot, name: &'a CStr, flags: i32, out: Slot }
    /// setns(2) into the pid namespace of `pidfd`, for the children of the keeper only.
    4 JoinPidNamespace { pidfd: Slot }
    /// clone3(2). The child starts the child's list; the keeper goes on with its own.
    5 Clone { flags: u64, cgroup: Option<Slot> }
    /// Writes /proc/CHILD/{uid_map,gid_map}, one write(2) a map, after setgroups if `deny_setgroups`.
    6 WriteIdMaps { uid_map: &'a [u8], gid_map: &'a [u8], deny_setgroups: bool }
    /// Opens /proc/CHILD/ns/user.
    7 OpenUserNamespace { out: Slot }
    /// mount_setattr(2) MOUNT_ATTR_IDMAP of the detached mount; `recursive` covers mounts below it.
    8 IdmapMount { mount: Slot, userns: Slot, recursive: bool }
    /// mount_setattr(2) with the given MOUNT_ATTR_ and MS_ propagation bits.
    9 SetMountAttributes { mount: Slot, set: u64, clear: u64, propagation: u64, recursive: bool }
    /// fsopen, fsconfig for each `key=value` or bare flag, fsmount: a detached mount with MOUNT_ATTR_ `attributes`.
    10 NewMount { fstype: &'a CStr, options: Texts<'a>, attributes: u64, out: Slot }
    /// A detached overlay. Each layer, topmost first, is the directory `names` below the one in `lowers`, "" for itself;
    /// `changes` below `upper` holds `upper` and `work`.
    /// Made between `BeginMaking` and `EndMaking`: overlayfs works on the upper directory with the ids of whoever mounts
    /// it, and on an idmapped one only ids of that range exist.
    11 NewOverlay { lowers: Slots<'a>, names: Texts<'a>, upper: Option<Slot>, changes: &'a CStr, volatile: bool, attributes: u64, out: Slot }
    /// open_tree(2) OPEN_TREE_CLONE of `path` below `dir` ("" for itself), no symlink followed.
    12 CloneTree { dir: Slot, path: &'a CStr, recursive: bool, out: Slot }
    /// mkdirat(2); EEXIST is success.
    13 MakeDirectory { dir: Slot, name: &'a CStr, mode: u32 }
    /// mknodat(2) with the full mode: type and permissions.
    14 MakeNode { dir: Slot, name: &'a CStr, mode: u32, major: u32, minor: u32 }
    /// symlinkat(2).
    15 MakeSymlink { dir: Slot, name: &'a CStr, target: &'a CStr }
    /// Creates (O_EXCL | O_NOFOLLOW) and writes a file.
    16 MakeFile { dir: Slot, name: &'a CStr, content: &'a [u8], mode: u32 }
    /// Writes /proc/CHILD/oom_score_adj; EACCES (no CAP_SYS_RESOURCE) is let pass and reported as a warning.
    17 AdjustOomScore { score: i32 }
    /// Sends every slot opened since `Clone`, or since the last `Release`, to the child, which waits for it in `AwaitKeeper`.
    18 Release {}
    /// prlimit(2) of the child, with the host's rights. On EPERM (no CAP_SYS_RESOURCE) both numbers are set
    /// as high as the host allows, and a warning is reported. In the child's list: its own, for limits that would
    /// get in the way of the steps before.
    19 SetLimit { resource: u32, soft: u64, hard: u64 }
    /// fchownat(2) of a stdio pipe, so that /dev/stdout can be reopened by the container's user; in the keeper's list
    /// anything else is passed over. In the child's list: of the terminal that it has opened.
    20 GiveAway { slot: Slot, uid: u32, gid: u32 }
    /// Waits for standard input, output and error, which come by `socket` and take slots 0 to 2: so far goes the plan
    /// of a container that nobody has asked for yet. Ends it when the socket closes.
    22 AwaitStdio { socket: Slot }
    /// Opens `path` (absolute, host side) for setns(2).
    21 OpenNamespace { path: &'a CStr, out: Slot }
    /// Waits until the child calls (`CallKeeper`), or says why it can't.
    23 AwaitChild {}
    /// From here to `EndMaking` what is made belongs to these ids of the host (setfsuid(2), setfsgid(2)) and has just the
    /// modes that are asked for (umask(2)): one change for all, instead of a chown(2) and a chmod(2) for each.
    24 BeginMaking { uid: u32, gid: u32 }
    /// Root's file system ids again, and the usual umask.
    25 EndMaking {}
    /// fchownat(2) of what was made for somebody else than the container's root.
    26 ChangeOwner { dir: Slot, name: &'a CStr, uid: u32, gid: u32 }

    /// bpf(2): loads an array of `struct bpf_insn` as BPF_PROG_TYPE_CGROUP_DEVICE and attaches it to a cgroup of version 2.
    30 AttachDeviceProgram { cgroup: Slot, program: &'a [u8] }

    /// As [`Op::Clone`], by a helper that enters the namespaces `joins`, in their order, and makes the child the keeper's
    /// own (CLONE_PARENT): the keeper itself stays where it is, with the host's rights. With CLONE_NEWTIME `clocks` are
    /// lines of /proc/self/timens_offsets, which can be written until the first process is in the namespace.
    31 CloneFrom { joins: Slots<'a>, flags: u64, clocks: &'a [u8], cgroup: Option<Slot> }
    /// As [`Op::NewMount`], made by a helper in the namespaces `joins`, and in the pid namespace that was joined.
    32 NewMountAside { joins: Slots<'a>, fstype: &'a CStr, options: Texts<'a>, attributes: u64, out: Slot }

    /// Makes a user namespace with these maps and nobody in it, for [`Op::IdmapMount`].
    33 NewIdMap { uid_map: &'a [u8], gid_map: &'a [u8], out: Slot }
    /// Opens the child's folder `name` ("attr", "attr/apparmor") of the host's /proc.
    34 OpenAttributes { name: &'a CStr, out: Slot }
    /// Moves the network device `name` of the host into a network namespace, the child's if none is given, where it is
    /// called `inside`; its lasting addresses come along, and it is brought up (config-linux.md, "Network Devices").
    35 MoveNetDevice { namespace: Option<Slot>, name: &'a CStr, inside: &'a CStr }

    /// fchownat(2) of `name` below a cgroup ("" is the cgroup), whose group stays; one that the kernel does not have is let pass.
    36 DelegateCgroup { cgroup: Slot, name: &'a CStr, uid: u32 }

    // ---- the child's, inside ------------------------------------------------------------------

    /// Receives the slots that the keeper opened; ends the child if the keeper is gone.
    40 AwaitKeeper {}
    /// prctl(2) PR_SET_PDEATHSIG, SIGKILL. Repeated after each change of ids, which clears it.
    41 DieWithKeeper {}
    /// setsid(2).
    42 NewSession {}
    /// Writes "0" to an open cgroup v1 `tasks` file (or v2 `cgroup.procs`).
    43 JoinCgroup { tasks: Slot }
    /// unshare(2). In the keeper's list: a mount namespace of its own, where it can `Park`.
    44 Unshare { flags: u64 }
    /// setns(2) with CLONE_NEW* `flags` on a namespace or pidfd. In the keeper's list: of the keeper, so that a child
    /// with a new user namespace, which may join nothing of the host's, is born there.
    45 JoinNamespaces { fd: Slot, flags: u64 }
    /// setgroups(2).
    46 SetGroups { gids: &'a [u8] }
    /// setresgid(2), all three.
    47 SetGid { gid: u32 }
    /// setresuid(2), all three.
    48 SetUid { uid: u32 }
    /// Brings the loopback interface of this net namespace up.
    49 LoopbackUp {}
    /// sethostname(2).
    50 SetHostname { name: &'a [u8] }
    /// setdomainname(2).
    51 SetDomainname { name: &'a [u8] }
    /// mount(2) of / with MS_PRIVATE or MS_SLAVE, and with MS_REC of all below it if `recursive`.
    52 SetPropagation { flags: u64, recursive: bool }
    /// Writes the file `name` ("sys/net/ipv4/...") of the detached private procfs `proc`: a kernel parameter,
    /// never through the container's /proc, which may lead elsewhere (CVE-2025-52881).
    53 SetKernelParameter { proc: Slot, name: &'a CStr, value: &'a [u8] }
    /// Attaches the root file system over /, then pivot_root(2) and umount2(2) of the old root, together with the
    /// detached mounts `along` that nothing needs any more.
    54 PivotRoot { root: Slot, along: Slots<'a> }
    /// move_mount(2) of a detached mount to `path` inside the container. A missing target is made
    /// (a directory, or a file if `file`); with `strict` no symlink may be met on the way (prepared paths).
    /// `path` is below the root of the mount `within`, if there is one, which is attached somewhere later.
    55 Attach { mount: Slot, within: Option<Slot>, path: &'a CStr, file: bool, strict: bool }
    /// Hides `path` (`within`: see [`Op::Attach`]): a directory under `empty`, which the first of them takes and others
    /// clone, anything else under the null device of `dev`, which is the mount for /dev. Absent paths are passed over; a
    /// null that is no null device is ENODEV (CVE-2025-31133).
    56 Mask { within: Option<Slot>, path: &'a CStr, empty: Slot, dev: Slot }
    /// Makes `path` (`within`: see [`Op::Attach`]) and what is mounted below it read-only. Absent paths are passed over.
    57 MakeReadonly { within: Option<Slot>, path: &'a CStr }
    /// keyctl(2) KEYCTL_JOIN_SESSION_KEYRING under this name; ENOSYS is let pass.
    58 JoinKeyring { name: &'a CStr }
    /// Opens a pty in the container's devpts, sends its master to the keeper, keeps the slave in `out`,
    /// and binds the slave over /dev/console if `console`.
    59 OpenTerminal { rows: u32, columns: u32, console: bool, out: Slot }
    /// dup2(2) of three slots to 0, 1, 2; a terminal becomes the controlling one.
    60 SetStdio { input: Slot, output: Slot, error: Slot, terminal: bool }
    /// umask(2).
    61 SetUmask { mask: u32 }
    /// setpriority(2).
    62 SetNice { nice: i32 }
    /// sched_setattr(2): policy and its numbers as `struct sched_attr`.
    63 SetScheduler { attributes: &'a [u8] }
    /// ioprio_set(2).
    64 SetIoPriority { priority: u32 }
    /// personality(2).
    65 SetPersonality { persona: u64 }
    /// sched_setaffinity(2), the mask's bytes.
    66 SetAffinity { mask: &'a [u8] }
    /// prctl(2) PR_CAPBSET_DROP of every capability not in `keep`.
    67 LimitBoundingSet { keep: u64 }
    /// prctl(2) PR_SET_KEEPCAPS.
    68 KeepCapabilities { keep: bool }
    /// capset(2).
    69 SetCapabilities { effective: u64, permitted: u64, inheritable: u64 }
    /// Clears the ambient set, then raises these.
    70 SetAmbient { ambient: u64 }
    /// prctl(2) PR_SET_NO_NEW_PRIVS.
    71 NoNewPrivileges {}
    /// seccomp(2) SECCOMP_SET_MODE_FILTER with an array of `struct sock_filter`.
    72 LoadSeccomp { flags: u64, program: &'a [u8] }
    /// chdir(2); then getcwd(2) must begin with "/". With `create` the directory is made first (0755, owned by the current
    /// ids), and the working directory is / again afterwards: the list comes back to it.
    73 ChangeDirectory { path: &'a CStr, create: bool }
    /// Stays behind as PID 1: the rest of the list goes on in a fork; this process reaps and forwards signals.
    74 BecomeInit {}
    /// Default signal dispositions, empty signal mask; closes all but stdio and the way to the keeper, so that no path
    /// through /proc/self/fd leads out of the container while the command is executed (CVE-2024-21626).
    75 CleanProcess {}
    /// execve(2) of the first of `candidates` that is there.
    76 Exec { candidates: Texts<'a>, arguments: Texts<'a>, environment: Texts<'a> }
    /// Fills a tmpfs at `mount` with a copy of the directory `path` of the container (tmpcopyup).
    77 CopyUp { mount: Slot, path: &'a CStr }
    /// Detached clone of `path` inside the container, resolved within its root: the source of a bind
    /// between two places of one container, or of a device's node.
    78 CloneInside { path: &'a CStr, recursive: bool, out: Slot }

    /// open(2) with O_PATH of a place of the old root that is no link.
    91 OpenPlace { path: &'a CStr, out: Slot }
    /// Attaches a detached mount that was made early at an open place of the old root, which takes it along when it goes, and
    /// clones it. /proc/self/mountinfo lists mounts by their age: the clone comes in its turn.
    92 Renew { mount: Slot, place: Slot, out: Slot }
    /// mount_setattr(2) of what is mounted at `path` inside the container; EINVAL if nothing is.
    93 Remount { path: &'a CStr, set: u64, clear: u64, propagation: u64, recursive: bool }

    // ---- of a container that is created first and started later ---------------------------------

    /// Tells the keeper that the child has come this far.
    79 CallKeeper {}
    /// prctl(2) PR_SET_PDEATHSIG, 0: from here on the process lives without its keeper.
    80 OutliveKeeper {}
    /// Closes all descriptors from `first` on, the channel to the keeper among them, and waits for a byte from
    /// `release`. From here on a failure goes to `outcome`, whose end of file means that execve(2) has succeeded.
    81 AwaitStart { release: Slot, outcome: Slot, first: u32 }
    /// Looks whether one of `candidates` is there and may be executed, so that `create` fails and not `start`.
    82 FindCommand { candidates: Texts<'a> }
    /// Runs a program to its end, in either list, with the state of the container on standard input: `before`, the
    /// child's process id, `after`. It sees `root` for /, and is killed after `timeout` milliseconds, unless that is 0.
    83 RunHook { path: &'a CStr, arguments: Texts<'a>, environment: Texts<'a>, before: &'a [u8], after: &'a [u8], timeout: u32, root: Option<Slot> }
    /// Attaches the root file system at `path` of the host's tree, whose root is kept in `out`, and makes it / by
    /// chroot(2): hooks are to see all mounts in place before the root is changed for good.
    84 EnterRoot { root: Slot, path: &'a CStr, out: Slot }
    /// Makes an open directory / by chroot(2): the tree that `EnterRoot` has left, or that of a container which has no mount
    /// namespace of its own.
    85 TakeRoot { root: Slot }
    /// Attaches the root file system over / and makes it the root by chroot(2), where pivot_root(2) is refused, on an
    /// initramfs, or would change the root of others, in a mount namespace of theirs.
    86 MoveRoot { root: Slot }
    /// Hands `count` descriptors from number 3 on to the command: what comes after them is closed by `CleanProcess`.
    87 PassDescriptors { count: u32 }
    /// Looks what number the host's /proc has for this process, while that is in sight: for `LoadSeccompFor`.
    88 NotePid {}
    /// As [`Op::LoadSeccomp`], with a listener: its descriptor goes to the agent on the connected socket `agent`, with the
    /// document `before`, process id, `between`, process id, `after`.
    89 LoadSeccompFor { flags: u64, program: &'a [u8], agent: Slot, before: &'a [u8], between: &'a [u8], after: &'a [u8] }
    /// set_mempolicy(2): mode with its flags, and the nodes' bits.
    90 SetMemoryPolicy { mode: u32, nodes: &'a [u8] }

    /// Writes to the file exec of that folder what AppArmor (`exec PROFILE`) or SELinux (a context) is to confine with
    /// what execve(2) is about to start. The host's /proc, because the container's may be anybody's (CVE-2019-16884).
    103 SetSecurityLabel { attributes: Slot, label: &'a [u8] }

    // ---- either side's, on kernels that neither clone nor stack what is not attached (before Linux 6.15) ----

    /// Attaches a detached mount over /, where no path leads: who makes the step has its root below it.
    100 Park { mount: Slot }
    /// As [`Op::NewOverlay`], by mount(2) with one text of options, at the directory `name` of the mount `at`, which is
    /// parked: before Linux 6.7 no step takes a layer on its own.
    102 MountOverlay { lowers: Slots<'a>, names: Texts<'a>, upper: Option<Slot>, changes: &'a CStr, volatile: bool, attributes: u64, at: Slot, name: &'a CStr }
}

impl<'a> Op<'a> {
    /// One operation on its own, as [`Self::encode`] has written it.
    pub fn read(mut input: &'a [u8]) -> Result<Self, Malformed> {
        let op = Self::take(&mut input)?;
        if input.is_empty() { Ok(op) } else { Err(Malformed::Truncated) }
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.put(&mut bytes);
        bytes
    }
}

/// Which list an operation stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Run by the keeper, with the host's rights.
    Keeper,
    /// Run by the child, inside.
    Child,
}

/// A plan's bytes, checked once, so that walking it can't fail.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    keeper: &'a [u8],
    child: &'a [u8],
    keeper_ops: u32,
    child_ops: u32,
    facts: Facts,
}

/// What is asked of a plan as a whole, found while it is checked.
#[derive(Clone, Copy, Debug)]
struct Facts {
    /// The flags of its first `Clone` that puts the child into no cgroup of version 2.
    clones: Option<u64>,
    /// See [`Plan::shares_memory`].
    shares_memory: bool,
    /// See [`Plan::waits`].
    waits: bool,
}

impl Facts {
    fn add(&mut self, op: &Op<'_>) {
        const ALONE: u64 = libc::CLONE_NEWPID as u64;
        match *op {
            Op::Clone { flags, cgroup } => {
                self.shares_memory &= flags & ALONE != 0 && flags & CLONE_NEWTIME == 0;
                self.clones = self.clones.or(cgroup.is_none().then_some(flags));
            }
            Op::CloneFrom { .. }
            | Op::JoinPidNamespace { .. }
            | Op::JoinNamespaces { .. }
            | Op::BecomeInit {}
            | Op::CallKeeper {}
            | Op::AwaitStart { .. }
            | Op::AdjustOomScore { .. } => self.shares_memory = false,
            Op::AwaitStdio { .. } => self.waits = true,
            _ => {}
        }
    }
}

const HEADER: usize = 8 + 4 * 4;

impl<'a> Plan<'a> {
    /// Checks `bytes` from end to end.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut input = bytes;
        if split(&mut input, MAGIC.len()) != Some(MAGIC) {
            return Err(Malformed::Magic);
        }
        let mut word = || u32::take(&mut input).ok_or(Malformed::Truncated);
        let (version, keeper_ops, child_ops, keeper_bytes) = (word()?, word()?, word()?, word()?);
        if version != VERSION {
            return Err(Malformed::Version(version));
        }
        let (keeper, child) = input.split_at_checked(keeper_bytes as usize).ok_or(Malformed::Truncated)?;
        let facts = Facts { clones: None, shares_memory: true, waits: false };
        let mut plan = Self { keeper, child, keeper_ops, child_ops, facts };
        for part in [Part::Keeper, Part::Child] {
            plan.check(part)?;
        }
        Ok(plan)
    }

    fn check(&mut self, part: Part) -> Result<(), Malformed> {
        let (mut input, expected) = self.part(part);
        let mut count = 0;
        while !input.is_empty() {
            self.facts.add(&Op::take(&mut input)?);
            count += 1;
        }
        let total = u64::from(self.keeper_ops) + u64::from(self.child_ops);
        if count == expected && total <= MAX_OPS as u64 { Ok(()) } else { Err(Malformed::Truncated) }
    }

    fn part(&self, part: Part) -> (&'a [u8], u32) {
        match part {
            Part::Keeper => (self.keeper, self.keeper_ops),
            Part::Child => (self.child, self.child_ops),
        }
    }

    /// Whether the child may run in the keeper's memory until it calls execve(2). Not if anybody else is in its pid
    /// namespace, who might be allowed to trace it, nor if it goes elsewhere first, stays what it is (as PID 1 of
    /// `--init`), or waits for longer than its keeper may live. What is written to oom_score_adj is for all that share
    /// a memory.
    pub fn shares_memory(&self) -> bool {
        self.facts.shares_memory
    }

    /// The flags of a child that may be cloned while the keeper's steps before `Clone` are made: it shares the keeper's memory, and
    /// is put into no cgroup of version 2, which would have to be there first.
    pub fn clones_ahead(&self) -> Option<u64> {
        self.facts.clones.filter(|_| self.shares_memory())
    }

    /// Whether the container waits for its standard descriptors, made but for those.
    pub fn waits(&self) -> bool {
        self.facts.waits
    }

    /// Whether another command may come with the standard descriptors: it is put where the child sees it.
    pub fn takes_command(&self) -> bool {
        self.shares_memory() && self.waits()
    }

    /// How many operations a part has.
    pub fn len(&self, part: Part) -> usize {
        self.part(part).1 as usize
    }

    /// The operations of a part in order.
    pub fn ops(&self, part: Part) -> impl Iterator<Item = Op<'a>> + use<'a> {
        let mut input = self.part(part).0;
        // `parse` has been through it: an error can't come up here, and would only end the list.
        std::iter::from_fn(move || if input.is_empty() { None } else { Op::take(&mut input).ok() })
    }
}

/// Writes a plan, operation by operation, and hands out its slots.
#[derive(Debug)]
pub struct Builder {
    keeper: Vec<u8>,
    child: Vec<u8>,
    keeper_ops: u32,
    child_ops: u32,
    next_slot: u16,
}

impl Default for Builder {
    fn default() -> Self {
        // Most plans have room in that.
        let [keeper, child] = [4096; 2].map(Vec::with_capacity);
        Self { keeper, child, keeper_ops: 0, child_ops: 0, next_slot: FIRST_OPENED.0 }
    }
}

impl Builder {
    /// A slot that nothing else uses.
    pub fn slot(&mut self) -> Slot {
        let slot = Slot(self.next_slot);
        self.next_slot += 1;
        slot
    }

    /// Appends to the keeper's list.
    pub fn keeper(&mut self, op: Op<'_>) {
        op.put(&mut self.keeper);
        self.keeper_ops += 1;
    }

    /// Appends to the child's list.
    pub fn child(&mut self, op: Op<'_>) {
        op.put(&mut self.child);
        self.child_ops += 1;
    }

    /// Whether a keeper takes it.
    pub fn fits(&self) -> bool {
        self.keeper_ops as usize + self.child_ops as usize <= MAX_OPS && usize::from(self.next_slot) <= SLOTS
    }

    /// The whole plan as bytes.
    pub fn finish(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.keeper.len() + self.child.len());
        bytes.extend_from_slice(MAGIC);
        for word in [VERSION, self.keeper_ops, self.child_ops, self.keeper.len() as u32] {
            word.put(&mut bytes);
        }
        bytes.extend_from_slice(&self.keeper);
        bytes.extend_from_slice(&self.child);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut plan = Builder::default();
        let (parent, out) = (plan.slot(), plan.slot());
        plan.keeper(Op::CgroupCreate { parent, name: c"box", out });
        let lowers = pack_slots(&[parent, out]);
        let names: TextsBuf = [c"a", c""].into_iter().collect();
        plan.keeper(Op::NewOverlay {
            lowers: as_slots(&lowers),
            names: names.as_texts(),
            upper: None,
            changes: c"",
            volatile: true,
            attributes: 4,
            out,
        });
        let words: TextsBuf = [c"a", c"", c"c d"].into_iter().collect();
        plan.child(Op::Exec {
            candidates: words.as_texts(),
            arguments: words.as_texts(),
            environment: TextsBuf::default().as_texts(),
        });
        plan.finish()
    }

    #[test]
    fn what_was_written_is_read_back() {
        let bytes = sample();
        let plan = Plan::parse(&bytes).unwrap();
        assert_eq!((plan.len(Part::Keeper), plan.len(Part::Child)), (2, 1));
        let ops: Vec<_> = plan.ops(Part::Keeper).collect();
        assert_eq!(ops[0], Op::CgroupCreate { parent: Slot(3), name: c"box", out: Slot(4) });
        assert_eq!(
            format!("{:?}", ops[1]),
            concat!(
                r#"NewOverlay { lowers: [3, 4], names: ["a", ""], upper: None, changes: "", volatile: true, "#,
                "attributes: 4, out: Slot(4) }"
            )
        );
        let Some(Op::Exec { arguments, .. }) = plan.ops(Part::Child).next() else { panic!("no exec") };
        assert_eq!(arguments.iter().collect::<Vec<_>>(), [c"a", c"", c"c d"]);
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = sample();
        for length in 0..bytes.len() {
            assert!(Plan::parse(&bytes[..length]).is_err(), "{length} bytes of {}", bytes.len());
        }
    }

    #[test]
    fn a_flipped_bit_never_panics_and_never_leaves_the_table() {
        let bytes = sample();
        for position in 0..bytes.len() * 8 {
            let mut broken = bytes.clone();
            broken[position / 8] ^= 1 << (position % 8);
            if let Ok(plan) = Plan::parse(&broken) {
                assert_eq!(plan.ops(Part::Keeper).count() + plan.ops(Part::Child).count(), 3);
            }
        }
    }
}
