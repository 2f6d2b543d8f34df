"""What is run in a container, as whom, with what around it; for its first process and for those that join."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from pyrt.errors import InvalidImage, UsageError
from pyrt.runtime.capabilities import ALL, DEFAULT
from pyrt.runtime.options import ExecOptions
from pyrt.runtime.process import build_process
from tests.runtime.making import GROUP, HOST, PASSWD, Config, Documents, Image, make, no_file


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "asked_entrypoint", "command", "words"),
    [
        (None, ("c",), None, (), ["c"]),
        (None, ("c",), None, ("x", "y"), ["x", "y"]),
        (("e",), ("c",), None, (), ["e", "c"]),
        (("e", "f"), ("c",), None, ("x",), ["e", "f", "x"]),
        (("e",), ("c",), ("n",), (), ["n"]),
        (("e",), ("c",), ("n", "m"), ("x",), ["n", "m", "x"]),
        (("e",), ("c",), (), ("x",), ["x"]),
        (("e",), ("c",), ("",), ("x",), ["x"]),
        (("e",), None, None, (), ["e"]),
        (None, None, None, ("x",), ["x"]),
    ],
)
def test_entrypoint_and_command_are_combined_as_docker_does(
    entrypoint: Any, cmd: Any, asked_entrypoint: Any, command: Any, words: list[str]
) -> None:
    image = Image(config=Config(entrypoint=entrypoint, cmd=cmd))
    made = make(image, entrypoint=asked_entrypoint, command=command)
    assert made.process["args"] == words
    assert made.built.command == tuple(words)


@pytest.mark.parametrize(
    ("config", "fields", "says"),
    [
        (Config(cmd=None), {}, "no command to run"),
        (Config(entrypoint=("e",)), {"entrypoint": ("",)}, "no command to run"),
        (Config(), {"command": ["", "x"]}, "command is empty"),
        (Config(), {"command": ["a", "b\0c"]}, "NUL"),
        (Config(), {"command": ["a", "b" * 131_072]}, "128 KiB"),
        (Config(), {"command": ["\udcff"]}, "UTF-8"),
    ],
)
def test_no_command(config: Config, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make(Image(config=config), **fields)


def test_the_environment() -> None:
    made = make()
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert made.env == {"PATH": path, "HOSTNAME": "0123456789ab", "HOME": "/root"}
    image = Image(config=Config(env=("PATH=/img", "A=1", "B=x=y", "HOME=/h", "novalue", "=broken", "N=\0"), user="app"))
    made = make(image, env={"A": "2", "C": ""}, tty=True, hostname="box")
    assert made.env == {
        "PATH": "/img",
        "HOSTNAME": "box",
        "TERM": "xterm",
        "A": "2",
        "B": "x=y",
        "HOME": "/h",
        "C": "",
        "novalue": "",
    }
    assert make(user="app").env["HOME"] == "/home/app"
    assert make(user="5000").env["HOME"] == "/"
    for env in ({"": "x"}, {"a=b": "x"}, {"a": "\0"}):
        with pytest.raises(UsageError, match="no name of a variable"):
            make(env=env)


def test_the_user_of_the_image_and_of_the_caller() -> None:
    image = Image(config=Config(user="www-data"))
    assert make(image).process["user"] == {"uid": 33, "gid": 33, "additionalGids": [33]}
    assert make(image, user="0").process["user"]["uid"] == 0
    made = make(image, user="app", group_add=["7"])
    assert made.process["user"] == {"uid": 1000, "gid": 1000, "additionalGids": [1000, 4, 44, 7]}
    assert made.built.user.name == "app"


def test_whose_user_is_wrong_is_told() -> None:
    with pytest.raises(InvalidImage, match="the image's user is unusable: there is no user 'ghost'"):
        make(Image(config=Config(user="ghost")))
    with pytest.raises(UsageError, match="no user 'ghost'"):
        make(user="ghost")


def test_an_id_beyond_the_range_needs_the_hosts_user_namespace() -> None:
    with pytest.raises(UsageError, match="beyond the container's range"):
        make(user="100000")
    assert make(user="100000", userns="host").process["user"]["uid"] == 100_000


@pytest.mark.parametrize(
    ("image", "asked", "cwd"),
    [("", "", "/"), ("/srv", "", "/srv"), ("srv/x", "", "/srv/x"), ("/srv", "/a/./b/../c/", "/a/c"), ("//x", "", "/x")],
)
def test_the_working_directory(image: str, asked: str, cwd: str) -> None:
    assert make(Image(config=Config(working_dir=image)), workdir=asked).process["cwd"] == cwd


def test_a_working_directory_is_absolute() -> None:
    with pytest.raises(UsageError, match="the working directory is an absolute path"):
        make(workdir="here")


def test_rights_of_root_and_of_others() -> None:
    names = sorted(DEFAULT)
    root = make().process["capabilities"]
    assert root == {"bounding": names, "effective": names, "permitted": names, "inheritable": [], "ambient": []}
    other = make(user="app", cap_add=["NET_ADMIN"]).process["capabilities"]
    assert "CAP_NET_ADMIN" in other["bounding"]
    assert other["effective"] == other["permitted"] == other["inheritable"] == other["ambient"] == []


def test_devices_can_t_be_made_where_no_rule_keeps_them_closed() -> None:
    """With the host's user namespace and no hierarchy for devices, who may make a node may open any device."""
    unruled = msgspec.structs.replace(HOST, device_rules=False)
    wanted: tuple[dict[str, Any], ...] = ({"cap_add": ["MKNOD"]}, {"cap_add": ["ALL"]})
    for fields in wanted:
        with pytest.raises(UsageError, match="MKNOD"):
            make(host=unruled, userns="host", **fields)
        assert "CAP_MKNOD" in make(host=unruled, **fields).process["capabilities"]["effective"]
        assert "CAP_MKNOD" in make(userns="host", **fields).process["capabilities"]["effective"]
    make(host=unruled, userns="host", cap_add=["ALL"], cap_drop=["MKNOD"])


def test_privileges_can_be_gained_only_if_asked_for() -> None:
    assert make().process["noNewPrivileges"] is True
    assert make(no_new_privileges=False).process["noNewPrivileges"] is False
    assert make(privileged=True).process["noNewPrivileges"] is False


def test_terminals() -> None:
    assert "terminal" not in make(rows=5, columns=5).process
    made = make(tty=True, rows=24, columns=80).process
    assert (made["terminal"], made["consoleSize"]) == (True, {"height": 24, "width": 80})
    assert "consoleSize" not in make(tty=True).process
    with pytest.raises(UsageError, match="size of a terminal"):
        make(tty=True, rows=70_000, columns=80)


def test_limits_of_the_process() -> None:
    made = make(ulimits=["nofile=10:20"], oom_score_adj=500).process
    assert made["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}]
    assert made["oomScoreAdj"] == 500
    with pytest.raises(UsageError, match="OOM score"):
        make(oom_score_adj=1001)


def joined(made: Documents, *command: str, **fields: Any) -> dict[str, Any]:
    files = {"/etc/passwd": PASSWD, "/etc/group": GROUP}
    options = ExecOptions(command=command or ("id",), **fields)
    result = json.loads(build_process(made.built.spec, options, host=HOST, lookup=files.get))
    assert isinstance(result, dict)
    return result


def test_who_joins_is_as_the_container() -> None:
    made = make(
        user="app",
        env={"A": "1"},
        workdir="/srv",
        ulimits=["nofile=1:1"],
        oom_score_adj=7,
        group_add=["9"],
        cap_add=["SYSLOG"],
    )
    process = joined(made, "ls", "-l")
    assert process == {**made.process, "args": ["ls", "-l"]}


def test_who_joins_may_be_another() -> None:
    made = make(workdir="/srv")
    process = joined(
        made, user="app:video", env=(("A", "2"), ("PATH", "/x")), workdir="/tmp/.", tty=True, rows=2, columns=3
    )
    assert process["user"] == {"uid": 1000, "gid": 44, "additionalGids": [44]}
    env = dict(line.split("=", 1) for line in process["env"])
    assert (env["HOME"], env["A"], env["PATH"], env["TERM"]) == ("/home/app", "2", "/x", "xterm")
    assert process["cwd"] == "/tmp"
    assert process["capabilities"]["effective"] == []
    assert process["consoleSize"] == {"height": 2, "width": 3}
    # The home of the image's own making stays.
    kept = joined(make(env={"HOME": "/data"}), user="app")
    assert "HOME=/data" in kept["env"]


def test_root_that_joins_has_what_the_container_has_and_no_more() -> None:
    made = make(user="app", cap_drop=["ALL"], cap_add=["KILL"])
    assert joined(made, user="root")["capabilities"]["effective"] == ["CAP_KILL"]
    process = joined(made, user="root", privileged=True)
    assert process["capabilities"]["effective"] == sorted(ALL)
    assert process["noNewPrivileges"] is False


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"command": ()}, "command is empty"),
        ({"user": "ghost"}, "no user 'ghost'"),
        ({"user": "70000"}, "beyond"),
        ({"workdir": "x"}, "absolute"),
        ({"env": (("", "x"),)}, "no name of a variable"),
    ],
)
def test_who_joins_is_checked(fields: dict[str, Any], says: str) -> None:
    spec, options = make().built.spec, ExecOptions(**{"command": ("id",), **fields})
    with pytest.raises(UsageError, match=says):
        build_process(spec, options, host=HOST, lookup=no_file)
