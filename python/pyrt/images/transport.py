"""HTTP to one registry: which scheme, which certificates, redirects by hand, time-outs, and what a failure means.

Here is decided what may be sent to whom: credentials go to the registry's own origin and nowhere else
(CVE-2020-15157), and nothing that began with TLS goes on without it. What the requests mean is not known here.
"""

from __future__ import annotations

import email.utils
import random
import socket
import ssl
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import httpx2
import msgspec
import trio

from pyrt.errors import HostError, RegistryError
from pyrt.images.registries import is_loopback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from pyrt.images.registries import Endpoint

CERTIFICATE_FOLDERS: Final = (
    Path("~/.config/containers/certs.d"),
    Path("/etc/containers/certs.d"),
    Path("/etc/docker/certs.d"),
)

_MOST_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HEADERS: Final = {
    "User-Agent": "pyrt",
    # A digest is that of the bytes as they are stored; a compressed transfer would only be undone again.
    "Accept-Encoding": "identity",
}

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


class Transport:
    """The HTTP connections of one endpoint. Use ``Transport.open``."""

    def __init__(self, endpoint: Endpoint, patience: Patience) -> None:
        self.endpoint = endpoint
        self.patience = patience
        self.origin: httpx2.URL | None = None
        self._scheme_lock = trio.Lock()
        self._clients: dict[str, httpx2.AsyncClient] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, endpoint: Endpoint, patience: Patience) -> AsyncIterator[Transport]:
        """A transport whose connections end with the block."""
        transport = cls(endpoint, patience)
        try:
            yield transport
        finally:
            # A cancelled pull closes its sockets all the same.
            with trio.CancelScope(shield=True):
                for client in transport._clients.values():
                    await client.aclose()

    async def base(self) -> httpx2.URL:
        """The registry's origin: where several schemes are possible, the first that answers."""
        async with self._scheme_lock:
            if self.origin is None:
                self.origin = await self._find_origin()
            return self.origin

    @asynccontextmanager
    async def exchange(
        self, method: str, url: httpx2.URL, *, headers: Mapping[str, str], content: bytes | None = None
    ) -> AsyncIterator[httpx2.Response]:
        """One request without redirects. Whatever fails in the block while its body is read is ``ConnectionFailed``."""
        client = self._client(url)
        request = client.build_request(method, url, headers={**_HEADERS, **headers}, content=content)
        try:
            response = await client.send(request, stream=True)
            try:
                yield response
            finally:
                with trio.CancelScope(shield=True):
                    await response.aclose()
        except httpx2.HTTPError as error:
            raise _explain(error, url) from error

    @asynccontextmanager
    async def follow(
        self, method: str, url: httpx2.URL, *, headers: Mapping[str, str], secret: Mapping[str, str]
    ) -> AsyncIterator[httpx2.Response]:
        """A request and where it is redirected to; ``secret`` headers are sent to the registry's own origin alone."""
        for _ in range(_MOST_REDIRECTS + 1):
            own = is_same_origin(url, await self.base())
            async with self.exchange(method, url, headers={**headers, **(secret if own else {})}) as response:
                if response.status_code not in _REDIRECTS:
                    yield response
                    return
                url = _redirected(url, response)
        raise RegistryError(f"registry {self.endpoint.host} redirects more than {_MOST_REDIRECTS} times")

    async def _find_origin(self) -> httpx2.URL:
        origins = [httpx2.URL(f"{scheme}://{self.endpoint.host}") for scheme in self.endpoint.schemes]
        if len(origins) == 1:
            return origins[0]
        failures: list[ConnectionFailed] = []
        for origin in origins:
            try:
                if await self._speaks(origin):
                    return origin
            except ConnectionFailed as failure:
                failures.append(failure)
        # That the other scheme's port has no TLS tells nobody anything.
        told = [failure for failure in failures if not isinstance(failure, NoTLS)] or failures
        raise told[0] if told else ConnectionFailed(f"registry {self.endpoint.host} speaks no HTTP", passing=False)

    async def _speaks(self, origin: httpx2.URL) -> bool:
        """Whether the API answers there. To plain HTTP, servers with TLS answer 400 and a sentence about HTTPS."""
        async with self.exchange("GET", origin.join("/v2/"), headers={}) as response:
            return response.status_code != 400 or b"HTTPS" not in await read(response, 4096)

    def _client(self, url: httpx2.URL) -> httpx2.AsyncClient:
        """Own origin, others, and this machine: each with the certificates and proxies that it may see."""
        own = is_same_origin(url, httpx2.URL(f"{url.scheme}://{self.endpoint.host}"))
        here = is_loopback(url.host)
        key = f"{url.scheme} {own} {here}"
        if key not in self._clients:
            self._clients[key] = httpx2.AsyncClient(
                verify=_context(self.endpoint, own=own) if url.scheme == "https" else False,
                # A proxy can't reach this machine's loopback.
                trust_env=not here,
                follow_redirects=False,
                timeout=httpx2.Timeout(self.patience.silence, connect=self.patience.connect, pool=None),
            )
        return self._clients[key]


@asynccontextmanager
async def chunks(response: httpx2.Response) -> AsyncIterator[AsyncIterator[bytes]]:
    """The body as it comes, which may be left in the middle; the connection is given up then."""
    stream = response.aiter_raw()
    try:
        yield stream
    finally:
        # httpx2 nests generators, and closing the outermost leaves inner ones to the garbage collector, of which
        # Trio complains. So they run to their end, which on a closed connection is near.
        with trio.CancelScope(shield=True), suppress(httpx2.HTTPError):
            await response.aclose()
            async for _ in stream:
                pass


async def read(response: httpx2.Response, limit: int) -> bytes:
    """The body as it came, but at most ``limit`` + 1 bytes of it: who gets more than ``limit`` knows it too long."""
    body = bytearray()
    async with chunks(response) as stream:
        async for chunk in stream:
            body += chunk
            if len(body) > limit:
                break
    return bytes(body[: limit + 1])


def is_same_origin(one: httpx2.URL, other: httpx2.URL) -> bool:
    """Whether two URLs have scheme, host and port in common."""
    return (one.scheme, one.host, _port(one)) == (other.scheme, other.host, _port(other))


def checked_url(url: httpx2.URL, text: str, what: str) -> httpx2.URL:
    """A URL that a server named on ``url``, if it may be followed from there; relative ones are joined."""
    try:
        named = url.join(text)
    except (httpx2.InvalidURL, ValueError) as error:
        raise RegistryError(f"{url.host} names a malformed URL for its {what}") from error
    where = f"{url.host} sends to {named.host or 'nowhere'} for its {what}"
    if named.scheme not in ("http", "https") or not named.host or named.userinfo:
        raise RegistryError(f"{where} by a URL of a kind that is not followed")
    if url.scheme == "https" and named.scheme == "http":
        raise RegistryError(f"{where} without TLS, which is not followed")
    if is_loopback(named.host) and not is_loopback(url.host):
        raise RegistryError(f"{where}, which is this machine, and that is not followed")
    return named


def is_overload(status: int) -> bool:
    """Whether the same request may be answered better a little later."""
    return status in (408, 425, 429) or status >= 500


def refusal(response: httpx2.Response, who: str) -> Refused:
    """The error that an answer for which ``is_overload`` holds stands for."""
    status, wait = response.status_code, _retry_after(response)
    later = "" if wait is None else f"; it asks to come back in {wait:.0f} s"
    if status == 429:
        hint = "registries limit anonymous pulls most: logging in helps"
        return Refused(f"{who} says: too many requests{later}", status=status, retry_after=wait, hint=hint)
    return Refused(f"{who} is in trouble: it answers {status}{later}", status=status, retry_after=wait)


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


def _explain(error: httpx2.HTTPError, url: httpx2.URL) -> ConnectionFailed:
    """A failed connection in a sentence."""
    where = f"registry {_shown(url)}"
    if isinstance(error, httpx2.ConnectTimeout):
        return ConnectionFailed(f"{where} can't be reached: no answer in time", passing=True)
    if isinstance(error, httpx2.ConnectError):
        return _explain_connecting(error, where, _shown(url))
    if isinstance(error, httpx2.TimeoutException):
        return ConnectionFailed(f"{where} fell silent", passing=True)
    return ConnectionFailed(f"the connection to {where} was cut", passing=True)


def _explain_connecting(error: httpx2.ConnectError, where: str, host: str) -> ConnectionFailed:
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
        return ConnectionFailed(f"{where} can't be reached: connection refused", passing=False, hint="is it running?")
    system = next((each for each in _causes(error) if isinstance(each, OSError) and each.strerror), None)
    reason = system.strerror.lower() if system and system.strerror else "no connection"
    return ConnectionFailed(f"{where} can't be reached: {reason}", passing=True)


def _redirected(url: httpx2.URL, response: httpx2.Response) -> httpx2.URL:
    target = response.headers.get("Location")
    if not target:
        raise RegistryError(f"{url.host} redirects to nowhere", status=response.status_code)
    return checked_url(url, target, "content")


def _port(url: httpx2.URL) -> int | None:
    return url.port or {"http": 80, "https": 443}.get(url.scheme)


def _shown(url: httpx2.URL) -> str:
    """Host and port: a path may be a signed one, and that is a secret."""
    return url.netloc.decode()


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


def _context(endpoint: Endpoint, *, own: bool) -> ssl.SSLContext:
    """Which servers to believe: those that the system trusts and the authorities kept for this registry.

    A client certificate is a credential, so the registry's own origin alone is shown it.
    """
    context = ssl.create_default_context()
    if not endpoint.verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for folder in CERTIFICATE_FOLDERS:
        kept = folder.expanduser() / endpoint.registry
        try:
            for authority in sorted(kept.glob("*.crt")):
                context.load_verify_locations(authority)
            for certificate in sorted(kept.glob("*.cert")) if own else ():
                context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        except (OSError, ssl.SSLError) as error:
            raise HostError(f"the certificates in {kept} can't be used: {error}") from error
    return context
