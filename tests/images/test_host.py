"""The image ``host``: this machine's files, without its secrets."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pyrt.images.host import hidden_paths, host_image

if TYPE_CHECKING:
    from pathlib import Path


def test_is_an_image_like_others() -> None:
    image = host_image({"PATH": "/opt/bin:/bin", "SHELL": "/bin/dash", "TOKEN": "secret", "LANG": "C.UTF-8"})
    assert image.layers == ("/",)
    assert image.names == ("host",)
    assert image.config.cmd == ("/bin/dash",)
    assert image.config.env == ("PATH=/opt/bin:/bin", "LANG=C.UTF-8")
    assert image.platform.os == "linux"


def test_has_a_path_and_a_shell_whatever_the_environment() -> None:
    config = host_image({}).config
    assert config.env[0].startswith("PATH=/usr/local/sbin:")
    assert config.cmd == ("/bin/sh",)


def test_hides_our_own_folders_and_what_root_alone_may_read(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    hidden = hidden_paths(tmp_path / "link", tmp_path / "not there")
    assert str(tmp_path / "real") in hidden
    assert os.path.realpath("/etc/shadow") in hidden
    assert "/" not in hidden
    assert all(os.path.exists(path) and os.path.realpath(path) == path for path in hidden)


def test_names_nothing_below_what_is_hidden_already(tmp_path: Path) -> None:
    (tmp_path / "state/run").mkdir(parents=True)
    hidden = hidden_paths(tmp_path / "state", tmp_path / "state/run")
    assert str(tmp_path / "state") in hidden
    assert str(tmp_path / "state/run") not in hidden
