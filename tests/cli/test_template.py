"""Go templates, as far as --format is used with them."""

from __future__ import annotations

import pytest

from pyrt.cli.template import Map, compile_template
from pyrt.errors import UsageError

VALUE = {
    "Name": "web",
    "State": {"Status": "running", "ExitCode": 0, "Running": True},
    "Args": ["a", "b"],
    "Labels": Map(app="x", tier="y"),
    "None": None,
    "Empty": [],
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Name}}", "web"),
        ("{{.State.Status}}/{{.State.ExitCode}}", "running/0"),
        ("{{json .State}}", '{"Status":"running","ExitCode":0,"Running":true}'),
        (r"{{.Name}}\t{{.State.Running}}", "web\ttrue"),
        ("{{range .Args}}<{{.}}>{{end}}", "<a><b>"),
        ("{{range $i, $a := .Args}}{{$i}}={{$a}} {{end}}", "0=a 1=b "),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}},{{end}}", "app=x,tier=y,"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ('{{if eq .State.Status "exited"}}1{{else if eq .Name "web"}}2{{else}}3{{end}}', "2"),
        ("{{with .State}}{{.Status}} of {{$.Name}}{{end}}", "running of web"),
        ('{{index .Labels "app"}}{{index .Args 1}}', "xb"),
        ('{{join .Args ", "}} {{.Name | upper}} {{len .Args}}', "a, b WEB 2"),
        ('{{printf "%s:%d" .Name .State.ExitCode}}', "web:0"),
        ("a {{- .Name -}} b", "awebb"),
        ("{{/* nothing */}}{{.None}}", "<no value>"),
        ("{{.Args}} {{.Labels}}", "[a b] map[app:x tier:y]"),
        ("{{(index .Args 0)}}", "a"),
        ("{{.Labels.app}} {{.Labels.nothing}}", "x <no value>"),
        ("{{json .Labels}}", '{"app":"x","tier":"y"}'),
        ("no template at all", "no template at all"),
    ],
)
def test_what_docker_prints(template: str, text: str) -> None:
    assert compile_template(template)(VALUE) == text


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{.Nmae}}", "did you mean Name?"),
        ("{{.Name.First}}", ".First, which is not there"),
        ("{{uper .Name}}", "did you mean upper?"),
        ("{{.Name", "{{ without }}"),
        ("{{if .Name}}x", "if without {{end}}"),
        ("{{end}}", "{{end}} without a beginning"),
        ("{{}}", "an empty {{}}"),
        ("{{index .Args 7}}", "out of range"),
        ("{{$x}}", "there is no $x"),
        ("{{(len .Args}}", "( without )"),
    ],
)
def test_mistakes_are_said_and_nothing_is_printed(template: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        print(compile_template(template)(VALUE))
    assert words in f"{caught.value.message} {caught.value.hint}"
