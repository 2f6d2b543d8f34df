"""``make test-guest``: a Debian guest with what was built here inside, booted under QEMU; its tests print a line each.

The file system is made once (mmdebstrap, about a minute and a half) and kept in build/guest; each run unpacks it anew,
puts the programs, the package and ``inside.py`` into it, and makes a disk of it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import trio

from pyrt.bench.guest import Guest, GuestFailed, booted

PROJECT = Path(__file__).parents[2]
CACHE = PROJECT / "build" / "guest"
PACKAGES = (
    "systemd systemd-sysv dbus apparmor python3 busybox-static kmod udev iproute2 nftables initramfs-tools "
    "linux-image-cloud-amd64 criu"
).split()
LIBRARIES = (
    "trio msgspec httpx2 httpcore2 h11 anyio attr attrs outcome sniffio sortedcontainers idna truststore pyroute2 rich "
    "rich_argparse pygments markdown_it mdurl backports typing_extensions.py"
).split()
KERNEL = (
    "console=ttyS0 root=/dev/vda rw quiet loglevel=3 panic=-1 apparmor=1 security=apparmor mitigations=off "
    "fsck.mode=skip systemd.unified_cgroup_hierarchy=1 systemd.show_status=false"
)
UNIT = """[Unit]
After=dbus.service apparmor.service
[Service]
Type=oneshot
ExecStart=/usr/bin/python3 -B /opt/inside.py
ExecStopPost=/usr/bin/systemctl --force --force poweroff
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
Environment=PATH=/opt/bin:/usr/sbin:/usr/bin:/sbin:/bin
Delegate=yes
TimeoutStartSec=900
"""
# An emulated machine boots in about 40 seconds on an idle host of two cores.
PATIENCE = 300.0
DISK = "1536M"


def main() -> int:
    """Boots, and tells what the tests inside have printed."""
    with tempfile.TemporaryDirectory(prefix="pyrt-guest-") as name:
        folder = Path(name)
        tree = unpack(archive(), folder / "tree")
        install(tree)
        disk = make_disk(tree, folder / "disk")
        begun = time.monotonic()
        drive = ("-drive", f"file={disk},if=virtio,format=raw,cache=unsafe")
        kernel, initrd = (max((tree / "boot").glob(f"{kind}-*")) for kind in ("vmlinuz", "initrd.img"))
        with booted(
            kernel, initrd, accelerator="tcg", machine="q35", memory=1024, arguments=KERNEL, more=drive
        ) as guest:
            code = watch(guest, begun)
    print(f"{time.monotonic() - begun:.0f} seconds from power on")
    return code


def watch(guest: Guest, begun: float) -> int:
    """Prints each line of the tests when it comes; 0 if none has failed."""
    seen = 0
    try:
        while True:
            # What lies between two lines is none of ours, or there are more ways to count them than can be tried.
            guest.wait_for(rb"(?m)(?:^guest: .*\n(?:(?!guest: ).*\n)*+){%d}" % (seen + 1), PATIENCE)
            line = re.findall(rb"(?m)^guest: (.*?)\r?$", guest.output)[seen].decode(errors="replace")
            seen += 1
            print(f"{time.monotonic() - begun:6.1f} s  {line}", flush=True)
            if line.startswith("done"):
                return int(line != "done, 0 failed")
    except GuestFailed as error:
        print(error, file=sys.stderr)
        return 1


def archive() -> Path:
    """Debian with systemd, as a tar."""
    # One that was made with other packages is of no use.
    path = CACHE / f"debian-{zlib.crc32(' '.join(PACKAGES).encode()):08x}.tar"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        bare = 'rm -rf "$1"/usr/share/doc "$1"/usr/share/man "$1"/usr/share/locale "$1"/var/cache/apt'
        words = ["mmdebstrap", "--quiet", "--format=tar", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
        subprocess.run([*words, f"--customize-hook={bare}", "bookworm", f"{path}.new"], check=True)
        Path(f"{path}.new").rename(path)
    return path


def unpack(tar: Path, tree: Path) -> Path:
    """The archive's files with their owners."""
    tree.mkdir()
    subprocess.run(["tar", "-C", tree, "--numeric-owner", "-xf", tar], check=True)
    return tree


def install(tree: Path) -> None:
    """The programs that the wheel has installed here, the package with what it imports, and the tests."""
    here, there = Path(sys.executable).parent, tree / "opt" / "bin"
    there.mkdir(parents=True)
    for program in ("pyrt", "pyrt-runtime"):
        shutil.copy2(here / program, there)
    package = tree / "opt" / "pyrt"
    shutil.copytree(PROJECT / "python" / "pyrt", package / "pyrt", ignore=shutil.ignore_patterns("__pycache__"))
    libraries = Path(trio.__file__).parents[1]
    for library in LIBRARIES:
        if (libraries / library).is_dir():
            shutil.copytree(libraries / library, package / library, ignore=shutil.ignore_patterns("__pycache__"))
        elif (libraries / library).exists():
            shutil.copy2(libraries / library, package)
    # Compiling takes an emulated machine a minute. Debian's Python reads it if ours is of the same version.
    words = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-x", "pygments/lexers"]
    subprocess.run([sys.executable, *words, package], check=True)
    # Installed, as far as Python is concerned: the service's environment names no folder.
    (tree / "usr/lib/python3/dist-packages/pyrt.pth").write_text("/opt/pyrt\n")
    shutil.copy2(Path(__file__).with_name("inside.py"), tree / "opt")
    units = tree / "etc" / "systemd" / "system"
    (units / "pyrt-guest.service").write_text(UNIT)
    wants = units / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "pyrt-guest.service").symlink_to("../pyrt-guest.service")
    for name, target in (("default.target", "/lib/systemd/system/multi-user.target"), ("getty.target", "/dev/null")):
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to(target)
    (tree / "etc" / "hostname").write_text("guest\n")


def make_disk(tree: Path, disk: Path) -> Path:
    """An ext4 of the tree."""
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, disk, DISK], check=True, stdout=subprocess.DEVNULL)
    return disk


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
