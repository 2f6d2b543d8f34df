"""What benches are made of: programs, samples in turn, ratios, spans of a start, archives for a guest."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from pyrt.bench import results
from pyrt.bench.cases import Case, interleave, unavailable
from pyrt.bench.guest import write_initramfs
from pyrt.bench.programs import write_programs
from pyrt.bench.spans import Mark, spans_of


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    write_programs(tmp_path)
    return tmp_path


def test_the_clock_prints_the_kernels_monotonic_time(programs: Path) -> None:
    before = time.monotonic_ns()
    printed = int(subprocess.run([programs / "clock"], capture_output=True, check=True).stdout)
    assert before <= printed <= time.monotonic_ns()


def test_the_stamp_becomes_what_it_is_told_to(programs: Path) -> None:
    """With its arguments and its environment; the time before execve comes first."""
    words = [str(programs / "stamp"), "/bin/sh", "-c", f'echo "$0 $1 $GREETING"; exec {programs / "clock"}', "a", "b"]
    done = subprocess.run(words, capture_output=True, check=True, env={"GREETING": "hello"})
    first, said, second = done.stdout.split(b"\n")[:3]
    assert said == b"a b hello"
    assert int(first) < int(second)
    assert subprocess.run([programs / "stamp", "/nowhere"], capture_output=True, check=False).returncode == 127


async def test_a_case_that_fails_is_a_row_with_the_reason_and_the_others_go_on() -> None:
    """A single failure is none yet: it is told, and that is all."""
    taken: list[str] = []

    async def works() -> dict[str, float]:
        return {"ready": 2.0}

    async def stumbles() -> dict[str, float]:
        taken.append("stumbles")
        if len(taken) == 2:
            raise OSError("it lost its output")
        return {"ready": 3.0}

    async def breaks() -> dict[str, float]:
        raise OSError("it is broken")

    cases = [Case("works", works), Case("breaks", breaks), unavailable("absent", "not installed")]
    cases.append(Case("stumbles", stumbles))
    await interleave(cases, 5, warmup=0)
    run = results.summarized("hot", "ms", cases, "works")
    assert run.rows[0].samples == {"ready": [2.0] * 5}
    assert [row.failure for row in run.rows] == ["", "it is broken", "not installed", ""]
    assert run.rows[1].samples == {}
    assert (run.rows[3].misses, run.rows[3].samples) == (1, {"ready": [3.0] * 4})
    assert "not measured: not installed" in results.table(run)


async def test_every_case_is_measured_once_a_round() -> None:
    order: list[str] = []

    def case(name: str) -> Case:
        async def sample() -> dict[str, float]:
            order.append(name)
            return {"ready": 1.0}

        return Case(name, sample)

    await interleave([case(name) for name in "ABC"], 20, warmup=1)
    rounds = ["".join(order[at : at + 3]) for at in range(0, len(order), 3)]
    assert [sorted(each) for each in rounds] == [["A", "B", "C"]] * 21
    assert len(set(rounds)) > 1, "nobody is always the one who comes after another"


def test_a_ratio_lies_within_its_bounds_and_drift_cancels() -> None:
    """Twice the time in each round is a ratio of 2, however much slower the machine gets meanwhile."""
    weather = [1.0 + number / 10 for number in range(100)]
    cases = [
        Case("floor", None, figures={"ready": weather}),
        Case("twice", None, figures={"ready": [2 * at for at in weather]}),
    ]
    [_, twice] = results.summarized("hot", "ms", cases, "floor").rows
    ratio = twice.summary["ready"].ratio
    assert ratio is not None
    assert ratio.low == pytest.approx(2.0)
    assert ratio.value == pytest.approx(2.0)
    assert ratio.high == pytest.approx(2.0)


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    case = Case("floor", None, version="1", missing="nothing", figures={"ready": [1.0, 2.0]})
    found = results.document("startup", [results.summarized("hot", "ms", [case], "floor")])
    assert results.read(results.write(found, tmp_path)) == found


def test_steps_of_two_parts_lie_side_by_side() -> None:
    marks = [
        Mark("engine", "compile", 100_000),
        Mark("keeper", "take", 150_000),
        Mark("keeper", "Clone", 400_000),
        Mark("child", "LoopbackUp", 700_000),
        Mark("keeper", "NewOverlay", 800_000),
        Mark("child", "Exec", 1_000_000),
    ]
    spans = {span.name: (span.begun, span.done) for span in spans_of(marks)}
    assert spans == {
        "compile": (0, 100),
        "take": (100, 150),
        "Clone": (150, 400),
        "LoopbackUp": (400, 700),
        "NewOverlay": (400, 800),
        "Exec": (700, 1000),
    }


def test_short_steps_are_drawn_together() -> None:
    marks = [Mark("child", f"Mask {number}", 1000 + number) for number in range(9)] + [Mark("child", "Exec", 1_000_000)]
    assert [span.name for span in spans_of(marks)] == ["Mask 0 and 8 more", "Exec"]


def test_an_initramfs_is_what_cpio_reads(tmp_path: Path) -> None:
    archive = write_initramfs(tmp_path / "initramfs", {"init": b"one", "usr/bin/tool": b"another"})
    listing = subprocess.run(["bsdtar", "-tvf", archive], capture_output=True, text=True, check=True).stdout
    assert [line.split()[-1] for line in listing.splitlines()] == ["usr", "usr/bin", "init", "usr/bin/tool"]
    content = subprocess.run(["bsdtar", "-xOf", archive, "usr/bin/tool"], capture_output=True, check=True).stdout
    assert content == b"another"
