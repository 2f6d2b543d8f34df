"""Images that other people's tools made: what pyrt is tested on.

Nothing here uses pyrt. busybox-static and mmdebstrap give the files, umoci, buildah, skopeo and Docker the
images, docker-registry serves them on loopback. They are made once, the first time a test asks, and kept
in `build/test-images` (or `PYRT_TEST_IMAGES`) until this file changes. Tests read them and never write.

    busybox_rootfs   a folder            five_layers      umoci, with whiteouts, an opaque folder, xattrs, links
    debian_tar       a root's tar        zstd_layers      the same by skopeo, recompressed
    busybox          umoci, one layer    buildah_image    buildah, from scratch, with a RUN step
    debian           umoci, one layer    platforms        buildah, an index of five, one of them for Windows
    docker_archive   skopeo's            windows_only     buildah, an index that fits nobody here
    docker_saved     Docker's own
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests import services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).parent.parent
# busybox knows its applets itself; these are the ones that images are expected to have in /bin.
PASSWD = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\nalice:x:1000:1000::/home/alice:/bin/sh\n"
GROUP = "root:x:0:\ndaemon:x:1:\nalice:x:1000:\nvideo:x:44:alice\n"


class Layout(NamedTuple):
    """An image in an OCI layout folder."""

    path: Path
    tag: str

    def __str__(self) -> str:
        return f"{self.path}:{self.tag}"


def tool(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Runs a tool to its end and returns what it printed; a failure shows what it complained of."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def made(name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name`, made by `make` if it is not there: whole or absent, and by one process alone."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    folder = Path(os.environ.get("PYRT_TEST_IMAGES", REPOSITORY / "build/test-images")) / recipe
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / f".{name}.lock"):
        if not (folder / name).exists():
            unfinished = folder / f".{name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder / name)
    return folder / name


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# ---- files --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def busybox_rootfs() -> Path:
    """A root file system of one static program and its links: 2 MB."""
    return made("busybox-rootfs", _make_busybox_rootfs)


def _make_busybox_rootfs(root: Path) -> None:
    for folder in ("bin", "etc", "home/alice", "proc", "root", "sys", "dev", "tmp", "var/run"):
        (root / folder).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    busybox = shutil.which("busybox") or "/bin/busybox"
    shutil.copy2(busybox, root / "bin/busybox")
    for applet in tool(busybox, "--list").split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    os.chown(root / "home/alice", 1000, 1000)


@pytest.fixture(scope="session")
def debian_tar() -> Path:
    """Debian 12, minbase with python3, as mmdebstrap's tar: some 200 MB."""
    return made("debian", _make_debian) / "debian.tar"


def _make_debian(folder: Path) -> None:
    # The archive that this machine uses itself, if it is a Debian 12; mmdebstrap's own choice otherwise.
    sources = [path for path in map(Path, SOURCES) if path.exists() and "bookworm" in path.read_text()]
    tool(
        "mmdebstrap",
        "--variant=minbase",
        "--include=python3",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "bookworm",
        folder / "debian.tar",
        *sources,
    )


SOURCES = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")


# ---- umoci --------------------------------------------------------------------------------------


def _new_layout(folder: Path, tag: str) -> str:
    tool("umoci", "init", "--layout", folder / "oci")
    image = f"{folder / 'oci'}:{tag}"
    tool("umoci", "new", "--image", image)
    return image


@pytest.fixture(scope="session")
def busybox(busybox_rootfs: Path) -> Layout:
    """One layer by umoci; runs sh."""

    def make(folder: Path) -> None:
        image = _new_layout(folder, "latest")
        tool("umoci", "insert", "--image", image, busybox_rootfs, "/")
        tool("umoci", "config", "--image", image, "--config.cmd", "sh", "--config.env", "PATH=/bin")

    return Layout(made("busybox", make) / "oci", "latest")


@pytest.fixture(scope="session")
def debian(debian_tar: Path) -> Layout:
    """One layer by umoci; runs python3."""

    def make(folder: Path) -> None:
        image = _new_layout(folder, "12")
        tool("umoci", "raw", "add-layer", "--image", image, debian_tar)
        tool("umoci", "config", "--image", image, "--config.cmd", "python3", "--config.env", f"PATH={DEBIAN_PATH}")

    return Layout(made("debian-image", make) / "oci", "12")


DEBIAN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture(scope="session")
def five_layers(debian: Layout) -> Layout:
    """Debian and four layers of umoci's on it, with everything that a layer can say, and a full configuration.

    /srv/app/main.py prints "hello from five layers"; /etc/motd and /usr/games are gone; /usr/share/base-files
    holds nothing but `only`; /srv/tools/{probe,probe2} are one file with a capability, setuid and a user xattr,
    `latest` a link to it; a fifo and a name that is not UTF-8 lie beside them.
    """
    return Layout(made("five-layers", lambda folder: _make_five_layers(folder, debian)) / "oci", "five")


def _make_five_layers(folder: Path, debian: Layout) -> None:
    shutil.copytree(debian.path, folder / "oci")
    image = f"{folder / 'oci'}:five"
    tool("umoci", "tag", "--image", f"{folder / 'oci'}:{debian.tag}", "five")
    (folder / "app").mkdir()
    (folder / "app/main.py").write_text("print('hello from five layers')\n")
    (folder / "only").mkdir()
    (folder / "only/only").write_text("only\n")
    tool("umoci", "insert", "--image", image, folder / "app", "/srv/app")
    tool("umoci", "insert", "--image", image, "--opaque", folder / "only", "/usr/share/base-files")
    tool("umoci", "insert", "--image", image, "--whiteout", "/usr/games")
    bundle = folder / "bundle"
    tool("umoci", "unpack", "--image", image, bundle)
    _change(bundle / "rootfs")
    tool("umoci", "repack", "--image", image, bundle)
    options = {
        "entrypoint": ["python3"],
        "cmd": ["/srv/app/main.py"],
        "env": [f"PATH={DEBIAN_PATH}", "GREETING=hello", "EMPTY="],
        "user": ["nobody:nogroup"],
        "workingdir": ["/srv/app"],
        "label": ["org.example.name=five", "org.example.text=with spaces"],
        "stopsignal": ["SIGINT"],
        "exposedports": ["8080/tcp"],
        "volume": ["/data"],
    }
    words = [word for name, values in options.items() for value in values for word in (f"--config.{name}", value)]
    tool("umoci", "config", "--image", image, *words)
    for leftover in ("app", "only", "bundle"):
        shutil.rmtree(folder / leftover)
    tool("umoci", "remove", "--image", f"{folder / 'oci'}:{debian.tag}")
    tool("umoci", "gc", "--layout", folder / "oci")


def _change(root: Path) -> None:
    tools = root / "srv/tools"
    tools.mkdir()
    shutil.copy2(shutil.which("busybox") or "/bin/busybox", tools / "probe")
    # VFS_CAP_REVISION_2 with CAP_NET_BIND_SERVICE permitted and effective (linux/capability.h).
    os.setxattr(tools / "probe", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.setxattr(tools / "probe", "user.origin", b"five layers")
    (tools / "probe").chmod(0o4755)
    os.link(tools / "probe", tools / "probe2")
    (tools / "latest").symlink_to("probe")
    os.mkfifo(tools / "fifo")
    (Path(os.fsdecode(bytes(tools) + b"/\xff\xfe"))).write_text("a name that is not UTF-8\n")
    os.chown(tools / "fifo", 1234, 4321)
    os.utime(tools, ns=(1_000_000_001, 1_000_000_002))
    (root / "etc/motd").unlink(missing_ok=True)
    (root / "etc/hostname").write_text("five\n")


# ---- skopeo -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def docker_archive(five_layers: Layout) -> Path:
    """The five layers as a docker-archive tar by skopeo, named localhost/five:latest."""

    def make(folder: Path) -> None:
        destination = f"docker-archive:{folder / 'image.tar'}:localhost/five:latest"
        tool("skopeo", "copy", f"oci:{five_layers}", destination)

    return made("docker-archive", make) / "image.tar"


@pytest.fixture(scope="session")
def zstd_layers(five_layers: Layout) -> Layout:
    """The five layers, recompressed by skopeo."""

    def make(folder: Path) -> None:
        zstd = ("--dest-compress", "--dest-compress-format=zstd")
        tool("skopeo", "copy", *zstd, f"oci:{five_layers}", f"oci:{folder / 'oci'}:zstd")

    return Layout(made("zstd-layers", make) / "oci", "zstd")


# ---- buildah ------------------------------------------------------------------------------------


class _Buildah:
    """buildah with a store of its own, without a container runtime and without a network."""

    def __init__(self, folder: Path) -> None:
        self._store = ["--root", str(folder / "store"), "--runroot", str(folder / "runroot"), "--storage-driver=vfs"]

    def __call__(self, verb: str, *words: str | Path) -> str:
        return tool("buildah", *self._store, verb, *words).strip()


@pytest.fixture(scope="session")
def buildah_image(busybox_rootfs: Path) -> Layout:
    """From scratch: a copied tree, and a RUN step that wrote /built."""

    def make(folder: Path) -> None:
        buildah = _Buildah(folder)
        container = buildah("from", "scratch")
        buildah("copy", container, busybox_rootfs, "/")
        buildah("run", "--isolation=chroot", "--network=host", container, "--", "/bin/sh", "-c", "echo yes > /built")
        buildah("config", "--cmd", '["cat", "/built"]', "--env", "PATH=/bin", "--user", "1000", container)
        buildah("commit", "--format=oci", container, "built")
        buildah("push", "built", f"oci:{folder / 'oci'}:built")
        _discard(buildah, folder)

    return Layout(made("buildah", make) / "oci", "built")


def _discard(buildah: _Buildah, folder: Path) -> None:
    buildah("rm", "--all")
    for store in ("store", "runroot"):
        shutil.rmtree(folder / store)


PLATFORMS = (
    ("linux", "amd64", "", ""),
    ("linux", "arm64", "v8", ""),
    ("linux", "arm", "v7", ""),
    ("linux", "s390x", "", ""),
    ("windows", "amd64", "", "10.0.20348.2849"),
)


@pytest.fixture(scope="session")
def platforms(busybox: Layout) -> Layout:
    """An index of five platforms; the layers are the same in all."""
    return Layout(made("platforms", lambda folder: _make_index(folder, busybox, PLATFORMS)) / "oci", "index")


@pytest.fixture(scope="session")
def windows_only(busybox: Layout) -> Layout:
    """An index of nothing but Windows, of two versions."""
    windows = (PLATFORMS[-1], ("windows", "amd64", "", "10.0.26100.2605"))
    return Layout(made("windows-only", lambda folder: _make_index(folder, busybox, windows)) / "oci", "index")


def _make_index(folder: Path, image: Layout, platforms: tuple[tuple[str, str, str, str], ...]) -> None:
    buildah = _Buildah(folder)
    buildah("manifest", "create", "index")
    for number, (os_name, architecture, variant, os_version) in enumerate(platforms):
        # A copy with a digest of its own for each: buildah keeps one entry a digest.
        own = folder / "entries" / str(number)
        shutil.copytree(image.path, own)
        tag = f"{own}:{image.tag}"
        tool("umoci", "config", "--image", tag, "--os", os_name, "--architecture", architecture)
        tool("umoci", "config", "--image", tag, "--config.label", f"org.example.entry={number}")
        words = {"--os": os_name, "--arch": architecture, "--variant": variant, "--os-version": os_version}
        given = [word for name, value in words.items() if value for word in (name, value)]
        buildah("manifest", "add", *given, "index", f"oci:{tag}")
    buildah("manifest", "push", "--all", "--format=oci", "index", f"oci:{folder / 'oci'}:index")
    _discard(buildah, folder)
    shutil.rmtree(folder / "entries")


# ---- Docker -------------------------------------------------------------------------------------

DOCKERFILE = """\
FROM base
RUN echo built by docker > /built && mkdir /gone
RUN rmdir /gone && ln /built /linked
ENV GREETING="hello world"
USER alice
WORKDIR /home/alice
CMD ["cat", "/built"]
"""


@pytest.fixture(scope="session")
def docker_saved(busybox_rootfs: Path) -> Path:
    """`docker save` of a small build, named example/saved:1; skips where Docker's daemon does not start."""

    def make(folder: Path) -> None:
        context = folder / "context"
        context.mkdir()
        (context / "Dockerfile").write_text(DOCKERFILE)
        tool("tar", "-C", busybox_rootfs, "-cf", folder / "base.tar", ".")
        with services.docker_daemon() as docker:
            docker("import", "--change", "ENV PATH=/bin", folder / "base.tar", "base")
            docker("build", "--network=none", "--tag=example/saved:1", context)
            docker("save", "--output", folder / "image.tar", "example/saved:1")
        (folder / "base.tar").unlink()
        shutil.rmtree(context)

    try:
        return made("docker-saved", make) / "image.tar"
    except services.Unavailable as reason:
        pytest.skip(str(reason))


# ---- a registry ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def registry_storage(busybox: Layout, debian: Layout, five_layers: Layout, platforms: Layout) -> Path:
    """What the registries serve: busybox:latest, debian:12, apps/five:{five,latest}, platforms:index."""

    def make(folder: Path) -> None:
        with services.serving(folder / "storage") as registry:
            push = ("skopeo", "copy", "--all", "--dest-tls-verify=false")
            tool(*push, f"oci:{busybox}", f"docker://{registry.address}/busybox:latest")
            tool(*push, f"oci:{debian}", f"docker://{registry.address}/debian:12")
            for tag in ("five", "latest"):
                tool(*push, f"oci:{five_layers}", f"docker://{registry.address}/apps/five:{tag}")
            tool(*push, f"oci:{platforms}", f"docker://{registry.address}/platforms:index")

    return made("registry", make) / "storage"


@pytest.fixture(scope="session")
def registry(registry_storage: Path) -> Iterator[services.Registry]:
    """docker-registry 2.8 on loopback, plain HTTP, for the whole run. Not to be written to."""
    with services.serving(registry_storage) as registry:
        yield registry


@pytest.fixture(scope="session")
def private_registry(registry_storage: Path) -> Iterator[services.Registry]:
    """The same images for those who know the name and the password (HTTP Basic)."""
    with services.serving(registry_storage, credentials=("alice", "correct horse")) as registry:
        yield registry


def layers(layout: Layout) -> list[dict[str, Any]]:
    """The layers' entries in its manifest, lowest first."""
    return list(manifest_of(layout)["layers"])


def manifest_of(layout: Layout) -> dict[str, Any]:
    """The manifest or index that a tag of a layout names, for tests to compare with."""
    index = json.loads((layout.path / "index.json").read_text())
    for entry in index["manifests"]:
        if entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == layout.tag:
            algorithm, digest = entry["digest"].split(":")
            manifest: dict[str, Any] = json.loads((layout.path / "blobs" / algorithm / digest).read_text())
            return manifest
    raise LookupError(f"{layout} names nothing")
