"""Configurations as tools write them, and as enemies do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pyrt.errors import InvalidImage
from pyrt.images.config import (
    LARGEST_CONFIG,
    Healthcheck,
    History,
    ImageConfig,
    encode_config,
    parse_config,
    parse_time,
)

DIFF_ID = "sha256:" + "1" * 64
ROOTFS = {"type": "layers", "diff_ids": [DIFF_ID]}


def parse(run: dict[str, Any] | None = None, **rest: Any) -> ImageConfig:
    return parse_config(json.dumps({"config": run, "rootfs": ROOTFS, **rest}).encode())


def test_everything_that_docker_writes() -> None:
    config = parse(
        {
            "User": "www:www",
            "Env": ["PATH=/bin"],
            "Entrypoint": ["/e"],
            "Cmd": ["a", "b"],
            "WorkingDir": "/srv",
            "Labels": {"a": "b"},
            "StopSignal": "SIGQUIT",
            "StopTimeout": 3,
            "Volumes": {"/data": {}},
            "ExposedPorts": {"80/tcp": {}},
            "Healthcheck": {"Test": ["CMD", "true"], "Interval": 30_000_000_000, "Retries": 3},
            "Shell": ["/bin/bash", "-c"],
            "OnBuild": ["RUN true"],
            "ArgsEscaped": True,
            "MacAddress": "",
        },
        architecture="arm64",
        variant="v8",
        os="linux",
        created="2024-01-01T00:00:00Z",
        author="me",
        docker_version="20.10",
        history=[{"created": "2024-01-01T00:00:00Z", "created_by": "RUN", "empty_layer": True}],
    )
    assert config == ImageConfig(
        user="www:www",
        env=("PATH=/bin",),
        entrypoint=("/e",),
        cmd=("a", "b"),
        working_dir="/srv",
        labels={"a": "b"},
        stop_signal="SIGQUIT",
        stop_timeout=3,
        volumes=("/data",),
        exposed_ports=("80/tcp",),
        healthcheck=Healthcheck(("CMD", "true"), interval=30_000_000_000, retries=3),
        shell=("/bin/bash", "-c"),
        on_build=("RUN true",),
        architecture="arm64",
        os="linux",
        variant="v8",
        created="2024-01-01T00:00:00Z",
        author="me",
        history=(History("2024-01-01T00:00:00Z", "RUN", empty_layer=True),),
        diff_ids=(DIFF_ID,),
    )


def test_null_is_nothing() -> None:
    fields = ("User", "Env", "Entrypoint", "Cmd", "WorkingDir", "Labels", "Volumes", "ExposedPorts", "Healthcheck")
    config = parse(dict.fromkeys(fields), history=None, created=None, architecture=None)
    assert config == ImageConfig(diff_ids=(DIFF_ID,))
    assert parse(None) == config


def test_an_empty_command_is_none() -> None:
    config = parse({"Entrypoint": [], "Cmd": []})
    assert (config.entrypoint, config.cmd) == (None, None)


def test_a_string_for_a_list_of_one_as_in_docker() -> None:
    config = parse({"Entrypoint": "/e", "Cmd": "x y", "Labels": {"a": None}})
    assert (config.entrypoint, config.cmd, config.labels) == (("/e",), ("x y",), {"a": ""})


@pytest.mark.parametrize(
    ("run", "field"),
    [
        ({"Labels": ["a"]}, "config.Labels"),
        ({"Labels": {"a": 1}}, "config.Labels"),
        ({"Env": {"A": "1"}}, "config.Env"),
        ({"Env": [1]}, "config.Env"),
        ({"User": 0}, "config.User"),
        ({"Cmd": 5}, "config.Cmd"),
        ({"StopTimeout": "soon"}, "config.StopTimeout"),
    ],
)
def test_a_wrong_type_is_named(run: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidImage, match="malformed") as raised:
        parse(run)
    assert field in raised.value.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"rootfs": 1}',
        b'{"config": {}}',
        b"{}",
        b'{"rootfs": {"diff_ids": ["sha256:../../etc"]}}',
        b'{"rootfs": {"diff_ids": ["' + b"1" * 64 + b'"]}}',
        b'{"rootfs": {"diff_ids": [null]}}',
        b'{"x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        json.dumps({"rootfs": {"diff_ids": [DIFF_ID] * 501}}).encode(),
        json.dumps({"rootfs": ROOTFS, "config": {"Env": ["A=1\0B=2"]}}).encode(),
        json.dumps({"rootfs": ROOTFS, "config": {"User": "root\0"}}).encode(),
        json.dumps({"rootfs": ROOTFS, "x": "y" * LARGEST_CONFIG}).encode(),
    ],
)
def test_what_is_no_configuration(data: bytes) -> None:
    with pytest.raises(InvalidImage, match=r"configuration|layers"):
        parse_config(data)


def test_what_is_written_is_read_back() -> None:
    config = ImageConfig(
        user="1",
        env=("A=1",),
        cmd=("sh",),
        labels={"x": "y"},
        volumes=("/v",),
        exposed_ports=("1/tcp",),
        architecture="amd64",
        os="linux",
        created="2024-01-01T00:00:00Z",
        history=(History(created_by="pyrt"),),
        diff_ids=(DIFF_ID,),
    )
    assert parse_config(encode_config(config)) == config
    assert encode_config(config) == encode_config(config)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-02T03:04:05.123456789Z", "2024-01-02T03:04:05.123456+00:00"),
        ("2024-01-02T03:04:05+01:00", "2024-01-02T02:04:05+00:00"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00+00:00"),
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+23:59", None),
        ("", None),
        ("yesterday", None),
    ],
)
def test_times(text: str, expected: str | None) -> None:
    moment = parse_time(text)
    assert (moment.isoformat() if moment else None) == expected
