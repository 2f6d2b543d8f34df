"""The border: what crosses it, and what must not."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pyrt import _native
from pyrt.errors import CommandNotFound, EngineError, HostError, InvalidImage, PyrtError, SpecError
from tests import ward
from tests.foreign import Layout, layers
from tests.leakcheck import Oracle

F_ADD_SEALS_ALL = 0x1 | 0x2 | 0x4 | 0x8
F_GET_SEALS = 1034
# linux/bpf_common.h, linux/seccomp.h
BPF_RET_K = 0x06
SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO = 0x7FFF0000, 0x00050000


@contextmanager
def spawner() -> Iterator[int]:
    """A spawner that has forked its first keeper."""
    pid, socket = _native.launch_spawner()
    try:
        deadline = time.monotonic() + 10
        while not ward.descendants(pid):
            assert time.monotonic() < deadline, "no keeper came"
            time.sleep(0.001)
        yield pid
    finally:
        os.close(socket)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.root
def test_the_spawner_ends_when_its_socket_is_closed_and_takes_its_keeper_along() -> None:
    with spawner():
        pass


@pytest.mark.root
def test_nothing_of_the_callers_is_inherited(tmp_path: Path) -> None:
    """CVE-2024-21626: a descriptor of the host that leaks into what starts containers."""
    files = [os.open(tmp_path, os.O_RDONLY) for _ in range(50)]
    for file in files:
        os.set_inheritable(file, True)
    try:
        with spawner() as pid:
            for process in {pid} | ward.descendants(pid):
                folder = Path(f"/proc/{process}/fd")
                opened = {os.readlink(folder / number) for number in os.listdir(folder)}
                assert str(tmp_path) not in opened
                assert not Path(f"/proc/{process}/environ").read_bytes().strip(b"\0")
    finally:
        for file in files:
            os.close(file)


@pytest.mark.root
def test_the_program_runs_from_memory_that_nobody_can_write() -> None:
    """CVE-2019-5736: a container overwrites the runtime through /proc/PID/exe."""
    with spawner() as pid:
        program = f"/proc/{pid}/exe"
        assert os.readlink(program).startswith("/memfd:")
        with open(program, "rb") as file:
            assert fcntl.fcntl(file, F_GET_SEALS) & F_ADD_SEALS_ALL == F_ADD_SEALS_ALL
        with pytest.raises(OSError, match=r"busy|not permitted"):
            os.truncate(program, 0)


@pytest.mark.root
def test_a_ctrl_c_for_the_caller_is_none_for_the_spawner() -> None:
    with spawner() as pid:
        assert os.getsid(pid) == pid
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert (int(status["SigBlk"], 16), int(status["SigCgt"], 16)) == (0, 0)


@pytest.mark.root
def test_a_caller_without_standard_descriptors_gets_a_spawner_all_the_same() -> None:
    """The socket's ends land on 0 to 3 then, where the spawner wants something else."""
    script = (
        "import os, sys\nfrom pyrt import _native\n"
        "os.closerange(0, 4)\npid, socket = _native.launch_spawner()\nos.close(socket)\n"
        "os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=30).returncode == 0


# ---- a container, without an engine -----------------------------------------------------------------------------


def specification(container: str, *arguments: str) -> bytes:
    """The least that isolates."""
    kinds = ("pid", "mount", "ipc", "uts", "network", "cgroup", "user")
    mapping = [{"containerID": 0, "hostID": 1_000_000, "size": 65536}]
    return json.dumps(
        {
            "ociVersion": "1.2.0",
            "process": {"user": {"uid": 0, "gid": 0}, "args": arguments, "cwd": "/", "env": ["PATH=/bin"]},
            "root": {"path": "rootfs", "readonly": True},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {
                "namespaces": [{"type": kind} for kind in kinds],
                "uidMappings": mapping,
                "gidMappings": mapping,
                "cgroupsPath": f"/pyrt/{container}",
                "resources": {"pids": {"limit": 64}},
            },
        }
    ).encode()


def compiled(container: str, layer: Path, *arguments: str) -> _native.Plan:
    start = {"id": container, "rootfs": {"lowers": [str(layer)], "upper": None}}
    return _native.compile(specification(container, *arguments), json.dumps(start).encode())


def started(
    plan: _native.Plan, output: int
) -> list[_native.Started | _native.Failed | _native.Exited | _native.Attached]:
    """Everything that the keeper says from the start message to the end of file."""
    pid, descriptor = _native.launch_spawner()
    reports = []
    with socket.socket(fileno=descriptor) as engine:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs, open(os.devnull, "rb") as nothing:
            data, descriptors = plan.start_message(theirs.fileno(), nothing.fileno(), output, output)
            socket.send_fds(engine, [data], descriptors)
            # From here on the keeper alone has it: when it is gone, that is the end of the file.
            theirs.close()
            while data := receive(ours):
                reports.append(_native.parse_report(data))
    os.waitpid(pid, 0)
    return reports


def receive(control: socket.socket) -> bytes:
    data, descriptors, _, _ = socket.recv_fds(control, 16 * 1024, 4)
    for descriptor in descriptors:
        os.close(descriptor)
    return data


@pytest.mark.root
def test_a_plan_becomes_a_container(leakcheck: Oracle, busybox_rootfs: Path) -> None:
    container = os.urandom(32).hex()
    leakcheck.owns(container)
    plan = compiled(container, busybox_rootfs, "/bin/sh", "-c", "echo $$ $(id -u); exit 7")
    reading, writing = os.pipe()
    with open(reading) as output, open(writing, "w") as input_:
        first, last = started(plan, input_.fileno())
        input_.close()
        assert output.read() == "1 0\n"
    assert isinstance(first, _native.Started)
    assert len(first.timings) == len(plan.steps())
    assert first.begun <= first.timings[-1]
    assert isinstance(last, _native.Exited)
    assert (last.code, last.signal) == (7, None)


@pytest.mark.root
def test_a_command_that_is_not_there_becomes_its_exception(leakcheck: Oracle, busybox_rootfs: Path) -> None:
    container = os.urandom(32).hex()
    leakcheck.owns(container)
    plan = compiled(container, busybox_rootfs, "/bin/nope")
    [report] = started(plan, 1)
    assert isinstance(report, _native.Failed)
    error = _native.failure(plan, report)
    assert isinstance(error, CommandNotFound)
    assert "/bin/nope" in error.message
    assert (error.step, error.index, error.errno) == ("Exec", len(plan.steps()), errno.ENOENT)


@pytest.mark.root
def test_every_step_is_explained(busybox_rootfs: Path) -> None:
    steps = compiled("explained", busybox_rootfs, "/bin/true").steps()
    assert {step.part for step in steps} == {"keeper", "child"}
    assert all(step.text for step in steps)
    assert steps[-1].text == "executing /bin/true"


def test_a_field_that_is_refused_is_named() -> None:
    spec = {"ociVersion": "1.2.0", "process": {"args": ["true"], "cwd": "/", "user": {"uid": "root"}}}
    with pytest.raises(SpecError) as refused:
        _native.compile(json.dumps(spec).encode(), b'{"id": "x"}')
    assert refused.value.field == "process.user.uid"


def test_what_the_kernel_refuses_while_compiling_is_the_errors_cause() -> None:
    process = {"args": ["true"], "cwd": "/", "user": {"uid": 0, "gid": 0}}
    spec = {
        "ociVersion": "1.2.0",
        "process": process,
        "root": {"path": "/no/such/root"},
        "linux": {"namespaces": [{"type": "mount"}]},
    }
    with pytest.raises(SpecError, match=r"root\.path: /no/such/root: no such file or directory") as refused:
        _native.compile(json.dumps(spec).encode(), b'{"id": "x"}')
    cause = refused.value.__cause__
    assert isinstance(cause, FileNotFoundError)
    assert (cause.errno, cause.filename) == (errno.ENOENT, Path("/no/such/root"))


def test_a_file_of_an_image_is_read_through_its_own_links(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for layer in (lower, upper):
        (layer / "etc").mkdir(parents=True)
    (lower / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (upper / "etc/link").symlink_to("/etc/passwd")
    layers = [str(upper), str(lower)]
    assert _native.read_image_file(layers, "/etc/link", 4096) == b"root:x:0:0::/root:/bin/sh\n"
    assert _native.read_image_file(layers, "/etc/group", 4096) is None
    with pytest.raises(InvalidImage, match="longer than 4 bytes"):
        _native.read_image_file(layers, "/etc/passwd", 4)
    with pytest.raises(InvalidImage, match="not a regular file"):
        _native.read_image_file(layers, "/etc", 4096)


def test_the_host_is_known() -> None:
    host = _native.host()
    assert host["kernel"] == os.uname().release
    assert host["controllers"] or host["cgroups"] == "none"


def message(kind: int, body: bytes, *, version: int = 5) -> bytes:
    return struct.pack("<HH", version, kind) + body


def test_what_a_keeper_says_is_read() -> None:
    started = _native.parse_report(message(2, struct.pack("<IIQ3Q", 42, 1, 9, 10, 11, 0)))
    assert isinstance(started, _native.Started)
    assert (started.pid, started.warnings, started.begun, started.timings) == (42, 1, 9, [10, 11, 0])
    failed = _native.parse_report(message(3, struct.pack("<BIi", 1, 17, 2) + b"/bin/sh\0#!"))
    assert isinstance(failed, _native.Failed)
    assert (failed.part, failed.index, failed.errno, failed.evidence) == ("child", 17, 2, b"/bin/sh\0#!")
    exited = _native.parse_report(message(4, struct.pack("<ii6Q?", -(2**31), 9, 1, 2, 3, 4, 6, 5, True)))
    assert isinstance(exited, _native.Exited)
    assert (exited.code, exited.signal, exited.oom_kills, exited.ended) == (None, 9, 1, 5)
    assert (exited.timed_out, exited.lost_output) == (True, 6)
    attached = _native.parse_report(message(5, b"\1"))
    assert isinstance(attached, _native.Attached)
    assert attached.terminal


@pytest.mark.parametrize("nonsense", [b"", b"\1", message(2, b""), message(9, b"x"), message(4, b"", version=1)])
def test_what_is_no_report_is_refused(nonsense: bytes) -> None:
    with pytest.raises(EngineError, match="keeper"):
        _native.parse_report(nonsense)


def test_a_seccomp_profile_becomes_a_program_that_allows_and_refuses() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"}],
    }
    program = _native.compile_seccomp(json.dumps(profile).encode())
    instructions = list(struct.iter_unpack("<HBBI", program))
    returned = {value for code, _, _, value in instructions if code == BPF_RET_K}
    assert {SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO | errno.EPERM} <= returned


def test_a_seccomp_profile_that_lies_is_refused_by_its_field() -> None:
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_WHATEVER"}]}
    with pytest.raises(SpecError) as refused:
        _native.compile_seccomp(json.dumps(profile).encode())
    assert refused.value.field == "linux.seccomp.syscalls[0].action"


# ---- layers -------------------------------------------------------------------------------------------------------


@contextmanager
def directory(path: Path) -> Iterator[int]:
    path.mkdir(exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.root
def test_a_layer_is_extracted_copied_and_named(five_layers: Layout, tmp_path: Path) -> None:
    entry = layers(five_layers)[-1]
    blob = five_layers.path / "blobs" / entry["digest"].replace(":", "/")
    with directory(tmp_path / "layer") as layer, blob.open("rb") as source, (tmp_path / "copy").open("wb") as copy:
        report = _native.extract_layer(source.fileno(), layer, blob=copy.fileno())
    assert (report.digest, report.compressed_size) == (entry["digest"], entry["size"])
    assert (tmp_path / "copy").read_bytes() == blob.read_bytes()
    assert report.entries > 5
    assert not report.opaque_root
    probe = tmp_path / "layer/srv/tools/probe"
    assert stat.S_IMODE(probe.stat().st_mode) == 0o4755
    assert os.getxattr(probe, "security.capability")
    with directory(tmp_path) as parent:
        _native.remove_tree(parent, "layer")
        _native.remove_tree(parent, "layer")
    assert not (tmp_path / "layer").exists()


def test_what_is_no_layer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nonsense").write_bytes(b"no tar at all" * 100)
    with directory(tmp_path / "layer") as layer, (tmp_path / "nonsense").open("rb") as source:
        with pytest.raises(InvalidImage):
            _native.extract_layer(source.fileno(), layer)


def test_an_extraction_waits_without_the_interpreters_lock_and_can_be_ended(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    flag = _native.CancelFlag()
    with directory(tmp_path / "layer") as layer, open(reading, "rb") as source, open(writing, "wb"):
        timer = threading.Timer(0.05, flag.set)
        timer.start()
        with pytest.raises(PyrtError, match="cancelled"):
            _native.extract_layer(source.fileno(), layer, cancel=flag)
        timer.join()


def test_a_descriptor_that_is_none_is_an_error() -> None:
    with pytest.raises(HostError, match="using descriptor 123456: bad file descriptor") as refused:
        _native.remove_tree(123456, "x")
    assert isinstance(refused.value.__cause__, OSError)
    assert refused.value.__cause__.errno == errno.EBADF
