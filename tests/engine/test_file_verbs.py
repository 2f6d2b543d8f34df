"""diff, copies, export and commit, on containers that run and on such as have ended."""

from __future__ import annotations

import ctypes
import io
import os
import tarfile
import tempfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from pyrt.engine.carrier import Pack, Unpack, do
from pyrt.engine.rootfs import Rootfs, open_rootfs
from pyrt.engine.unpacking import Ownership
from pyrt.errors import ContainerError, PyrtError
from pyrt.runtime.options import make_options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from pyrt.engine.container import Container
    from pyrt.engine.engine import Engine
    from tests.foreign import Layout

pytestmark = pytest.mark.root

CHANGE = "echo new >/etc/new; rm /etc/group; mkdir -p /srv/a; echo x >>/etc/passwd; rm -r /home; mkdir /home; echo up"


@pytest.fixture
async def box(engine: Engine, busybox: Layout) -> Engine:
    """An engine with an image called box."""
    await engine.load(busybox.path, name="box")
    return engine


async def ended(engine: Engine, script: str, **options: Any) -> Container:
    """A container that has run a script, and is kept."""
    made = make_options(["sh", "-c", script], name="box", **options)
    container = await engine.start("box", made, keep=True, wants_stdin=False)
    await container.wait()
    await container.left.wait()
    container.close_streams()
    return container


async def tar_of(write: Callable[[int], Awaitable[None]]) -> tarfile.TarFile:
    """What is written to a pipe, as a tar."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as source:
        async with trio.open_nursery() as nursery:
            found: list[bytes] = []

            async def read() -> None:
                found.append(await trio.to_thread.run_sync(source.read))

            nursery.start_soon(read)
            try:
                await write(writer)
            finally:
                os.close(writer)
    return tarfile.open(fileobj=io.BytesIO(found[0]))


def content(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file
    return file.read()


# ---- diff ----


async def test_diff_tells_added_changed_and_deleted(box: Engine) -> None:
    await ended(box, CHANGE)
    told = [(each.kind, each.path) for each in await box.diff("box")]
    assert told == [
        ("C", "/etc"),
        ("D", "/etc/group"),
        ("A", "/etc/new"),
        ("C", "/etc/passwd"),
        ("C", "/home"),
        ("D", "/home/alice"),
        ("A", "/srv"),
        ("A", "/srv/a"),
    ]
    await box.remove("box")


async def test_diff_of_one_that_changes_nothing(box: Engine) -> None:
    await ended(box, "true")
    assert await box.diff("box") == []
    await box.remove("box")
    async with box.open_container("box", ["sleep", "1000"], read_only=True) as container:
        assert await box.diff(container.id) == []
    async with box.open_container("box", ["sleep", "1000"], upper="tmpfs") as container:
        with pytest.raises(ContainerError, match="in memory"):
            await box.diff(container.id)


# ---- copies ----


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with a bit of everything."""
    folder = tmp_path / "tree"
    (folder / "sub").mkdir(parents=True)
    (folder / "file").write_text("here\n")
    (folder / "file").chmod(0o4750)
    (folder / "link").symlink_to("file")
    os.link(folder / "file", folder / "sub" / "same")
    os.mkfifo(folder / "pipe", 0o640)
    os.utime(folder / "file", ns=(1, 1_234_567_890_123_456_789))
    os.chown(folder / "sub", 1000, 1000)
    return folder


def picture(folder: Path) -> dict[str, tuple[int, int, int, int]]:
    """Kind and mode, owner, and time of what is in a folder."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        times = 0 if path.is_symlink() else status.st_mtime_ns
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_uid, status.st_gid, times)
    return found


@pytest.mark.parametrize("runs", [True, False])
async def test_there_and_back_nothing_is_lost(box: Engine, tree: Path, tmp_path: Path, runs: bool) -> None:
    async def there_and_back() -> None:
        await box.copy_in("box", tree, "/srv", archive=True)
        await box.copy_out("box", "/srv", tmp_path / "back", archive=True)
        await box.copy_in("box", tree, "/plain")

    if runs:
        async with box.open_container("box", ["sleep", "1000"], name="box") as container:
            await there_and_back()
            seen = await container.exec(["stat", "-c", "%n %u %g %a", "/srv/sub", "/srv/file", "/plain/sub"])
            assert seen.stdout == b"/srv/sub 1000 1000 755\n/srv/file 0 0 4750\n/plain/sub 0 0 755\n"
    else:
        await ended(box, "true")
        await there_and_back()
        await box.remove("box")
    assert picture(tmp_path / "back") == picture(tree)
    assert (tmp_path / "back" / "file").samefile(tmp_path / "back" / "sub" / "same")
    assert (tmp_path / "back" / "file").read_text() == "here\n"


async def test_where_a_copy_goes_is_as_docker_has_it(box: Engine, tree: Path, tmp_path: Path) -> None:
    """The table of docker-cp(1)."""
    out = tmp_path / "out"
    (out / "dir").mkdir(parents=True)
    (out / "old").write_text("longer than what comes")
    async with box.open_container("box", ["sleep", "1000"], name="box") as container:
        await box.copy_in("box", tree, "/srv")

        async def fails(source: str, target: str, words: str) -> None:
            with pytest.raises(ContainerError, match=words):
                await box.copy_out("box", source, f"{out}/{target}")

        await box.copy_out("box", "/srv/file", f"{out}/name")
        await box.copy_out("box", "/srv/file", f"{out}/dir")
        await box.copy_out("box", "/srv/file", f"{out}/old")
        assert [(out / name).read_text() for name in ("name", "dir/file", "old")] == ["here\n"] * 3
        await box.copy_out("box", "/srv/sub", f"{out}/dir")
        await box.copy_out("box", "/srv/sub", f"{out}/new")
        await box.copy_out("box", "/srv/sub/.", f"{out}/dir")
        assert [(out / name / "same").read_text() for name in ("dir/sub", "new", "dir")] == ["here\n"] * 3
        await box.copy_out("box", "/srv/link", f"{out}/link")
        await box.copy_out("box", "/srv/link", f"{out}/followed", follow_link=True)
        assert os.readlink(out / "link") == "file"
        assert (out / "followed").read_text() == "here\n"
        await fails("/srv/file", "nothing/", "no folder")
        await fails("/srv/file", "no/such/place", "no folder")
        await fails("/srv/sub", "old", "over a file")
        await fails("/srv/nothing", "x", "no such file")
        # Without `archive`, a container can't leave a program on the host that makes root of whoever runs it.
        assert (out / "name").stat().st_mode & 0o7777 == 0o750
        seen = await container.exec(["stat", "-c", "%u %a", "/srv/file"])
        assert seen.stdout == b"0 4750\n"


async def test_a_folder_behind_a_link_within_the_container(box: Engine, tree: Path) -> None:
    """/var/run is a link to /run in every distribution: what follows no link at all breaks that."""
    script = "rm -r /var/run; mkdir /run; ln -s /run /var/run; echo up; sleep 1000"
    async with box.open_container("box", ["sh", "-c", script], name="box") as container:
        await container.stdout.receive_some()
        await box.copy_in("box", tree / "file", "/var/run/")
        assert (await container.exec(["cat", "/run/file"])).stdout == b"here\n"
        with tarfile.open(fileobj=(archive := io.BytesIO()), mode="w") as tar:
            member = tarfile.TarInfo("var/run/deep")
            member.uid = 5
            tar.addfile(member)
        reader, writer = os.pipe()
        os.write(writer, archive.getvalue())
        os.close(writer)
        await box.copy_in("box", reader, "/")
        os.close(reader)
        assert (await container.exec(["stat", "-c", "%u", "/run/deep"])).stdout == b"5\n"
        assert (await container.exec(["readlink", "/var/run"])).stdout == b"/run\n"
        tar = await tar_of(lambda target: box.copy_out("box", "/var/run/file", target))
        assert tar.getnames() == ["file"]


async def test_a_mount_is_written_to_and_not_taken_away(box: Engine, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "mounted").write_text("before")
    mounts = [f"{tmp_path}/mounted:/mounted"]
    async with box.open_container("box", ["sleep", "1000"], name="box", mounts=mounts) as container:
        for place in ("/mounted", "/etc/hosts"):
            await box.copy_in("box", tree / "file", place)
            assert (await container.exec(["cat", place])).stdout == b"here\n"
            assert (await container.exec(["grep", "-c", f" {place} ", "/proc/mounts"])).stdout == b"1\n"
        assert (tmp_path / "mounted").read_text() == "here\n"


@pytest.mark.parametrize(
    ("name", "link"),
    [("../out", None), ("a/../../out", None), ("out/in", "/"), ("out/in", "..")],
)
def test_a_tar_leads_nowhere_else(tmp_path: Path, name: str, link: str | None) -> None:
    """CVE-2014-6407 and its kin: names and links of a tar that came out of a container."""
    inside = tmp_path / "place" / "inside"
    inside.mkdir(parents=True)
    with tarfile.open(fileobj=(archive := io.BytesIO()), mode="w") as tar:
        if link:
            member = tarfile.TarInfo(name.partition("/")[0])
            member.type, member.linkname = tarfile.SYMTYPE, link
            tar.addfile(member)
        tar.addfile(tarfile.TarInfo(name))
    reader, writer = os.pipe()
    os.write(writer, archive.getvalue())
    os.close(writer)
    root = os.open("/", os.O_PATH)
    before = sorted(os.listdir("/"))
    try:
        with pytest.raises((PyrtError, OSError)):
            do(Unpack(str(inside), Ownership(), inside=False, whole=False), root, reader)
    finally:
        os.close(root)
        os.close(reader)
    assert os.listdir(tmp_path / "place") == ["inside"]
    assert sorted(os.listdir("/")) == before


@contextmanager
def swapping(first: Path, second: Path) -> Iterator[None]:
    """Exchanges two names as fast as it can, for the time of the block (renameat2(2), RENAME_EXCHANGE)."""
    libc, over = ctypes.CDLL(None, use_errno=True), threading.Event()

    def swap() -> None:
        while not over.is_set():
            libc.renameat2(-100, bytes(first), -100, bytes(second), 2)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def took_its_own(root: Rootfs, base: int | None, count: int) -> bool:
    """Copies something out of a folder that is being exchanged; never is it the host's."""
    with tempfile.TemporaryFile() as stream, suppress(PyrtError, OSError):
        path = ("/r/d/f", "/r/d/e/f", "/r/d", "/r/d/.")[count % 4]
        do(Pack(path, base=base), root.descriptor, stream.fileno())
        stream.seek(0)
        data = stream.read()
        assert b"the host's" not in data
        return b"its own" in data
    return False


def put_somewhere(root: Rootfs, source: Path, count: int) -> bool:
    """Copies something into a folder that is being exchanged; whether it went well."""
    slash = os.open("/", os.O_PATH)
    try:
        with tempfile.TemporaryFile() as stream, suppress(PyrtError, OSError):
            do(Pack(f"{source}" + ("", "/.", "/f")[count % 3]), slash, stream.fileno())
            stream.seek(0)
            task = Unpack(("/r/d", "/r/d/e", "/r/d/e/")[count % 3], Ownership(all=(0, 0)))
            do(task, root.descriptor, stream.fileno())
            return True
    finally:
        os.close(slash)
    return False


async def test_a_container_that_swaps_its_folders_meanwhile(box: Engine, tmp_path: Path) -> None:
    """CVE-2018-15664: a folder becomes a link to a place of the host between a look and a copy."""
    shared, canary = tmp_path / "shared", tmp_path / "canary"
    (shared / "d" / "e").mkdir(parents=True)
    canary.mkdir()
    (canary / "e").mkdir()
    for folder, text in ((shared / "d", "its own"), (canary, "the host's")):
        (folder / "f").write_text(text)
        (folder / "e" / "f").write_text(text)
    (shared / "l").symlink_to(canary)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "f").write_text("copied in")
    outcomes: list[bool] = []
    async with box.open_container("box", ["sleep", "1000"], name="box", mounts=[f"{shared}:/r"]):
        record = box.inspect("box")
        with swapping(shared / "d", shared / "l"), open_rootfs(record, (), None) as root:
            outcomes += [took_its_own(root, record.id_base, count) for count in range(400)]
            outcomes += [put_somewhere(root, tmp_path / "new", count) for count in range(200)]
            for _ in range(3):
                with suppress(PyrtError):
                    await box.copy_in("box", tmp_path / "new" / "f", "/r/d/e/f")
                with suppress(PyrtError):
                    await box.copy_out("box", "/r/d/e/f", tmp_path / "got")
    # It went well now and then, and never there.
    assert any(outcomes)
    assert {path.name for path in canary.rglob("*")} == {"e", "f"}
    assert (canary / "f").read_text() == (canary / "e" / "f").read_text() == "the host's"


async def test_a_copy_that_is_cancelled_leaves_no_process(box: Engine) -> None:
    async with box.open_container("box", ["sleep", "1000"], name="box"):
        reader, writer = os.pipe()
        with trio.move_on_after(0.3) as waiting:
            # Nobody reads: it fills the pipe and waits.
            await box.copy_out("box", "/", writer)
        assert waiting.cancelled_caught
        os.close(reader)
        os.close(writer)


# ---- export ----


@pytest.mark.parametrize("runs", [True, False])
async def test_export_has_the_files_and_nothing_that_is_mounted(box: Engine, tmp_path: Path, runs: bool) -> None:
    (tmp_path / "secret").write_text("of the host")
    mounts = [f"{tmp_path}:/data", f"{tmp_path}/secret:/etc/secret"]
    if runs:
        command = ["sh", "-c", f"{CHANGE}; sleep 1000"]
        async with box.open_container("box", command, name="box", mounts=mounts) as container:
            await container.stdout.receive_some()
            tar = await tar_of(lambda target: box.export("box", target))
    else:
        await ended(box, CHANGE, mounts=mounts)
        tar = await tar_of(lambda target: box.export("box", target))
        await box.remove("box")
    names = set(tar.getnames())
    assert {"bin/busybox", "etc/new", "data", "proc", "etc/secret", "home"} <= names
    assert not {"etc/group", "data/secret", "home/alice", "proc/1"} & names
    assert content(tar, "etc/new") == b"new\n"
    assert content(tar, "etc/secret") == b""
    assert {(member.uid, member.gid) for member in tar} == {(0, 0)}


# ---- commit ----


async def test_commit_makes_an_image_that_runs_as_the_container_did(box: Engine) -> None:
    options = make_options(
        ["sh", "-c", f"{CHANGE}; sleep 1000"], name="box", env={"A": "1"}, workdir="/srv", labels={"l": "x"}
    )
    container = await box.start("box", options, keep=True, wants_stdin=False)
    await container.stdout.receive_some()
    image = await box.commit_container(
        "box", "mine:1", changes=['CMD ["cat", "/etc/new"]', "ENV B=2"], author="me", message="why"
    )
    assert container.status is None
    assert box.inspect("box").state == "running"
    await box.remove("box", force=True)
    config = image.config
    assert (config.cmd, config.working_dir, config.labels["l"]) == (("cat", "/etc/new"), "/srv", "x")
    assert {"A=1", "B=2"} <= set(config.env)
    assert (config.author, config.history[-1].comment) == ("me", "why")
    assert len(config.diff_ids) == len(box.find_image("box").config.diff_ids) + 1
    done = await box.run("mine:1")
    assert done.stdout == b"new\n"
    done = await box.run("mine:1", ["sh", "-c", "ls /home /etc; pwd; echo $A$B"])
    assert done.stdout.split() == [b"/etc:", b"hostname", b"hosts", b"new", b"passwd", b"resolv.conf", b"/home:",
                                   b"/srv", b"12"]  # fmt: skip


async def test_what_can_not_be_committed_is_said(box: Engine) -> None:
    async with box.open_container("host", ["sleep", "1000"], name="view"):
        with pytest.raises(ContainerError, match="no layers"):
            await box.commit_container("view")
    async with box.open_container("box", ["sleep", "1000"], name="memory", upper="tmpfs"):
        with pytest.raises(ContainerError, match="not kept on the disk"):
            await box.commit_container("memory")
