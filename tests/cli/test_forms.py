"""How things are shown: sizes, ages, lists, filters, steps, moments, places, completion."""

from __future__ import annotations

import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from pyrt.cli import figures
from pyrt.cli.completion import SHELLS
from pyrt.cli.filters import Filters
from pyrt.cli.listing import Column, render
from pyrt.cli.moments import parse_moment
from pyrt.cli.place import Place
from pyrt.cli.steps import timing_table
from pyrt.engine.results import Mark
from pyrt.errors import HostError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = (Column("ID", "ID"), Column("Names", "NAMES"))
ROWS = [{"ID": "1", "Names": "web"}, {"ID": "22", "Names": "db"}]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (1234, "1.23kB"),
        (72_800_000, "72.8MB"),
        (999_600, "1MB"),
        (10**12, "1TB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert figures.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (61, "About a minute"),
        (3599, "59 minutes"),
        (3601, "About an hour"),
        (47 * 3600, "47 hours"),
        (3 * 86400, "3 days"),
        (20 * 86400, "2 weeks"),
        (100 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert figures.span(seconds) == text


def test_moments_and_stamps() -> None:
    now = datetime(2026, 11, 24, 12, tzinfo=UTC)
    assert figures.ago(now - timedelta(hours=5), now) == "5 hours ago"
    assert figures.ago(None, now) == "N/A"
    nanoseconds = int(now.timestamp()) * 10**9 + 5
    assert figures.stamp(nanoseconds) == "2026-11-24T12:00:00.000000005Z"
    assert figures.stamp(0) == "0001-01-01T00:00:00Z"
    assert figures.moment_of(0) is None


def test_lists_for_people_and_for_programs() -> None:
    assert render(ROWS, COLUMNS, None, {}) == "ID   NAMES\n1    web\n22   db\n"
    assert render(ROWS, COLUMNS, "json", {}) == '{"ID":"1","Names":"web"}\n{"ID":"22","Names":"db"}\n'
    assert render(ROWS, COLUMNS, "{{.Names}}!", {}) == "web!\ndb!\n"
    assert render(ROWS, COLUMNS, r"table {{.Names}}\t{{.ID}}", {}) == "NAMES   ID\nweb     1\ndb      22\n"
    assert render([], COLUMNS, None, {}) == "ID   NAMES\n"
    assert render([], COLUMNS, "json", {}) == ""


def test_filters_fit_any_value_of_each_name() -> None:
    known = {"a": lambda item, value: value in item, "n": lambda item, value: len(item) == int(value)}
    filters: Filters[str] = Filters.parse(["a=x", "a=y", "n=2"], known)
    assert [item for item in ("xx", "yz", "zz", "xxx") if filters.take(item)] == ["xx", "yz"]
    for text in ("a", "b=1"):
        with pytest.raises(UsageError):
            Filters.parse([text], known)


def test_timings_as_bars_of_their_lengths() -> None:
    marks = (Mark("engine", "record", 1000), Mark("child", "Mask", 2000), Mark("child", "Mask", 5000))
    assert timing_table(marks, 40, colour=False).splitlines() == [
        "engine  record      1us  ███▎",
        "child   Mask x2     4us  " + "█" * 13,
        "        in all      5us",
    ]
    assert "\x1b[" in timing_table(marks, 40, colour=True)


def test_moments_of_events() -> None:
    assert parse_moment("4711").seq == 4711
    assert parse_moment("1700000000").time == 1_700_000_000 * 10**9
    assert parse_moment("2026-11-24T12:00:00Z").time == 1_795_521_600 * 10**9
    assert parse_moment("2026-11-24T12:00:00.123456789Z").time == 1_795_521_600_123_456_789
    assert parse_moment("2026-11-24T13:00:00.5+01:00").time == 1_795_521_600_500_000_000
    age = time.time_ns() - (parse_moment("1h30m").time or 0)
    assert abs(age - 5400 * 10**9) < 10**9
    with pytest.raises(UsageError):
        parse_moment("yesterday")


def test_places_by_environment(tmp_path: Path) -> None:
    assert Place.find({"PYRT_RUN": "/r"}).socket.as_posix() == "/r/pyrt.sock"
    assert Place.find({"PYRT_RUN": "/r", "PYRT_ROOT": "/var/lib/pyrt"}).name == "pyrt"
    # The same as the native client has it, in its own tests.
    assert Place.find({"PYRT_RUN": "/r", "PYRT_ROOT": "/srv/state"}).name == "pyrt-b4609a885934df11"
    with pytest.raises(UsageError):
        Place.find({"PYRT_RUN": "r"})
    open_folder = tmp_path / "open"
    open_folder.mkdir(mode=0o755)
    with pytest.raises(HostError, match="open to others"):
        Place.find({"PYRT_RUN": str(open_folder)}).prepare()


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_of_completion_are_scripts(shell: str) -> None:
    text = SHELLS[shell]()
    assert "@" not in text.replace("${COMP_WORDS[@]", "")
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["ru"], {"run"}),
        (["image", "pr"], {"prune"}),
        (["run", "--memory-s"], {"--memory-swap", "--memory-swappiness"}),
        (["ps", "--no"], {"--no-trunc"}),
        (["nothing", ""], set()),
    ],
)
def test_bash_completes_verbs_and_options(words: list[str], wanted: set[str]) -> None:
    line = " ".join(f"'{word}'" for word in ["pyrt", *words])
    script = (
        f"{SHELLS['bash']()}\nCOMP_WORDS=({line}); COMP_CWORD={len(words)}; _pyrt; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(["bash", "--norc"], input=script, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == wanted
    assert done.stderr == ""


def test_bash_asks_pyrt_for_names() -> None:
    stand_in = 'pyrt() { [[ "$*" == "__complete runnable" ]] && printf "host\\nbox:1\\nother\\n"; }'
    for line, wanted in (("run --rm -m 64m bo", ["box:1"]), ("run --name bo", []), ("run -it ho", ["host"])):
        words = ["pyrt", *line.split()]
        script = (
            f"{SHELLS['bash']()}\n{stand_in}\nCOMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _pyrt;"
            " printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(
            ["bash", "--norc"], input=script, capture_output=True, text=True, check=True, cwd="/proc/self/ns"
        )
        assert done.stdout.split() == wanted, line
