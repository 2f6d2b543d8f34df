"""The whole of a specification: who shares what with the host, and that it is quick to make."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from pyrt.engine.recipe import OF_A_COMMAND
from pyrt.errors import UsageError
from pyrt.runtime.capabilities import ALL
from pyrt.runtime.options import Limits, make_options
from pyrt.runtime.seccomp import default_profile
from pyrt.runtime.spec import build
from tests.runtime.making import BASE, HOST, ID, Config, Image, make, no_file

EVERY = {"mount", "user", "network", "pid", "ipc", "uts", "cgroup"}


def test_the_defaults() -> None:
    made = make()
    assert made.spec["ociVersion"] == "1.2.0"
    assert made.namespaces == EVERY
    mapping = [{"containerID": 0, "hostID": BASE, "size": 65_536}]
    assert made.linux["uidMappings"] == made.linux["gidMappings"] == mapping
    assert made.linux["cgroupsPath"] == f"/pyrt/{ID}"
    assert made.linux["resources"] == {"pids": {"limit": 1024}}
    assert made.spec["hostname"] == "0123456789ab"
    assert made.start["id"] == ID
    assert made.start["init"] is False
    assert made.start["rootfs"]["lowers"] == ["/layers/top", "/layers/base"]
    assert made.start["rootfs"]["volatile"] is True
    assert made.built.stop_signal == 15


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({"network": "host"}, "network"),
        ({"pid": "host"}, "pid"),
        ({"ipc": "host"}, "ipc"),
        ({"uts": "host"}, "uts"),
        ({"cgroupns": "host"}, "cgroup"),
        ({"userns": "host"}, "user"),
    ],
)
def test_what_is_shared_with_the_host(fields: dict[str, Any], missing: str) -> None:
    assert make(**fields).namespaces == EVERY - {missing}


def test_the_hosts_user_namespace_has_no_maps() -> None:
    made = make(userns="host")
    assert "uidMappings" not in made.linux
    assert "gidMappings" not in made.linux


def test_the_hosts_ipc_shows_its_queues_and_memory() -> None:
    made = make(ipc="host")
    assert [made.mounts[place]["type"] for place in ("/dev/shm", "/dev/mqueue")] == ["bind", "mqueue"]


def test_host_names() -> None:
    assert make(hostname="box.example", domainname="example").spec["domainname"] == "example"
    assert make(network="host").spec["hostname"] == "machine"
    shared = make(uts="host")
    assert "hostname" not in shared.spec
    assert shared.env["HOSTNAME"] == "machine"
    wrong: tuple[dict[str, Any], ...] = (
        {"hostname": "-x"},
        {"hostname": "a b"},
        {"hostname": "a" * 65},
        {"hostname": "x\n"},
        {"domainname": "x/y"},
        {"hostname": "x", "uts": "host"},
    )
    for fields in wrong:
        with pytest.raises(UsageError, match=r"host name|domain name"):
            make(**fields)


def test_seccomp(tmp_path: Any) -> None:
    default = make().linux["seccomp"]
    assert default == json.loads(default_profile(frozenset(make().process["capabilities"]["bounding"])))
    names = [name for rule in make(cap_add=["SYS_ADMIN"]).linux["seccomp"]["syscalls"] for name in rule["names"]]
    assert "mount" in names
    assert "seccomp" not in make(seccomp="unconfined").linux
    profile = tmp_path / "profile.json"
    profile.write_text('{"defaultAction": "SCMP_ACT_LOG"}')
    assert make(seccomp=str(profile)).linux["seccomp"] == {"defaultAction": "SCMP_ACT_LOG", "syscalls": []}
    with pytest.raises(UsageError, match="no seccomp profile"):
        make(seccomp="strict")


def test_privileged_is_within_its_own_user_namespace() -> None:
    made = make(privileged=True)
    assert made.process["capabilities"]["effective"] == sorted(ALL)
    assert "seccomp" not in made.linux
    assert "ro" not in made.mounts["/sys/fs/cgroup"]["options"]
    assert "user" in made.namespaces
    assert "devices" not in made.linux
    assert "devices" not in made.linux["resources"]


def test_privileged_on_the_host_has_its_devices() -> None:
    made = make(privileged=True, userns="host")
    assert "/dev/null" in {node["path"] for node in made.linux["devices"]}
    assert made.linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]


def test_labels_and_signals_are_the_images_with_the_callers_over_them() -> None:
    image = Image(config=Config(labels={"a": "1", "b": "2"}, stop_signal="SIGQUIT"))
    made = make(image, labels={"b": "3"})
    assert made.built.labels == {"a": "1", "b": "3"}
    assert made.built.stop_signal == 3
    assert make(image, stop_signal="SIGRTMIN+3").built.stop_signal == 37
    with pytest.raises(UsageError, match="no signal"):
        make(Image(config=Config(stop_signal="SIGNONE")))


def test_labels_of_an_image_steer_nothing() -> None:
    hostile = {"io.pyrt.privileged": "true", "run.oci.keep_original_groups": "1", "cap_add": "ALL"}
    plain, labelled = make(), make(Image(config=Config(labels=hostile)))
    assert plain.built.spec == labelled.built.spec
    assert plain.built.start == labelled.built.start


def test_what_is_not_built_yet_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"ports can't be published yet: 80:80.*--network host"):
        make(publish=["80:80"])


def test_a_range_of_ids_goes_with_the_user_namespace() -> None:
    for userns, id_base in (("auto", None), ("host", 5)):
        with pytest.raises(UsageError, match="range of ids"):
            build(Image(), make_options(userns=userns), id=ID, id_base=id_base, host=HOST, lookup=no_file, folder="/x")


def test_it_is_quick() -> None:
    options = make_options(["python3", "-c", "1"], Limits(memory="64m", cpus=0.5), env={"A": "1"})

    def once(_: int) -> float:
        before = time.perf_counter()
        build(Image(), options, id=ID, id_base=BASE, host=HOST, lookup=no_file, folder="/x")
        return time.perf_counter() - before

    # The goal is 150 us; the bound leaves room for a machine under load, and none for a file that is opened.
    assert min(map(once, range(200))) < 0.001


def test_it_drags_nothing_along() -> None:
    code = (
        "import sys, pyrt.runtime.spec, pyrt.runtime.host; "
        "unwanted = ('trio', 'csv', 'difflib', 'subprocess', 'httpx2', 'pyrt.images', 'pyrt.engine'); "
        "print([name for name in sys.modules if name.startswith(unwanted)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_comes_with_a_command_changes_nothing_else() -> None:
    """What is made beforehand for one command serves another."""
    fields: dict[str, Any] = {
        "command": ["other", "words"],
        "entrypoint": ["/entry"],
        "env": {"PATH": "/elsewhere", "HOME": "/x", "HOSTNAME": "y", "TERM": "dumb"},
        "labels": {"a": "b"},
        "name": "box",
        "stop_signal": "SIGQUIT",
        "stop_timeout": 1.5,
    }
    assert set(fields) == set(OF_A_COMMAND)
    plain, other = make(), make(**fields)
    assert other.process.pop("args") == ["/entry", "other", "words"]
    assert "PATH=/elsewhere" in other.process.pop("env")
    del plain.process["args"], plain.process["env"]
    assert (other.spec, other.start) == (plain.spec, plain.start)
    assert json.loads(other.built.process)["args"] == ["/entry", "other", "words"]
