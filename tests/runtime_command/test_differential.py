"""The same bundle under runc or crun and under pyrt-runtime: a probe inside sees the same."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.runtime_command.command import DEVICES, Runtime

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runtime_command.command import Bundle

pytestmark = pytest.mark.root

# crun before 1.9 refuses a host with controllers on both cgroup versions: here it sees version 1 alone.
HIDDEN = 'mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified; exec "$@"'
ASIDE = ["unshare", "--mount", "--propagation", "private", "sh", "-c", HIDDEN, "sh"]
OTHERS = {"runc": ["runc"], "crun": [*ASIDE, "crun"]}

CAPABILITIES = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SETUID", "CAP_MKNOD"]
IDS = st.integers(0, 65535)
MASKED = ["/proc/kcore", "/proc/version", "/etc", "/no/such"]
CHOICES = [
    ("ro", "rw"),
    ("nosuid", "suid"),
    ("nodev", "dev"),
    ("noexec", "exec"),
    ("relatime", "noatime", "strictatime"),
]


def limits(kind: str, most: int) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Lower than what this machine has: raising one is a right that not every root has."""
    pair = st.tuples(st.integers(32, most), st.integers(0, most))
    return pair.map(lambda pair: [{"type": kind, "soft": pair[0], "hard": pair[0] + pair[1]}])


capabilities = st.tuples(st.lists(st.sampled_from(CAPABILITIES), unique=True), st.booleans()).map(
    lambda given: dict.fromkeys(
        ("bounding", "effective", "permitted", *(("inheritable", "ambient") if given[1] else ())), given[0]
    )
)
processes = st.fixed_dictionaries(
    {
        "user": st.fixed_dictionaries(
            {
                "uid": IDS,
                "gid": IDS,
                "additionalGids": st.lists(IDS, max_size=3, unique=True),
                "umask": st.integers(0, 0o777),
            }
        ),
        "cwd": st.sampled_from(["/", "/tmp", "/home/alice"]),
        "noNewPrivileges": st.booleans(),
        "oomScoreAdj": st.integers(0, 1000),
        "capabilities": capabilities,
        "rlimits": st.tuples(
            limits("RLIMIT_NOFILE", 64), limits("RLIMIT_NPROC", 4096), limits("RLIMIT_CORE", 1 << 20)
        ).map(lambda lists: [limit for one in lists for limit in one]),
    }
)
resources = st.fixed_dictionaries(
    {},
    optional={
        "memory": st.integers(16, 64).map(lambda mib: {"limit": mib << 20, "swap": mib << 21}),
        "pids": st.integers(16, 500).map(lambda limit: {"limit": limit}),
        "cpu": st.fixed_dictionaries(
            {"period": st.integers(10_000, 100_000), "quota": st.integers(20_000, 200_000)},
            optional={"shares": st.integers(2, 2048), "cpus": st.just("0")},
        ),
    },
)
mounts = st.lists(st.tuples(st.sampled_from(["tmpfs", "bind"]), *map(st.sampled_from, CHOICES)), max_size=3)
specs = st.fixed_dictionaries(
    {
        "hostname": st.from_regex(r"[a-z][a-z0-9]{0,20}", fullmatch=True),
        "process": processes,
        "resources": resources,
        "mounts": mounts,
        "mapped": st.booleans(),
        "masked": st.lists(st.sampled_from(MASKED), unique=True),
        "readonly": st.booleans(),
        "code": st.integers(0, 255),
    }
)

# Of /proc/self/mountinfo what stands for the same everywhere: place, and whether it can be written; of mounts that the
# specification gives options all flags. Left out: the folder of cgroup hierarchies, which runc leaves writable and has
# one without controllers in; device nodes, which runc binds where it has a user namespace and pyrt makes; whether the
# null device over a masked file is read-only, as crun has it; and /dev/core, which crun makes where no /proc/kcore is.
PROBE = """
hostname; id -u; id -G; umask; pwd; cat /proc/self/limits; cat /proc/self/oom_score_adj; cat /proc/self/uid_map
grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp:' /proc/self/status
awk '{print $5, substr($6, 1, 2)}' /proc/self/mountinfo |
    grep -vE '^/sys/fs/cgroup|^/dev/[a-z]+ rw|^/proc/version r' | sort
awk '$5 ~ /^.mnt.m/ {print $5, $6}' /proc/self/mountinfo | sort
ls /dev | grep -vx core | sort; readlink /dev/fd
for place in /proc/kcore /proc/version /etc; do head -c 8 $place 2>/dev/null | wc -c; done
cd /sys/fs/cgroup
cat memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes pids/pids.max cpu/cpu.shares cpu/cpu.cfs_quota_us \
    cpu/cpu.cfs_period_us cpuset/cpuset.cpus
"""


def write(bundle: Bundle, name: str, spec: dict[str, Any]) -> None:
    """The bundle becomes what the specification says, and probes itself."""
    config, linux = bundle.config, bundle.config["linux"]
    config["process"] = {"args": ["/bin/sh", "-c", f"{PROBE} exit {spec['code']}"], "env": ["PATH=/bin"]}
    config["process"] |= spec["process"]
    config["hostname"] = spec["hostname"]
    config["root"]["readonly"] = spec["readonly"]
    linux["maskedPaths"] = spec["masked"]
    linux["cgroupsPath"] = f"/pyrt/{name}"
    linux["resources"] = spec["resources"]
    linux["namespaces"] = [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")]
    linux.pop("uidMappings", None)
    if spec["mapped"]:
        linux["namespaces"].append({"type": "user"})
        linux["uidMappings"] = linux["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    else:
        linux.pop("gidMappings", None)
    groups = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid"]}
    place = {"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}
    config["mounts"] = [*config["mounts"][: len(DEVICES)], groups, place]
    for index, (wanted, *options) in enumerate(spec["mounts"]):
        # runc makes binds inside the user namespace, where the kernel lets it change no flag of their sources.
        kind = "tmpfs" if spec["mapped"] else wanted
        source = str(bundle.path) if kind == "bind" else "tmpfs"
        words = [*options, *(["rbind"] if kind == "bind" else ["size=1m"])]
        config["mounts"].append({"destination": f"/mnt/m{index}", "type": kind, "source": source, "options": words})
    bundle.write()


@pytest.mark.parametrize("other", OTHERS)
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(spec=specs)
def test_both_make_the_same_container(
    other: str, runtime: Runtime, bundle: Bundle, name: str, tmp_path: Path, spec: dict[str, Any]
) -> None:
    if shutil.which(other) is None:
        pytest.skip(f"{other}, which everything is compared with, is not installed")
    compared = Runtime(OTHERS[other], tmp_path / other, runtime.oracle)
    write(bundle, name, spec)
    # Standard input is theirs: they give it to the container's user.
    answers = [each.call("run", "--bundle", bundle.path, name, text="") for each in (compared, runtime)]
    assert answers[0] == answers[1]
