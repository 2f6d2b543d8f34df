"""A plain user calls the command itself: containers in a user namespace, with no engine to make it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.runtime_command.command import Bundle, Runtime
from tests.runtime_command.plain import PlainUser
from tests.runtime_command.test_lifecycle import wait_for_death

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.leakcheck import Oracle

pytestmark = pytest.mark.root

UID = PlainUser.UID
OWN = [{"containerID": 0, "hostID": UID, "size": 1}]
MANY = [*OWN, {"containerID": 1, "hostID": 400000, "size": 65536}]


@pytest.fixture
def runtime(program: Path, plain_user: PlainUser, leakcheck: Oracle) -> Iterator[Runtime]:
    """The command, as that user calls it."""
    mine = shutil.copy2(program, plain_user.home / "pyrt-runtime")
    runtime = Runtime([*plain_user.words, str(mine)], plain_user.home / "oci", leakcheck)
    yield runtime
    for folder in runtime.root.glob("*"):
        runtime.ok("delete", "--force", folder.name)


@pytest.fixture
def bundle(plain_user: PlainUser, busybox_rootfs: Path, runtime: Runtime) -> Bundle:
    """What `spec --rootless` makes of a busybox of that user's."""
    rootfs = plain_user.home / "rootfs"
    shutil.copytree(busybox_rootfs, rootfs, symlinks=True)
    bundle = Bundle(plain_user.home / "bundle", rootfs)
    (bundle.path / "config.json").unlink()
    subprocess.run(["chown", "-R", f"{UID}:{UID}", str(plain_user.home)], check=True)
    runtime.ok("spec", "--rootless", "--bundle", bundle.path)
    bundle.read()
    bundle.config["root"]["path"] = str(rootfs)
    bundle.config["process"]["terminal"] = False
    return bundle


def test_what_spec_writes_runs(runtime: Runtime, bundle: Bundle, name: str) -> None:
    script = "cat /proc/self/uid_map /proc/self/gid_map; id -u; echo x > /dev/null; head -c 3 /dev/zero | wc -c"
    bundle.shell(f"{script}; cat /proc/self/setgroups; ls -d /sys/kernel; hostname")
    said = runtime.ok("run", "--bundle", bundle.path, name).split()
    assert said == ["0", str(UID), "1"] * 2 + ["0", "3", "deny", "/sys/kernel", "pyrt"]
    assert list(runtime.root.iterdir()) == []


def test_it_lives_as_a_container_of_root(runtime: Runtime, bundle: Bundle, name: str, plain_user: PlainUser) -> None:
    bundle.runs("/bin/sleep", "1000")
    runtime.ok("create", "--bundle", bundle.path, "--pid-file", plain_user.home / "pid", name)
    created = runtime.state(name)
    assert (created["status"], created["owner"]) == ("created", "plain")
    assert (plain_user.home / "pid").read_text() == str(created["pid"])
    # Nobody sees into what has the machine's memory still.
    assert "has to be started first" in runtime.fails("exec", name, "/bin/true")
    runtime.ok("start", name)
    assert runtime.ok("exec", name, "/bin/sh", "-c", "id -u; cat /proc/1/comm").split() == ["0", "sleep"]
    assert runtime.ok("exec", "--tty", name, "/bin/sh", "-c", "tty; ls -l $(tty)").split()[0] == "/dev/pts/0"
    assert "plain" in runtime.ok("list")
    runtime.ok("kill", name, "KILL")
    wait_for_death(created["pid"])
    assert runtime.state(name)["status"] == "stopped"
    runtime.ok("delete", name)
    assert list(runtime.root.iterdir()) == []


def test_more_ids_are_those_that_the_user_was_given(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """newuidmap(1), newgidmap(1): with them processes have other users, and groups."""
    bundle.config["linux"] |= {"uidMappings": MANY, "gidMappings": MANY}
    bundle.config["process"]["user"] = {"uid": 33, "gid": 34, "additionalGids": [7]}
    bundle.runs("/bin/sleep", "1000")
    runtime.ok("run", "--detach", "--bundle", bundle.path, name)
    pid = runtime.state(name)["pid"]
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    assert [line.split() for line in status if line.startswith(("Uid", "Gid", "Groups"))] == [
        ["Uid:", *["400032"] * 4],
        ["Gid:", *["400033"] * 4],
        ["Groups:", "400006"],
    ]
    assert runtime.ok("exec", "--user", "0:0", name, "/bin/id", "-G") == "0 7\n"
    runtime.ok("delete", "--force", name)
    wait_for_death(pid)


def test_ids_that_the_user_was_not_given_are_refused(runtime: Runtime, bundle: Bundle, name: str) -> None:
    foreign = [*OWN, {"containerID": 1, "hostID": 500000, "size": 10}]
    for users, groups, field in ((foreign, OWN, "linux.uidMappings: "), (OWN, foreign, "linux.gidMappings: ")):
        bundle.config["linux"] |= {"uidMappings": users, "gidMappings": groups}
        bundle.write()
        line = runtime.fails("run", "--bundle", bundle.path, name)
        assert line.startswith(field), line
        assert "not allowed" in line
    assert not runtime.root.exists()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("linux.namespaces", [{"type": "mount"}], "linux.namespaces: a plain user has no rights without"),
        (
            "linux.namespaces",
            [{"type": "user"}],
            "linux.namespaces: a user namespace has no rights in the host's mount",
        ),
        ("linux.uidMappings", [], "linux.uidMappings: missing"),
        (
            "linux.uidMappings",
            [{"containerID": 1, "hostID": UID, "size": 1}],
            "linux.uidMappings: the container's root",
        ),
        ("process.user.uid", 1, "process.user.uid: 1 is not mapped"),
        ("process.user.additionalGids", [1], "process.user.additionalGids[0]: 1 is not mapped"),
        ("process.user.additionalGids", [0], "process.user.additionalGids: in this user namespace nobody may"),
        ("linux.resources", {"pids": {"limit": 5}}, "linux.cgroupsPath: "),
    ],
)
def test_what_a_plain_user_can_not_have_is_named(
    runtime: Runtime, bundle: Bundle, name: str, field: str, value: object, said: str
) -> None:
    bundle.set(field, value)
    line = runtime.fails("run", "--bundle", bundle.path, name)
    assert line.startswith(said), line
    assert not runtime.root.exists() or list(runtime.root.iterdir()) == []


def test_what_takes_a_namespace_says_so(runtime: Runtime, bundle: Bundle, name: str) -> None:
    sysfs = {"destination": "/sys", "type": "sysfs", "source": "sysfs"}
    mounts = bundle.config["mounts"]
    bundle.set("mounts", [sysfs if mount["destination"] == "/sys" else mount for mount in mounts])
    line = runtime.fails("run", "--bundle", bundle.path, name)
    assert line.startswith("making sysfs for /sys (source=sysfs): operation not permitted")
    assert "/sys with a new network namespace" in line
    bundle.config["linux"]["namespaces"].append({"type": "network"})
    bundle.runs("/bin/ls", "/sys/class/net")
    assert runtime.ok("run", "--bundle", bundle.path, name) == "lo\n"


def test_a_container_that_sees_the_command_does_not_see_into_it(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """CVE-2016-9962: both are root in the same user namespace, and the command has the user's files before it."""
    linux = bundle.config["linux"]
    linux["namespaces"] = [namespace for namespace in linux["namespaces"] if namespace["type"] != "pid"]
    bundle.config["mounts"][0] |= {"type": "none", "source": "/proc", "options": ["rbind"]}
    everything = ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_SYS_ADMIN"]
    bundle.config["process"]["capabilities"] = dict.fromkeys(
        ("bounding", "effective", "permitted", "inheritable"), everything
    )
    script = "cat /proc/$PPID/comm; ls /proc/$PPID/root/ /proc/$PPID/cwd/; cat /proc/$PPID/environ /proc/$PPID/maps"
    bundle.shell(f"{script}; true")
    assert runtime.ok("run", "--bundle", bundle.path, name) == "memfd:pyrt-runt\n"


def test_a_score_can_be_raised(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.config["process"]["oomScoreAdj"] = 500
    bundle.runs("/bin/cat", "/proc/self/oom_score_adj")
    answer = runtime.call("run", "--bundle", bundle.path, name)
    assert (answer.code, answer.output, answer.error) == (0, "500\n", "")


def test_a_user_namespace_that_is_joined(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """One of the user's own, by the file of a process in it."""
    bundle.runs("/bin/sleep", "1000")
    runtime.ok("run", "--detach", "--bundle", bundle.path, name)
    pid = runtime.state(name)["pid"]
    other = f"{name}-2"
    bundle.config["linux"] |= {"uidMappings": [], "gidMappings": []}
    for namespace in bundle.config["linux"]["namespaces"]:
        if namespace["type"] == "user":
            namespace["path"] = f"/proc/{pid}/ns/user"
    bundle.runs("/bin/readlink", "/proc/self/ns/user")
    assert runtime.ok("run", "--bundle", bundle.path, other).strip() == os.readlink(f"/proc/{pid}/ns/user")
    runtime.ok("delete", "--force", name)
    wait_for_death(pid)
