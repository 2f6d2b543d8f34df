"""The same bundle under runc and under pyrt-runtime: a probe inside sees the same."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.runtime_command.command import Runtime

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runtime_command.command import Bundle

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        shutil.which("runc") is None, reason="runc, which everything is compared with, is not installed"
    ),
]

CAPABILITIES = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SETUID", "CAP_MKNOD"]
IDS = st.integers(0, 65535)
MASKED = ["/proc/kcore", "/proc/version", "/etc", "/no/such"]

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
        "capabilities": st.lists(st.sampled_from(CAPABILITIES), unique=True).map(
            lambda names: dict.fromkeys(("bounding", "effective", "permitted"), names)
        ),
        "rlimits": st.tuples(st.integers(32, 64), st.integers(64, 128)).map(
            lambda pair: [{"type": "RLIMIT_NOFILE", "soft": pair[0], "hard": pair[1]}]
        ),
    }
)
specs = st.fixed_dictionaries(
    {
        "hostname": st.from_regex(r"[a-z][a-z0-9]{0,20}", fullmatch=True),
        "process": processes,
        "masked": st.lists(st.sampled_from(MASKED), unique=True),
        "readonly": st.booleans(),
        "code": st.integers(0, 255),
    }
)

# Of /proc/self/mountinfo what stands for the same everywhere: place and type, and whether it can be written.
PROBE = """
hostname; id -u; id -G; umask; pwd; ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj
grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp:' /proc/self/status
awk '{print $5, substr($6, 1, 2)}' /proc/self/mountinfo | grep -vE ' /sys/fs/cgroup' | sort
ls /dev | sort; readlink /dev/fd
for place in /proc/kcore /proc/version /etc; do head -c 8 $place 2>/dev/null | wc -c; done
"""


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(spec=specs)
def test_runc_and_pyrt_make_the_same_container(
    runtime: Runtime, bundle: Bundle, name: str, tmp_path: Path, spec: dict[str, Any]
) -> None:
    runc = Runtime(["runc"], tmp_path / "runc", runtime.oracle)
    bundle.config["process"] = {"args": ["/bin/sh", "-c", f"{PROBE} exit {spec['code']}"], "env": ["PATH=/bin"]}
    bundle.config["process"] |= spec["process"]
    bundle.config["hostname"] = spec["hostname"]
    bundle.config["root"]["readonly"] = spec["readonly"]
    bundle.config["linux"]["maskedPaths"] = spec["masked"]
    bundle.config["linux"]["cgroupsPath"] = f"/pyrt/{name}"
    bundle.write()
    answers = [each.call("run", "--bundle", bundle.path, name) for each in (runc, runtime)]
    assert answers[0] == answers[1]
