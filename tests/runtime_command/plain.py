"""A user without rights, for those who have none on this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class PlainUser:
    """Runs commands as a user without rights, whom only these commands see in the lists of users."""

    UID = 7777

    def __init__(self, home: Path) -> None:
        self.home = home
        lists = {
            "passwd": f"root:x:0:0::/root:/bin/sh\nplain:x:{self.UID}:{self.UID}::{home}:/bin/sh\n",
            "group": f"root:x:0:\nplain:x:{self.UID}:\n",
            "subuid": "plain:400000:65536\n",
            "subgid": "plain:400000:65536\n",
        }
        for name, text in lists.items():
            (home / name).write_text(text)
        (home / "run").mkdir()
        for place in (home, home / "run"):
            os.chown(place, self.UID, self.UID)
        steps = [f"mount --bind {home / name} /etc/{name}" for name in lists]
        # Where udev has not been it is root's alone.
        steps += ["mount -t tmpfs tmpfs /dev/net", "mknod -m 666 /dev/net/tun c 10 200"]
        ids = f"--reuid {self.UID} --regid {self.UID} --clear-groups"
        environment = f"HOME={home} XDG_RUNTIME_DIR={home}/run PATH=/usr/bin:/bin:/usr/sbin:/sbin"
        script = " && ".join([*steps, "cd /", f'exec setpriv {ids} env -i {environment} "$@"'])
        self.words = ("unshare", "--mount", "sh", "-c", script, "sh")
