"""What a container sees as its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from pyrt.errors import UsageError
from pyrt.runtime.options import make_options
from pyrt.runtime.spec import upper_kind
from tests.runtime.making import HOST, Config, Image, make

HOST_IMAGE = Image(id="host", layers=("/",))


def test_every_container_has_these_mounts() -> None:
    made = make()
    kinds = {place: mount["type"] for place, mount in made.mounts.items()}
    assert kinds == {
        "/proc": "proc",
        "/dev": "tmpfs",
        "/dev/pts": "devpts",
        "/sys": "sysfs",
        "/sys/fs/cgroup": "cgroup",
        "/dev/mqueue": "mqueue",
        "/dev/shm": "tmpfs",
    }
    for mount in made.mounts.values():
        assert {"nosuid", "noexec"} <= set(mount["options"]), mount
    for place in ("/sys", "/sys/fs/cgroup"):
        assert "ro" in made.mounts[place]["options"]
    assert "size=67108864" in made.mounts["/dev/shm"]["options"]
    assert "size=1048576" in make(shm_size="1m").mounts["/dev/shm"]["options"]


def test_binds_and_tmpfs() -> None:
    made = make(mounts=["/a:/b/c:ro,rslave", "/x:/b:bind"], tmpfs=["/tmp:size=1m,exec"])
    assert made.mounts["/b/c"] == {
        "destination": "/b/c",
        "type": "bind",
        "source": "/a",
        "options": ["rbind", "ro", "rslave"],
    }
    assert made.mounts["/b"]["options"] == ["bind"]
    assert made.mounts["/tmp"]["options"] == ["noexec", "nosuid", "nodev", "size=1048576", "exec"]
    # Outer places come before what lies in them, whatever the order in which they were asked for.
    assert list(made.mounts)[-3:] == ["/b", "/b/c", "/tmp"]


def test_what_is_asked_for_takes_the_place_of_what_is_usual() -> None:
    made = make(tmpfs=["/dev/shm:size=2m"], mounts=["/x:/etc/hosts"])
    assert [mount["destination"] for mount in made.spec["mounts"]].count("/dev/shm") == 1
    assert "size=2097152" in made.mounts["/dev/shm"]["options"]
    assert [file["path"] for file in made.start["rootfs"]["files"]] == ["/etc/hostname", "/etc/resolv.conf"]
    whole = make(mounts=["/dev:/dev"])
    assert {place for place in whole.mounts if place.startswith("/dev")} == {"/dev"}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"mounts": ["/a:/b", "/c:/b/"]}, "two mounts at /b"),
        ({"mounts": ["/a:/b"], "tmpfs": ["/b"]}, "two mounts at /b"),
        ({"mounts": ["/a:/proc"]}, "at /proc"),
        ({"mounts": ["/a:/proc/self"]}, "at /proc/self"),
        ({"tmpfs": ["/sys/fs"]}, "at /sys/fs"),
        ({"tmpfs": ["/proc"]}, "at /proc"),
        ({"shm_size": "lots"}, "size of /dev/shm"),
        ({"unmask": ["here"]}, "absolute path"),
    ],
)
def test_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make(**fields)


def test_a_source_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(UsageError, match=r"there is no .*missing on this machine.*Docker would make"):
        make(mounts=[f"{missing}:/b"], exists=lambda path: Path(path).exists())
    assert not missing.exists()
    make(mounts=[f"{tmp_path}:/b"], exists=lambda path: Path(path).exists())


def test_masks() -> None:
    made = make(host=msgspec.structs.replace(HOST, masked=("/sys/devices/system/cpu/cpu0/thermal_throttle",)))
    masked = made.linux["maskedPaths"]
    for path in ("/proc/kcore", "/proc/keys", "/proc/interrupts", "/sys/firmware", "/sys/devices/virtual/powercap"):
        assert path in masked
    assert "/sys/devices/system/cpu/cpu0/thermal_throttle" in masked
    assert made.linux["readonlyPaths"] == ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
    some = make(unmask=["/proc/kcore", "/proc/sys/"])
    assert "/proc/kcore" not in some.linux["maskedPaths"]
    assert "/proc/keys" in some.linux["maskedPaths"]
    assert "/proc/sys" not in some.linux["readonlyPaths"]
    for fields in ({"unmask": ["all"]}, {"privileged": True}):
        shown = make(**fields)
        assert shown.linux["maskedPaths"] == shown.linux["readonlyPaths"] == []


def test_secrets_of_the_host_stay_hidden_whatever_is_unmasked() -> None:
    hidden = ("/root/.ssh", "/run")
    for fields in ({}, {"privileged": True}, {"unmask": ["all", "/run"]}):
        assert set(make(HOST_IMAGE, hidden=hidden, **fields).linux["maskedPaths"]) >= set(hidden)


def test_a_mount_at_or_below_a_hidden_place_is_seen_and_nothing_else_there() -> None:
    made = make(HOST_IMAGE, hidden=("/root/.ssh", "/run"), mounts=["/keys:/root/.ssh", "/data:/run/app/data"])
    assert not {"/root/.ssh", "/run"} & set(made.linux["maskedPaths"])
    order = list(made.mounts)
    assert made.mounts["/run"]["type"] == "tmpfs"
    assert order.index("/run") < order.index("/run/app/data")


def test_files_of_this_container() -> None:
    made = make(hostname="box", extra_hosts={"friend": "10.1.2.3"})
    files = {file["path"]: file for file in made.start["rootfs"]["files"]}
    assert files["/etc/hostname"]["content"] == "box\n"
    assert "127.0.0.1\tbox\n" in files["/etc/hosts"]["content"]
    assert files["/etc/hosts"]["content"].endswith("10.1.2.3\tfriend\n")
    assert "nameserver" not in files["/etc/resolv.conf"]["content"]
    assert {file["mode"] for file in files.values()} == {0o644}
    assert make(HOST_IMAGE).start["rootfs"]["files"] == []


def test_with_the_hosts_network_come_its_names() -> None:
    made = make(network="host", extra_hosts={"x": "::1"})
    files = {file["path"]: file["content"] for file in made.start["rootfs"]["files"]}
    assert files["/etc/hosts"] == f"{HOST.hosts}\n::1\tx\n"
    assert files["/etc/resolv.conf"] == HOST.resolv_conf
    assert files["/etc/hostname"] == "machine\n"


def test_resolvers_of_the_callers_choice() -> None:
    made = make(dns=["1.1.1.1", "::1"], dns_search=["a.example"], dns_options=["ndots:2"])
    text = made.start["rootfs"]["files"][2]["content"]
    assert text == "nameserver 1.1.1.1\nnameserver ::1\nsearch a.example\noptions ndots:2\n"
    for fields in (
        {"dns": ["one"]},
        {"dns_search": ["a b"]},
        {"dns_options": ["x\ny"]},
        {"extra_hosts": {"a": "b"}},
        {"extra_hosts": {"a\nb": "1.1.1.1"}},
    ):
        with pytest.raises(UsageError):
            make(**fields)


@pytest.mark.parametrize(
    ("config", "fields", "kind"),
    [
        (Config(), {}, "directory"),
        (Config(), {"upper": "tmpfs"}, "tmpfs"),
        (Config(), {"read_only": True}, "none"),
        (Config(), {"read_only": True, "tmpfs": ["/dev/shm"]}, "none"),
        (Config(), {"read_only": True, "tmpfs": ["/tmp"]}, "tmpfs"),
        (Config(), {"read_only": True, "mounts": ["/a:/device"]}, "tmpfs"),
        (Config(), {"read_only": True, "workdir": "/srv"}, "tmpfs"),
        (Config(working_dir="/srv"), {"read_only": True}, "tmpfs"),
        (Config(working_dir="/srv"), {"read_only": True, "workdir": "/"}, "none"),
        (Config(volumes=("/data",)), {"read_only": True}, "tmpfs"),
    ],
)
def test_what_takes_the_changes(config: Config, fields: dict[str, Any], kind: str) -> None:
    image = Image(config=config)
    assert upper_kind(image, make_options(**fields)) == kind
    made = make(image, **fields)
    upper = {"none": None, "tmpfs": {"tmpfs": {"size": None}}, "directory": {"directory": "/state/containers/x"}}
    assert made.start["rootfs"]["upper"] == upper[kind]
    assert made.built.upper == kind
    assert made.spec["root"]["readonly"] == bool(fields.get("read_only"))


def test_volumes_of_a_read_only_image_can_be_written() -> None:
    image = Image(config=Config(volumes=("/data", "/tmp")))
    made = make(image, read_only=True, tmpfs=["/tmp"])
    assert "tmpcopyup" in made.mounts["/data"]["options"]
    assert "tmpcopyup" not in made.mounts["/tmp"]["options"]
    assert "/data" not in make(image).mounts


def test_volumes_of_an_image_at_the_places_that_are_ours_mean_nothing() -> None:
    """CVE-2019-16884: a tmpfs at /proc would be taken for procfs by whatever writes there."""
    places = ("/proc", "proc/self", "/sys", "/sys/fs/cgroup", "/dev", "/dev/./shm", "/", "/a/../proc")
    asked = make(Image(config=Config(volumes=places)), read_only=True).spec["mounts"]
    assert asked == make(read_only=True).spec["mounts"]
