"""Limits of block devices -> ``linux.resources.blockIO``: a weight among readers of disks, and rates of each."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, Final

from pyrt.errors import UsageError
from pyrt.runtime.words import within

if TYPE_CHECKING:
    from pyrt.runtime.options import DeviceRate, Limits

_RATES: Final = {
    "device_read_bps": "throttleReadBpsDevice",
    "device_write_bps": "throttleWriteBpsDevice",
    "device_read_iops": "throttleReadIOPSDevice",
    "device_write_iops": "throttleWriteIOPSDevice",
}


def block_io(limits: Limits) -> dict[str, Any]:
    """All of it; nothing if nothing is limited."""
    found: dict[str, Any] = {}
    # As Docker has it: 0 is none.
    if limits.blkio_weight:
        found["weight"] = _weight(limits.blkio_weight)
    if limits.blkio_weight_device:
        found["weightDevice"] = [
            {**_numbers(each), "weight": _weight(each.rate)} for each in limits.blkio_weight_device
        ]
    for field, name in _RATES.items():
        if rates := getattr(limits, field):
            found[name] = [{**_numbers(each), "rate": each.rate} for each in rates]
    return found


def names_devices(limits: Limits) -> bool:
    """Whether limits depend on what there is in /dev just now."""
    return bool(limits.blkio_weight_device or any(getattr(limits, field) for field in _RATES))


def _weight(weight: int) -> int:
    return within(weight, 10, 1000, "weight among readers of disks")


def _numbers(limited: DeviceRate) -> dict[str, int]:
    try:
        status = os.stat(limited.device)
    except OSError as error:
        raise UsageError(f"the device {limited.device} can't be limited: {error.strerror}") from None
    if not stat.S_ISBLK(status.st_mode):
        raise UsageError(f"{limited.device} is no block device", hint="a whole disk, such as /dev/sda")
    return {"major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev)}
