"""docs/docker.md tells what there is of Docker: it is held against the parsers, and against Docker's own help."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pyrt.cli.parser import refusal, takes
from pyrt.cli.verbs import VERBS, parser_of
from pyrt.errors import UsageError

PATH = Path(__file__).parents[2] / "docs/docker.md"
PAGE = PATH.read_text()
ROW = re.compile(r"\| (?P<names>`[^|]*`) \| (?P<here>yes|no) \|(?P<remark>[^|]*)\|")
FLAG = re.compile(r"^\s{1,6}(?:(-\w), )?(--[a-z][\w-]*)", re.MULTILINE)


def rows(text: str) -> dict[tuple[str, ...], tuple[bool, str]]:
    """By names, whether it is there and the remark. Every line of a table is understood, or this fails."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    matches = [ROW.fullmatch(line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if not match]
    return {
        tuple(re.findall(r"`([^`]+)`", match["names"])): (match["here"] == "yes", match["remark"].strip())
        for match in matches
        if match
    }


VERB_ROWS = {names[0]: row for names, row in rows(PAGE.partition("## Flags")[0]).items()}
FLAG_ROWS = {
    section.partition("\n")[0].strip(): rows(section) for section in PAGE.partition("## Flags")[2].split("### ")[1:]
}


def flags_of_docker(verb: str) -> list[tuple[str, ...]]:
    """The options in the help of the installed docker; nothing if there is none."""
    docker = shutil.which("docker")
    if docker is None:
        return []
    done = subprocess.run([docker, *verb.split(), "--help"], capture_output=True, text=True, check=False)
    found = [tuple(name for name in names if name) for names in FLAG.findall(done.stdout)]
    return [names for names in found if names[-1] != "--help"]


def test_verbs_are_there_or_not_as_it_says() -> None:
    wrong = {verb for verb, (here, _) in VERB_ROWS.items() if here != (verb in VERBS)}
    assert not wrong, f"docs/docker.md is wrong on {sorted(wrong)}"
    assert all(here or remark for here, remark in VERB_ROWS.values()), "what is not there has a reason"
    # A verb of ours that Docker has not got belongs elsewhere, and every other one here.
    ours = {
        "bench startup",
        "explain",
        "serve",
        "system install",
        "system uninstall",
        "completion",
        "help",
        "__complete",
    }
    shown = {verb for verb, entry in VERBS.items() if not entry.hidden}
    assert shown - ours <= set(VERB_ROWS)


@pytest.mark.parametrize("verb", FLAG_ROWS)
def test_flags_are_taken_or_not_as_it_says(verb: str) -> None:
    parser = parser_of(verb)
    wrong = {
        names for names, (here, _) in FLAG_ROWS[verb].items() if any(here != takes(parser, name) for name in names)
    }
    assert not wrong, f"docs/docker.md is wrong on {verb} {sorted(wrong)}"
    assert all(here or remark for here, remark in FLAG_ROWS[verb].values()), "what is not there has a reason"


@pytest.mark.parametrize("verb", [verb for verb, (here, _) in VERB_ROWS.items() if here])
def test_nothing_of_docker_s_help_is_left_out(verb: str) -> None:
    told = {name for names in flags_of_docker(verb) for name in names}
    known = {name for names in FLAG_ROWS.get(verb, {}) for name in names}
    assert told <= known, f"docs/docker.md lacks {verb} {sorted(told - known)}"


def test_what_is_said_to_be_refused_is_refused_by_name() -> None:
    for verb, flags in FLAG_ROWS.items():
        for names, (here, _) in flags.items():
            if not here:
                with pytest.raises(UsageError, match=re.escape(names[-1])):
                    parser_of(verb).parse([names[-1], "x", "a", "b"])


# ---- bringing the page up to date: python -m tests.cli.test_docker_table ----


def corrected() -> str:
    """The page with its yes and no as the parsers have them; remarks stay where the answer does."""
    intro, _, _ = PAGE.partition("| Verb |")
    verbs = [_row((verb,), verb in VERBS, row) for verb, row in VERB_ROWS.items()]
    parts = [intro + "\n".join(["| Verb | Here | Remark |", "|---|---|---|", *verbs, "", "## Flags", ""])]
    for verb in (verb for verb in VERB_ROWS if verb in VERBS):
        parser, before = parser_of(verb), FLAG_ROWS.get(verb, {})
        table = [
            _row(names, takes(parser, names[-1]), before.get(names, (False, refusal(parser, names[-1]))))
            for names in flags_of_docker(verb)
        ]
        if table:
            parts.append("\n".join([f"### {verb}", "", "| Flag | Here | Remark |", "|---|---|---|", *table, ""]))
    return "\n".join(parts)


def _row(names: tuple[str, ...], here: bool, before: tuple[bool, str]) -> str:
    remark = before[1] if here == before[0] else ""
    return f"| {', '.join(f'`{name}`' for name in names)} | {'yes' if here else 'no'} | {remark} |"


if __name__ == "__main__":
    PATH.write_text(corrected())
