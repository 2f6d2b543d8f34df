"""-v, --mount and --tmpfs."""

from __future__ import annotations

import pytest

from pyrt.errors import UsageError
from pyrt.runtime.options import Mount, parse_mount, parse_tmpfs, parse_volume


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/a:/b", Mount("bind", "/b", "/a")),
        ("/a:/b:ro", Mount("bind", "/b", "/a", True, ("ro",))),
        ("/a:/b:rw,rslave,z", Mount("bind", "/b", "/a", False, ("rw", "rslave"))),
        ("/a:/b/../c//d/:cached", Mount("bind", "/c/d", "/a")),
        ("/a:/b:ro,noexec,nosuid,nodev", Mount("bind", "/b", "/a", True, ("ro", "noexec", "nosuid", "nodev"))),
        ("./x:/b", Mount("bind", "/b", "/here/x")),
        ("..:/b", Mount("bind", "/b", "/")),
    ],
)
def test_volumes(text: str, mount: Mount) -> None:
    assert parse_volume(text, folder="/here") == mount


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("/data", "volume without a name"),
        ("data:/b", "names a volume"),
        ("/a:b", "absolute path"),
        ("/a:", "absolute path"),
        ("/a:/", "nothing can be mounted at /"),
        ("/a:/b/..", "nothing can be mounted at /"),
        ("/a:/b:O", "no option of a bind mount"),
        ("/a:/b:size=1m", "no option of a bind mount"),
        ("/a:/b:ro:rw", "too many colons"),
        ("", "volume without a name"),
        ("/a\0:/b", "absolute path"),
    ],
)
def test_no_volumes(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        parse_volume(text)
    assert "volume" not in says or "/srv/data" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("type=bind,source=/a,target=/b", Mount("bind", "/b", "/a")),
        ("type=bind,src=/a,dst=/b,readonly", Mount("bind", "/b", "/a", True)),
        ("type=bind,src=/a,destination=/b,ro=true", Mount("bind", "/b", "/a", True)),
        (
            "type=bind,src=/a,dst=/b,readonly=false,bind-propagation=rslave",
            Mount("bind", "/b", "/a", False, ("rslave",)),
        ),
        ('type=bind,"src=/a,b:c",dst=/b', Mount("bind", "/b", "/a,b:c")),
        ("type=tmpfs,dst=/t", Mount("tmpfs", "/t")),
        (
            "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=755,ro",
            Mount("tmpfs", "/t", "", True, ("size=1048576", "mode=755")),
        ),
    ],
)
def test_mounts(text: str, mount: Mount) -> None:
    assert parse_mount(text) == mount


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "volume"),
        ("source=/a,target=/b", "volumes are not built yet"),
        ("type=volume,source=a,target=/b", "volumes are not built yet"),
        ("type=image,source=a,target=/b", "no type of mount"),
        ("type=bind,target=/b", "source of a bind mount"),
        ("type=bind,source=/a", "target of a mount"),
        ("type=bind,source=/a,target=/b,tmpfs-size=1m", "no 'tmpfs-size'"),
        ("type=bind,source=/a,target=/b,readonly=perhaps", "true or false"),
        ("type=bind,source=/a,target=/b,bind-propagation=sideways", "no option"),
        ("type=tmpfs,target=/b,source=/a", "no 'source'"),
        ("type=tmpfs,target=/b,tmpfs-mode=9", "no mode"),
    ],
)
def test_no_mounts(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_mount(text)


def test_tmpfs() -> None:
    assert parse_tmpfs("/tmp") == Mount("tmpfs", "/tmp")
    asked = parse_tmpfs("/run:rw,size=64m,mode=1777,uid=5,exec")
    assert asked.options == ("rw", "size=67108864", "mode=1777", "uid=5", "exec")
    assert parse_tmpfs("/run:ro").readonly
    for text in ("tmp", "/", "/t:size=x", "/t:size=", "/t:mode=9", "/t:uid=root", "/t:source=/etc", "/t:lowerdir=/x"):
        with pytest.raises(UsageError):
            parse_tmpfs(text)
