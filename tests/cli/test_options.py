"""The words of ``run`` as the values that ``runtime`` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from pyrt.cli.console import Console
from pyrt.cli.options import run_options_of
from pyrt.cli.verbs import parser_of
from pyrt.errors import UsageError
from pyrt.runtime.options import Device, Limits, Mount, RunOptions, Ulimit

if TYPE_CHECKING:
    from pathlib import Path


class Desktop(Console):
    """A console that nothing is written to."""

    def __init__(self, directory: str = "/home/me", **environment: str) -> None:
        super().__init__()
        self.environment = environment
        self.directory = directory
        self.process = 4711
        self.terminals = (False, False, False)
        self.rows, self.columns = 30, 100

    async def write(self, stream: int, data: bytes) -> None:
        raise AssertionError

    async def relay(self, *, input: int | None = None, output: int | None = None, error: int | None = None) -> None:
        raise AssertionError

    async def relay_terminal(self, master: int, *, keys: bool) -> None:
        raise AssertionError

    async def settle(self) -> None:
        raise AssertionError

    def start_soon(self, work: object, *arguments: object) -> None:
        raise AssertionError

    async def input_file(self) -> int:
        raise AssertionError


async def options_of(line: str, console: Console | None = None) -> RunOptions:
    return await run_options_of(parser_of("run").parse(line.split()), console or Desktop())


async def test_nothing_said_is_every_default() -> None:
    assert await options_of("box") == RunOptions()


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("-u 1000:1000 -w /srv --hostname h --domainname d box sh -c x", {
            "user": "1000:1000", "workdir": "/srv", "hostname": "h", "domainname": "d", "command": ("sh", "-c", "x")}),
        ("-m 64m --memory-swap -1 --cpus .5 -c 512 --pids-limit -1 --cpuset-cpus 0-1 box", {
            "limits": Limits(memory="64m", memory_swap=-1, cpus=".5", cpu_shares=512, pids=-1, cpuset_cpus="0-1")}),
        ("--timeout 2m box", {"limits": Limits(time=120.0)}),
        ("--entrypoint sh box", {"entrypoint": ("sh",)}),
        ("--entrypoint= box", {"entrypoint": ()}),
        ("-t box", {"tty": True, "rows": 30, "columns": 100}),
        ("-v ./a:/b:ro -v /c:/d box", {
            "mounts": (Mount("bind", "/b", "/home/me/a", True, ("ro",)), Mount("bind", "/d", "/c"))}),
        ("--mount type=tmpfs,target=/t box", {"mounts": (Mount("tmpfs", "/t"),)}),
        ("--read-only --tmpfs /tmp:size=1m box", {
            "read_only": True, "tmpfs": (Mount("tmpfs", "/tmp", options=("size=1048576",)),)}),
        ("--cap-add SYS_TIME --cap-drop ALL --privileged box", {
            "cap_add": ("SYS_TIME",), "cap_drop": ("ALL",), "privileged": True}),
        ("--security-opt no-new-privileges=false --security-opt seccomp=unconfined box", {
            "no_new_privileges": False, "seccomp": "unconfined"}),
        ("--security-opt seccomp=p.json --security-opt unmask=/proc/kcore:/sys/firmware box", {
            "seccomp": "/home/me/p.json", "unmask": ("/proc/kcore", "/sys/firmware")}),
        ("--pid host --userns host --network host box", {"pid": "host", "userns": "host", "network": "host"}),
        ("--ulimit nofile=1:2 --device /dev/fuse --sysctl a.b=1 --group-add 5 box", {
            "ulimits": (Ulimit("nofile", 1, 2),), "devices": (Device("/dev/fuse"),), "sysctls": (("a.b", "1"),),
            "group_add": ("5",)}),
        ("-l a=1 -l b box", {"labels": (("a", "1"), ("b", ""))}),
        ("--add-host db:::1 --add-host x=10.0.0.1 --dns 1.1.1.1 box", {
            "extra_hosts": (("db", "::1"), ("x", "10.0.0.1")), "dns": ("1.1.1.1",)}),
        ("--init --shm-size 1g --oom-score-adj 0 --stop-signal INT --name n box", {
            "init": True, "shm_size": "1g", "oom_score_adj": 0, "stop_signal": "INT", "name": "n"}),
    ],
)  # fmt: skip
async def test_words_become_values(line: str, fields: dict[str, Any]) -> None:
    assert await options_of(line) == RunOptions(**fields)


async def test_variables_come_from_files_from_the_caller_and_from_the_line(tmp_path: Path) -> None:
    (tmp_path / "vars").write_bytes(b"# no\nA=file\r\nB= spaced \nMINE\nNOT_SET\n")
    console = Desktop(str(tmp_path), MINE="me")
    options = await options_of("--env-file vars -e A=line -e MINE -e NOT_SET box", console)
    assert options.env == (("A", "line"), ("B", " spaced "), ("MINE", "me"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-e =x box", "sets no variable"),
        ("--env-file /nothing box", "reading /nothing: No such file"),
        ("--network bridge box", "--network bridge is not built yet"),
        ("--security-opt apparmor=x box", "no AppArmor profile"),
        ("--security-opt label=type:x box", "no SELinux label"),
        ("--security-opt nonsense=x box", "is not known"),
        ("-v data:/data box", "volumes are not built yet"),
        ("--ulimit nofile box", "is no limit"),
        ("--timeout soon box", "is no time"),
        ("--add-host db box", "is no host and address"),
        ("-l =x box", "a label without a name"),
    ],
)
async def test_malformed_words_are_refused(line: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        await options_of(line)
    assert words in caught.value.message
    assert caught.value.hint or "reading" in words


async def test_a_file_of_variables_without_end_is_refused() -> None:
    with pytest.raises(UsageError, match="longer than 1 MiB"):
        await options_of("--env-file /dev/zero box")


def test_paths_are_those_of_the_caller() -> None:
    console = Desktop("/home/me")
    names = ("x", "/x", "../y", "/dev/stdin", "/dev/fd/3", "/proc/self/fd/4")
    assert [str(console.path(name)) for name in names] == [
        "/home/me/x",
        "/x",
        "/home/y",
        "/proc/4711/fd/0",
        "/proc/4711/fd/3",
        "/proc/4711/fd/4",
    ]
    with pytest.raises(UsageError, match="your working directory is gone"):
        Desktop("").path("x")
