"""The image ``host``: this machine's own files as a disposable view, which needs no download.

Its one layer is "/". In a container of its own user namespace, root reads what root of the host reads, so
what must not be seen is masked: ``hidden_paths`` lists it. A mask hides known places of secrets, and nothing
else: who runs a stranger's program on ``host`` shows it every other file of this machine. Other file systems
(/proc, /dev, mounted disks) are not part of the view: overlayfs does not cross mount points.
"""

from __future__ import annotations

import glob
import os
import pwd
from typing import TYPE_CHECKING, Final

from pyrt.images import platform as platforms
from pyrt.images.config import ImageConfig
from pyrt.images.image import Image

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NAME: Final = "host"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Of the environment only this: the rest may hold tokens.
_KEPT: Final = ("PATH", "LANG", "LC_ALL", "TZ")

# Keys, passwords, tokens and other people's containers. Docker, containerd and Kubernetes keep secrets of theirs
# below the last ones; /run holds sockets and tokens of running services.
_SYSTEM: Final = (
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/gshadow-",
    "/etc/security/opasswd",
    "/etc/ssh/ssh_host_*_key",
    "/etc/ssl/private",
    "/etc/pki/tls/private",
    "/etc/letsencrypt",
    "/etc/krb5.keytab",
    "/etc/wireguard",
    "/etc/openvpn",
    "/etc/ipsec.secrets",
    "/etc/ppp/*-secrets",
    "/etc/NetworkManager/system-connections",
    "/etc/wpa_supplicant",
    "/etc/docker",
    "/etc/containers/auth.json",
    "/etc/kubernetes",
    "/etc/rancher",
    "/etc/crypttab",
    "/etc/sssd",
    "/etc/apt/auth.conf",
    "/etc/apt/auth.conf.d",
    "/boot",
    "/root/.*history",
    "/run",
    "/var/backups",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/kubelet",
    "/var/lib/libvirt",
    "/var/lib/lxc",
    "/var/lib/machines",
    "/var/lib/pyrt",
    "/var/lib/rancher",
    "/var/lib/sss",
    "/var/lib/systemd/credential.secret",
    "/var/spool/cron",
)
_HOME: Final = (
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".boto",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".config/containers/auth.json",
    ".config/gcloud",
    ".config/gh",
    ".config/git/credentials",
    ".config/rclone",
    ".config/sops",
    ".docker",
    ".git-credentials",
    ".kube",
    ".local/share/containers",
    ".local/share/keyrings",
    ".local/share/pyrt",
    ".mozilla",
    ".netrc",
    ".npmrc",
    ".password-store",
    ".pgpass",
    ".pypirc",
    ".vault-token",
)


def host_image(environ: Mapping[str, str] = os.environ) -> Image:
    """An ``Image`` like those of the store, with a shell of this process's environment as its command."""
    host = platforms.host()
    env = {"PATH": _PATH} | {name: environ[name] for name in _KEPT if environ.get(name)}
    config = ImageConfig(
        env=tuple(f"{name}={value}" for name, value in env.items()),
        cmd=(environ.get("SHELL") or "/bin/sh",),
        working_dir="/",
        architecture=host.architecture,
        os=host.os,
    )
    return Image(
        id=NAME,
        digest="",
        names=(NAME,),
        repo_digests=(),
        config=config,
        layers=("/",),
        size=0,
        created=None,
        platform=host,
    )


def hidden_paths(*ours: str | os.PathLike[str]) -> tuple[str, ...]:
    """What is to be masked in a view of "/": real paths of what exists now. ``ours``: state root and run folder.

    Give all of pyrt's own folders: with them visible, a container would see every other one's files.
    """
    patterns = [*_SYSTEM, *(f"{home}/{name}" for home in _homes() for name in _HOME)]
    found = [path for pattern in patterns for path in _expand(pattern)]
    found += [os.fspath(path) for path in ours]
    return _outermost(os.path.realpath(path) for path in found if os.path.lexists(path))


def _homes() -> list[str]:
    """Home folders of this machine's users, and of those that are only on the disk."""
    homes = {user.pw_dir for user in pwd.getpwall()} | {"/root"} | set(glob.glob("/home/*"))
    return sorted(home for home in homes if home.startswith("/") and home != "/")


def _expand(pattern: str) -> list[str]:
    return glob.glob(pattern, include_hidden=True) if "*" in pattern else [pattern]


def _outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """Without those that are below another, and without "/" itself, which a link might mean."""
    kept: list[str] = []
    for path in sorted({path for path in paths if path != "/"}):
        if not any(path == outer or path.startswith(f"{outer}/") for outer in kept):
            kept.append(path)
    return tuple(kept)
