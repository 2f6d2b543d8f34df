"""The registry client: manifests and blobs of one repository, by the OCI distribution specification.

What it returns has been verified: a manifest against its digest, a blob against digest and size. A download
that breaks off goes on where it stopped. How bytes travel is ``transport``'s part, who may, ``tokens``'s.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import msgspec

from pyrt.errors import ImageNotFound, InvalidImage, RegistryError, Unauthorized
from pyrt.images.manifest import ACCEPTED, LARGEST_MANIFEST
from pyrt.images.patience import AGAIN, ConnectionFailed, Patience, Retry, is_overload, refusal
from pyrt.images.reference import is_digest
from pyrt.images.tokens import Authorization
from pyrt.images.transport import Transport, chunks, read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    import httpx2

    from pyrt.images.auth import Keyring
    from pyrt.images.registries import Endpoint

_LARGEST_ERROR: Final = 64 << 10
# A download that gains less than this between two cuts counts as one that gains nothing.
_LEAST_GAIN: Final = 64 << 10
_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")
_CLEAN = re.compile(r"[^\x20-\x7e]+")


class Document(msgspec.Struct, frozen=True):
    """A manifest or index as it came: ``content`` hashes to ``digest``; ``media_type`` is the server's word."""

    content: bytes
    media_type: str
    digest: str


class _ErrorItem(msgspec.Struct, frozen=True):
    code: str | None = None
    message: str | None = None


class _Errors(msgspec.Struct, frozen=True):
    errors: tuple[_ErrorItem, ...] | None = None


class Registry:
    """One repository on one server. Use ``Registry.open``; its methods may run at the same time."""

    def __init__(self, transport: Transport, keyring: Keyring) -> None:
        self._transport = transport
        self._endpoint = transport.endpoint
        self._authorization = Authorization(transport, keyring)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, endpoint: Endpoint, keyring: Keyring, patience: Patience | None = None
    ) -> AsyncIterator[Registry]:
        """A client whose connections end with the block; it connects when first asked for something."""
        async with Transport.open(endpoint, patience or Patience()) as transport:
            yield cls(transport, keyring)

    async def manifest(self, reference: str) -> Document:
        """The manifest or index of a tag or digest. Raises ``ImageNotFound``, ``RegistryError``, ``InvalidImage``."""
        what = f"the manifest of {self._named(reference)}"
        headers = {"Accept": ", ".join(ACCEPTED)}
        response, content = await self._fetch("GET", f"manifests/{reference}", headers, LARGEST_MANIFEST, what)
        told = response.headers.get("Docker-Content-Digest")
        # For a tag, the server's own word is what there is to verify against damage on the way.
        wanted = reference if is_digest(reference) else told
        digest = _sha256(content)
        if is_digest(wanted) and digest != wanted:
            raise InvalidImage(f"{what} is damaged: its digest is {digest}, not {wanted}")
        return Document(content, response.headers.get("Content-Type", ""), digest)

    async def manifest_digest(self, reference: str) -> str | None:
        """The digest that a tag has now, without fetching the manifest; None: the server does not tell."""
        headers = {"Accept": ", ".join(ACCEPTED)}
        what = f"the manifest of {self._named(reference)}"
        response, _ = await self._fetch("HEAD", f"manifests/{reference}", headers, 0, what)
        told = response.headers.get("Docker-Content-Digest")
        return told if is_digest(told) else None

    async def has_blob(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        try:
            await self._fetch("HEAD", f"blobs/{digest}", {}, 0, f"blob {digest}")
        except ImageNotFound:
            return False
        return True

    async def blob(self, digest: str, size: int, *, limit: int) -> bytes:
        """A small blob as a whole, verified; ``InvalidImage`` when it is larger than ``limit`` bytes."""
        what = f"blob {digest} of {self._endpoint}"
        if size > limit:
            raise InvalidImage(f"{what} has {size} bytes, and {limit} is the limit for its kind")
        _, content = await self._fetch("GET", f"blobs/{digest}", {}, size, what)
        if len(content) != size:
            raise _wrong_size(what, len(content), size)
        if _sha256(content) != digest:
            raise InvalidImage(f"{what} is damaged: its digest is {_sha256(content)}")
        return content

    async def download(
        self, digest: str, size: int, sink: Callable[[bytes], Awaitable[object]], *, offset: int = 0
    ) -> None:
        """Hand the bytes of a blob from ``offset`` on to ``sink``, in order, each once, however often the line is cut.

        That there are ``size`` in the end is verified; the digest is for whoever gets the bytes to verify,
        since they hash them anyway.
        """
        retry = Retry(self._transport.patience)
        flow = _Flow(f"blob {digest} of {self._endpoint}", size, offset, sink)
        counted = offset
        while flow.received < size:
            try:
                await self._download_on(digest, flow)
            except RegistryError as failure:
                if flow.received - counted >= _LEAST_GAIN:
                    retry.progressed()
                    counted = flow.received
                await retry.pause(failure)

    async def _download_on(self, digest: str, flow: _Flow) -> None:
        """One request for what is still missing."""
        headers = {"Range": f"bytes={flow.received}-"} if flow.received else {}
        async with self._request("GET", f"blobs/{digest}", headers, flow.what) as response:
            await flow.take(response)
        if flow.received < flow.size:
            raise ConnectionFailed(
                f"registry {self._endpoint.host} ended {flow.what} too early", passing=True, hint=AGAIN
            )

    async def _fetch(
        self, method: str, path: str, headers: Mapping[str, str], limit: int, what: str
    ) -> tuple[httpx2.Response, bytes]:
        """A whole answer of at most ``limit`` bytes, after as many attempts as patience allows."""
        retry = Retry(self._transport.patience)
        while True:
            try:
                async with self._request(method, path, headers, what) as response:
                    content = b"" if method == "HEAD" else await read(response, limit)
            except RegistryError as failure:
                await retry.pause(failure)
                continue
            if len(content) > limit:
                raise InvalidImage(f"{what} has more than the {limit} bytes that it may have")
            return response, content

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, headers: Mapping[str, str], what: str
    ) -> AsyncIterator[httpx2.Response]:
        """One attempt, with credentials if they are wanted, and redirects followed; the answer is a success."""
        base = await self._transport.base()
        url = base.join(f"/v2/{self._endpoint.repository}/{path}")
        used = self._authorization.headers
        async with self._transport.follow(method, url, headers=headers, secret=used) as response:
            challenged = self._is_challenge(response, base)
            if not challenged:
                await self._refuse(response, what)
                yield response
                return
            challenges = response.headers.get_list("WWW-Authenticate")
        await self._authorization.answer(challenges, used)
        async with self._transport.follow(method, url, headers=headers, secret=self._authorization.headers) as response:
            if self._is_challenge(response, base):
                raise self._authorization.refused()
            await self._refuse(response, what)
            yield response

    def _is_challenge(self, response: httpx2.Response, base: httpx2.URL) -> bool:
        """A 401 by the registry itself. One by a host that it redirected to is no reason to show credentials."""
        return response.status_code == 401 and _origin(response.request.url) == _origin(base)

    async def _refuse(self, response: httpx2.Response, what: str) -> None:
        """Raise what an answer that is no success means."""
        status = response.status_code
        if status in (200, 206):
            return
        if is_overload(status):
            raise refusal(response, f"registry {self._endpoint.host}")
        code, message = _read_error(await read(response, _LARGEST_ERROR))
        if status == 404:
            raise self._not_found(code, what)
        if status in (401, 403):
            raise Unauthorized(
                f"registry {self._endpoint.host} denies access to {self._endpoint.repository}",
                status=status,
                hint=f"it does not exist, or needs other credentials: `docker login {self._endpoint.registry}`",
            )
        said = f": {message}" if message else ""
        hint = f"is {self._endpoint.host} a registry, and the name right?"
        raise RegistryError(
            f"registry {self._endpoint.host} answers {status} for {what}{said}", status=status, hint=hint
        )

    def _not_found(self, code: str, what: str) -> ImageNotFound:
        if code == "NAME_UNKNOWN":
            return ImageNotFound(
                f"registry {self._endpoint.host} has no repository {self._endpoint.repository}",
                hint="is the name spelled right?",
            )
        return ImageNotFound(
            f"registry {self._endpoint.host} does not have {what.removeprefix('the manifest of ')}",
            hint="are name and tag spelled right?",
        )

    def _named(self, reference: str) -> str:
        return f"{self._endpoint}{'@' if is_digest(reference) else ':'}{reference}"


class _Flow:
    """A blob on its way: how much of it has come, and whether an answer is the piece that is missing."""

    def __init__(self, what: str, size: int, received: int, sink: Callable[[bytes], Awaitable[object]]) -> None:
        self.what = what
        self.size = size
        self.received = received
        self._sink = sink

    async def take(self, response: httpx2.Response) -> None:
        """Hand on the body. A server that ignores ranges sends all again, so what is known is dropped."""
        known = self.received - self._start(response)
        async with chunks(response) as stream:
            async for chunk in stream:
                fresh = chunk[known:] if known else chunk
                known -= len(chunk) - len(fresh)
                await self._pass_on(fresh)

    async def _pass_on(self, chunk: bytes) -> None:
        if self.received + len(chunk) > self.size:
            raise _wrong_size(self.what, None, self.size)
        if chunk:
            await self._sink(chunk)
            self.received += len(chunk)

    def _start(self, response: httpx2.Response) -> int:
        """Where the body begins in the blob; refuses one that can't be the rest of it."""
        length = response.headers.get("Content-Length", "")
        start = 0
        if response.status_code == 206:
            match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if not match or int(match[1]) != self.received or match[3] not in ("*", str(self.size)):
                raise RegistryError(f"the registry answers with another part of {self.what} than it was asked for")
            start = self.received
        if length.isdecimal() and int(length[:20]) != self.size - start:
            raise _wrong_size(self.what, start + int(length[:20]), self.size)
        return start


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _wrong_size(what: str, found: int | None, wanted: int) -> InvalidImage:
    count = "more" if found is None else str(found)
    return InvalidImage(f"{what} has {count} bytes and should have {wanted}")


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _read_error(body: bytes) -> tuple[str, str]:
    """Code and message of a registry's error document; the message is shortened and printable."""
    try:
        errors = msgspec.json.decode(body, type=_Errors).errors or ()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", ""
    first = errors[0] if errors else _ErrorItem()
    return first.code or "", _CLEAN.sub(" ", first.message or "")[:200]
