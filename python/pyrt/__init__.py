"""Containers in single-digit milliseconds, from Python.

    async with pyrt.open_engine() as engine:
        done = await engine.run("debian:12", ["python3", "-c", "print(6 * 7)"], limits=pyrt.Limits(memory="256M"))
        print(done.stdout, done.verdict)

Everything public is named here and imported when it is first used: ``import pyrt`` itself costs next to nothing.
"""

from __future__ import annotations

# As type checkers know it: `typing` itself takes longer to import than all else here.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from pyrt.engine.blocking import run as run
    from pyrt.engine.consumption import Stats as Stats
    from pyrt.engine.container import Container as Container
    from pyrt.engine.container import Execution as Execution
    from pyrt.engine.differing import FileChange as FileChange
    from pyrt.engine.engine import Engine as Engine
    from pyrt.engine.engine import open_engine as open_engine
    from pyrt.engine.events import AnyEvent as AnyEvent
    from pyrt.engine.events import ContainerCreated as ContainerCreated
    from pyrt.engine.events import ContainerExited as ContainerExited
    from pyrt.engine.events import ContainerFailed as ContainerFailed
    from pyrt.engine.events import ContainerHealth as ContainerHealth
    from pyrt.engine.events import ContainerOutOfMemory as ContainerOutOfMemory
    from pyrt.engine.events import ContainerPaused as ContainerPaused
    from pyrt.engine.events import ContainerRemoved as ContainerRemoved
    from pyrt.engine.events import ContainerRenamed as ContainerRenamed
    from pyrt.engine.events import ContainerSignaled as ContainerSignaled
    from pyrt.engine.events import ContainerStarted as ContainerStarted
    from pyrt.engine.events import ContainerUnpaused as ContainerUnpaused
    from pyrt.engine.events import ContainerUpdated as ContainerUpdated
    from pyrt.engine.events import Event as Event
    from pyrt.engine.events import ExecExited as ExecExited
    from pyrt.engine.events import ExecStarted as ExecStarted
    from pyrt.engine.events import Gap as Gap
    from pyrt.engine.events import ImageCommitted as ImageCommitted
    from pyrt.engine.events import ImageImported as ImageImported
    from pyrt.engine.events import ImageLoaded as ImageLoaded
    from pyrt.engine.events import ImagePulled as ImagePulled
    from pyrt.engine.events import ImageRemoved as ImageRemoved
    from pyrt.engine.events import ImageSaved as ImageSaved
    from pyrt.engine.events import ImageTagged as ImageTagged
    from pyrt.engine.events import ImageUntagged as ImageUntagged
    from pyrt.engine.feed import EventStream as EventStream
    from pyrt.engine.lasting import Health as Health
    from pyrt.engine.lasting import Lasting as Lasting
    from pyrt.engine.lasting import Log as Log
    from pyrt.engine.lasting import Restart as Restart
    from pyrt.engine.logs import LogOptions as LogOptions
    from pyrt.engine.logs import LogStream as LogStream
    from pyrt.engine.logs import LogText as LogText
    from pyrt.engine.processes import ContainerProcess as ContainerProcess
    from pyrt.engine.record import Record as Record
    from pyrt.engine.results import Completed as Completed
    from pyrt.engine.results import ExitStatus as ExitStatus
    from pyrt.engine.results import Mark as Mark
    from pyrt.engine.results import Timing as Timing
    from pyrt.engine.results import Verdict as Verdict
    from pyrt.engine.states import State as State
    from pyrt.errors import CommandNotExecutable as CommandNotExecutable
    from pyrt.errors import CommandNotFound as CommandNotFound
    from pyrt.errors import ContainerError as ContainerError
    from pyrt.errors import ContainerNotFound as ContainerNotFound
    from pyrt.errors import EngineError as EngineError
    from pyrt.errors import HostError as HostError
    from pyrt.errors import IllegalTransition as IllegalTransition
    from pyrt.errors import ImageError as ImageError
    from pyrt.errors import ImageInUse as ImageInUse
    from pyrt.errors import ImageNotFound as ImageNotFound
    from pyrt.errors import InvalidImage as InvalidImage
    from pyrt.errors import NameInUse as NameInUse
    from pyrt.errors import PlatformNotFound as PlatformNotFound
    from pyrt.errors import PyrtError as PyrtError
    from pyrt.errors import RegistryError as RegistryError
    from pyrt.errors import SpecError as SpecError
    from pyrt.errors import StartFailed as StartFailed
    from pyrt.errors import StateError as StateError
    from pyrt.errors import Unauthorized as Unauthorized
    from pyrt.errors import UsageError as UsageError
    from pyrt.images.image import Image as Image
    from pyrt.images.progress import Progress as Progress
    from pyrt.runtime.options import Device as Device
    from pyrt.runtime.options import DeviceRate as DeviceRate
    from pyrt.runtime.options import DeviceRule as DeviceRule
    from pyrt.runtime.options import ExecOptions as ExecOptions
    from pyrt.runtime.options import Limits as Limits
    from pyrt.runtime.options import Mount as Mount
    from pyrt.runtime.options import RunOptions as RunOptions
    from pyrt.runtime.options import Ulimit as Ulimit

# Checked against the imports above by tests/test_public.py.
_HOMES = {
    "pyrt.engine.blocking": "run",
    "pyrt.engine.consumption": "Stats",
    "pyrt.engine.container": "Container Execution",
    "pyrt.engine.differing": "FileChange",
    "pyrt.engine.engine": "Engine open_engine",
    "pyrt.engine.events": (
        "AnyEvent ContainerCreated ContainerExited ContainerFailed ContainerHealth ContainerOutOfMemory "
        "ContainerPaused ContainerRemoved ContainerRenamed ContainerSignaled ContainerStarted ContainerUnpaused "
        "ContainerUpdated Event ExecExited ExecStarted Gap ImageCommitted ImageImported ImageLoaded "
        "ImagePulled ImageRemoved ImageSaved ImageTagged ImageUntagged"
    ),
    "pyrt.engine.feed": "EventStream",
    "pyrt.engine.lasting": "Health Lasting Log Restart",
    "pyrt.engine.logs": "LogOptions LogStream LogText",
    "pyrt.engine.processes": "ContainerProcess",
    "pyrt.engine.record": "Record",
    "pyrt.engine.results": "Completed ExitStatus Mark Timing Verdict",
    "pyrt.engine.states": "State",
    "pyrt.errors": (
        "CommandNotExecutable CommandNotFound ContainerError ContainerNotFound EngineError HostError IllegalTransition "
        "ImageError ImageInUse ImageNotFound InvalidImage NameInUse PlatformNotFound PyrtError RegistryError SpecError "
        "StartFailed StateError Unauthorized UsageError"
    ),
    "pyrt.images.image": "Image",
    "pyrt.images.progress": "Progress",
    "pyrt.runtime.options": "Device DeviceRate DeviceRule ExecOptions Limits Mount RunOptions Ulimit",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}


def _find(name: str) -> object:
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'pyrt' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


if not TYPE_CHECKING:  # Or every name would be an attribute, of any type.
    __getattr__ = _find


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
