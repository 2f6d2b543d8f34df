"""Stops every process of the chain at its calls into the kernel; at the N-th that counts, it kills or makes it fail.

strace's ``when=`` counts each call's name and each thread by itself, so it never reaches the second of two threads,
nor the first ``fsync`` behind two ``write``s. Here one count goes over all calls of a role, in the order in which they
come: ptrace(2), on x86-64. Who is who is told by who has made whom::

    client                         server, its threads -- helper: carrier of a copy
                                     +- spawner         \\- (exec)
                                          +- keeper
                                               +- inside: the first process of a container, until it is the command
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROLES: Final = ("client", "server", "spawner", "keeper", "inside", "carrier")
ERRORS: Final = ("ENOSPC", "EIO", "EMFILE", "ENOMEM")

_CONT, _GETREGS, _SETREGS, _SYSCALL = 7, 12, 13, 24
_DETACH, _GETEVENTMSG, _SEIZE, _LISTEN, _GET_SYSCALL_INFO = 17, 0x4201, 0x4206, 0x4208, 0x420E
_EVENT_FORK, _EVENT_VFORK, _EVENT_CLONE, _EVENT_EXEC, _EVENT_STOP = 1, 2, 3, 4, 128
_OPTIONS: Final = 0x1 | 0x2 | 0x4 | 0x8 | 0x10  # SYSGOOD, and a stop at each fork, vfork, clone and exec
_WALL: Final = 0x40000000
_ENTRY: Final = 1

# arch/x86/entry/syscalls/syscall_64.tbl: the calls that change something that outlives whoever makes them.
_CHANGES: Final = {
    1: "write",
    18: "pwrite64",
    20: "writev",
    40: "sendfile",
    44: "sendto",
    46: "sendmsg",
    56: "clone",
    57: "fork",
    58: "vfork",
    59: "execve",
    62: "kill",
    74: "fsync",
    75: "fdatasync",
    76: "truncate",
    77: "ftruncate",
    82: "rename",
    83: "mkdir",
    84: "rmdir",
    85: "creat",
    86: "link",
    87: "unlink",
    88: "symlink",
    90: "chmod",
    91: "fchmod",
    92: "chown",
    93: "fchown",
    94: "lchown",
    133: "mknod",
    155: "pivot_root",
    161: "chroot",
    165: "mount",
    166: "umount2",
    188: "setxattr",
    190: "fsetxattr",
    49: "bind",
    50: "listen",
    48: "shutdown",
    42: "connect",
    258: "mkdirat",
    259: "mknodat",
    260: "fchownat",
    263: "unlinkat",
    264: "renameat",
    265: "linkat",
    266: "symlinkat",
    268: "fchmodat",
    272: "unshare",
    280: "utimensat",
    285: "fallocate",
    296: "pwritev",
    306: "syncfs",
    308: "setns",
    316: "renameat2",
    322: "execveat",
    326: "copy_file_range",
    424: "pidfd_send_signal",
    428: "open_tree",
    429: "move_mount",
    432: "fsmount",
    435: "clone3",
    442: "mount_setattr",
    73: "flock",
}
_OPENS: Final = {2: "open", 257: "openat", 437: "openat2"}
_ON_A_FILE: Final = frozenset({"write", "pwrite64", "writev", "pwritev", "ftruncate", "fallocate", "copy_file_range"})
_SYNCS: Final = frozenset({"fsync", "fdatasync", "syncfs"})
_ON_A_DISK: Final = frozenset(
    {
        "mkdir",
        "mkdirat",
        "rename",
        "renameat",
        "renameat2",
        "link",
        "linkat",
        "symlink",
        "symlinkat",
        "mknod",
        "mknodat",
    }
)
_DESCRIPTORS: Final = {
    2: "open",
    22: "pipe",
    32: "dup",
    41: "socket",
    43: "accept",
    53: "socketpair",
    257: "openat",
    288: "accept4",
    290: "eventfd2",
    291: "epoll_create1",
    293: "pipe2",
    319: "memfd_create",
    434: "pidfd_open",
    437: "openat2",
}
_MEMORY: Final = {
    56: "clone",
    57: "fork",
    58: "vfork",
    435: "clone3",
    165: "mount",
    430: "fsopen",
    432: "fsmount",
    272: "unshare",
    428: "open_tree",
    429: "move_mount",
}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class _Registers(ctypes.Structure):
    """struct user_regs_struct"""

    _fields_ = [
        (name, ctypes.c_ulonglong)
        for name in "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss".split()
        + "fs_base gs_base ds es fs gs".split()
    ]


class _SyscallInfo(ctypes.Structure):
    """struct ptrace_syscall_info, of an entry"""

    _fields_ = [
        ("op", ctypes.c_uint8),
        ("arch", ctypes.c_uint32),
        ("instruction_pointer", ctypes.c_uint64),
        ("stack_pointer", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
    ]


class Strike(NamedTuple):
    """The N-th call of a role that counts is hit: by SIGKILL, if ``error`` is "", else it fails so and is not made."""

    role: str
    number: int
    error: str = ""


class Task:
    """A thread that is traced."""

    def __init__(self, process: int, role: str) -> None:
        self.process = process
        self.role = role
        self.fails_with = 0


class Tracer:
    """Of one run. Everything is done by the one thread that made it, in ``pump``."""

    def __init__(self, strike: Strike | None) -> None:
        self.strike = strike
        self.armed = False
        self.struck = ""
        """What was hit."""
        self.counts: dict[str, int] = {}
        """Without a strike: the calls of each role that one could hit, while armed, by "role" and "role error"."""
        self.ended: dict[int, int] = {}
        """Processes that have ended, with what wait(2) says of them."""
        self._tasks: dict[int, Task] = {}
        self._unknown: set[int] = set()
        self._seen = 0

    def seize(self, process: int, role: str) -> None:
        """From now on; with all that it makes."""
        _ptrace(_SEIZE, process, 0, _OPTIONS)
        self._tasks[process] = Task(process, role)

    def pump(self, until: Callable[[], bool]) -> None:
        """Lets everybody run until the condition is true, which is looked at whenever somebody stops or ends."""
        while not until():
            pid, status = os.waitpid(-1, _WALL)
            if os.WIFSTOPPED(status):
                try:
                    self._stopped(pid, status)
                except ProcessLookupError:
                    pass  # Killed meanwhile: its end is told next.
            else:
                self._tasks.pop(pid, None)
                self.ended[pid] = status

    def lives(self, role: str) -> int:
        """How many processes of a role there are."""
        return len({task.process for task in self._tasks.values() if task.role == role})

    # ---- stops ----

    def _stopped(self, pid: int, status: int) -> None:
        task = self._tasks.get(pid)
        if task is None:
            # A child whose parent's stop is still to come.
            self._unknown.add(pid)
            return
        event, number = status >> 16, os.WSTOPSIG(status)
        if event in {_EVENT_FORK, _EVENT_VFORK, _EVENT_CLONE}:
            self._born(task, _message(pid))
        elif event == _EVENT_EXEC:
            task.role = _role_of_program(pid, task.role)
            if task.role == "guest":
                del self._tasks[pid]
                _ptrace(_DETACH, pid, 0, 0)
                return
        elif event == _EVENT_STOP and number != signal.SIGTRAP:
            _ptrace(_LISTEN, pid, 0, 0)
            return
        elif number == signal.SIGTRAP | 0x80:
            self._at_call(pid, task)
        elif not event:
            self._resume(pid, task, number)
            return
        self._resume(pid, task)

    def _born(self, parent: Task, pid: int) -> None:
        process = _group(pid) or pid
        role = parent.role if process == parent.process else _CHILDREN.get(parent.role, "guest")
        self._tasks[pid] = Task(process, role)
        if pid in self._unknown:
            self._unknown.remove(pid)
            self._resume(pid, self._tasks[pid])

    def _resume(self, pid: int, task: Task, number: int = 0) -> None:
        # Before it is armed all are watched: then whoever pumps sees what a server has said when it has said it.
        watched = not self.armed or self.strike is None or task.role == self.strike.role
        _ptrace(_SYSCALL if watched else _CONT, pid, 0, number)

    def _at_call(self, pid: int, task: Task) -> None:
        info = _SyscallInfo()
        _ptrace(_GET_SYSCALL_INFO, pid, ctypes.sizeof(info), ctypes.addressof(info))
        if info.op != _ENTRY:
            if task.fails_with:
                registers = _registers(pid)
                registers.rax = -task.fails_with % 2**64
                _ptrace(_SETREGS, pid, 0, ctypes.addressof(registers))
                task.fails_with = 0
            return
        if not self.armed or self.struck:
            return
        if self.strike is None:
            self._count(pid, task.role, info)
        elif task.role == self.strike.role and (name := counts(pid, info, self.strike.error)):
            self._seen += 1
            if self._seen == self.strike.number:
                self.struck = name
                self._hit(pid, task, self.strike.error)

    def _count(self, pid: int, role: str, info: _SyscallInfo) -> None:
        for error in ("", *ERRORS):
            if counts(pid, info, error):
                key = f"{role} {error}".strip()
                self.counts[key] = self.counts.get(key, 0) + 1

    def _hit(self, pid: int, task: Task, error: str) -> None:
        if not error:
            os.kill(task.process, signal.SIGKILL)
            return
        registers = _registers(pid)
        registers.orig_rax = 2**64 - 1
        _ptrace(_SETREGS, pid, 0, ctypes.addressof(registers))
        task.fails_with = getattr(errno, error)


_CHILDREN: Final = {"server": "helper", "spawner": "keeper", "keeper": "inside", "inside": "inside", "helper": "helper"}


def counts(pid: int, info: _SyscallInfo, error: str) -> str:
    """The name of the call, if it is one to kill at, or one that can fail so; else ""."""
    number, arguments = info.number, info.arguments
    if error == "EMFILE":
        return _DESCRIPTORS.get(number, "")
    if error == "ENOMEM":
        return _MEMORY.get(number, "")
    name = _CHANGES.get(number, "") or _makes(pid, number, arguments)
    if not error:
        return name
    if name in _ON_A_FILE:
        return name if _is_on_disk(pid, arguments[0]) else ""
    if error == "EIO":
        return name if name in _SYNCS else ""
    return name if name in _ON_A_DISK or name in _OPENS.values() else ""


def _makes(pid: int, number: int, arguments: Sequence[int]) -> str:
    """The name of a call that opens a file and may make it."""
    name = _OPENS.get(number, "")
    if not name:
        return ""
    flags = arguments[1 if name == "open" else 2]
    if name == "openat2":  # struct open_how begins with the flags.
        with open(f"/proc/{pid}/mem", "rb", 0) as memory:
            flags = int.from_bytes(os.pread(memory.fileno(), 8, flags), "little")
    return name if flags & (os.O_CREAT | os.O_TRUNC) else ""


def _is_on_disk(pid: int, descriptor: int) -> bool:
    try:
        path = os.readlink(f"/proc/{pid}/fd/{descriptor}")
    except OSError:
        return False
    return path.startswith("/") and not path.startswith(("/dev/", "/proc/", "/sys/", "/memfd:"))


def _role_of_program(pid: int, before: str) -> str:
    if before == "inside":
        return "guest"
    if before != "helper":
        return before
    return "spawner" if os.readlink(f"/proc/{pid}/exe").startswith("/memfd:") else "carrier"


def _group(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Tgid:"))
    except (OSError, StopIteration):
        return 0


def _message(pid: int) -> int:
    value = ctypes.c_ulong()
    _ptrace(_GETEVENTMSG, pid, 0, ctypes.addressof(value))
    return value.value


def _registers(pid: int) -> _Registers:
    registers = _Registers()
    _ptrace(_GETREGS, pid, 0, ctypes.addressof(registers))
    return registers


def _ptrace(request: int, pid: int, address: int, data: int) -> None:
    if _libc.ptrace(request, pid, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"ptrace {request:#x}: {os.strerror(number)}")
