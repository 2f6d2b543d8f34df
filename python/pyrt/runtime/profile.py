"""The default system call profile as data: what a container may ask of the kernel.

It allows what Docker's default does, gate for gate, and differs where this says so. Calls are grouped by what they
are about, so that a reader can judge a group at a time. What is not here and has a name answers EPERM; what has none
in the native core's table answers ENOSYS, so that a C library falls back from a call of the future.
"""

from __future__ import annotations

from typing import Final

# Of x86_64 and aarch64: no other ABI is let in. What only one of them has is passed over on the other.
FILES: Final = """
    access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
    fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync flock fstat fstatfs fsync ftruncate
    futimesat getcwd getdents getdents64 lchown link linkat lseek lstat memfd_create memfd_secret mkdir mkdirat
    mknod mknodat name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2
    read readahead readlink readlinkat readv rename renameat renameat2 rmdir stat statfs statx symlink symlinkat
    sync sync_file_range syncfs truncate umask unlink unlinkat utime utimensat utimes write writev cachestat
    file_getattr file_setattr listmount statmount
"""
ATTRIBUTES: Final = """
    fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr listxattrat llistxattr
    lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat
"""
PIPES_AND_EVENTS: Final = """
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
    eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch pipe pipe2 poll ppoll
    pselect6 select sendfile signalfd signalfd4 splice tee vmsplice io_cancel io_destroy io_getevents io_pgetevents
    io_setup io_submit
"""
SOCKETS: Final = """
    accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg
    sendto setsockopt shutdown socketpair
"""
MEMORY: Final = """
    brk get_thread_area madvise map_shadow_stack membarrier mincore mlock mlock2 mlockall mmap mprotect mremap mseal
    msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages set_thread_area
"""
PROCESSES: Final = """
    arch_prctl execve execveat exit exit_group fork getcpu getpgid getpgrp getpid getppid getpriority getsid gettid
    get_robust_list kill modify_ldt pidfd_open pidfd_send_signal prctl process_mrelease process_vm_readv
    process_vm_writev ptrace restart_syscall rseq seccomp setpgid setpriority setsid set_robust_list set_tid_address
    tgkill tkill uprobe uretprobe vfork wait4 waitid landlock_add_rule landlock_create_ruleset
    landlock_restrict_self
"""
SCHEDULING: Final = """
    getrlimit getrusage ioprio_get ioprio_set prlimit64 sched_getaffinity sched_getattr sched_getparam
    sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval sched_setaffinity
    sched_setattr sched_setparam sched_setscheduler sched_yield setrlimit
"""
SIGNALS: Final = """
    pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_tgsigqueueinfo sigaltstack
"""
IDENTITY: Final = """
    capget capset getegid geteuid getgid getgroups getresgid getresuid getuid setfsgid setfsuid setgid setgroups
    setregid setresgid setresuid setreuid setuid
"""
TIME: Final = """
    adjtimex alarm clock_adjtime clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep
    setitimer time timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create
    timerfd_gettime timerfd_settime times
"""
BETWEEN_PROCESSES: Final = """
    futex futex_requeue futex_wait futex_waitv futex_wake mq_getsetattr mq_notify mq_open mq_timedreceive
    mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop shmat shmctl shmdt shmget
"""
OTHER: Final = "getrandom sysinfo uname"

# ptrace and its kin are among PROCESSES: since Linux 4.8 a tracer can't change what a filter has looked at.
# io_uring, the kernel's keys (add_key, keyctl, request_key) and userfaultfd are nowhere: each has been the way out of
# containers.
_GROUPS: Final = (
    *(FILES, ATTRIBUTES, PIPES_AND_EVENTS, SOCKETS, MEMORY, PROCESSES),
    *(SCHEDULING, SIGNALS, IDENTITY, TIME, BETWEEN_PROCESSES, OTHER),
)
ALLOWED: Final = frozenset(" ".join(_GROUPS).split())

# What a capability opens, beside what the kernel itself asks it for.
GATES: Final = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_ADMIN": """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
        lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree open_tree_attr perf_event_open
        pivot_root quotactl quotactl_fd setdomainname sethostname setns syslog umount2 unshare
    """,
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime settimeofday",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}

# clone(2), unshare(2): what makes a namespace. A new user namespace is the door to most kernel flaws there are.
NAMESPACE_FLAGS: Final = 0x7E02_0000
# unshare(2) of a thread's own view of files: CLONE_FS, CLONE_FILES, CLONE_SYSVSEM. Docker refuses these, too, which
# breaks Samba.
UNSHARE_FLAGS: Final = 0x0004_0600

# personality(2): LINUX, LINUX32, both with UNAME26, and the question for the present one. The others switch off what
# makes attacks hard (ADDR_NO_RANDOMIZE) or start code of another system.
PERSONALITIES: Final = (0x0, 0x8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF)

# Address families that are refused as if the kernel lacked them: beyond 45 (XDP), which is the newest that was
# judged, and DECnet, ECONET, ATMSVC, IRDA, WANPIPE, IUCV, CAIF, ALG (the kernel's ciphers), VSOCK (the host of this
# virtual machine; it knows no network namespaces).
LARGEST_FAMILY: Final = 45
REFUSED_FAMILIES: Final = (12, 19, 20, 23, 25, 34, 37, 38, 40)

# ioctl(2) requests that push input into a terminal: TIOCSTI and TIOCLINUX.
REFUSED_REQUESTS: Final = (0x5412, 0x541C)
