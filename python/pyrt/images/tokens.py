"""How a registry's wish for credentials is answered: Basic, or a bearer token from its token server.

    registry       401  WWW-Authenticate: Bearer realm=URL, service=..., scope=...
    token server   GET URL?service=...&scope=repository:NAME:pull    (Basic credentials, or none)
              or   POST URL  grant_type=refresh_token                (identity token)
    registry       the request again, with Authorization: Bearer TOKEN

The realm comes from the registry, so it is checked before any credential goes there; the scope is ours,
so that no registry can have us fetch a token that may do more than pull.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import msgspec
import trio

from pyrt.errors import RegistryError, Unauthorized
from pyrt.images.patience import Retry, is_overload, refusal
from pyrt.images.transport import checked_url, read

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx2

    from pyrt.images.auth import Credentials, Keyring
    from pyrt.images.transport import Transport

_LARGEST_ANSWER: Final = 1 << 20
_PARAMETER = re.compile(r'[\s,]*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')
_SCHEME = re.compile(r"[\s,]*([A-Za-z][A-Za-z0-9_-]*)(?:\s+|,|$)")
_TOKEN = re.compile(r"[\x21-\x7e]+")
# Second-level domains under which strangers register names, below a country's.
_PUBLIC_LABELS: Final = frozenset(
    ("ac", "co", "com", "edu", "go", "gov", "gob", "mil", "ne", "net", "nom", "or", "org")
)


class Challenge(msgspec.Struct, frozen=True):
    """One way in that a 401 offers: ``scheme`` and the names of ``parameters`` in lowercase."""

    scheme: str
    parameters: dict[str, str]


class _Answer(msgspec.Struct, frozen=True):
    token: str | None = None
    access_token: str | None = None


class Authorization:
    """What is sent to one registry to prove who asks. It starts with nothing and learns from refusals."""

    def __init__(self, transport: Transport, keyring: Keyring) -> None:
        self._transport = transport
        self._endpoint = transport.endpoint
        self._keyring = keyring
        self._lock = trio.Lock()
        self._headers: dict[str, str] = {}
        self._credentials: Credentials | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Headers for the registry's own origin; a new object whenever they are renewed."""
        return self._headers

    def refused(self) -> Unauthorized:
        """What it means that even the newest headers are answered with 401."""
        return self._wrong(self._credentials)

    async def answer(self, values: Sequence[str], refused: dict[str, str]) -> None:
        """Earn new headers after a 401 to ``refused``; ``values`` are its WWW-Authenticate headers.

        ``Unauthorized`` when there is nothing better to send. Of several requests that are refused at once
        the first asks and the others use what it got.
        """
        async with self._lock:
            if self._headers is not refused:
                return
            challenges = {challenge.scheme: challenge for challenge in reversed(parse_challenges(values))}
            credentials = await self._keyring.find(self._endpoint.registry, self._endpoint.repository)
            if "bearer" in challenges:
                token = await self._token(challenges["bearer"].parameters, credentials)
                value = f"Bearer {token}"
            elif "basic" in challenges:
                value = self._basic(credentials)
            else:
                raise self._no_known_kind(", ".join(challenges))
            if refused.get("Authorization") == value:
                raise self._wrong(credentials)
            self._headers, self._credentials = {"Authorization": value}, credentials

    def _basic(self, credentials: Credentials | None) -> str:
        if credentials is None or not credentials.username:
            raise self._wrong(None)
        return credentials.basic()

    async def _token(self, parameters: dict[str, str], credentials: Credentials | None) -> str:
        if credentials and credentials.registry_token:
            return credentials.registry_token
        realm = checked_url(await self._transport.base(), parameters.get("realm", ""), "token")
        credentials = await self._for_realm(realm, credentials)
        query = {"service": parameters["service"]} if parameters.get("service") else {}
        query["scope"] = self._scope(parameters.get("scope", ""))
        retry = Retry(self._transport.patience)
        while True:
            try:
                return await self._ask(realm, query, credentials)
            except RegistryError as failure:
                await retry.pause(failure)

    def _scope(self, asked: str) -> str:
        """Ours, and those of the registry's that are not about repositories (public.ecr.aws wants "aws")."""
        others = [scope for scope in asked.split() if not scope.startswith(("repository", "registry"))]
        return " ".join([f"repository:{self._endpoint.repository}:pull", *others])

    async def _for_realm(self, realm: httpx2.URL, credentials: Credentials | None) -> Credentials | None:
        """The credentials if they may go there: to the registry's host, to its domain, or to whom the user named."""
        if credentials is None:
            return None
        base = await self._transport.base()
        same_host = realm.host == base.host
        if same_host or (realm.scheme == "https" and is_same_site(base.host, realm.host)):
            return credentials
        named = await self._keyring.find(realm.netloc.decode())
        if named:
            return named
        raise RegistryError(
            f"registry {self._endpoint.host} wants its credentials sent to {realm.host}, which is another domain",
            status=401,
            hint=f"if that is right, keep them under {realm.host} in the credentials file too",
        )

    async def _ask(self, realm: httpx2.URL, query: dict[str, str], credentials: Credentials | None) -> str:
        method, url, headers, content = _request(realm, query, credentials)
        async with self._transport.exchange(method, url, headers=headers, content=content) as response:
            body = await read(response, _LARGEST_ANSWER)
            status = response.status_code
            if is_overload(status):
                raise refusal(response, f"the token server {realm.host}")
        if status in (401, 403):
            raise self._wrong(credentials)
        if status != 200:
            raise RegistryError(f"the token server {realm.host} answers {status}", status=status)
        return _read_token(body, realm.host)

    def _no_known_kind(self, kinds: str) -> Unauthorized:
        return Unauthorized(
            f"registry {self._endpoint.host} wants credentials of {kinds[:100] or 'an unknown kind'}",
            status=401,
            hint="pyrt knows Basic and Bearer; is it a registry, or a proxy before one?",
        )

    def _wrong(self, credentials: Credentials | None) -> Unauthorized:
        host, registry = self._endpoint.host, self._endpoint.registry
        if credentials is None:
            return Unauthorized(
                f"registry {host} gives {self._endpoint.repository} to nobody without credentials",
                status=401,
                hint=f"is the name right? if so, log in first: `docker login {registry}` or `podman login {registry}`",
            )
        who = f"the credentials of {credentials.username!r}" if credentials.username else "the token kept for it"
        hint = f"log in again: `docker login {registry}`"
        return Unauthorized(f"registry {host} refuses {who}", status=401, hint=hint)


def parse_challenges(values: Sequence[str]) -> list[Challenge]:
    """WWW-Authenticate headers (RFC 9110, 11.6.1), of which one may hold several challenges."""
    challenges: list[Challenge] = []
    for value in values:
        place = 0
        while place < len(value):
            parameter = _PARAMETER.match(value, place)
            if parameter and challenges:
                quoted = parameter[2]
                text = parameter[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                challenges[-1].parameters.setdefault(parameter[1].lower(), text)
                place = parameter.end()
                continue
            scheme = _SCHEME.match(value, place)
            if not scheme:
                break
            challenges.append(Challenge(scheme[1].lower(), {}))
            place = scheme.end()
    return challenges


def is_same_site(registry: str, realm: str) -> bool:
    """Whether two hosts are of one domain: registry-1.docker.io and auth.docker.io, registry.gitlab.com and gitlab.com.

    Without a list of public suffixes a domain is what is left without the registry's first label, if that
    is two labels or more and not a country's "co.uk"; a shorter name stands for itself and what is below it.
    """
    labels = registry.lower().split(".")
    parent = labels[1:]
    public = len(parent) == 2 and parent[0] in _PUBLIC_LABELS and len(parent[1]) == 2
    numeric = registry.replace(".", "").isdecimal() or ":" in registry
    if numeric or len(parent) < 2 or public:
        parent = labels
    domain = ".".join(parent)
    return realm.lower() == domain or (not numeric and realm.lower().endswith(f".{domain}"))


def _request(
    realm: httpx2.URL, query: dict[str, str], credentials: Credentials | None
) -> tuple[str, httpx2.URL, dict[str, str], bytes | None]:
    if credentials and credentials.identity_token:
        form = {
            **query,
            "grant_type": "refresh_token",
            "client_id": "pyrt",
            "refresh_token": credentials.identity_token,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return "POST", realm, headers, urlencode(form).encode()
    return "GET", realm.copy_merge_params(query), {"Authorization": credentials.basic()} if credentials else {}, None


def _read_token(body: bytes, host: str) -> str:
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Without its cause, which may quote a token.
        raise RegistryError(f"the token server {host} answers with something else than a token") from None
    token = answer.token or answer.access_token or ""
    if not _TOKEN.fullmatch(token):
        raise RegistryError(f"the token server {host} answers without a token")
    return token
