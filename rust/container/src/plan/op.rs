//! The operations: one table of their codes, names and fields, from which reading and writing follow.

use std::ffi::CStr;

use super::Malformed;
use super::fields::{Field, Slot, Slots, Texts, split};

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

            pub(super) fn put(&self, out: &mut Vec<u8>) {
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
            pub(super) fn take(input: &mut &'a [u8]) -> Result<Self, Malformed> {
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
    /// The container's own null device takes the place of each standard descriptor that is the host's: by that one it can't be
    /// found again (criu), nor by its path.
    105 TakeOwnNull {}
    /// Adds the HOME to the command's environment that the container's /etc/passwd has for the user; / if it has none.
    104 FindHome { uid: u32 }
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
