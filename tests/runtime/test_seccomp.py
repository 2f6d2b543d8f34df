"""The default profile, call by call, and profiles that others have written."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from pyrt import _native
from pyrt.errors import UsageError
from pyrt.runtime import profile
from pyrt.runtime.capabilities import ALL, DEFAULT
from pyrt.runtime.seccomp import convert_profile, default_profile, read_profile

ALLOW = "allow"
TABLE = Path(__file__).parents[2] / "rust/container/src/seccomp/syscalls.tbl"


def holds(condition: dict[str, Any], arguments: tuple[int, ...]) -> bool:
    argument, value = arguments[condition["index"]], condition["value"]
    match condition["op"]:
        case "SCMP_CMP_MASKED_EQ":
            return bool(argument & value == condition["valueTwo"])
        case "SCMP_CMP_GT":
            return bool(argument > value)
        case other:
            raise AssertionError(other)


def decide(name: str, *arguments: int, capabilities: frozenset[str] = DEFAULT) -> str:
    """What the native core documents: rules with conditions first, then those without, then the default."""
    document = json.loads(default_profile(capabilities))
    rules = [rule for rule in document["syscalls"] if name in rule["names"]]
    conditional = [rule for rule in rules if rule.get("args")]
    for rule in conditional + [rule for rule in rules if not rule.get("args")]:
        if all(holds(condition, (*arguments, *[0] * 6)) for condition in rule.get("args", [])):
            return ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else errno.errorcode[rule["errnoRet"]]
    assert document["defaultAction"] == "SCMP_ACT_ERRNO"
    return errno.errorcode[document["defaultErrnoRet"]]


def caps(*names: str) -> frozenset[str]:
    return DEFAULT | {f"CAP_{name}" for name in names}


@pytest.mark.parametrize(
    "name", ["read", "execve", "ptrace", "process_vm_readv", "futex_waitv", "mseal", "statmount", "uretprobe", "uprobe"]
)
def test_allowed(name: str) -> None:
    assert decide(name) == ALLOW


@pytest.mark.parametrize(
    "name",
    [
        *("add_key", "keyctl", "request_key", "io_uring_setup", "io_uring_enter", "io_uring_register", "userfaultfd"),
        *("mount", "umount2", "setns", "bpf", "perf_event_open", "kexec_load", "init_module", "reboot", "swapon"),
        *("open_by_handle_at", "move_mount", "fsopen", "open_tree", "open_tree_attr", "pivot_root", "chroot", "acct"),
        *(
            "iopl",
            "syslog",
            "settimeofday",
            "kcmp",
            "pidfd_getfd",
            "quotactl",
            "nfsservctl",
            "vhangup",
            "migrate_pages",
        ),
    ],
)
def test_refused(name: str) -> None:
    assert decide(name) == "EPERM"


@pytest.mark.parametrize(
    ("capability", "names"),
    [
        ("SYS_ADMIN", ["mount", "setns", "clone3", "bpf", "open_tree_attr", "syslog"]),
        ("SYS_PTRACE", ["kcmp", "pidfd_getfd", "process_madvise"]),
        ("SYS_MODULE", ["init_module", "finit_module", "delete_module"]),
        ("SYS_TIME", ["settimeofday", "clock_settime"]),
        ("SYS_CHROOT", ["chroot"]),
        ("DAC_READ_SEARCH", ["open_by_handle_at"]),
        ("SYS_BOOT", ["reboot"]),
        ("SYS_PACCT", ["acct"]),
        ("SYS_RAWIO", ["iopl", "ioperm"]),
        ("SYSLOG", ["syslog"]),
        ("BPF", ["bpf"]),
        ("PERFMON", ["perf_event_open"]),
        ("SYS_NICE", ["mbind", "set_mempolicy", "get_mempolicy"]),
        ("SYS_TTY_CONFIG", ["vhangup"]),
    ],
)
def test_a_capability_opens_its_calls(capability: str, names: list[str]) -> None:
    for name in names:
        assert decide(name) != ALLOW
        assert decide(name, capabilities=caps(capability)) == ALLOW


NEWUSER, NEWNET, NEWTIME, FS, FILES, SIGCHLD = 0x1000_0000, 0x4000_0000, 0x80, 0x200, 0x400, 17


def test_namespaces_are_made_only_with_sys_admin() -> None:
    assert decide("clone", SIGCHLD) == ALLOW
    for flag in (NEWUSER, NEWNET, NEWUSER | SIGCHLD, NEWUSER | 1 << 40):
        assert decide("clone", flag) == "EPERM"
        assert decide("clone", flag, capabilities=caps("SYS_ADMIN")) == ALLOW
    assert decide("clone3") == "ENOSYS"
    assert decide("unshare", FS | FILES) == ALLOW
    for flag in (NEWUSER, NEWTIME, FS | NEWNET, 1 << 40):
        assert decide("unshare", flag) == "EPERM"


def test_personalities() -> None:
    for persona in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF, 0xFFFFFFFF_FFFFFFFF):
        assert decide("personality", persona) == ALLOW
    for persona in (0x0040000, 0x0400000, 4, 0x20000 | 0x0040000):
        assert decide("personality", persona) == "EPERM"


def test_address_families() -> None:
    unix, inet, inet6, netlink, packet, alg, vsock, xdp = 1, 2, 10, 16, 17, 38, 40, 44
    for family in (unix, inet, inet6, netlink, packet, xdp):
        assert decide("socket", family) == ALLOW
    # The upper half of the register is the caller's to fill; the kernel does not look at it.
    for family in (alg, vsock, alg | 1 << 32, vsock | 0xFFFF_FFFF << 32, 46, 0xFFFF_FFFF, inet | 1 << 32):
        assert decide("socket", family) == "EAFNOSUPPORT"


def test_no_input_is_pushed_into_a_terminal() -> None:
    tcgets, tiocsti, tioclinux = 0x5401, 0x5412, 0x541C
    assert decide("ioctl", 0, tcgets) == ALLOW
    for request in (tiocsti, tioclinux, tiocsti | 1 << 32):
        for capabilities in (DEFAULT, frozenset(ALL)):
            assert decide("ioctl", 0, request, capabilities=capabilities) == "EPERM"


def test_every_name_is_a_call_of_the_native_core() -> None:
    rows = [line.split() for line in TABLE.read_text().splitlines() if not line.startswith("#")]
    native = {name for name, x86_64, _, _, aarch64 in rows if (x86_64, aarch64) != ("-", "-")}
    named = profile.ALLOWED | set(" ".join(profile.GATES.values()).split())
    assert named <= native
    assert len(profile.ALLOWED) > 250


@pytest.mark.parametrize("capabilities", [DEFAULT, frozenset(), frozenset(ALL), caps("SYS_ADMIN"), caps("NET_ADMIN")])
def test_the_native_core_makes_a_short_program_of_it(capabilities: frozenset[str]) -> None:
    program = _native.compile_seccomp(default_profile(capabilities))
    # What is loaded in 0.03 ms; libseccomp makes 360 comparisons of it.
    assert 50 < len(program) / 8 < 200


def test_the_same_capabilities_give_the_same_bytes() -> None:
    assert default_profile(DEFAULT) is default_profile(frozenset(DEFAULT))


DOCKERS = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 1,
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
    ],
    "syscalls": [
        {
            "names": ["read", "write"],
            "action": "SCMP_ACT_ALLOW",
            "comment": "",
            "args": [],
            "includes": {},
            "excludes": {},
        },
        {"name": "old", "action": "SCMP_ACT_ALLOW"},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["future"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "9.0"}},
        {"names": ["arm"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm", "arm64"]}},
        {"names": ["intel"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64"]}},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390"]}},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "errno": "ENOSYS"},
    ],
}


def convert(document: Any, *capabilities: str, architecture: str = "amd64") -> dict[str, Any]:
    text = json.dumps(document).encode()
    result = json.loads(convert_profile(text, caps(*capabilities), architecture, (6, 1)))
    assert isinstance(result, dict)
    return result


def test_a_profile_in_dockers_form() -> None:
    plain = convert(DOCKERS)
    names = [name for rule in plain["syscalls"] for name in rule["names"]]
    assert names == ["read", "write", "old", "ptrace", "intel", "clone", "clone3"]
    assert plain["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert plain["syscalls"][-1] == {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS}
    admin = [name for rule in convert(DOCKERS, "SYS_ADMIN")["syscalls"] for name in rule["names"]]
    assert "mount" in admin
    assert "clone" not in admin
    arm = convert(DOCKERS, architecture="arm64")
    assert "arm" in [name for rule in arm["syscalls"] for name in rule["names"]]
    assert arm["architectures"][0] == "SCMP_ARCH_AARCH64"


def test_a_profile_of_the_specification_stays_as_it_is() -> None:
    document = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [
            {
                "names": ["a"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 5,
                "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}],
            }
        ],
    }
    assert convert(document) == document


@pytest.mark.skipif(not Path("/usr/share/containers/seccomp.json").exists(), reason="podman's profile is not installed")
def test_podmans_own_profile() -> None:
    text = Path("/usr/share/containers/seccomp.json").read_bytes()
    document = json.loads(convert_profile(text, DEFAULT, "amd64", (6, 1)))
    assert document["defaultErrnoRet"] == errno.ENOSYS
    assert len(document["syscalls"]) > 5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "malformed"),
        ("[]", "malformed"),
        ("{}", "malformed"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "surprise": 1}', "surprise"),
        ('{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "ENOTHING"}', "ENOTHING"),
        ("[" * 100_000, "malformed"),
        (
            '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "x", "includes": {"minKernel": "six"}}]}',
            "kernel version",
        ),
    ],
)
def test_a_malformed_profile_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=says) as caught:
        read_profile(str(path), DEFAULT, "amd64", (6, 1))
    assert str(path) in str(caught.value)


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be read"):
        read_profile(str(tmp_path / "none"), DEFAULT, "amd64", (6, 1))
    (tmp_path / "large").write_bytes(b" " * (2 << 20))
    with pytest.raises(UsageError, match="larger than"):
        read_profile(str(tmp_path / "large"), DEFAULT, "amd64", (6, 1))
