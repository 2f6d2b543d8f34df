"""The defaults in force, as a program inside finds them: one golden file a profile, the same for run and exec.

``PYRT_BLESS=1 make test-python PYTEST_ARGS=tests/security/test_defaults.py`` writes the files anew: read the difference
before it is committed, for each line of it is something that a container may do or may not.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.security.probing import judged, mounts_of, status

if TYPE_CHECKING:
    from pyrt.engine.engine import Engine
    from tests.security.conftest import MakeImage

pytestmark = pytest.mark.root

GOLDEN = Path(__file__).parent / "golden"
PROFILES: dict[str, dict[str, Any]] = {
    "default": {},
    "user": {"user": "1000:1000"},
    "read-only": {"read_only": True},
    "host-network": {"network": "host"},
    "host-user-namespace": {"userns": "host"},
    "may-gain-privileges": {"user": "1000:1000", "no_new_privileges": False},
}


async def reports(engine: Engine, make_image: MakeImage, options: dict[str, Any]) -> list[dict[str, Any]]:
    """What the probe says after run and after exec."""
    image = make_image()
    done = await engine.run(image, ["probe"], **options)
    async with engine.open_container(image, ["sleep", "1000"], **options) as container:
        joined = await container.exec(["probe"])
    assert (done.exit_code, joined.exit_code) == (0, 0), (done.stderr, joined.stderr)
    return [json.loads(done.stdout), json.loads(joined.stdout)]


@pytest.mark.parametrize("profile", PROFILES)
async def test_golden(engine: Engine, make_image: MakeImage, profile: str) -> None:
    run, joined = map(judged, await reports(engine, make_image, PROFILES[profile]))
    golden = GOLDEN / f"{profile}.json"
    if "PYRT_BLESS" in os.environ:
        golden.write_text(json.dumps(run, indent=1) + "\n")
    assert run == json.loads(golden.read_text())
    assert joined == run


@pytest.mark.parametrize("options", [{"init": True}, {"pid": "host"}, {"uts": "host"}, {"cgroupns": "host"}], ids=str)
async def test_what_changes_nothing_else(engine: Engine, make_image: MakeImage, options: dict[str, Any]) -> None:
    """A namespace that is the host's, or a first process of ours, gives no other right."""
    golden = json.loads((GOLDEN / "default.json").read_text())
    for report in await reports(engine, make_image, options):
        assert judged(report) == golden


DEFAULT_CAPABILITIES = 0b0000_0100_1111_1011  # CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID NET_BIND_SERVICE


async def test_what_must_hold_whatever_the_golden_files_say(engine: Engine, make_image: MakeImage) -> None:
    for report in await reports(engine, make_image, {}):
        found = status(report)
        sets = {name: int(found[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")}
        assert sets["CapPrm"] == sets["CapEff"] == sets["CapBnd"] == DEFAULT_CAPABILITIES
        assert sets["CapInh"] == sets["CapAmb"] == 0
        assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
        assert report["uid_map"].split()[1] != "0"
        made = {
            answer for node, answers in report["mknod"].items() if node != "whiteout" for answer in answers.values()
        }
        assert "ok" not in made
        assert set(report["descriptors"]) == {"0", "1", "2"}


@pytest.mark.parametrize("options", [{"cap_add": ("ALL",)}, {"privileged": True}], ids=str)
async def test_with_every_right_it_is_still_in_its_own_namespaces(
    engine: Engine, make_image: MakeImage, options: dict[str, Any]
) -> None:
    """What the kernel asks the host's user namespace for stays refused, filter or none."""
    for report in await reports(engine, make_image, options):
        assert int(status(report)["CapEff"], 16).bit_count() >= 40
        assert status(report)["CapInh"] == status(report)["CapAmb"] == "0" * 16
        assert report["uid_map"].split()[1] != "0"
        refuse_nodes(report)
        for path in ("core_pattern", "modprobe", "poweroff_cmd", "hotplug"):
            assert report["paths"][f"/proc/sys/kernel/{path}"]["write"] != "ok"
        assert report["paths"]["/proc/sysrq-trigger"]["write"] != "ok"
        assert report["paths"]["/sys"]["write"] in {"EROFS", "EACCES"}
        assert report["paths"]["/proc/kcore"]["read"] != "readable"
        assert report["calls"]["swapon"] == "EPERM"
        assert report["calls"]["settimeofday"] in {"EPERM", "ok"}  # It was given no time to set.


def refuse_nodes(report: dict[str, Any]) -> None:
    """No device of the host was made and opened; a whiteout is none."""
    for node, answers in report["mknod"].items():
        if node not in {"whiteout", "null"}:
            assert "ok" not in {answer for place, answer in answers.items() if place.startswith("opened")}, node


async def test_the_right_to_make_devices_opens_none(engine: Engine, make_image: MakeImage) -> None:
    """Without a user namespace the cgroup's rules are what is left. /tmp and /dev/shm have no devices at all."""
    for report in await reports(engine, make_image, {"userns": "host", "cap_add": ("MKNOD",)}):
        assert report["mknod"]["mem"]["/dev"] == report["mknod"]["null"]["opened in /dev"] == "ok"
        refuse_nodes(report)


async def test_cgroups_and_sensors_can_only_be_read_if_at_all(engine: Engine, make_image: MakeImage) -> None:
    for report in await reports(engine, make_image, {}):
        for mount in mounts_of(report):
            if mount["place"].startswith("/sys/"):
                assert mount["words"] == ["nodev", "noexec", "nosuid", "ro"] or "/dev/null" in mount["root"], mount
        # The names of the groups above ours are nobody's business.
        assert all(line.rpartition(":")[2].count("/") == 1 for line in report["cgroup"].splitlines())


async def test_no_abstract_socket_is_ours(engine: Engine, make_image: MakeImage) -> None:
    """CVE-2020-15257: with the host's network, abstract sockets of the host's programs can be connected to."""
    for report in await reports(engine, make_image, {"network": "host"}):
        abstract = [line.split()[-1] for line in report["unix"].splitlines()[1:] if "@" in line.split()[-1]]
        assert not [name for name in abstract if "pyrt" in name.lower()]


async def test_a_session_of_its_own(engine: Engine, make_image: MakeImage) -> None:
    run, joined = await reports(engine, make_image, {})
    assert (run["pid"], run["session"]) == (1, 1)
    assert joined["session"] == joined["pid"] > 1
