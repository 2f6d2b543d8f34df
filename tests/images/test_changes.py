"""``--change``, in the forms that Docker takes."""

from __future__ import annotations

from typing import Any

import pytest

from pyrt.errors import UsageError
from pyrt.images.changes import apply_changes
from pyrt.images.config import ImageConfig


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (['CMD ["a", "b c"]'], {"cmd": ("a", "b c")}),
        (["cmd echo $HOME"], {"cmd": ("/bin/sh", "-c", "echo $HOME")}),
        (["CMD []"], {"cmd": None}),
        (['ENTRYPOINT ["/e"]'], {"entrypoint": ("/e",)}),
        (["ENV A=1 B='2 3'", "ENV C the rest", "ENV A=9"], {"env": ("A=9", "B=2 3", "C=the rest")}),
        (["ENV A=b=c"], {"env": ("A=b=c",)}),
        (['LABEL a="x y"', "LABEL b=1"], {"labels": {"a": "x y", "b": "1"}}),
        (["EXPOSE 80 53/udp", "EXPOSE 80/tcp 1-2"], {"exposed_ports": ("80/tcp", "53/udp", "1/tcp", "2/tcp")}),
        (["WORKDIR /srv", "WORKDIR app/../x"], {"working_dir": "/srv/x"}),
        (["WORKDIR //x"], {"working_dir": "/x"}),
        (["USER 1000:1000"], {"user": "1000:1000"}),
        (["STOPSIGNAL SIGQUIT"], {"stop_signal": "SIGQUIT"}),
        (["VOLUME /a /b", 'VOLUME ["/c"]'], {"volumes": ("/a", "/b", "/c")}),
    ],
)
def test_applied(changes: list[str], expected: dict[str, Any]) -> None:
    assert apply_changes(ImageConfig(), changes) == ImageConfig(**expected)


WRONG = (
    "", "RUN make", "ENV", "ENV A", "ENV =1", "ENV A='1", "LABEL a=1 b", "EXPOSE", "EXPOSE x", "EXPOSE 0",
    "EXPOSE 70000",
    "EXPOSE 9-1", "USER", "WORKDIR", "STOPSIGNAL", "STOPSIGNAL a b", "VOLUME", "ENV A=\0",
)  # fmt: skip


@pytest.mark.parametrize("change", WRONG)
def test_refused_by_name(change: str) -> None:
    with pytest.raises(UsageError) as raised:
        apply_changes(ImageConfig(), [change])
    assert repr(change)[1:4] in raised.value.message
