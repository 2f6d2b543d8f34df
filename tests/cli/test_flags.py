"""Options of run and exec, each seen from inside a container."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.desk import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.desk import Desk
    from tests.foreign import Layout

pytestmark = pytest.mark.root


@pytest.fixture
def box(pyrt: Desk, busybox: Layout) -> Desk:
    """With an image called box."""
    pyrt.ok("load", "-i", str(busybox.path), "--name", "box")
    return pyrt


@contextmanager
def running(desk: Desk, *options: str) -> Iterator[None]:
    """A container called peer that runs as long as the block."""
    words = ["run", "--rm", "--name", "peer", *options, "box", "sh", "-c", "echo up; sleep 1000"]
    client = desk.popen(*words, stdout=subprocess.PIPE)
    assert client.stdout
    assert client.stdout.readline() == b"up\n"
    try:
        yield
    finally:
        desk.run("kill", "peer")
        client.wait(20)
        client.stdout.close()


def test_what_a_process_is_given(box: Desk) -> None:
    """Many at once, for a start is quick and a client is not."""
    box.environment["MINE"] = "from here"
    script = """
        ulimit -n; ulimit -Hn; id -G; cat /proc/self/oom_score_adj /proc/sys/net/core/somaxconn
        cat /proc/sys/kernel/domainname; hostname; df -k /dev/shm | tail -1 | awk '{print $2}'
        grep -c '^10.0.0.7.db$' /etc/hosts; grep -E '^(nameserver|search|options)' /etc/resolv.conf | tr '\\n' ' '
        echo; test -c /dev/mine && echo device; cat /proc/1/comm; echo $MINE; touch /no 2>/dev/null || echo read-only
    """
    options = (
        "--ulimit nofile=100:200 --group-add 44 --group-add video --oom-score-adj 500 --sysctl net.core.somaxconn=77 "
        "--domainname example.org --hostname h --shm-size 5m --add-host db:10.0.0.7 --dns 9.9.9.9 "
        "--dns-search example.org --dns-opt ndots:2 --device /dev/null:/dev/mine --init -e MINE --read-only"
    )
    told = box.ok("run", "--rm", *options.split(), "box", "sh", "-c", script)
    assert told.splitlines() == [
        *("100", "200", "0 44", "500", "77", "example.org", "h", "5120", "1"),
        "nameserver 9.9.9.9 search example.org options ndots:2 ",
        *("device", "pyrt-keeper", "from here", "read-only"),
    ]


def test_rights(box: Desk) -> None:
    (box.folder / "profile.json").write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    script = "awk '/^(CapEff|NoNewPrivs|Seccomp):/ {printf \"%s \", $2}' /proc/self/status"
    for options, told in (
        ("", "00000000000004fb 1 2"),
        ("--cap-drop ALL --cap-add NET_BIND_SERVICE", "0000000000000400 1 2"),
        ("--cap-add net_raw", "00000000000024fb 1 2"),
        ("--security-opt no-new-privileges=false", "00000000000004fb 0 2"),
        ("--security-opt seccomp=unconfined", "00000000000004fb 1 0"),
        ("--security-opt seccomp=profile.json", "00000000000004fb 1 2"),
        ("--security-opt label=disable --security-opt apparmor=unconfined", "00000000000004fb 1 2"),
        ("--privileged", "000001ffffffffff 0 0"),
    ):
        assert box.ok("run", "--rm", *options.split(), "box", "sh", "-c", script).split() == told.split(), options


def test_privileged_is_so_within_its_user_namespace(box: Desk) -> None:
    """Everything inside, nothing of the host's, until the user namespace is given up as well."""
    script = "mount -t tmpfs x /tmp && echo mounts; grep -q ' /sys .*rw' /proc/mounts && echo sys; ls /dev | wc -l"
    mounts, sys, devices = box.ok("run", "--rm", "--privileged", "box", "sh", "-c", script).split()
    assert (mounts, sys) == ("mounts", "sys")
    assert int(devices) < 20
    script = "hostname other && hostname; cat /proc/sys/kernel/core_pattern >/proc/sys/kernel/core_pattern"
    done = box.run("run", "--rm", "--privileged", "box", "sh", "-c", script)
    assert done.stdout == b"other\n"
    assert done.returncode != 0
    assert int(box.ok("run", "--rm", "--privileged", "--userns", "host", "box", "sh", "-c", "ls /dev | wc -l")) > 20


def test_namespaces_of_the_host(box: Desk) -> None:
    def own(kind: str) -> str:
        return str(Path(f"/proc/self/ns/{kind}").readlink())

    options = "--pid host --ipc host --uts host --cgroupns host --network host"
    script = "for kind in pid ipc uts cgroup net; do readlink /proc/self/ns/$kind; done"
    assert box.ok("run", "--rm", *options.split(), "box", "sh", "-c", script).split() == [
        own(kind) for kind in ("pid", "ipc", "uts", "cgroup", "net")
    ]
    private = box.ok("run", "--rm", "--ipc", "shareable", "box", "sh", "-c", script).split()
    assert not set(private) & {own(kind) for kind in ("pid", "ipc", "uts", "cgroup", "net")}


def test_namespaces_of_another_container(box: Desk) -> None:
    script = "for kind in ipc uts cgroup; do readlink /proc/self/ns/$kind; done; hostname"
    with running(box, "--hostname", "shared"):
        theirs = box.ok("exec", "peer", "sh", "-c", script).split()
        options = "--ipc container:peer --uts container:peer --cgroupns container:peer --name second"
        client = box.popen(
            "run", "--rm", *options.split(), "box", "sh", "-c", f"{script}; sleep 1000", stdout=subprocess.PIPE
        )
        assert client.stdout
        assert [client.stdout.readline().decode().strip() for _ in range(4)] == theirs
        assert theirs[-1] == "shared"
        # A process that joins later shares them too, when the other has gone.
        box.ok("kill", "peer")
        assert box.ok("exec", "second", "sh", "-c", script).split() == theirs
        box.ok("kill", "second")
        client.wait(20)
        client.stdout.close()
    done = box.run("run", "--rm", "--ipc", "container:peer", "box", "true")
    assert done.returncode == 125
    assert b"peer" in done.stderr


@pytest.mark.parametrize("userns", [(), ("--userns", "host")], ids=["own users", "the host's"])
def test_shared_memory_of_another_container(box: Desk, userns: tuple[str, ...]) -> None:
    with running(box, *userns, "--shm-size", "3m"):
        box.ok("exec", "peer", "sh", "-c", "echo theirs > /dev/shm/word; chmod 600 /dev/shm/word")
        words = ("run", "--rm", *userns, "--ipc", "container:peer")
        told = box.ok(
            *words, "box", "sh", "-c", "cat /dev/shm/word; stat -c %u /dev/shm/word; echo ours > /dev/shm/answer; mount"
        )
        assert told.startswith("theirs\n0\n")
        (line,) = [line for line in told.splitlines() if " /dev/shm " in line]
        assert {"nosuid", "nodev", "noexec", "size=3072k"} <= set(line.rstrip(")").rpartition("(")[2].split(","))
        assert box.ok("exec", "peer", "cat", "/dev/shm/answer") == "ours\n"
        # A process that joins later has it as well.
        second = box.popen(*words, "--name", "second", "box", "sleep", "1000")
        eventually(lambda: "second" in box.ok("ps", "--format", "{{.Names}}"))
        assert box.ok("exec", "second", "cat", "/dev/shm/answer") == "ours\n"
        # As Docker has it: who is a guest can't be a host.
        done = box.run("run", "--rm", *userns, "--ipc", "container:second", "box", "true")
        assert (done.returncode, b"shares the ipc namespace of another" in done.stderr) == (125, True)
        box.ok("kill", "second")
        second.wait(20)


def test_shared_memory_that_leads_elsewhere_leads_to_nothing_of_the_host(box: Desk) -> None:
    """A symlink in its place is followed as its owner would follow it."""
    with running(box, "--privileged"):
        script = "umount /dev/shm; rmdir /dev/shm; ln -s /etc /dev/shm; echo theirs > /etc/mark"
        box.ok("exec", "--privileged", "peer", "sh", "-c", script)
        told = box.ok("run", "--rm", "--ipc", "container:peer", "box", "ls", "/dev/shm").split()
        assert "mark" in told
        assert not {"debian_version", "shadow"} & set(told)


def test_processes_of_another_container(box: Desk) -> None:
    for theirs, own in ((), ()), (("--userns", "host"), ("--userns", "host")):
        with running(box, *theirs):
            told = box.ok("run", "--rm", *own, "--pid", "container:peer", "box", "ps")
            assert "sleep 1000" in told


def test_cgroups_below_a_parent(box: Desk) -> None:
    mounts = [Path(mount) for mount in ("/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/devices")]
    parents = [mount / "pyrt" / "batch" for mount in mounts if mount.is_dir()]
    try:
        with running(box, "--cgroup-parent", "batch", "-m", "32m"):
            identifier = box.ok("ps", "-q", "--no-trunc").strip()
            assert (parents[0] / identifier / "memory.limit_in_bytes").read_text() == f"{32 << 20}\n"
            box.ok("exec", "peer", "true")
            box.ok("pause", "peer")
            box.ok("unpause", "peer")
            assert box.ok("stats", "--no-stream", "--format", "{{.MemUsage}}").endswith("/ 32MiB\n")
            assert box.ok("inspect", "-f", "{{.HostConfig.CgroupParent}}", "peer") == "pyrt/batch\n"
        assert not any((parent / identifier).exists() for parent in parents)
    finally:
        for parent in [*parents, Path("/sys/fs/cgroup/freezer/pyrt/batch")]:
            if parent.exists():
                parent.rmdir()
    for wrong in ("a/../b", "system.slice", "a b"):
        assert box.run("run", "--rm", "--cgroup-parent", wrong, "box", "true").returncode == 125


def test_limits_of_disks_and_memory_as_the_kernel_has_them(box: Desk) -> None:
    """Of a machine with cgroup version 1, where all of them are."""
    files = "blkio/blkio.throttle.read_bps_device blkio/blkio.throttle.write_iops_device memory/memory.swappiness"
    script = f"cd /sys/fs/cgroup; cat {files}; head -n 1 memory/memory.oom_control"
    options = "--device-read-bps /dev/loop0:1m --device-write-iops /dev/loop0:100 --memory-swappiness 7"
    words = ("run", "--rm", *options.split(), "-m", "64m", "--oom-kill-disable", "box", "sh", "-c", script)
    assert box.ok(*words).splitlines() == ["7:0 1048576", "7:0 100", "7", "oom_kill_disable 1"]


def test_one_that_waits_for_memory_is_killed_like_any_other(box: Desk) -> None:
    """Its processes hang in the kernel until there is more: they still hear SIGKILL."""
    bomb = "a=xxxxxxxx; while :; do a=$a$a; done"
    box.ok("run", "-d", "--name", "bomb", "-m", "16m", "--oom-kill-disable", "box", "sh", "-c", bomb)
    control = Path("/sys/fs/cgroup/memory/pyrt", box.ok("ps", "-q", "--no-trunc").strip(), "memory.oom_control")
    eventually(lambda: "under_oom 1" in control.read_text())
    assert box.ok("run", "--rm", "box", "echo", "others") == "others\n"
    box.ok("stop", "-t", "0", "bomb")
    assert box.ok("inspect", "-f", "{{.State.ExitCode}} {{.State.OOMKilled}}", "bomb") == "137 false\n"


def test_a_rule_lets_in_devices_that_come_with_a_folder(box: Desk) -> None:
    """/dev/loop-control can't be read from, but whoever may not open it is told something else."""
    words = ("--userns", "host", "-v", "/dev:/host", "box", "head", "-c", "1", "/host/loop-control")
    assert b"Operation not permitted" in box.run("run", "--rm", *words).stderr
    assert b"Input/output error" in box.run("run", "--rm", "--device-cgroup-rule", "c 10:237 r", *words).stderr


def test_how_it_is_stopped(box: Desk) -> None:
    script = "trap 'exit 9' USR1; trap '' TERM; echo up; while :; do sleep 0.05; done"
    for options, code in ((["--stop-signal", "USR1"], 9), (["--stop-timeout", "0.2"], 137)):
        client = box.popen("run", "--name", "web", *options, "box", "sh", "-c", script, stdout=subprocess.PIPE)
        assert client.stdout
        assert client.stdout.readline() == b"up\n"
        box.ok("stop", "web", timeout=8)
        assert client.wait(20) == code
        client.stdout.close()
        box.ok("rm", "web")


def test_labels_files_and_ids(box: Desk) -> None:
    (box.folder / "labels").write_text("# a comment\nfrom=file\nboth=file\n")
    box.ok("run", "--label-file", "labels", "-l", "both=line", "--cidfile", "id", "--name", "first", "box", "true")
    assert box.ok("inspect", "-f", "{{json .Config.Labels}}", "first") == '{"from":"file","both":"line"}\n'
    identifier = (box.folder / "id").read_text()
    assert box.ok("inspect", "-f", "{{.Name}}", identifier[:6]) == "/first\n"
    assert box.run("rm", identifier[:6]).stdout.decode() == f"{identifier[:6]}\n"


def test_what_is_pulled_and_for_which_platform(box: Desk) -> None:
    for words, said in (
        (("--pull", "never", "nothing:1"), b"there is no image"),
        (("--pull", "never", "--platform", "linux/arm64", "box"), b"is for linux/amd64, not for linux/arm64"),
        (("--platform", "nonsense", "box"), b"nonsense"),
    ):
        done = box.run("run", "--rm", *words, "true")
        assert done.returncode == 125
        assert said in done.stderr
    assert box.run("run", "--rm", "--pull", "never", "--platform", "linux/amd64", "box", "true").returncode == 0


def test_options_of_exec(box: Desk) -> None:
    (box.folder / "vars").write_text("B=file\nC=file\n")
    with running(box, "-w", "/home", "-u", "1000:1000", "-e", "A=run"):
        script = "echo $(id -u):$(id -g) $PWD $A $B $C; awk '/^CapEff:/ {print $2}' /proc/self/status"
        assert box.ok("exec", "peer", "sh", "-c", script) == "1000:1000 /home run\n0000000000000000\n"
        options = "-u 0 -w /tmp -e A=exec --env-file vars -e C=line --privileged".split()
        assert box.ok("exec", *options, "peer", "sh", "-c", script) == "0:0 /tmp exec file line\n000001ffffffffff\n"
        assert box.ok("exec", "-i", "peer", "cat", input=b"in") == "in"
        with box.terminal("exec", "-it", "peer", "sh", rows=31, columns=99) as terminal:
            terminal.type("stty size\r")
            terminal.expect("31 99")
            terminal.type("exit 4\r")
            assert terminal.wait() == 4
        assert b"wants a terminal" in box.run("exec", "-it", "peer", "sh").stderr
