"""An image in which the places that every container has prepared for it are links, files and devices.

CVE-2026-41579, -47766: set-up follows them and writes on the host. CVE-2025-31133, -52565, -52881, 2019-16884,
2023-27561: what is hidden under a false /dev/null, or written to a false /proc, is not hidden and not written.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from pyrt.errors import PyrtError, StartFailed
from tests.security.attempting import outcome
from tests.security.making import Member, device, fifo, file, folder, link

if TYPE_CHECKING:
    from pathlib import Path

    from pyrt.engine.engine import Engine
    from pyrt.engine.results import Completed
    from pyrt.images.image import Image
    from tests.security.conftest import Canary, MakeImage

pytestmark = pytest.mark.root

FOLDERS = "/dev /dev/pts /dev/shm /dev/mqueue /proc /sys /sys/fs/cgroup /run".split()
FILES = "/etc/hosts /etc/resolv.conf /etc/hostname".split()
FORMS = ("absolute", "relative", "dangling", "looping", "through the container's /proc")
# What lies below /dev and /sys is ours whatever the image has there. Links in /etc are followed, inside; one that leads
# nowhere is covered.
KERNELS = {"/dev", "/proc", "/sys"}


def target_of(form: str, place: str, canary: Canary) -> str:
    onto = canary.folder if place in FOLDERS else canary.secret
    return {
        "absolute": str(onto),
        "relative": f"{'../' * 16}{str(onto)[1:]}",
        "dangling": "../run/nothing/here",
        "looping": place.rpartition("/")[2],
        "through the container's /proc": f"/proc/self/root{onto}",
    }[form]


SCRIPT = "echo begun; echo x > /run/written; echo x > /dev/shm/written; echo y >> /etc/hosts; cat /etc/hostname"


@pytest.mark.parametrize("place", [*FOLDERS, *FILES])
async def test_links_in_prepared_places(engine: Engine, make_image: MakeImage, canary: Canary, place: str) -> None:
    for form in FORMS:
        image = make_image(link(place[1:], target_of(form, place, canary)))
        came = [await outcome(attempt(engine, image, door)) for door in ("run", "exec")]
        for one in came:
            if isinstance(one, PyrtError):
                assert place in KERNELS, (form, one)
                assert f"{place}: " in one.message
            else:
                assert place not in KERNELS, form
                assert one.stdout == b"begun\nbox\n", (form, one)
        canary.check()


async def attempt(engine: Engine, image: Image, door: str) -> Completed:
    if door == "run":
        return await engine.run(image, ["sh", "-c", SCRIPT], hostname="box")
    async with engine.open_container(image, ["sleep", "1000"], hostname="box") as container:
        return await container.exec(["sh", "-c", SCRIPT])


async def test_links_to_where_they_usually_lead(engine: Engine, make_image: MakeImage) -> None:
    """Most images of a Debian with systemd have this one, and its target only while systemd runs."""
    image = make_image(link("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"))
    done = await engine.run(image, ["cat", "/etc/resolv.conf"], dns=("192.0.2.53",))
    assert done.stdout == b"nameserver 192.0.2.53\n"


# ---- a false /dev/null ------------------------------------------------------------------------------------------

NULLS: dict[str, Member] = {
    "link": link("dev/null", "/etc/passwd"),
    "link to procfs": link("dev/null", "/proc/sys/kernel/core_pattern"),
    "file": file("dev/null", b"not null"),
    "fifo": fifo("dev/null"),
    "other device": device("dev/null", 1, 1),
    "folder": folder("dev/null"),
}
# Those that this kernel has.
HIDDEN = [path for path in "/proc/kcore /proc/keys /proc/timer_list /proc/interrupts".split() if os.path.exists(path)]
LOOK = f"stat -c '%F %t:%T' /dev/null {' '.join(HIDDEN)}; cat {' '.join(HIDDEN)}; echo x > {HIDDEN[0]} && echo done"


@pytest.mark.parametrize("form", NULLS)
async def test_a_false_null_device_in_the_image(engine: Engine, make_image: MakeImage, form: str) -> None:
    await look(engine, make_image(NULLS[form]))


@pytest.mark.parametrize("form", ["link", "file", "fifo"])
async def test_a_false_null_device_in_a_folder_mounted_at_dev(
    engine: Engine, make_image: MakeImage, tmp_path: Path, form: str
) -> None:
    """Hidden under the host's own, or the start is refused; never under what is there."""
    make_false(tmp_path / "null", form)
    with pytest.raises(StartFailed) as refused:
        await engine.run(make_image(), ["true"], mounts=(f"{tmp_path}:/dev",))
    assert refused.value.step == "Mask"


def make_false(null: Path, form: str) -> None:
    if form == "link":
        null.symlink_to("/proc/sys/kernel/core_pattern")
    elif form == "file":
        null.write_text("not null")
    else:
        os.mkfifo(null)


async def look(engine: Engine, image: Image) -> None:
    async with engine.open_container(image, ["sleep", "1000"]) as container:
        done = await container.exec(["sh", "-c", LOOK])
        ran = await engine.run(image, ["sh", "-c", LOOK])
    for one in (done, ran):
        assert one.stdout.splitlines() == [b"character special file 1:3"] * (1 + len(HIDDEN)) + [b"done"], one


# ---- a false terminal -------------------------------------------------------------------------------------------

FALSE_PTS = {
    "nothing": "true",
    "a fifo": "mknod /dev/pts/ptmx p",
    "a file": "echo > /dev/pts/ptmx",
    "a link": "ln -s /dev/null /dev/pts/ptmx",
    "a folder": "mkdir /dev/pts/ptmx",
}


@pytest.mark.parametrize("form", FALSE_PTS)
async def test_a_false_multiplexer_when_a_terminal_is_wanted(engine: Engine, make_image: MakeImage, form: str) -> None:
    """CVE-2025-52565. A container that may mount puts something else over /dev/pts before an exec -t."""
    script = f"mount -t tmpfs none /dev/pts && {FALSE_PTS[form]} && echo ready && exec sleep 1000"
    async with engine.open_container(make_image(), ["sh", "-c", script], privileged=True) as container:
        assert await container.stdout.receive_some() == b"ready\n"
        with pytest.raises(StartFailed) as refused:
            await container.exec(["true"], tty=True)
        assert refused.value.step == "OpenTerminal"


async def test_a_terminal_lies_behind_a_link(engine: Engine, make_image: MakeImage) -> None:
    script = "mount -t tmpfs none /dev && ln -s /tmp /dev/pts && mknod /tmp/ptmx p && echo ready && exec sleep 1000"
    async with engine.open_container(make_image(), ["sh", "-c", script], privileged=True) as container:
        assert await container.stdout.receive_some() == b"ready\n"
        with pytest.raises(StartFailed) as refused:
            await container.exec(["true"], tty=True)
        assert refused.value.step == "OpenTerminal"


# ---- a false /proc ----------------------------------------------------------------------------------------------


async def test_kernel_parameters_are_written_to_the_kernel(engine: Engine, make_image: MakeImage) -> None:
    """CVE-2025-52881: an image brings files where parameters are, and links from them to others."""
    traps = (
        file("proc/sys/net/ipv4/ip_forward", b"7"),
        link("proc/sys/kernel", "/proc"),
        file("proc/self/attr/exec", b"nothing"),
    )
    image = make_image(*traps)
    wanted = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "12345"}
    done = await engine.run(image, ["cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/msgmax"], sysctls=wanted)
    assert done.stdout == b"1\n12345\n"


async def test_volumes_of_an_image_do_not_cover_what_is_the_kernels(engine: Engine, make_image: MakeImage) -> None:
    """CVE-2019-16884: a volume at /proc, which a read-only container would get as a tmpfs."""
    volumes: dict[str, Any] = {
        place: {} for place in ("/proc", "/proc/self", "/sys", "/sys/fs/cgroup", "/dev", "/dev/pts", "/data")
    }
    image = make_image(Volumes=volumes)
    script = "stat -f -c %T /proc /sys /dev /dev/pts; echo x > /data/x && cat /data/x; echo x > /dev/null && echo null"
    done = await engine.run(image, ["sh", "-c", script], read_only=True)
    assert done.stdout.split() == [b"proc", b"sysfs", b"tmpfs", b"devpts", b"x", b"null"], done
