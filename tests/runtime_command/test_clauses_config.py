"""config.md, clause by clause, what `test_config.py` does not show by one field: mounts, process, hooks."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.runtime_command.command import Runtime

if TYPE_CHECKING:
    from tests.runtime_command.command import Bundle

pytestmark = pytest.mark.root

MAPPING = [{"containerID": 0, "hostID": 100000, "size": 65536}]
CAPABILITIES = ["bounding", "effective", "permitted", "inheritable", "ambient"]


def tmpfs(destination: str, *options: str) -> dict[str, Any]:
    """An entry of `mounts`."""
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": list(options)}


def bind(destination: str, source: Path | str, *options: str) -> dict[str, Any]:
    """Another: what makes it a bind mount is an option; the type is a dummy."""
    return {"destination": destination, "type": "none", "source": str(source), "options": ["rbind", *options]}


def map_ids(bundle: Bundle) -> None:
    """The container gets a user namespace."""
    bundle.config["linux"]["namespaces"].append({"type": "user"})
    bundle.config["linux"] |= {"uidMappings": MAPPING, "gidMappings": MAPPING}


def run(runtime: Runtime, bundle: Bundle, name: str, script: str) -> list[str]:
    """The lines that a script inside prints."""
    bundle.shell(script)
    return runtime.ok("run", "--bundle", bundle.path, name).splitlines()


@pytest.mark.parametrize("mapped", [False, True], ids=["host ids", "own ids"])
@pytest.mark.parametrize("hooked", [False, True], ids=["", "with hooks"])
def test_entries_are_mounted_in_the_listed_order(
    runtime: Runtime, bundle: Bundle, name: str, mapped: bool, hooked: bool
) -> None:
    """Mounts. The list of mounts, which is sorted by age, shows it: whoever makes each."""
    if mapped:
        map_ids(bundle)
    if hooked:
        bundle.config["hooks"] = {"createContainer": [{"path": "/bin/cat", "args": ["cat", "/proc/self/status"]}]}
    (bundle.path / "folder").mkdir()
    bundle.config["mounts"] += [
        bind("/mnt", "folder"),
        tmpfs("/tmp"),
        bind("/tmp/file", "config.json", "ro"),
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"},
        bind("/home", "folder", "unbindable"),
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
        bind("/tmp/again", "config.json", "rslave"),
        tmpfs("/tmp/last", "shared"),
    ]
    wanted = [mount["destination"] for mount in bundle.config["mounts"]]
    seen = run(runtime, bundle, name, "awk '{print $5}' /proc/self/mountinfo")
    assert [place for place in seen if place in wanted] == wanted


@pytest.mark.parametrize("mapped", [False, True], ids=["host ids", "own ids"])
def test_two_entries_of_one_place_lie_over_each_other(
    runtime: Runtime, bundle: Bundle, name: str, mapped: bool
) -> None:
    """Mounts. The containers of a Kubernetes pod have two at /dev/shm."""
    if mapped:
        map_ids(bundle)
    (bundle.path / "folder").mkdir()
    bundle.config["mounts"] += [
        tmpfs("/tmp", "size=1m"),
        tmpfs("/tmp/below"),
        tmpfs("/dev/shm", "size=1m"),
        bind("/dev/shm", "folder"),
        tmpfs("/tmp/", "size=2m"),
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
    ]
    wanted = ["/sys", "/tmp", "/tmp/below", "/dev/shm", "/dev/shm", "/tmp", "/sys"]
    script = "df -k /tmp | awk 'NR == 2 {print $2}'; ls /tmp; awk '{print $5}' /proc/self/mountinfo"
    size, *places = run(runtime, bundle, name, script)
    assert (size, [place for place in places if place in wanted]) == ("2048", wanted)


@pytest.mark.parametrize("mapped", [False, True], ids=["host ids", "own ids"])
def test_what_is_mounted_is_remounted(runtime: Runtime, bundle: Bundle, name: str, mapped: bool) -> None:
    """Mounts, `remount`: bits of what is at the destination by then; those that are not named stay."""
    if mapped:
        map_ids(bundle)
    (bundle.path / "folder").mkdir()
    bundle.config["mounts"] += [
        bind("/mnt", "folder", "nosuid"),
        tmpfs("/tmp", "noexec"),
        bind("/mnt", "folder", "remount", "ro", "nodev"),
        tmpfs("/tmp", "remount", "exec", "ro"),
        {"destination": "/dev", "type": "tmpfs", "options": ["remount", "noexec"]},
    ]
    script = "awk '$5 ~ /^.(mnt|tmp|dev)$/ {print $5, $6}' /proc/self/mountinfo"
    assert run(runtime, bundle, name, script) == [
        "/dev rw,nosuid,noexec",
        "/mnt ro,nosuid,nodev,relatime",
        "/tmp ro,relatime",
    ]


def test_where_nothing_is_mounted_nothing_is_remounted(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.config["mounts"].append(tmpfs("/etc", "remount", "ro"))
    bundle.write()
    line = runtime.fails("create", "--bundle", bundle.path, name)
    assert line.startswith("remounting /etc: invalid argument")
    assert line.endswith("(nothing is mounted there so far)")
    bundle.config["mounts"][-1] = tmpfs("/dev", "remount", "size=1m")
    bundle.write()
    assert "mounts[4].options[1]: size=1m: no option of a remount" in runtime.fails(
        "run", "--bundle", bundle.path, name
    )


def test_where_hooks_run_nothing_lies_over_the_hosts_files(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """What waits to be mounted in its turn lies where no hook looks."""
    bundle.config["mounts"] += [bind("/mnt", "/etc"), bind("/tmp", "/usr")]
    script = f"cat {bundle.path}/config.json /proc/version /etc/passwd > {bundle.path}/seen"
    bundle.set("hooks", {"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]})
    runtime.ok("run", "--bundle", bundle.path, name)
    files = [bundle.path / "config.json", Path("/proc/version"), Path("/etc/passwd")]
    assert (bundle.path / "seen").read_text() == "".join(file.read_text() for file in files)


def test_mounts_take_the_words_of_the_table(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Linux mount options, and a destination that is relative is so to /."""
    flags = ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "nosymfollow", "sync", "dirsync", "lazytime"]
    bundle.config["root"]["readonly"] = False
    bundle.config["mounts"] += [tmpfs("t", "mode=755")]
    bundle.config["mounts"] += [tmpfs(f"t/{word}", word) for word in flags]
    bundle.config["mounts"] += [
        tmpfs("/t/back", "ro", "nosuid", "noexec", "rw", "suid", "exec", "iversion", "mand", "loud", "defaults"),
        tmpfs("/t/data", "size=1m", "mode=711", "uid=7"),
        bind("/t/bound", "/etc", "sync", "lazytime", "ro", "nostrictatime"),
        {"destination": "/t/once", "type": "bind", "source": "/proc/self/mounts", "options": ["bind", "nodev"]},
    ]
    lines = run(
        runtime, bundle, name, "awk '$5 ~ /^.t/ {print $5, $6, $NF}' /proc/self/mountinfo; stat -c '%a %u' /t/data"
    )
    words = {line.split()[0]: line.split(maxsplit=1)[1].replace(" ", ",").split(",") for line in lines}
    for word in flags:
        assert word in words[f"/t/{word}"], words
    assert not {"ro", "nosuid", "noexec"} & set(words["/t/back"])
    assert {"size=1024k", "mode=711", "uid=7"} <= set(words["/t/data"])
    assert "ro" in words["/t/bound"]
    assert "nodev" in words["/t/once"]
    assert lines[-1] == "711 7"


def test_recursive_words_reach_what_is_mounted_below(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Linux mount options: `rro` and its kin cover the tree, `ro` its top; `bind` leaves behind what lies below."""
    tree = bundle.path / "tree"
    (tree / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "below", tree / "below"], check=True)
    try:
        bundle.config["mounts"] += [
            tmpfs("/tmp"),
            bind("/tmp/top", tree, "ro"),
            bind("/tmp/all", tree, "rro", "rnosuid", "rnoexec", "rnodev"),
            {**bind("/tmp/one", tree), "options": ["bind"]},
        ]
        script = "awk '$5 ~ /^.tmp.(top|all|one)/ {print $5, $6}' /proc/self/mountinfo"
        seen = dict(line.split() for line in run(runtime, bundle, name, script))
    finally:
        subprocess.run(["umount", tree / "below"], check=True)
    assert set(seen) == {"/tmp/top", "/tmp/top/below", "/tmp/all", "/tmp/all/below", "/tmp/one"}
    assert (seen["/tmp/top"][:2], seen["/tmp/top/below"][:2]) == ("ro", "rw")
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(seen["/tmp/all/below"].split(","))


def test_any_file_system_that_the_kernel_has_can_be_mounted(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """POSIX-platform Mounts: types are those of /proc/filesystems."""
    for folder in ("lower", "upper", "work"):
        (bundle.path / folder).mkdir()
    (bundle.path / "lower" / "file").write_text("from below")
    layers = [
        f"{word}={bundle.path / folder}"
        for word, folder in (("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work"))
    ]
    bundle.config["mounts"].append({"destination": "/tmp", "type": "overlay", "source": "over", "options": layers})
    assert run(runtime, bundle, name, "cat /tmp/file; echo more > /tmp/new") == ["from below"]
    assert (bundle.path / "upper" / "new").read_text() == "more\n"


def test_owners_are_mapped_as_a_mount_says(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """POSIX-platform Mounts, `uidMappings`; the files themselves keep their owners."""
    (bundle.path / "folder").mkdir()
    os.chown(bundle.path / "folder", 1000, 1001)
    bundle.config["mounts"].append(
        {
            **bind("/mnt", "folder", "idmap"),
            "uidMappings": [{"containerID": 1000, "hostID": 5, "size": 1}],
            "gidMappings": [{"containerID": 1001, "hostID": 6, "size": 1}],
        }
    )
    assert run(runtime, bundle, name, "stat -c '%u %g' /mnt") == ["5 6"]
    stat = (bundle.path / "folder").stat()
    assert (stat.st_uid, stat.st_gid) == (1000, 1001)


def test_a_terminal_has_its_size_and_is_the_console(
    runtime: Runtime, bundle: Bundle, name: str, tmp_path: Path
) -> None:
    """Process, `terminal` and `consoleSize`; config-linux.md, "Default Devices"."""
    bundle.config["process"] |= {"terminal": True, "consoleSize": {"height": 31, "width": 77}}
    bundle.shell("stty size; test -c /dev/console && tty; tty < /dev/console")
    master = runtime.create_on_terminal(bundle, name, tmp_path / "console")
    seen = b""
    with os.fdopen(master, "rb", buffering=0) as terminal:
        runtime.ok("start", name)
        try:
            while piece := terminal.read(4096):
                seen += piece
        except OSError:
            # EIO: its other side is closed.
            pass
    assert seen.decode().split() == ["31", "77", "/dev/pts/0", "/dev/console"]


def test_the_size_of_no_terminal_is_ignored(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Process, `consoleSize`."""
    bundle.config["process"]["consoleSize"] = {"height": 31, "width": 77}
    assert run(runtime, bundle, name, "echo runs") == ["runs"]


def test_the_command_is_looked_for_as_execvp_does(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Process, `args` and `env`: the first word is a file of PATH, and the environment is what is listed."""
    bundle.config["process"]["env"] = ["PATH=/no/such:/bin", "EMPTY=", "TWO=a=b", "HOME=/somewhere"]
    bundle.runs("env")
    seen = set(runtime.ok("run", "--bundle", bundle.path, name).splitlines())
    assert seen == set(bundle.config["process"]["env"])


def test_capabilities_that_nobody_knows_are_worth_a_warning(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Linux Process, `capabilities`: a runtime should not fail for what can't be granted."""
    bundle.set("process.capabilities", {kind: ["CAP_KILL", "CAP_FLY"] for kind in CAPABILITIES})
    bundle.shell("grep Cap /proc/self/status | cut -f2 | sort -u")
    answer = runtime.call("run", "--bundle", bundle.path, name)
    assert (answer.code, answer.output) == (0, "0000000000000020\n")
    assert "process.capabilities: there is no CAP_FLY" in answer.error
    runtime.ok("run", "--detach", "--bundle", _sleeping(bundle), name)
    answer = runtime.call("exec", "--cap", "CAP_SWIM", name, "/bin/true")
    assert "process.capabilities: there is no CAP_FLY CAP_SWIM" in answer.error


def test_capabilities_that_can_not_be_granted_are_worth_a_warning(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """The same of what the kernel knows and the runtime itself has not: the container is without it."""
    bundle.set("process.capabilities", {kind: ["CAP_KILL", "CAP_SYS_NICE"] for kind in CAPABILITIES})
    bundle.shell("grep Cap /proc/self/status | cut -f2 | sort -u")
    restricted = Runtime(["setpriv", "--bounding-set", "-sys_nice", *runtime.command], runtime.root, runtime.oracle)
    answer = restricted.call("run", "--bundle", bundle.path, name)
    assert (answer.code, answer.output) == (0, "0000000000000020\n")
    assert "process.capabilities: " in answer.error
    assert "CAP_SYS_NICE" in answer.error


def _sleeping(bundle: Bundle) -> Path:
    bundle.runs("/bin/sleep", "100")
    return bundle.path


def test_each_set_of_capabilities_is_its_own(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Linux Process, `capabilities`: five lists."""
    sets = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_KILL"],
        "inheritable": ["CAP_CHOWN"],
        "ambient": ["CAP_CHOWN"],
    }
    bundle.config["process"]["user"] = {"uid": 5, "gid": 5}
    bundle.set("process.capabilities", sets)
    # What is ambient is what executing keeps for a user that is not root.
    lines = run(runtime, bundle, name, "grep Cap /proc/self/status | cut -f2")
    assert [int(line, 16) for line in lines] == [1, 1, 1, 0xA1, 1]


def test_what_is_not_set_is_left_alone(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Linux Process, `oomScoreAdj`: without it the runtime changes nothing."""
    before = Path("/proc/self/oom_score_adj").read_text().strip()
    assert run(runtime, bundle, name, "cat /proc/self/oom_score_adj") == [before]


def test_limits_are_what_getrlimit_returns(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """POSIX process, `rlimits`."""
    kinds = {"CPU": 1000, "FSIZE": 1 << 30, "STACK": 1 << 20, "CORE": 0, "NOFILE": 99, "MEMLOCK": 65536, "NICE": 0}
    bundle.set(
        "process.rlimits", [{"type": f"RLIMIT_{kind}", "soft": most, "hard": most} for kind, most in kinds.items()]
    )
    lines = run(runtime, bundle, name, "cat /proc/self/limits")
    seen = {" ".join(line.split()[:-3]).lower(): line.split()[-3:-1] for line in lines}
    for title, kind in (("max cpu time", "CPU"), ("max open files", "NOFILE"), ("max locked memory", "MEMLOCK")):
        assert seen[title] == [str(kinds[kind])] * 2


def test_classes_of_input_and_output(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Linux Process, `ioPriority`."""
    bundle.set("process.ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 6})
    assert run(runtime, bundle, name, "ionice -p 1") == ["best-effort: prio 6"]


def test_one_more_process_runs_where_it_is_told_to(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Linux Process, `execCPUAffinity`: not of the first process."""
    last = max(os.sched_getaffinity(0))
    bundle.set("process.execCPUAffinity", {"initial": "0", "final": str(last)})
    runtime.ok("run", "--detach", "--bundle", _sleeping(bundle), name)
    words = ["/bin/sh", "-c", "grep Cpus_allowed_list /proc/self/status /proc/1/status | cut -f2"]
    own, first = runtime.ok("exec", name, *words).split()
    assert own == str(last)
    assert first != own or len(os.sched_getaffinity(0)) == 1


def test_the_root_is_writable_unless_it_is_told_not_to_be(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Root: `path` may be relative to the bundle, `readonly` is false by default."""
    rootfs = bundle.path / "rootfs"
    subprocess.run(["cp", "-a", bundle.config["root"]["path"], rootfs], check=True)
    bundle.config["root"] = {"path": "rootfs"}
    assert run(runtime, bundle, name, "echo kept > /kept") == []
    assert (rootfs / "kept").read_text() == "kept\n"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"])
def test_hooks_run_in_the_namespaces_that_the_table_says(
    runtime: Runtime, bundle: Bundle, name: str, kind: str, tmp_path: Path
) -> None:
    """POSIX-platform Hooks: path, arguments and environment as execv(2) takes them, and where each runs."""
    out = tmp_path / "out"
    out.mkdir()
    bundle.config["mounts"].append(bind("/tmp", out))
    folder = "/tmp" if kind == "startContainer" else out
    script = f'echo "$0 $1 $(env | grep ^A= | tr "\\n" " ")$(readlink /proc/self/ns/uts)" > {folder}/seen'
    entry = {"path": "/bin/sh", "args": ["sh", "-c", script, "zero", "one"], "env": ["A=b"]}
    bundle.set("hooks", {kind: [entry]})
    runtime.ok("create", "--bundle", _sleeping(bundle), name)
    inside = os.readlink(f"/proc/{runtime.state(name)['pid']}/ns/uts")
    runtime.ok("start", name)
    own = os.readlink("/proc/self/ns/uts")
    assert (out / "seen").read_text().split() == [
        "zero",
        "one",
        "A=b",
        inside if "Container" in kind else own,
    ]


def test_annotations_are_texts(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Annotations: any key and any text, which `state` hands on; nothing else."""
    notes = {"com.example.key": "", "unknown/key": "line\nfeed"}
    bundle.set("annotations", notes)
    runtime.ok("create", "--bundle", bundle.path, name)
    assert runtime.state(name)["annotations"] == notes
    bundle.set("annotations", {"key": 1})
    assert runtime.fails("create", "--bundle", bundle.path, f"{name}-2").startswith("annotations.key: ")


def test_versions_that_are_compatible(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """Specification version: what was written for an older one of the same major version runs."""
    features = json.loads(runtime.ok("features"))
    for version in ("1.0.0", "1.1.0-rc.2", features["ociVersionMin"], features["ociVersionMax"]):
        bundle.set("ociVersion", version)
        runtime.ok("run", "--bundle", bundle.path, name)
