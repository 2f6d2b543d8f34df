"""Who runs in the container: the USER of an image, or of the caller, and the image's own passwd and group files.

All three are an enemy's text (CVE-2024-40635, CVE-2026-30892, CRI-O's CVE-2022-4318): numbers are bounded before they
are numbers, nothing that is malformed falls back to root, and a file is read once, line by line, in linear time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from pyrt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Docker, runc and containerd stop here, too; 2^32 - 1 would mean "leave as it is" to setuid(2).
LARGEST_ID: Final = (1 << 31) - 1
# How much of /etc/passwd and /etc/group is worth reading: 20,000 users.
LARGEST_FILE: Final = 1 << 20
_NAME: Final = re.compile(r"[^\s:,/\x00-\x1f\x7f]{1,255}")
_LOOKS_NUMERIC: Final = re.compile(r"[+-]?\d+", re.ASCII)
_NUMBER: Final = re.compile(rb"0{0,20}(\d{1,10})")
# An absolute path that no line-based file and no terminal misreads.
_HOME: Final = re.compile(r"/[^\x00-\x1f\x7f]{0,4000}")
# More than any system gives; a hostile group file could name a user a hundred thousand times.
_MOST_GROUPS: Final = 1024


class User(msgspec.Struct, frozen=True):
    """Numbers as the container has them. ``groups`` begins with ``gid`` (CVE-2022-36109). ``name`` may be empty."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    name: str


class _Account(NamedTuple):
    name: bytes
    uid: int
    gid: int
    home: str


class _Group(NamedTuple):
    name: bytes
    gid: int
    members: bytes


def resolve_user(
    text: str,
    passwd: bytes | None,
    group: bytes | None,
    extra_groups: Sequence[str] = (),
    *,
    ids: int = LARGEST_ID + 1,
) -> User:
    """The user that ``text`` means: "", "name", "uid", "name:group", "uid:gid" and the mixtures of them.

    ``passwd`` and ``group`` are the image's files, None if it has none. Digits are always a number, never a name. A
    number without an account has group 0, no other groups and the home "/". Without a group in ``text`` the groups
    are those that list the account. ``ids``: how many numbers the container's user namespace has, from 0.
    UsageError: malformed, not in the files, or beyond ``ids``.
    """
    who, colon, group_text = text.partition(":")
    if colon and not (who and group_text):
        raise UsageError(f"{_shown(text)} names no user", hint="write it as in name, 1000, name:group or 1000:1000")
    uid, account = _find_account(who, passwd or b"", ids)
    gid = account.gid if account else 0
    listed: tuple[int, ...] = ()
    if group_text:
        gid = _find_group(group_text, group or b"", ids)
    elif account:
        _check(gid, ids, f"the group of {_shown(text)}, {gid},")
        listed = _groups_of(account.name, group or b"", ids)
    extra = [_find_group(one, group or b"", ids) for one in extra_groups]
    return User(
        uid=uid,
        gid=gid,
        groups=tuple(dict.fromkeys((gid, *listed, *extra))),
        home=account.home if account else "/",
        name=account.name.decode(errors="replace") if account else "",
    )


def _find_account(text: str, passwd: bytes, ids: int) -> tuple[int, _Account | None]:
    number = _number(text, "user", ids) if text else 0
    if number is not None:
        return number, next((account for account in _accounts(passwd) if account.uid == number), None)
    name = _name(text, "user")
    for account in _accounts(passwd):
        if account.name == name:
            return _check(account.uid, ids, f"the user {_shown(text)}, {account.uid},"), account
    raise UsageError(
        f"there is no user {_shown(text)} in the image", hint="its /etc/passwd lists them; a number always works"
    )


def _find_group(text: str, groups: bytes, ids: int) -> int:
    number = _number(text, "group", ids)
    if number is not None:
        return number
    name = _name(text, "group")
    for group in _groups(groups):
        if group.name == name:
            return _check(group.gid, ids, f"the group {_shown(text)}, {group.gid},")
    raise UsageError(
        f"there is no group {_shown(text)} in the image", hint="its /etc/group lists them; a number always works"
    )


def _groups_of(name: bytes, groups: bytes, ids: int) -> tuple[int, ...]:
    # A group beyond the range owns no file that the container can see the owner of: left out, it is not missed.
    found = [
        group.gid
        for group in _groups(groups)
        if name in group.members and name in group.members.split(b",") and group.gid < ids
    ]
    if len(found) > _MOST_GROUPS:
        raise UsageError(f"the image's /etc/group has a user in {len(found)} groups, more than {_MOST_GROUPS}")
    return tuple(found)


def _accounts(passwd: bytes) -> Iterator[_Account]:
    for fields in _lines(passwd, 6):
        uid, gid = _digits(fields[2]), _digits(fields[3])
        # An account without numbers is nobody's; read leniently, it would be root's.
        if uid is not None and gid is not None:
            yield _Account(fields[0], uid, gid, _home(fields[5]))


def _groups(groups: bytes) -> Iterator[_Group]:
    for fields in _lines(groups, 3):
        gid = _digits(fields[2])
        if gid is not None:
            yield _Group(fields[0], gid, fields[3].strip() if len(fields) > 3 else b"")


def _lines(text: bytes, least: int) -> Iterator[list[bytes]]:
    start = 0
    while start < len(text):
        end = text.find(b"\n", start)
        end = len(text) if end < 0 else end
        fields = text[start:end].split(b":", 6)
        if len(fields) >= least and fields[0]:
            yield fields
        start = end + 1


def _home(text: bytes) -> str:
    home = text.decode(errors="replace")
    return home if _HOME.fullmatch(home) and "�" not in home else "/"


def _digits(text: bytes) -> int | None:
    """A number of a file, or None: empty, not digits, or beyond all ids."""
    match = _NUMBER.fullmatch(text)
    number = int(match[1]) if match else LARGEST_ID + 1
    return number if number <= LARGEST_ID else None


def _number(text: str, what: str, ids: int) -> int | None:
    """The number that ``text`` is, None if it is a name."""
    if not _LOOKS_NUMERIC.fullmatch(text):
        return None
    number = _digits(text.encode())
    if number is None:
        raise UsageError(f"{_shown(text)} is no {what} id", hint=f"ids are from 0 to {LARGEST_ID}")
    return _check(number, ids, f"the {what} id {number}")


def _check(number: int, ids: int, what: str) -> int:
    if number >= ids:
        hint = f"ids go from 0 to {ids - 1}; with the host's user namespace all are there"
        raise UsageError(f"{what} is beyond the container's range", hint=hint)
    return number


def _name(text: str, what: str) -> bytes:
    if not _NAME.fullmatch(text):
        raise UsageError(f"{_shown(text)} is no name of a {what}")
    return text.encode(errors="surrogateescape")


def _shown(text: str) -> str:
    return repr(text[:80])
