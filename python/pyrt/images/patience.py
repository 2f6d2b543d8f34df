"""How failures of a registry are told, and which of them are worth another attempt.

A failure that may pass (a cut, silence, overload) is tried again after a pause that grows; any other is
final at once: nobody waits for a name that does not exist.
"""

from __future__ import annotations

import email.utils
import random
import socket
import ssl
import time
from typing import TYPE_CHECKING, Final, TypeVar

import httpx2
import msgspec
import trio

from pyrt.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterator

_Kind = TypeVar("_Kind", bound=BaseException)


class Patience(msgspec.Struct, frozen=True):
    """How long to wait and how often to try again; all times in seconds.

    The defaults follow the containers tools (five attempts) and what a person waits for before a terminal.
    """

    attempts: int = 5
    first_pause: float = 0.5
    longest_pause: float = 15.0
    longest_retry_after: float = 60.0
    connect: float = 15.0
    silence: float = 30.0


class Retry:
    """Counts the attempts of one undertaking, and waits between them."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._failures = 0

    def progressed(self) -> None:
        """Something was gained since the last failure, so start counting anew."""
        self._failures = 0

    async def pause(self, failure: RegistryError) -> None:
        """Wait before the next attempt; raise ``failure`` when there must be none."""
        self._failures += 1
        passing = isinstance(failure, Refused) or (isinstance(failure, ConnectionFailed) and failure.passing)
        asked = failure.retry_after if isinstance(failure, Refused) else None
        if not passing or self._failures >= self._patience.attempts:
            raise failure
        if asked is not None and asked > self._patience.longest_retry_after:
            raise failure
        await trio.sleep(self._delay() if asked is None else asked)

    def _delay(self) -> float:
        """Doubling, and spread, so that many clients of a registry that comes back don't come at once."""
        longest: float = min(self._patience.longest_pause, self._patience.first_pause * 2 ** (self._failures - 1))
        return longest * random.uniform(0.5, 1.0)


class ConnectionFailed(RegistryError):
    """No answer, or one that breaks off. ``passing``: another attempt may go better."""

    def __init__(self, message: str, *, passing: bool, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.passing = passing


class NoTLS(ConnectionFailed):
    """The server speaks something else on this port."""


class Refused(RegistryError):
    """An answer that is an error and may pass; ``retry_after``: the seconds that the server asks for, or None."""

    def __init__(self, message: str, *, status: int, retry_after: float | None, hint: str | None = None) -> None:
        super().__init__(message, status=status, hint=hint)
        self.retry_after = retry_after


def explain(error: httpx2.HTTPError, url: httpx2.URL, *, met: bool) -> ConnectionFailed:
    """A failed connection in a sentence; ``met``: the server has answered before, so it may come back."""
    where = f"registry {shown(url)}"
    if isinstance(error, httpx2.ConnectTimeout):
        return ConnectionFailed(f"{where} can't be reached: no answer in time", passing=True, hint=_NETWORK)
    if isinstance(error, httpx2.ConnectError):
        return _explain_connecting(error, where, shown(url), met=met)
    if isinstance(error, httpx2.TimeoutException):
        return ConnectionFailed(f"{where} fell silent", passing=True, hint=AGAIN)
    return ConnectionFailed(f"the connection to {where} was cut", passing=True, hint=AGAIN)


def _explain_connecting(error: httpx2.ConnectError, where: str, host: str, *, met: bool) -> ConnectionFailed:
    untrusted = _cause(error, ssl.SSLCertVerificationError)
    if untrusted:
        return ConnectionFailed(
            f"the TLS certificate of {where} is not trusted: {untrusted.verify_message}",
            passing=False,
            hint=f"put its authority's certificate into /etc/containers/certs.d/{host}/ca.crt",
        )
    if _cause(error, ssl.SSLError):
        hint = "if it is meant to be without, set insecure = true for it in registries.conf"
        return NoTLS(f"{where} does not speak TLS", passing=False, hint=hint)
    if _cause(error, socket.gaierror):
        return ConnectionFailed(f"{where} can't be found: no such host", passing=False, hint="is the name right?")
    if _cause(error, ConnectionRefusedError):
        return ConnectionFailed(f"{where} can't be reached: connection refused", passing=met, hint="is it running?")
    system = next((each for each in _causes(error) if isinstance(each, OSError) and each.strerror), None)
    reason = system.strerror.lower() if system and system.strerror else "no connection"
    return ConnectionFailed(f"{where} can't be reached: {reason}", passing=True, hint=_NETWORK)


AGAIN: Final = "what has come is kept: try again, and it goes on from there"
_NETWORK: Final = "is it up, and does a firewall or a proxy stand between?"


def is_overload(status: int) -> bool:
    """Whether the same request may be answered better a little later."""
    return status in (408, 425, 429) or status >= 500


def refusal(response: httpx2.Response, who: str) -> Refused:
    """The error that an answer for which ``is_overload`` holds stands for."""
    status, wait = response.status_code, _retry_after(response)
    later = f"; it asks to come back in {wait:.0f} s" if wait and wait >= 1 else ""
    if status == 429:
        hint = "registries limit anonymous pulls most: logging in helps"
        return Refused(f"{who} says: too many requests{later}", status=status, retry_after=wait, hint=hint)
    hint = "that is the registry's own trouble: try again later"
    return Refused(f"{who} is in trouble: it answers {status}{later}", status=status, retry_after=wait, hint=hint)


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds that a Retry-After header asks for, in either of its forms; None without a usable one."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
        return max(0.0, moment.timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """What an exception came from, through groups: Trio tries all addresses of a host."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                yield from _causes(inner)
        error = error.__cause__ or error.__context__


def _cause(error: BaseException, kind: type[_Kind]) -> _Kind | None:
    return next((each for each in _causes(error) if isinstance(each, kind)), None)


def shown(url: httpx2.URL) -> str:
    """Host and port: a path may be a signed one, and that is a secret."""
    return url.netloc.decode()
