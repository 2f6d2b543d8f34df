"""An enemy's registry, and what a pull is tested with.

`Enemy` is an HTTP server on loopback that answers as it is told and remembers what it was asked. The
honest ones, docker-registry with and without a password, are in `tests.foreign`. A module that wants
a fixture of these imports its function.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import socket
import ssl
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import trio

from pyrt.images.patience import Patience

QUICK = Patience(attempts=3, first_pause=0.001, longest_pause=0.002, connect=5.0, silence=5.0)
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Seen(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")


class Reply(NamedTuple):
    """An answer. With ``cut`` the connection ends after that many bytes of the body; with ``hang`` it falls silent."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = MappingProxyType({})
    cut: int | None = None
    hang: bool = False
    length: int | None = None


Answer = Reply | Callable[[Seen], Reply]


class Enemy:
    """A server that answers ``path`` (query included) with what was set; the last answer of several repeats."""

    def __init__(self, server: ThreadingHTTPServer, scheme: str, host: str) -> None:
        self.address = f"{host}:{server.server_address[1]}"
        self.url = f"{scheme}://{self.address}"
        self.seen: list[Seen] = []
        self.over = threading.Event()
        self.connections: list[socket.socket] = []
        self._server = server
        self._answers: dict[str, list[Answer]] = {"/v2/": [Reply()]}
        self._lock = threading.Lock()

    @property
    def port(self) -> str:
        return self.address.rpartition(":")[2]

    def on(self, path: str, *answers: Answer) -> None:
        self._answers[path] = list(answers)

    def asked(self, path: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.path.partition("?")[0] == path]

    def offer(self, repository: str, tag: str, image: Image) -> None:
        """Serve an image as an honest registry would."""
        headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": image.digest}
        for name in (tag, image.digest):
            self.on(f"/v2/{repository}/manifests/{name}", Reply(body=image.manifest, headers=headers))
        for blob in (image.config, *image.layers):
            self.on(f"/v2/{repository}/blobs/{sha256(blob)}", ranged(blob))

    def stop(self) -> None:
        """Listen no more, and hang up."""
        self.over.set()
        self._server.shutdown()
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()

    def answer(self, seen: Seen) -> Reply:
        with self._lock:
            self.seen.append(seen)
            answers = self._answers.get(seen.path) or self._answers.get(seen.path.partition("?")[0])
            if not answers:
                return Reply(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "unknown"}]}')
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return answer if isinstance(answer, Reply) else answer(seen)


class Image(NamedTuple):
    """An image in bytes."""

    manifest: bytes
    config: bytes
    layers: tuple[bytes, ...]

    @property
    def digest(self) -> str:
        return sha256(self.manifest)


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def ranged(blob: bytes, **faults: Any) -> Callable[[Seen], Reply]:
    """A blob that is served from where it is asked for; ``faults`` as in ``Reply``."""

    def reply(seen: Seen) -> Reply:
        text = seen.headers.get("range")
        if not text:
            return Reply(body=blob, **faults)
        start = int(text.removeprefix("bytes=").rstrip("-"))
        headers = {"Content-Range": f"bytes {start}-{len(blob) - 1}/{len(blob)}"}
        return Reply(206, blob[start:], headers, **faults)

    return reply


def layer(name: str, content: bytes) -> bytes:
    """A tar of one file, not compressed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def build(*plain: bytes, configured: dict[str, Any] | None = None, **changes: Any) -> Image:
    """An image of these tars, gzipped; ``configured`` is put over its configuration, ``changes`` over its manifest."""
    layers = tuple(gzip.compress(tar, 1, mtime=0) for tar in plain)
    configuration = {
        "os": "linux",
        "architecture": os.uname().machine,
        "rootfs": {"type": "layers", "diff_ids": [sha256(tar) for tar in plain]},
        **(configured or {}),
    }
    encoded = json.dumps(configuration).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": describe("application/vnd.oci.image.config.v1+json", encoded),
        "layers": [describe("application/vnd.oci.image.layer.v1.tar+gzip", blob) for blob in layers],
        **changes,
    }
    return Image(json.dumps(manifest).encode(), encoded, layers)


def describe(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(blob), "size": len(blob)}


@contextmanager
def enemy_at(host: str = "127.0.0.1", *, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Enemy]:
    """An enemy that listens on a port (0: a free one), for as long as the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = enemy.answer(Seen(self.command, self.path, headers, body))
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if "Transfer-Encoding" not in reply.headers:
                self.send_header("Content-Length", str(len(reply.body) if reply.length is None else reply.length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body[: reply.cut])
            self.wfile.flush()
            if reply.hang:
                enemy.over.wait()
            if reply.cut is not None or reply.hang:
                self.close_connection = True

        do_GET = do_HEAD = do_POST = handle_any  # noqa: N815 (the names that http.server looks for)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = False
        block_on_close = True

        def get_request(self) -> tuple[socket.socket, Any]:
            connection, address = super().get_request()
            enemy.connections.append(connection)
            return connection, address

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # A client that hangs up in mid-answer is what half of the tests are about.

    server = Server((host, port), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    enemy = Enemy(server, "https" if tls else "http", host)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield enemy
    finally:
        enemy.stop()
        thread.join()


@pytest.fixture(name="enemy")
def serve_enemy() -> Iterator[Enemy]:
    with enemy_at() as server:
        yield server


@pytest.fixture(name="stranger")
def serve_stranger() -> Iterator[Enemy]:
    """A second server, on a host of its own."""
    with enemy_at("127.0.0.2") as server:
        yield server


@pytest.fixture(name="certificate")
def make_certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 and *.example.com that nobody has signed, with its key in the same file."""
    file = tmp_path / "tls.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1,DNS:*.example.com"]
    done = subprocess.run([*command, "-keyout", "-", "-out", "-"], capture_output=True, check=True)
    file.write_bytes(done.stdout)
    return file


@pytest.fixture(name="tls_enemy")
def serve_tls_enemy(certificate: Path) -> Iterator[Enemy]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with enemy_at(tls=context) as server:
        yield server


@pytest.fixture(name="environ")
def make_environ(tmp_path: Path) -> dict[str, str]:
    """A user without any configuration."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "registries.conf").touch()
    return {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "CONTAINERS_REGISTRIES_CONF": str(home / "registries.conf"),
    }


class Names(trio.abc.HostnameResolver):
    """Names below .example.com and .test are this machine, so that it can play others."""

    async def getaddrinfo(self, host: Any, port: Any, *options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name.endswith((".example.com", ".test")):
            return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


def log_in(environ: dict[str, str], registry: str, name: str, password: str) -> None:
    """Keep a name and a password where `docker login` does."""
    keep_entry(environ, registry, username=name, password=password)


def keep_entry(environ: dict[str, str], registry: str, **entry: str) -> None:
    file = Path(environ["HOME"], ".docker/config.json")
    file.parent.mkdir(exist_ok=True)
    content = json.loads(file.read_text()) if file.exists() else {"auths": {}}
    content["auths"][registry] = entry
    file.write_text(json.dumps(content))
