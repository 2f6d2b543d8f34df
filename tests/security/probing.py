"""What the probe reports, without what differs from machine to machine and from run to run."""

from __future__ import annotations

from typing import Any

_STATUS = "Uid Gid Groups NoNewPrivs Seccomp CapInh CapPrm CapEff CapBnd CapAmb SigBlk SigIgn SigCgt".split()
_MOUNT_WORDS = {"ro", "nosuid", "nodev", "noexec"}
# What is mounted there depends on what the kernel has: whether it hides is seen by reading and writing.
_VARIOUS = ("/proc/", "/sys/")
_NAMES = {1: "unix", 2: "inet", 10: "inet6", 16: "netlink", 17: "packet", 29: "can", 38: "alg", 40: "vsock"}
_NOTHING = {"absent", "empty"}


def judged(report: dict[str, Any]) -> dict[str, Any]:
    """The part of a report that a golden file holds."""
    return {
        "status": status(report),
        "ids": _ids(report),
        "umask": f"{report['umask']:04o}",
        "personality": report["personality"],
        "cwd": report["cwd"],
        "descriptors": sorted(report["descriptors"]),
        "mounts": sorted(_mounts(report)),
        "paths": {path: _path(found) for path, found in report["paths"].items()},
        "mknod": report["mknod"],
        "devices": report["devices"],
        "dev": dict(sorted(report["dev"].items())),
        "calls": report["calls"],
        "families": _families(report),
    }


def status(report: dict[str, Any]) -> dict[str, str]:
    """Lines of /proc/self/status."""
    lines = dict(line.split(":", 1) for line in report["status"].splitlines())
    return {name: " ".join(lines[name].split()) for name in _STATUS}


def _ids(report: dict[str, Any]) -> str:
    inside, outside, count = report["uid_map"].split()
    if (inside, outside) == ("0", "0"):
        return "the host's"
    return f"{count} of its own from {inside}, setgroups {report['setgroups'].strip()}"


def mounts_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Each line of /proc/self/mountinfo: place, kind of file system, words, whether it is tied to others."""
    found = []
    for line in report["mountinfo"].splitlines():
        before, _, after = line.partition(" - ")
        _, _, _, root, place, words, *ties = before.split()
        kind, _, above = after.split()
        options = (set(words.split(",")) | ({"ro"} & set(above.split(",")))) & _MOUNT_WORDS
        found.append({"place": place, "root": root, "kind": kind, "words": sorted(options), "ties": ties})
    return found


def _mounts(report: dict[str, Any]) -> list[str]:
    return [
        " ".join([mount["place"], mount["kind"], *mount["words"], *mount["ties"]])
        for mount in mounts_of(report)
        if not mount["place"].startswith(_VARIOUS)
    ]


def _path(found: dict[str, str]) -> str:
    """Hidden, not there, or what can be done with it."""
    read = "nothing" if found["read"] in _NOTHING else found["read"]
    if read == "nothing" and found["write"] != "ok":
        return "nothing"
    return f"read {read}, write {found['write']}"


def _families(report: dict[str, Any]) -> list[str]:
    """Sockets that could be had."""
    return [
        f"{_NAMES.get(int(number), number)} {kind}"
        for number, kinds in report["families"].items()
        for kind, answer in kinds.items()
        if answer == "ok"
    ]
