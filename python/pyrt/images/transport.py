"""HTTP to one registry: which scheme, which certificates, redirects by hand, bodies within bounds.

Here is decided what may be sent to whom: credentials go to the registry's own origin and nowhere else
(CVE-2020-15157), and nothing that began with TLS goes on without it. What the requests mean is not known here.
"""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx2
import trio

from pyrt import threads
from pyrt.errors import HostError, RegistryError
from pyrt.images.patience import ConnectionFailed, NoTLS, explain, shown
from pyrt.images.registries import is_loopback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from pyrt.images.patience import Patience
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


class Transport:
    """The HTTP connections of one endpoint. Use ``Transport.open``."""

    def __init__(self, endpoint: Endpoint, patience: Patience) -> None:
        self.endpoint = endpoint
        self.patience = patience
        self.origin: httpx2.URL | None = None
        self._scheme_lock = trio.Lock()
        self._clients: dict[str, httpx2.AsyncClient] = {}
        self._met: set[str] = set()

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
            with threads.wanted():
                response = await client.send(request, stream=True)
            self._met.add(shown(url))
            try:
                yield response
            finally:
                with trio.CancelScope(shield=True):
                    await response.aclose()
        except httpx2.HTTPError as error:
            raise explain(error, url, met=shown(url) in self._met) from error

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
        """One for each origin, with the certificates kept for it. ``insecure`` is said of the registry alone."""
        key = f"{url.scheme}://{shown(url)}"
        if key not in self._clients:
            here = is_loopback(url.host)
            own = is_same_origin(url, httpx2.URL(f"{url.scheme}://{self.endpoint.host}"))
            verified = not here and (self.endpoint.verified or not own)
            folder = self.endpoint.registry if own else shown(url)
            self._clients[key] = httpx2.AsyncClient(
                verify=_context(folder, verified=verified) if url.scheme == "https" else False,
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


def _redirected(url: httpx2.URL, response: httpx2.Response) -> httpx2.URL:
    target = response.headers.get("Location")
    if not target:
        raise RegistryError(f"{url.host} redirects to nowhere", status=response.status_code)
    return checked_url(url, target, "content")


def _port(url: httpx2.URL) -> int | None:
    return url.port or {"http": 80, "https": 443}.get(url.scheme)


def _context(folder: str, *, verified: bool) -> ssl.SSLContext:
    """Whom to believe, and who to be: what the system trusts, and what is kept for this host[:port]."""
    context = ssl.create_default_context()
    if not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for kept in (base.expanduser() / folder for base in CERTIFICATE_FOLDERS):
        try:
            for authority in sorted(kept.glob("*.crt")):
                context.load_verify_locations(authority)
            for certificate in sorted(kept.glob("*.cert")):
                context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        except (OSError, ssl.SSLError) as error:
            raise HostError(f"the certificates in {kept} can't be used: {error}") from error
    return context
