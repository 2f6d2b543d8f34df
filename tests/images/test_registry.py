"""The registry client against registries that are slow, broken, wrong or hostile."""

from __future__ import annotations

import base64
import json
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import trio
import trio.testing

from pyrt.errors import ImageNotFound, InvalidImage, RegistryError, Unauthorized
from pyrt.images import transport
from pyrt.images.auth import Keyring
from pyrt.images.patience import Patience
from pyrt.images.registries import Endpoint
from pyrt.images.registry import Registry
from pyrt.images.tokens import Challenge, is_same_site, parse_challenges
from tests.images.registry_fixtures import (  # noqa: F401  fixtures, by their names
    QUICK,
    Answer,
    Enemy,
    Names,
    Reply,
    Seen,
    enemy_at,
    keep_entry,
    log_in,
    make_certificate,
    make_environ,
    ranged,
    serve_enemy,
    serve_stranger,
    serve_tls_enemy,
    sha256,
)
from tests.services import Registry as Service

MANIFEST = "/v2/team/app/manifests/1"
CONTENT = b'{"schemaVersion": 2}'
BLOB = bytes(range(256)) * 1024
BLOB_PATH = f"/v2/team/app/blobs/{sha256(BLOB)}"
BASIC = "Basic " + base64.b64encode(b"alice:secret").decode()


@asynccontextmanager
async def client(host: str, environ: dict[str, str], *, insecure: bool = False) -> AsyncIterator[Registry]:
    trio.socket.set_custom_hostname_resolver(Names())
    endpoint = Endpoint(host, "team/app", insecure)
    async with Registry.open(endpoint, Keyring.of(environ), QUICK) as registry:
        yield registry


async def fetch(host: str, environ: dict[str, str], *, insecure: bool = False) -> bytes:
    """The manifest of team/app:1."""
    async with client(host, environ, insecure=insecure) as registry:
        return (await registry.manifest("1")).content


class Sink:
    """Takes what a download hands on."""

    def __init__(self) -> None:
        self.content = bytearray()
        self._grown = trio.Condition()

    async def take(self, chunk: bytes) -> None:
        self.content += chunk
        async with self._grown:
            self._grown.notify_all()

    async def whole(self, size: int) -> None:
        async with self._grown:
            while len(self.content) < size:
                await self._grown.wait()


async def download(enemy: Enemy, environ: dict[str, str], *, offset: int = 0) -> bytes:
    sink = Sink()
    async with client(enemy.address, environ) as registry:
        await registry.download(sha256(BLOB), len(BLOB), sink.take, offset=offset)
    return bytes(sink.content)


# ---- manifests and small blobs ------------------------------------------------------------------


async def test_a_manifest_comes_with_its_digest_and_type(enemy: Enemy, environ: dict[str, str]) -> None:
    enemy.on(MANIFEST, Reply(body=CONTENT, headers={"Content-Type": "a/b"}))
    async with client(enemy.address, environ) as registry:
        document = await registry.manifest("1")
    assert document == (document.__class__)(CONTENT, "a/b", sha256(CONTENT))
    (seen,) = enemy.asked(MANIFEST)
    assert "application/vnd.oci.image.index.v1+json" in seen.headers["accept"]
    assert "manifest.v1" not in seen.headers["accept"].replace("image.manifest.v1", "")
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.authorization is None


async def test_a_manifest_that_is_not_what_was_asked_for(enemy: Enemy, environ: dict[str, str]) -> None:
    other = sha256(b"other")
    enemy.on(f"/v2/team/app/manifests/{other}", Reply(body=CONTENT))
    enemy.on(MANIFEST, Reply(body=CONTENT, headers={"Docker-Content-Digest": other}))
    async with client(enemy.address, environ) as registry:
        for reference in (other, "1"):
            with pytest.raises(InvalidImage, match="damaged"):
                await registry.manifest(reference)


async def test_a_manifest_has_at_most_4_mib(enemy: Enemy, environ: dict[str, str]) -> None:
    enemy.on(MANIFEST, Reply(body=b" " * (4 << 20) + b"{}"))
    with pytest.raises(InvalidImage, match="4194304"):
        await fetch(enemy.address, environ)


async def test_a_small_blob_is_verified(enemy: Enemy, environ: dict[str, str]) -> None:
    digest = sha256(b"config")
    path = f"/v2/team/app/blobs/{digest}"
    async with client(enemy.address, environ) as registry:
        enemy.on(path, Reply(body=b"config"))
        assert await registry.blob(digest, 6, limit=100) == b"config"
        enemy.on(path, Reply(body=b"confix"))
        with pytest.raises(InvalidImage, match="damaged"):
            await registry.blob(digest, 6, limit=100)
        for wrong in (b"conf", b"configuration"):
            enemy.on(path, Reply(body=wrong))
            with pytest.raises(InvalidImage, match="bytes"):
                await registry.blob(digest, 6, limit=100)
        asked = len(enemy.seen)
        with pytest.raises(InvalidImage, match="100 is the limit"):
            await registry.blob(digest, 101, limit=100)
        assert len(enemy.seen) == asked


async def test_what_is_there_can_be_asked_without_fetching_it(enemy: Enemy, environ: dict[str, str]) -> None:
    digest = sha256(CONTENT)
    enemy.on(MANIFEST, Reply(body=CONTENT, headers={"Docker-Content-Digest": digest}))
    enemy.on(BLOB_PATH, Reply(body=BLOB))
    async with client(enemy.address, environ) as registry:
        assert await registry.manifest_digest("1") == digest
        assert await registry.has_blob(sha256(BLOB))
        assert not await registry.has_blob(sha256(b""))
        enemy.on(MANIFEST, Reply(headers={"Docker-Content-Digest": "sha256:../.."}))
        assert await registry.manifest_digest("1") is None
    assert {seen.method for seen in enemy.seen if seen.path != "/v2/"} == {"HEAD"}


# ---- answers that are errors --------------------------------------------------------------------


def problem(code: str, message: str = "") -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message, "detail": {}}]}).encode()


async def test_what_is_not_there_is_named(enemy: Enemy, environ: dict[str, str]) -> None:
    enemy.on(MANIFEST, Reply(404, problem("MANIFEST_UNKNOWN")))
    with pytest.raises(ImageNotFound, match=rf"does not have {enemy.address}/team/app:1"):
        await fetch(enemy.address, environ)
    enemy.on(MANIFEST, Reply(404, problem("NAME_UNKNOWN")))
    with pytest.raises(ImageNotFound, match="no repository team/app"):
        await fetch(enemy.address, environ)
    enemy.on(MANIFEST, Reply(404, b"<html>not a registry</html>"))
    with pytest.raises(ImageNotFound):
        await fetch(enemy.address, environ)


async def test_a_server_s_words_are_cleaned_and_shortened(enemy: Enemy, environ: dict[str, str]) -> None:
    enemy.on(MANIFEST, Reply(418, problem("TEAPOT", "short\n\x1b[31mand\0 stout" + "!" * 1000)))
    with pytest.raises(RegistryError, match="answers 418 for the manifest of") as caught:
        await fetch(enemy.address, environ)
    assert "short [31mand  stout!" in caught.value.message
    assert "\x1b" not in caught.value.message
    assert len(caught.value.message) < 400
    assert caught.value.status == 418


async def test_overload_passes(enemy: Enemy, environ: dict[str, str]) -> None:
    enemy.on(MANIFEST, Reply(500), Reply(503, headers={"Retry-After": "0"}), Reply(body=CONTENT))
    assert await fetch(enemy.address, environ) == CONTENT
    enemy.on(MANIFEST, Reply(429, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), Reply(body=CONTENT))
    assert await fetch(enemy.address, environ) == CONTENT


@pytest.mark.parametrize(("status", "words"), [(500, "in trouble: it answers 500"), (429, "too many requests")])
async def test_overload_that_does_not_pass(enemy: Enemy, environ: dict[str, str], status: int, words: str) -> None:
    enemy.on(MANIFEST, Reply(status))
    with pytest.raises(RegistryError, match=words) as caught:
        await fetch(enemy.address, environ)
    assert caught.value.status == status
    assert len(enemy.asked(MANIFEST)) == QUICK.attempts


async def test_nobody_waits_for_an_hour(enemy: Enemy, environ: dict[str, str]) -> None:
    enemy.on(MANIFEST, Reply(429, headers={"Retry-After": "3600"}))
    with pytest.raises(RegistryError, match="come back in 3600 s"):
        await fetch(enemy.address, environ)
    assert len(enemy.asked(MANIFEST)) == 1


# ---- connections --------------------------------------------------------------------------------


async def test_nobody_listens(environ: dict[str, str]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(RegistryError, match=rf"registry {address} can't be reached: connection refused") as caught:
            await fetch(address, environ)
    assert caught.value.hint == "is it running?"


async def test_no_such_host(environ: dict[str, str]) -> None:
    with pytest.raises(RegistryError, match=r"registry nowhere\.invalid can't be found"):
        await fetch("nowhere.invalid", environ)


async def test_an_answer_that_is_cut_is_asked_for_again(enemy: Enemy, environ: dict[str, str]) -> None:
    enemy.on(MANIFEST, Reply(body=CONTENT, cut=3), Reply(body=CONTENT))
    assert await fetch(enemy.address, environ) == CONTENT
    enemy.on(MANIFEST, Reply(body=CONTENT, cut=3))
    with pytest.raises(RegistryError, match="was cut"):
        await fetch(enemy.address, environ)


async def test_a_server_that_falls_silent_is_given_up(
    enemy: Enemy, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = Patience(attempts=2, first_pause=0.001, silence=0.05)
    enemy.on(MANIFEST, Reply(body=CONTENT, cut=3, hang=True))
    async with Registry.open(Endpoint(enemy.address, "team/app"), Keyring.of(environ), impatient) as registry:
        with pytest.raises(RegistryError, match="fell silent"):
            await registry.manifest("1")
    assert len(enemy.asked(MANIFEST)) == 2


# ---- downloads ----------------------------------------------------------------------------------


async def test_a_blob_is_handed_on_in_order(enemy: Enemy, environ: dict[str, str]) -> None:
    enemy.on(BLOB_PATH, ranged(BLOB))
    assert await download(enemy, environ) == BLOB
    assert await download(enemy, environ, offset=1000) == BLOB[1000:]
    assert await download(enemy, environ, offset=len(BLOB)) == b""
    assert [seen.headers.get("range") for seen in enemy.asked(BLOB_PATH)] == [None, "bytes=1000-"]


async def test_a_cut_download_goes_on_where_it_was(enemy: Enemy, environ: dict[str, str]) -> None:
    enemy.on(BLOB_PATH, ranged(BLOB, cut=100_000))
    assert await download(enemy, environ) == BLOB
    assert [seen.headers.get("range") for seen in enemy.asked(BLOB_PATH)] == [None, "bytes=100000-", "bytes=200000-"]


async def test_a_server_that_knows_no_ranges_sends_all_again(enemy: Enemy, environ: dict[str, str]) -> None:
    enemy.on(BLOB_PATH, Reply(body=BLOB, cut=100_000), Reply(body=BLOB))
    assert await download(enemy, environ) == BLOB


async def test_cuts_without_gain_come_to_an_end(enemy: Enemy, environ: dict[str, str]) -> None:
    enemy.on(BLOB_PATH, ranged(BLOB, cut=10))
    with pytest.raises(RegistryError, match="was cut"):
        await download(enemy, environ)
    assert len(enemy.asked(BLOB_PATH)) == QUICK.attempts


async def test_a_registry_that_is_started_again_is_waited_for(environ: dict[str, str]) -> None:
    sink = Sink()
    patient = Patience(attempts=10_000, first_pause=0.001, longest_pause=0.002)
    with enemy_at() as before:
        before.on(MANIFEST, Reply(body=CONTENT))
        endpoint = Endpoint(before.address, "team/app")
        async with Registry.open(endpoint, Keyring.of(environ), patient) as registry, trio.open_nursery() as nursery:
            await registry.manifest("1")
            before.stop()
            nursery.start_soon(registry.download, sha256(BLOB), len(BLOB), sink.take)
            await trio.testing.wait_all_tasks_blocked()
            with enemy_at(port=int(before.port)) as after:
                after.on(BLOB_PATH, ranged(BLOB))
                with trio.fail_after(20):
                    await sink.whole(len(BLOB))
    assert sink.content == BLOB


@pytest.mark.parametrize("claimed", ["bytes 0-262143/262144", "bytes 9-262143/262144", "bytes 5-262143/9", "junk", ""])
async def test_another_part_than_was_asked_for_is_refused(enemy: Enemy, environ: dict[str, str], claimed: str) -> None:
    enemy.on(BLOB_PATH, Reply(206, BLOB[5:], {"Content-Range": claimed}))
    with pytest.raises(RegistryError, match="another part"):
        await download(enemy, environ, offset=5)


@pytest.mark.parametrize("body", [BLOB[:-1], BLOB + b"x"])
async def test_a_blob_of_another_size_is_refused_at_once(enemy: Enemy, environ: dict[str, str], body: bytes) -> None:
    enemy.on(BLOB_PATH, Reply(body=body))
    with pytest.raises(InvalidImage, match=f"has {len(body)} bytes and should have {len(BLOB)}"):
        await download(enemy, environ)


async def test_a_blob_without_an_announced_end_is_stopped(enemy: Enemy, environ: dict[str, str]) -> None:
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BLOB) + 1, BLOB + b"x")
    enemy.on(BLOB_PATH, Reply(body=body, headers={"Transfer-Encoding": "chunked"}))
    with pytest.raises(InvalidImage, match="more bytes"):
        await download(enemy, environ)


# ---- credentials --------------------------------------------------------------------------------


def guarded(reply: Reply, *, wanted: str, challenge: str) -> Answer:
    def answer(seen: Seen) -> Reply:
        return reply if seen.authorization == wanted else Reply(401, headers={"WWW-Authenticate": challenge})

    return answer


async def test_basic_credentials_are_sent_when_asked_for(enemy: Enemy, environ: dict[str, str]) -> None:
    enemy.on(MANIFEST, guarded(Reply(body=CONTENT), wanted=BASIC, challenge='Basic realm="x"'))
    log_in(environ, enemy.address, "alice", "secret")
    async with client(enemy.address, environ) as registry:
        await registry.manifest("1")
        await registry.manifest("1")
    assert [seen.authorization for seen in enemy.asked(MANIFEST)] == [None, BASIC, BASIC]


async def test_without_credentials_the_hint_says_how_to_log_in(enemy: Enemy, environ: dict[str, str]) -> None:
    enemy.on(MANIFEST, Reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'}))
    with pytest.raises(Unauthorized, match="without credentials") as caught:
        await fetch(enemy.address, environ)
    assert f"docker login {enemy.address}" in (caught.value.hint or "")
    assert len(enemy.asked(MANIFEST)) == 1


@pytest.mark.parametrize("challenge", ['Basic realm="x"', 'Bearer realm="{url}/token"'])
async def test_a_registry_that_always_refuses_is_not_asked_for_ever(
    enemy: Enemy, environ: dict[str, str], challenge: str
) -> None:
    log_in(environ, enemy.address, "alice", "secret")
    enemy.on("/token", Reply(body=b'{"token": "t"}'))
    enemy.on(MANIFEST, Reply(401, headers={"WWW-Authenticate": challenge.format(url=enemy.url)}))
    async with client(enemy.address, environ) as registry:
        for _ in range(2):
            with pytest.raises(Unauthorized) as caught:
                await registry.manifest("1")
            assert "secret" not in str(caught.value)
    assert len(enemy.seen) < 12


async def test_a_challenge_of_an_unknown_kind(enemy: Enemy, environ: dict[str, str]) -> None:
    enemy.on(MANIFEST, Reply(401, headers={"WWW-Authenticate": "Negotiate"}))
    with pytest.raises(Unauthorized, match="negotiate"):
        await fetch(enemy.address, environ)
    enemy.on(MANIFEST, Reply(401))
    with pytest.raises(Unauthorized):
        await fetch(enemy.address, environ)


async def test_403_is_told_with_what_may_help(enemy: Enemy, environ: dict[str, str]) -> None:
    enemy.on(MANIFEST, Reply(403, problem("DENIED")))
    with pytest.raises(Unauthorized, match="denies access to team/app") as caught:
        await fetch(enemy.address, environ)
    assert caught.value.status == 403


def bearer(enemy: Enemy, token: str, *, realm: str | None = None, scope: str = "") -> None:
    challenge = f'Bearer realm="{realm or enemy.url + "/token"}",service="reg",scope="{scope}"'
    enemy.on(MANIFEST, guarded(Reply(body=CONTENT), wanted=f"Bearer {token}", challenge=challenge))


def query(seen: Seen) -> dict[str, list[str]]:
    return parse_qs(urlsplit(seen.path).query)


async def test_a_token_is_fetched_for_pulling_and_nothing_else(enemy: Enemy, environ: dict[str, str]) -> None:
    bearer(enemy, "abc", scope="repository:team/app:pull,push repository:other:delete aws")
    enemy.on("/token", Reply(body=b'{"access_token": "abc", "expires_in": 60}'))
    assert await fetch(enemy.address, environ) == CONTENT
    (asked,) = enemy.asked("/token")
    assert query(asked) == {"service": ["reg"], "scope": ["repository:team/app:pull aws"]}
    assert asked.authorization is None


async def test_the_token_server_gets_the_credentials_and_the_registry_the_token(
    enemy: Enemy, environ: dict[str, str]
) -> None:
    log_in(environ, enemy.address, "alice", "secret")
    bearer(enemy, "abc")
    enemy.on("/token", Reply(body=b'{"token": "abc"}'))
    async with client(enemy.address, environ) as registry:
        await registry.manifest("1")
        await registry.manifest("1")
    assert [seen.authorization for seen in enemy.asked("/token")] == [BASIC]
    assert [seen.authorization for seen in enemy.asked(MANIFEST)] == [None, "Bearer abc", "Bearer abc"]


async def test_a_token_that_expires_is_renewed(enemy: Enemy, environ: dict[str, str]) -> None:
    bearer(enemy, "one")
    enemy.on("/token", Reply(body=b'{"token": "one"}'), Reply(body=b'{"token": "two"}'))
    async with client(enemy.address, environ) as registry:
        await registry.manifest("1")
        bearer(enemy, "two")
        await registry.manifest("1")
    assert len(enemy.asked("/token")) == 2


async def test_an_identity_token_is_exchanged_in_a_body(enemy: Enemy, environ: dict[str, str]) -> None:
    keep_entry(environ, enemy.address, identitytoken="refresh&me")
    bearer(enemy, "abc")
    enemy.on("/token", Reply(body=b'{"access_token": "abc"}'))
    await fetch(enemy.address, environ)
    (asked,) = enemy.asked("/token")
    assert (asked.method, asked.path) == ("POST", "/token")
    form = parse_qs(asked.body.decode())
    assert (form["grant_type"], form["refresh_token"]) == (["refresh_token"], ["refresh&me"])
    assert form["scope"] == ["repository:team/app:pull"]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(401), "without credentials"),
        (Reply(404), "answers 404"),
        (Reply(503), "answers 503"),
        (Reply(body=b"<html>"), "something else than a token"),
        (Reply(body=b"{}"), "without a token"),
        (Reply(body=b'{"token": "a\\r\\nX-Evil: 1"}'), "without a token"),
        (Reply(302, headers={"Location": "/v2/"}), "answers 302"),
    ],
)
async def test_a_token_server_that_fails(enemy: Enemy, environ: dict[str, str], reply: Reply, words: str) -> None:
    bearer(enemy, "abc")
    enemy.on("/token", reply)
    with pytest.raises(RegistryError, match=words):
        await fetch(enemy.address, environ)


async def test_a_foreign_realm_does_not_get_the_credentials(
    enemy: Enemy, stranger: Enemy, environ: dict[str, str]
) -> None:
    """CVE-2020-15157's class: whoever answers 401 says where the password is to be sent."""
    log_in(environ, enemy.address, "alice", "secret")
    bearer(enemy, "abc", realm=f"{stranger.url}/token")
    stranger.on("/token", Reply(body=b'{"token": "abc"}'))
    with pytest.raises(RegistryError, match=r"to 127\.0\.0\.2, which is another domain"):
        await fetch(enemy.address, environ)
    assert not stranger.seen


async def test_a_foreign_realm_that_the_user_knows_gets_its_own(
    enemy: Enemy, stranger: Enemy, environ: dict[str, str]
) -> None:
    log_in(environ, enemy.address, "alice", "secret")
    log_in(environ, stranger.address, "bob", "other")
    bearer(enemy, "abc", realm=f"{stranger.url}/token")
    stranger.on("/token", Reply(body=b'{"token": "abc"}'))
    assert await fetch(enemy.address, environ) == CONTENT
    (asked,) = stranger.seen
    assert asked.authorization == "Basic " + base64.b64encode(b"bob:other").decode()


async def test_a_foreign_realm_may_be_asked_for_an_anonymous_token(
    enemy: Enemy, stranger: Enemy, environ: dict[str, str]
) -> None:
    bearer(enemy, "abc", realm=f"{stranger.url}/token")
    stranger.on("/token", Reply(body=b'{"token": "abc"}'))
    assert await fetch(enemy.address, environ) == CONTENT
    assert stranger.seen[0].authorization is None


@pytest.mark.parametrize("realm", ["", "file:///etc/passwd", "http://user:pw@{}/token", "//", "http://[bad/"])
async def test_a_realm_that_is_no_plain_url(enemy: Enemy, environ: dict[str, str], realm: str) -> None:
    enemy.on(MANIFEST, Reply(401, headers={"WWW-Authenticate": f'Bearer realm="{realm.format(enemy.address)}"'}))
    with pytest.raises(RegistryError):
        await fetch(enemy.address, environ)
    assert not enemy.asked("/token")


async def test_a_real_registry_with_a_password(private_registry: Service, environ: dict[str, str]) -> None:
    endpoint = Endpoint(private_registry.address, "busybox")
    async with Registry.open(endpoint, Keyring.of(environ), QUICK) as registry:
        with pytest.raises(Unauthorized, match="without credentials"):
            await registry.manifest("latest")
    log_in(environ, private_registry.address, "alice", "wrong")
    async with Registry.open(endpoint, Keyring.of(environ), QUICK) as registry:
        with pytest.raises(Unauthorized, match="refuses the credentials of 'alice'"):
            await registry.manifest("latest")
    log_in(environ, private_registry.address, *(private_registry.credentials or ("", "")))
    async with Registry.open(endpoint, Keyring.of(environ), QUICK) as registry:
        document = await registry.manifest("latest")
        assert await registry.manifest_digest("latest") == document.digest
        with pytest.raises(ImageNotFound):
            await registry.manifest("no-such-tag")


# ---- redirects ----------------------------------------------------------------------------------


async def test_credentials_do_not_follow_a_redirect_to_another_host(
    enemy: Enemy, stranger: Enemy, environ: dict[str, str]
) -> None:
    log_in(environ, enemy.address, "alice", "secret")
    redirect = Reply(307, headers={"Location": f"{stranger.url}/storage?signature=1"})
    enemy.on(BLOB_PATH, guarded(redirect, wanted=BASIC, challenge='Basic realm="x"'))
    stranger.on("/storage", ranged(BLOB, cut=200_000))
    assert await download(enemy, environ) == BLOB
    assert len(stranger.seen) == 2
    assert stranger.seen[1].headers["range"] == "bytes=200000-"
    assert [seen.authorization for seen in stranger.seen] == [None, None]


async def test_another_port_is_another_host(enemy: Enemy, environ: dict[str, str]) -> None:
    log_in(environ, enemy.address, "alice", "secret")
    with enemy_at("127.0.0.1") as neighbour:
        redirect = Reply(302, headers={"Location": f"{neighbour.url}/x"})
        enemy.on(MANIFEST, guarded(redirect, wanted=BASIC, challenge="Basic"))
        neighbour.on("/x", Reply(body=CONTENT))
        assert await fetch(enemy.address, environ) == CONTENT
        assert neighbour.seen[0].authorization is None


async def test_a_redirect_on_the_same_host_keeps_them(enemy: Enemy, environ: dict[str, str]) -> None:
    log_in(environ, enemy.address, "alice", "secret")
    redirect = Reply(307, headers={"Location": "/elsewhere"})
    enemy.on(MANIFEST, guarded(redirect, wanted=BASIC, challenge="Basic"))
    enemy.on("/elsewhere", Reply(body=CONTENT))
    assert await fetch(enemy.address, environ) == CONTENT
    assert enemy.asked("/elsewhere")[0].authorization == BASIC


async def test_a_401_behind_a_redirect_is_no_reason_to_show_credentials(
    enemy: Enemy, stranger: Enemy, environ: dict[str, str]
) -> None:
    log_in(environ, enemy.address, "alice", "secret")
    log_in(environ, stranger.address, "bob", "other")
    enemy.on(MANIFEST, Reply(307, headers={"Location": f"{stranger.url}/x"}))
    stranger.on("/x", Reply(401, headers={"WWW-Authenticate": "Basic"}))
    with pytest.raises(Unauthorized, match="denies access"):
        await fetch(enemy.address, environ)
    assert [seen.authorization for seen in enemy.seen + stranger.seen] == [None] * 3


@pytest.mark.parametrize(
    ("location", "words"),
    [
        (MANIFEST, "more than 5"),
        ("", "nowhere"),
        ("ftp://127.0.0.1/x", "not followed"),
        ("http://alice:pw@127.0.0.1/x", "not followed"),
        ("http://[::1/", "malformed"),
    ],
)
async def test_redirects_that_lead_nowhere(enemy: Enemy, environ: dict[str, str], location: str, words: str) -> None:
    enemy.on(MANIFEST, Reply(307, headers={"Location": location}))
    with pytest.raises(RegistryError, match=words):
        await fetch(enemy.address, environ)


# ---- TLS ----------------------------------------------------------------------------------------


async def test_this_machine_s_registry_may_have_tls_all_the_same(tls_enemy: Enemy, environ: dict[str, str]) -> None:
    tls_enemy.on(MANIFEST, Reply(body=CONTENT))
    assert await fetch(tls_enemy.address, environ) == CONTENT


async def test_a_certificate_that_nobody_signed_is_refused(tls_enemy: Enemy, environ: dict[str, str]) -> None:
    host = f"registry.example.com:{tls_enemy.port}"
    with pytest.raises(RegistryError, match=r"TLS certificate of registry .* is not trusted: self-signed") as caught:
        await fetch(host, environ)
    assert caught.value.hint == f"put its authority's certificate into /etc/containers/certs.d/{host}/ca.crt"


def trust(certificate: Path, *hosts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep it as the authority of these hosts, as in /etc/containers/certs.d."""
    base = certificate.parent / "certs.d"
    for host in hosts:
        (base / host).mkdir(parents=True)
        shutil.copy(certificate, base / host / "ca.crt")
    monkeypatch.setattr(transport, "CERTIFICATE_FOLDERS", (base,))


async def test_its_authority_can_be_told(
    tls_enemy: Enemy, environ: dict[str, str], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = f"registry.example.com:{tls_enemy.port}"
    trust(certificate, host, monkeypatch=monkeypatch)
    tls_enemy.on(MANIFEST, Reply(body=CONTENT))
    assert await fetch(host, environ) == CONTENT
    # It is the registry of that name that it vouches for, and no other.
    with pytest.raises(RegistryError, match="not trusted"):
        await fetch(f"other.example.com:{tls_enemy.port}", environ)


async def test_an_insecure_registry_may_be_unverified_or_plain(
    enemy: Enemy, tls_enemy: Enemy, environ: dict[str, str]
) -> None:
    for server in (enemy, tls_enemy):
        server.on(MANIFEST, Reply(body=CONTENT))
        host = f"registry.test:{server.port}"
        assert await fetch(host, environ, insecure=True) == CONTENT


async def test_a_registry_without_tls_is_named(enemy: Enemy, environ: dict[str, str]) -> None:
    log_in(environ, f"registry.test:{enemy.port}", "alice", "secret")
    with pytest.raises(RegistryError, match="does not speak TLS") as caught:
        await fetch(f"registry.test:{enemy.port}", environ)
    assert "insecure = true" in (caught.value.hint or "")
    assert not enemy.seen


@pytest.mark.parametrize("way", ["redirect", "realm"])
async def test_what_began_with_tls_does_not_go_on_without(
    enemy: Enemy, tls_enemy: Enemy, environ: dict[str, str], way: str
) -> None:
    host = f"registry.example.com:{tls_enemy.port}"
    log_in(environ, host, "alice", "secret")
    plain = f"http://registry.example.com:{enemy.port}/x"
    if way == "redirect":
        tls_enemy.on(MANIFEST, Reply(307, headers={"Location": plain}))
    else:
        tls_enemy.on(MANIFEST, Reply(401, headers={"WWW-Authenticate": f'Bearer realm="{plain}"'}))
    with pytest.raises(RegistryError, match="without TLS"):
        await fetch(host, environ, insecure=True)
    assert not enemy.seen


@pytest.mark.parametrize("way", ["redirect", "realm"])
async def test_a_distant_registry_does_not_lead_to_this_machine(
    enemy: Enemy, environ: dict[str, str], way: str
) -> None:
    here = f"{enemy.url}/private"
    if way == "redirect":
        enemy.on(MANIFEST, Reply(307, headers={"Location": here}))
    else:
        enemy.on(MANIFEST, Reply(401, headers={"WWW-Authenticate": f'Bearer realm="{here}"'}))
    with pytest.raises(RegistryError, match="this machine"):
        await fetch(f"registry.test:{enemy.port}", environ, insecure=True)
    assert not enemy.asked("/private")


async def test_a_token_server_of_the_same_domain_gets_them(
    tls_enemy: Enemy, environ: dict[str, str], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, server = (f"{name}.example.com:{tls_enemy.port}" for name in ("registry-1", "auth"))
    trust(certificate, host, server, monkeypatch=monkeypatch)
    log_in(environ, host, "alice", "secret")
    bearer(tls_enemy, "abc", realm=f"https://{server}/token")
    tls_enemy.on("/token", Reply(body=b'{"token": "abc"}'))
    assert await fetch(host, environ) == CONTENT
    assert tls_enemy.asked("/token")[0].authorization == BASIC


async def test_that_a_registry_may_be_insecure_says_nothing_of_its_token_server(
    tls_enemy: Enemy, environ: dict[str, str]
) -> None:
    host = f"registry-1.example.com:{tls_enemy.port}"
    log_in(environ, host, "alice", "secret")
    bearer(tls_enemy, "abc", realm=f"https://auth.example.com:{tls_enemy.port}/token")
    with pytest.raises(RegistryError, match=r"certificate of registry auth\.example\.com.* is not trusted"):
        await fetch(host, environ, insecure=True)
    assert not tls_enemy.asked("/token")


# ---- grammar ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        (["Basic"], [("basic", {})]),
        (['Basic realm="Registry Realm"'], [("basic", {"realm": "Registry Realm"})]),
        (
            ['Bearer realm="https://a/t",service="r",scope="repository:x:pull,push"'],
            [("bearer", {"realm": "https://a/t", "service": "r", "scope": "repository:x:pull,push"})],
        ),
        (["Negotiate, Basic realm=x"], [("negotiate", {}), ("basic", {"realm": "x"})]),
        (['Bearer realm="a" , error=invalid, Basic realm="b"'], [("bearer", None), ("basic", {"realm": "b"})]),
        (["Bearer realm=a", 'Basic realm="b"'], [("bearer", {"realm": "a"}), ("basic", {"realm": "b"})]),
        (['Bearer realm="a\\"b"'], [("bearer", {"realm": 'a"b'})]),
        (['Bearer realm="first",realm="second"'], [("bearer", {"realm": "first"})]),
        (['="', ",,,", 'Basic realm="open'], None),
    ],
)
def test_challenges_are_read(values: list[str], expected: list[tuple[str, dict[str, str] | None]] | None) -> None:
    found = parse_challenges(values)
    if expected is None:
        return
    assert [challenge.scheme for challenge in found] == [scheme for scheme, _ in expected]
    for challenge, (scheme, parameters) in zip(found, expected, strict=True):
        if parameters is not None:
            assert challenge == Challenge(scheme, parameters)


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        ("registry-1.docker.io", "auth.docker.io"),
        ("registry.gitlab.com", "gitlab.com"),
        ("quay.io", "quay.io"),
        ("quay.io", "auth.quay.io"),
        ("registry.example.co.uk", "auth.example.co.uk"),
        ("10.0.0.1", "10.0.0.1"),
        ("::1", "::1"),
    ],
)
def test_hosts_of_one_domain(registry: str, realm: str) -> None:
    assert is_same_site(registry, realm)


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        ("registry-1.docker.io", "docker.io.evil.com"),
        ("registry-1.docker.io", "evildocker.io"),
        ("quay.io", "evil.io"),
        ("quay.io", "io"),
        ("example.co.uk", "evil.co.uk"),
        ("10.0.0.1", "10.0.0.2"),
        ("10.0.0.1", "evil.0.0.1"),
        ("::1", "::2"),
        ("localhost", "evil.com"),
    ],
)
def test_hosts_of_different_domains(registry: str, realm: str) -> None:
    assert not is_same_site(registry, realm)
