"""The Rust core as Python sees it. Sizes are bytes, times nanoseconds, unless a name says otherwise.

Every error is one of ``pyrt.errors``; one that comes from the kernel has an ``OSError`` as its
``__cause__``. Descriptors that are returned belong to the caller; those that are passed in stay the caller's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict, final

from pyrt.errors import StartFailed, StateError

__all__ = [
    "Attached",
    "CancelFlag",
    "Detached",
    "Exited",
    "Failed",
    "LayerReport",
    "LogReader",
    "Plan",
    "Sample",
    "Started",
    "Step",
    "Template",
    "ask",
    "cgroup_limits",
    "compile",
    "compile_command",
    "compile_exec",
    "compile_seccomp",
    "extract_layer",
    "failure",
    "host",
    "launch_spawner",
    "make_upper",
    "mount_layers",
    "open_in_root",
    "parse_report",
    "read_image_file",
    "remove_tree",
    "set_file_ids",
    "stamps",
    "stdio_message",
    "tidy",
    "watch_folder",
    "write_layer",
]

# ---- plans ----------------------------------------------------------------------------------------------------------

@final
class Step:
    """One operation of a plan, for people."""

    @property
    def part(self) -> Literal["keeper", "child"]: ...
    @property
    def index(self) -> int:
        """In that part, counted from 0."""
    @property
    def name(self) -> str:
        """The operation: "NewMount"."""
    @property
    def text(self) -> str:
        """What it does, one line: ``mounting proc at /proc``."""

@final
class Plan:
    """How one container, or one more process in it, is made. Owns what it has opened until it is dropped."""

    @property
    def takes_command(self) -> bool:
        """Whether it waits for its standard descriptors, and another command may come with them."""

    def steps(self) -> list[Step]:
        """Every operation, the keeper's first."""

    def sample(self, container: str, id_base: int) -> Sample | None:
        """For a template; ``id_base`` is the first host id of this ``container``.

        None if something has to be opened for it that is not the same every time.
        """

    def start_message(
        self, control: int, *ends: int, limit: int = 0, detached: Detached | None = None
    ) -> tuple[bytes, list[int]]:
        """The message for the spawner's socket and the descriptors to go with it by SCM_RIGHTS.

        The plan's own descriptors among them stay the plan's: keep it until the message is sent. ``control`` is the
        keeper's end of a SOCK_SEQPACKET pair: the container is killed when the other end closes, unless it is
        ``detached``, or after ``limit`` nanoseconds (0: never). ``ends``: standard input, output and error, or of a
        detached one: where its keeper writes the log and the exit, a listening SOCK_SEQPACKET socket, the directory of
        its name, and the folder of journald's socket if there is a journal.
        """

@final
class Sample:
    """A plan without what it has opened."""

    def template(self, other: Sample) -> Template | None:
        """Of two plans of one specification; None if they differ in more than what is one container's alone."""

@final
class Template:
    """What the plans of all containers of one specification have in common."""

    def fill(self, container: str, id_base: int) -> Plan | None:
        """The plan of another container, as ``compile`` would make it, in a fifth of the time.

        None if it can't be made so, and has to be compiled. Raises HostError.
        """

@final
class Detached:
    """What is said of a container that lives on without an engine."""

    def __new__(cls, *, name: str, log_size: int, log_files: int, input: bool, journal: bytes) -> Detached:
        """``name`` is the file of its keeper's socket.

        A log file is full at ``log_size`` bytes, ``log_files`` are kept (0: no log). ``input``: its standard input
        stays open. ``journal``: the name of journald's socket, NUL, and the fields of each message; b"" for none.
        """

def compile(spec: bytes, start: bytes) -> Plan:
    """Compiles the plan of a container and opens what it needs: layers, upper, bind sources, cgroups.

    ``spec`` is a config.json (OCI runtime specification 1.2); ``start`` the JSON of what that has no place for: id,
    layers, upper, prepared files (``rust/container/src/compile/start.rs``). Takes about 50 to 100 us.

    Raises:
        SpecError: a field is malformed, or can't be honoured; ``field`` is its JSON path.
        HostError: this machine lacks something.
    """

def compile_exec(spec: bytes, process: bytes, start: bytes, pidfd: int) -> Plan:
    """Compiles the plan of one more process in a running container.

    ``spec`` is the container's own, ``process`` an OCI process object, ``pidfd`` refers to the container's PID 1.

    Raises:
        SpecError: as for ``compile``.
        HostError: as for ``compile``.
    """

def failure(plan: Plan, failed: Failed) -> StartFailed:
    """The exception to raise for a failed start: StartFailed, CommandNotFound or CommandNotExecutable."""

class _Host(TypedDict):
    kernel: str
    """As the kernel prints it: "6.1.0-21-amd64"."""
    version: tuple[int, int]
    privileged: bool
    """Whether this process may make mounts and namespaces with the host's rights."""
    capabilities: int
    """Permitted to this process, one bit each."""
    cgroups: Literal["none", "v1", "hybrid", "v2"]
    controllers: dict[str, str]
    """The mount point of each controller's hierarchy."""
    swap_accounting: bool

def host() -> _Host:
    """What this machine has; looked up once a process.

    Raises:
        HostError: no /proc.
    """

def stamps(paths: Sequence[str]) -> bytes:
    """32 bytes for each path, which change when its file does, or another takes its place; zeroes if there is none.

    As stat(2) tells: links are followed.
    """

def read_image_file(layers: Sequence[str], path: str, limit: int) -> bytes | None:
    """The content of ``path`` in an image, read without a mount; None if there is no such file.

    ``layers`` are directories, topmost first; whiteouts and opaque directories are honoured, symlinks are resolved
    inside. ``limit`` is in bytes.

    Raises:
        InvalidImage: not a regular file, longer than ``limit``, or a loop of symlinks.
        StateError: a layer can't be read.
    """

# ---- the spawner ----------------------------------------------------------------------------------------------------

def launch_spawner() -> tuple[int, int]:
    """Starts the static program from a sealed memfd and returns ``(pid, socket)``.

    ``socket`` is a close-on-exec SOCK_SEQPACKET descriptor; closing it ends the spawner, which is then to be
    reaped with ``os.waitpid(pid, 0)``. The spawner has a session of its own, an empty environment, nothing on its
    standard descriptors, and default signals. Takes about 1 ms, once an engine.

    Raises:
        HostError: no memfd, no process, no /proc.
    """

# ---- what a keeper says ---------------------------------------------------------------------------------------------

@final
class Started:
    """The process runs. The message carries its pidfd and, if there is one, the terminal's master."""

    @property
    def pid(self) -> int:
        """In the host's pid namespace."""
    @property
    def warnings(self) -> int:
        """Steps whose refusal was let pass: 1 oom_score_adj not lowered, 2 a resource limit set as high as it goes."""
    @property
    def timings(self) -> list[int]:
        """CLOCK_MONOTONIC at which each step was done, in the order of ``Plan.steps()``; 0 for one not run."""
    @property
    def begun(self) -> int:
        """CLOCK_MONOTONIC at which the keeper read the start message."""

@final
class Failed:
    """A step failed; nothing of the container is left. ``failure()`` makes the exception of it."""

    @property
    def part(self) -> Literal["keeper", "child"]: ...
    @property
    def index(self) -> int:
        """In that part, counted from 0."""
    @property
    def errno(self) -> int:
        """0 if the plan itself was refused."""
    @property
    def evidence(self) -> bytes:
        """For a failed exec: the path, NUL, and the first bytes of the file."""

@final
class Exited:
    """The process has ended and is reaped. Of ``code`` and ``signal`` one is None."""

    @property
    def code(self) -> int | None: ...
    @property
    def signal(self) -> int | None: ...
    @property
    def oom_kills(self) -> int:
        """Tasks of the cgroup that the kernel killed for want of memory."""
    @property
    def memory_peak(self) -> int:
        """Bytes; 0 if unknown."""
    @property
    def cpu_usec(self) -> int:
        """Microseconds of processor time."""
    @property
    def pids_refused(self) -> int:
        """Forks that the pids limit refused."""
    @property
    def timed_out(self) -> bool:
        """Its keeper killed it because its time was up."""
    @property
    def lost_output(self) -> int:
        """Bytes that could not be written to its log."""
    @property
    def ended(self) -> int:
        """CLOCK_REALTIME."""

@final
class Attached:
    """What is written to the descriptor that came with it, if one did, is the process's standard input."""

    @property
    def terminal(self) -> bool:
        """The descriptor is the master of its terminal."""

def ask(what: Literal["attach", "close input", "recorded"]) -> bytes:
    """A message for the keeper of a detached container; see ``rust/container/src/protocol.rs``."""

def parse_report(message: bytes) -> Started | Failed | Exited | Attached:
    """Reads one message of a control socket, or the file ``exit`` of a container's folder.

    Raises:
        EngineError: not a message of this version.
    """

def compile_command(process: bytes) -> bytes | None:
    """The command of an OCI process object, its arguments and environment, for ``stdio_message``.

    None if they are too long for that: 128 KiB.

    Raises:
        SpecError: as for ``compile``.
    """

def stdio_message(command: bytes, detached: Detached | None = None) -> bytes:
    """What lets a container go on that waits; the ends of ``Plan.start_message`` go with it by SCM_RIGHTS.

    ``command`` takes the place of its own, unless it is b"".
    """

# ---- logs -----------------------------------------------------------------------------------------------------------

@final
class LogReader:
    """Reads the log of a container in pieces of any size: ``TIME stdout|stderr F|P TEXT`` a line.

    Only lines from ``since`` to ``until``, times as the log has them; "" for all. With ``times`` each line of the
    container's has its time before it, then ``details``.
    """

    def __new__(cls, *, since: str = "", until: str = "", times: bool = False, details: str = "") -> LogReader: ...
    def feed(self, data: bytes) -> list[tuple[bool, bytes]]:
        """The texts in ``data``, each with whether it is of stderr; what follows each other is put together."""

    @property
    def done(self) -> bool:
        """A line after ``until`` was met."""

def watch_folder(path: str) -> int:
    """A descriptor that becomes readable when a file of the folder is written, made or renamed (inotify(7)).

    Raises:
        HostError: too many watches.
    """

# ---- layers ---------------------------------------------------------------------------------------------------------

@final
class CancelFlag:
    """Ends an extraction in another thread within about 50 ms."""

    def __new__(cls) -> CancelFlag: ...
    def set(self) -> None: ...

@final
class LayerReport:
    """What was extracted, or written."""

    @property
    def digest(self) -> str:
        """Of the bytes as they came: "sha256:<hex>"."""
    @property
    def diff_id(self) -> str:
        """Of the plain tar: "sha256:<hex>"."""
    @property
    def compressed_size(self) -> int:
        """Bytes as they came."""
    @property
    def size(self) -> int:
        """Bytes of the plain tar."""
    @property
    def entries(self) -> int:
        """In the tar, whiteouts among them."""
    @property
    def opaque_root(self) -> bool:
        """No layer below this one is to be seen: overlayfs does not look at a root, whoever stacks ends here."""

def extract_layer(
    source: int, directory: int, *, blob: int | None = None, cancel: CancelFlag | None = None
) -> LayerReport:
    """Extracts a layer into an empty directory, in overlay's form; for a worker thread.

    ``source`` is read to its end: a file, a pipe or a socket that gives a tar, plain or compressed by gzip, zstd, xz or
    bzip2. ``blob`` receives a copy of the bytes as they came. On an error nothing outside ``directory`` was touched
    and the caller removes what is in it.

    Raises:
        InvalidImage: damaged, too large, or a lie: an escape, an ambiguous size, a bomb.
        StateError: the kernel refused: disk full, not root.
        PyrtError: cancelled.
    """

def write_layer(directory: int, sink: int, *, gzip: int = 0, cancel: CancelFlag | None = None) -> LayerReport:
    """Writes a directory in overlay's form, such as a container's upper directory, as a layer; for a worker thread.

    Whiteouts and opaque directories become those of the OCI image specification. ``gzip``: 1 to 9, or 0 for a plain
    tar. Sockets are left out. The directory must be at rest.

    Raises:
        PyrtError: cancelled, or something that no layer can hold.
        StateError: the kernel refused: disk full, the reader of ``sink`` gone.
    """

def remove_tree(dirfd: int, name: str) -> None:
    """Removes ``name``, one part of a path below ``dirfd``, without following links; for a worker thread.

    A name that is not there is as good as removed.

    Raises:
        StateError: not empty because somebody keeps adding, or something is mounted in it.
    """

def tidy(
    dirfd: int, names: Sequence[str], groups: Sequence[str], folders: Sequence[str]
) -> tuple[list[tuple[Path, StateError]], int]:
    """Removes the empty directories ``groups``, as far as they can be, and the trees ``names`` as ``remove_tree`` does,
    and makes ``folders``, which are in ``dirfd`` too, as ``make_upper`` does, of the former as far as they go; for a
    worker thread.

    Returns the trees that could not be removed, each with the reason, and how many of ``folders`` were made: none after
    the first that could not be.
    """

def make_upper(folder: str) -> None:
    """Makes the folder of a container, ``upper`` (0755, whatever the umask is) and ``work`` in it.

    Raises:
        OSError: as mkdir(2).
    """

# ---- the files of containers ---------------------------------------------------------------------------------------

def open_in_root(root: int, path: str | bytes, flags: int, mode: int = 0) -> int:
    """openat2(2) with the directory ``root`` for /, also in absolute links and "..", and through no magic link.

    The one way to a path within a container, whatever it does to its directories meanwhile (CVE-2018-15664).

    Raises:
        OSError: as of os.open.
    """

def mount_layers(lowers: Sequence[str], upper: str | None = None) -> int:
    """The files of a container that does not run, as a mount to which no path leads: it is gone with its descriptor.

    ``lowers`` are directories, topmost first, ``upper`` one that holds ``upper`` and ``work``; without one the mount is
    read-only. Owners are as the container has them.

    Raises:
        OSError: the kernel refused.
    """

def set_file_ids(uid: int, gid: int) -> None:
    """Gives the calling thread other file system ids, with all its capabilities; for a process of one thread.

    What it makes belongs to them: within an idmapped upper directory nobody else may make anything. The process is
    not dumpable from then on.

    Raises:
        OSError: the kernel refused.
    """

def cgroup_limits(resources: bytes) -> list[tuple[str, str, str]]:
    """Controller, file and value of each limit in the JSON of ``linux.resources``, in the order of writing.

    Raises:
        SpecError: a field is malformed, or there is no such limit on this machine; ``field`` is its JSON path.
    """

# ---- for inspection -------------------------------------------------------------------------------------------------

def compile_seccomp(json: bytes) -> bytes:
    """Compiles the JSON of ``linux.seccomp`` (OCI runtime specification 1.2) for this machine.

    Returns an array of ``struct sock_filter`` in this machine's byte order. The same bytes are compiled once a process.

    Raises:
        SpecError: malformed, or a value that can't be honoured; ``field`` is its JSON path.
    """
