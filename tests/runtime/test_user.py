"""USER in every form, and the hostile ones (CVE-2024-40635, CVE-2026-30892, CVE-2022-4318, CVE-2022-36109)."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pyrt.errors import UsageError
from pyrt.runtime.user import LARGEST_FILE, LARGEST_ID, User, resolve_user
from tests.runtime.making import GROUP, PASSWD


def resolve(
    text: str, passwd: bytes | None = PASSWD, group: bytes | None = GROUP, *extra: str, ids: int = 65_536
) -> User:
    return resolve_user(text, passwd, group, extra, ids=ids)


@pytest.mark.parametrize(
    ("text", "uid", "gid", "groups", "home", "name"),
    [
        ("", 0, 0, (0,), "/root", "root"),
        ("root", 0, 0, (0,), "/root", "root"),
        ("0", 0, 0, (0,), "/root", "root"),
        ("app", 1000, 1000, (1000, 4, 44), "/home/app", "app"),
        ("1000", 1000, 1000, (1000, 4, 44), "/home/app", "app"),
        ("01000", 1000, 1000, (1000, 4, 44), "/home/app", "app"),
        ("app:video", 1000, 44, (44,), "/home/app", "app"),
        ("app:7", 1000, 7, (7,), "/home/app", "app"),
        ("1000:adm", 1000, 4, (4,), "/home/app", "app"),
        ("5000", 5000, 0, (0,), "/", ""),
        ("5000:5001", 5000, 5001, (5001,), "/", ""),
        ("5000:video", 5000, 44, (44,), "/", ""),
        ("65535:65535", 65535, 65535, (65535,), "/", ""),
    ],
)
def test_forms(text: str, uid: int, gid: int, groups: tuple[int, ...], home: str, name: str) -> None:
    assert resolve(text) == User(uid, gid, groups, home, name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nobody", "no user 'nobody'"),
        ("app:nogroup", "no group 'nogroup'"),
        ("-1", "no user id"),
        ("+5", "no user id"),
        ("2147483648", "no user id"),
        ("4294967295", "no user id"),
        ("4294967296", "no user id"),
        ("18446744073709551616", "no user id"),
        ("9" * 5000, "no user id"),
        ("1000:-1", "no group id"),
        ("1000:4294967295", "no group id"),
        ("65536", "beyond the container's range"),
        ("0:65536", "beyond the container's range"),
        (":", "names no user"),
        (":5", "names no user"),
        ("app:", "names no user"),
        ("app:b:c", "no name"),
        ("1 ", "no name"),
        (" 0", "no name"),
        ("1\n0", "no name"),
        ("root\0x", "no name"),
        ("\u0660", "no user"),
        ("0x0", "no user"),
        ("1_0", "no user"),
        ("1e0", "no user"),
        ("../root", "no name"),
    ],
)
def test_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        resolve(text)


def test_every_id_is_there_with_the_hosts_user_namespace() -> None:
    assert resolve(f"{LARGEST_ID}:{LARGEST_ID}", ids=LARGEST_ID + 1).uid == LARGEST_ID


def test_digits_are_never_a_name() -> None:
    # An account called "0" must not make "0" somebody else, nor one called "7" make 7 root.
    passwd = b"7:x:0:0:::\n0:x:5:5:::\n"
    assert resolve("7", passwd).uid == 7
    assert resolve("0", passwd).uid == 0


def test_without_files_numbers_work_and_names_do_not() -> None:
    assert resolve("12:34", None, None) == User(12, 34, (34,), "/", "")
    assert resolve("", None, None) == User(0, 0, (0,), "/", "")
    with pytest.raises(UsageError, match="no user 'root'"):
        resolve("root", None, None)


def test_groups_to_add_are_names_or_numbers() -> None:
    assert resolve("app", PASSWD, GROUP, "daemon", "77", "adm").groups == (1000, 4, 44, 1, 77)
    with pytest.raises(UsageError, match="no group 'wheel'"):
        resolve("app", PASSWD, GROUP, "wheel")
    with pytest.raises(UsageError, match="beyond"):
        resolve("app", PASSWD, GROUP, "70000")


@pytest.mark.parametrize(
    "line",
    ["app:x:zero:0:::", "app:x:-1:0:::", "app:x:4294967296:0:::", "app:x::0:::", "app:x:0x0:0:::", "app", "app:x:0"],
)
def test_an_account_without_numbers_is_nobodys(line: str) -> None:
    # Read with an `atoi` that answers 0 for nonsense, these would be root.
    with pytest.raises(UsageError, match="no user"):
        resolve("app", line.encode())


@pytest.mark.parametrize(
    ("home", "taken"),
    [
        ("/home/x", "/home/x"),
        ("", "/"),
        ("home", "/"),
        ("/a\rb", "/"),
        ("/a\x1b[2J", "/"),
        ("/\udcff", "/"),
        ("/" + "a" * 5000, "/"),
    ],
)
def test_homes(home: str, taken: str) -> None:
    assert resolve("app", f"app:x:1:1::{home}:/bin/sh\n".encode(errors="surrogateescape")).home == taken


def test_the_first_account_counts_and_damage_around_it_is_passed_over() -> None:
    passwd = b"\n:::\n#app:x:0:0:::\n\xff\xfe:x:3:3::/:\napp:x:5:6::/h:\napp:x:0:0::/root:"
    assert resolve("app", passwd) == User(5, 6, (6, 4, 44), "/h", "app")


def test_a_group_beyond_the_range_is_left_out_of_the_others() -> None:
    assert resolve("app", PASSWD, b"big:x:70000:app\nadm:x:4:app\n").groups == (1000, 4)
    with pytest.raises(UsageError, match="the group of 'app', 70000, is beyond"):
        resolve("app", b"app:x:1:70000:::")


def test_a_hostile_number_of_groups_is_refused() -> None:
    group = b"".join(b"g%d:x:%d:app\n" % (number, number) for number in range(2000))
    with pytest.raises(UsageError, match="in 2000 groups"):
        resolve("app", PASSWD, group)


@pytest.mark.parametrize(
    "file",
    [
        b"a" * LARGEST_FILE,
        b":" * LARGEST_FILE,
        b"\n" * LARGEST_FILE,
        b"app,app:" * (LARGEST_FILE // 8),
        b"g:x:1:" + b"app," * (LARGEST_FILE // 4),
        b"g:x:1:app\n" * (LARGEST_FILE // 10),
    ],
    ids=["one line", "colons", "lines", "fields", "members", "groups"],
)
def test_files_of_the_largest_size_take_no_time(file: bytes) -> None:
    before = time.perf_counter()
    for text in ("nobody", "app:nothing"):
        with pytest.raises(UsageError):
            resolve(text, file + b"\napp:x:1:1:::", file)
    assert time.perf_counter() - before < 5


ids = st.one_of(st.integers(0, 70_000), st.sampled_from([LARGEST_ID, LARGEST_ID + 1, 2**32 - 1, 2**32, 2**64]))
part = st.one_of(st.text(max_size=12), ids.map(str), st.sampled_from(["app", "root", "video", "-1", ""]))


@given(part, st.one_of(st.none(), part))
@example("4294967296", None)
@example("0:0", "0")
def test_whoever_it_is_was_named(user: str, group: str | None) -> None:
    text = user if group is None else f"{user}:{group}"
    try:
        found = resolve(text)
    except UsageError:
        return
    assert 0 <= found.uid < 65_536
    assert found.groups[0] == found.gid
    assert all(0 <= gid < 65_536 for gid in found.groups)
    who, _, of = text.partition(":")
    # Root comes from nothing but its name, its number, or silence.
    assert found.uid != 0 or who in {"", "root"} or not who.strip("0")
    assert not (who.isascii() and who.isdigit()) or found.uid == int(who)
    assert not (of.isascii() and of.isdigit()) or found.gid == int(of)


@given(st.binary(max_size=400), st.binary(max_size=400), st.sampled_from(["app", "root", "0", "", "app:app"]))
def test_any_file_gives_a_user_in_range_or_a_refusal(passwd: bytes, group: bytes, text: str) -> None:
    try:
        found = resolve(text, passwd, group)
    except UsageError:
        return
    assert 0 <= found.uid < 65_536
    assert found.home.startswith("/")
    assert "\n" not in found.home
