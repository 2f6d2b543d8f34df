"""Command lines: what is understood, what is refused, and how the refusal helps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pyrt.cli import VERSION
from pyrt.cli.parser import HelpWanted
from pyrt.cli.verbs import VERBS, find, module_of, parser_of
from pyrt.errors import UsageError


def refusal(verb: str, line: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parser_of(verb).parse(line.split())
    return caught.value


def parsed(verb: str, line: str) -> Any:
    return parser_of(verb).parse(line.split())


def test_client_and_server_have_one_version() -> None:
    manifest = Path(__file__).parents[2].joinpath("Cargo.toml").read_text()
    assert re.search(r'^version = "(.*)"', manifest, re.MULTILINE)[1] == VERSION  # type: ignore[index]


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_help_with_its_usage_for_any_width(name: str) -> None:
    parser = parser_of(name)
    with pytest.raises(HelpWanted):
        parser.parse(["--help"])
    for columns in (40, 80, 300):
        text = parser.text(columns)
        assert text.startswith(f"Usage: pyrt {module_of(name).HELP.usage}")
        assert "argparse" not in text


def test_what_follows_the_image_is_the_command_whatever_it_looks_like() -> None:
    for line in ("--rm box -x --rm", "--rm -- box -x --rm", "--rm box -- -x --rm"):
        options = parsed("run", line)
        assert (options.image, [word for word in options.command if word != "--"]) == ("box", ["-x", "--rm"])
    assert parsed("run", "box").command == []


def test_short_options_in_a_cluster_and_values_that_stick() -> None:
    options = parsed("run", "-itm64m -eA=1 -u1:2 --cpus=.5 -h box image")
    assert (options.interactive, options.tty, options.memory, options.env) == (True, True, "64m", ["A=1"])
    assert (options.user, options.cpus, options.hostname) == ("1:2", ".5", "box")


def test_unknown_options_are_named_and_guessed_at() -> None:
    assert refusal("run", "--memroy 64m box").hint == "did you mean --memory?"
    assert "no option --memroy" in refusal("run", "--memroy").message
    assert "no option -z" in refusal("run", "-itz box").message
    assert "no option --nothing" in refusal("ps", "--nothing").message


def test_what_is_missing_or_too_much() -> None:
    assert refusal("run", "--rm").message == "pyrt run needs IMAGE"
    assert refusal("tag", "one").message == "pyrt tag needs NAME[:TAG]"
    assert refusal("tag", "one two three").message == "pyrt tag takes no argument three"
    assert "expected one argument" in refusal("run", "box --name".split()[1]).message


@pytest.mark.parametrize("option", ["-P", "--publish=80:80", "-p 80:80", "--gpus all", "--link x", "-itP"])
def test_what_is_not_built_is_refused_by_name_with_a_hint(option: str) -> None:
    error = refusal("run", f"{option} box")
    assert "is not built yet" in error.message
    assert error.hint


def test_verbs_of_two_words_and_their_guesses() -> None:
    assert find(["image", "ls", "-q"]) == ("image ls", ["-q"])
    assert find(["image"]) == ("help", ["image"])
    assert find(["ps", "-a"]) == ("ps", ["-a"])
    for words, hint in ((["imagse"], "did you mean images?"), (["image", "prnue"], "did you mean image prune?")):
        with pytest.raises(UsageError) as caught:
            find(words)
        assert caught.value.hint == hint
    with pytest.raises(UsageError, match="pyrt build is not built yet"):
        find(["build", "."])
