"""Why a process ended: the verdict, from what its keeper has seen and what pyrt was asked to send it."""

from __future__ import annotations

import signal as signals
import time
from typing import TYPE_CHECKING

from pyrt import _native
from pyrt.engine.results import ExitStatus, Verdict
from pyrt.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Container


def status_of(report: bytes, started: int, sent: Container[int]) -> ExitStatus:
    """The end that a keeper tells of in ``report``; Verdict.LOST if there is none.

    ``started`` is Unix time in nanoseconds, ``sent`` has the signals that were sent on somebody's behalf.
    """
    exited = _parsed(report)
    if exited is None:
        return ExitStatus(verdict=Verdict.LOST, finished=time.time_ns())
    return ExitStatus(
        verdict=_verdict(exited, sent),
        code=exited.code,
        signal=exited.signal,
        duration=max(0, exited.ended - started) / 1e9,
        finished=exited.ended,
        oom_kills=exited.oom_kills,
        memory_peak=exited.memory_peak,
        cpu_time=exited.cpu_usec / 1e6,
        pids_refused=exited.pids_refused,
        lost_output=exited.lost_output,
    )


def asked_for(status: ExitStatus, sent: Container[int]) -> ExitStatus:
    """The same end, in the light of signals of which only the journal knows."""
    if status.verdict is Verdict.SIGNALED and status.signal in sent:
        return status.but(verdict=Verdict.KILLED)
    if status.verdict is Verdict.OUT_OF_MEMORY and signals.SIGKILL in sent:
        return status.but(verdict=Verdict.KILLED)
    return status


def _parsed(report: bytes) -> _native.Exited | None:
    try:
        message = _native.parse_report(report) if report else None
    except EngineError:
        return None  # Cut off, or of another version: as good as nothing.
    return message if isinstance(message, _native.Exited) else None


def _verdict(exited: _native.Exited, sent: Container[int]) -> Verdict:
    if exited.signal is None:
        return Verdict.EXITED
    if exited.signal == signals.SIGKILL:
        if exited.timed_out:
            return Verdict.TIMED_OUT
        if signals.SIGKILL not in sent and exited.oom_kills > 0:
            return Verdict.OUT_OF_MEMORY
    return Verdict.KILLED if exited.signal in sent else Verdict.SIGNALED
