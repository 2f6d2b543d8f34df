"""The Rust core as Python sees it. Sizes are bytes, times nanoseconds unless the name says otherwise.

Every error is one of ``pyrt.errors``; one that comes from the kernel has an ``OSError`` as its
``__cause__``. Descriptors that are returned belong to the caller; those that are passed in stay the caller's.
"""

def launch_spawner() -> tuple[int, int]:
    """Starts the static program from a sealed memfd and returns ``(pid, socket)``.

    ``socket`` is a close-on-exec SOCK_SEQPACKET descriptor; closing it ends the spawner, which is then to be
    reaped with ``os.waitpid(pid, 0)``. The spawner has a session of its own, an empty environment, no open file but
    the socket, and default signals. Takes about 1 ms, once an engine.

    Raises:
        HostError: no memfd, no process, no /proc.
    """
