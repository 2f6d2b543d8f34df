"""The Rust core as Python sees it. Sizes are bytes, times nanoseconds, unless a name says otherwise.

Every error is one of ``pyrt.errors``; one that comes from the kernel has an ``OSError`` as its
``__cause__``. Descriptors that are returned belong to the caller; those that are passed in stay the caller's.
"""

from typing import Literal, final

__all__ = [
    "Exited",
    "Failed",
    "Started",
    "compile_seccomp",
    "launch_spawner",
    "parse_report",
]

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
    def ended(self) -> int:
        """CLOCK_REALTIME."""

def parse_report(message: bytes) -> Started | Failed | Exited:
    """Reads one message of a control socket.

    Raises:
        EngineError: not a message of this version.
    """

# ---- for inspection -------------------------------------------------------------------------------------------------

def compile_seccomp(json: bytes) -> bytes:
    """Compiles the JSON of ``linux.seccomp`` (OCI runtime specification 1.2) for this machine.

    Returns an array of ``struct sock_filter`` in this machine's byte order. The same bytes are compiled once a process.

    Raises:
        SpecError: malformed, or a value that can't be honoured; ``field`` is its JSON path.
    """
