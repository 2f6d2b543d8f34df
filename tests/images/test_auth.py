"""Credentials: which file wins, which entry fits, and that no secret ever shows."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from pyrt.errors import RegistryError, UsageError
from pyrt.images import auth
from pyrt.images.auth import Credentials, Keyring


def entry(name: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{name}:{password}".encode()).decode()}


class Home:
    """A user's folders, and the environment that leads to them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir()
        self.environ = {
            "HOME": str(root),
            "XDG_RUNTIME_DIR": str(root / "run"),
            "PATH": f"{self.bin}:{os.environ['PATH']}",
        }

    def write(self, path: str, content: object) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return file

    def helper(self, name: str, script: str) -> None:
        file = self.bin / f"docker-credential-{name}"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    async def find(self, registry: str, repository: str = "") -> Credentials | None:
        return await Keyring.of(self.environ).find(registry, repository)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


async def test_nothing_is_known_where_nothing_is(home: Home) -> None:
    assert await home.find("quay.io", "a/b") is None


async def test_docker_s_file_and_the_containers_tools_are_read(home: Home) -> None:
    home.write(".docker/config.json", {"auths": {"quay.io": entry("d", "1"), "only.docker": entry("d", "2")}})
    home.write(".config/containers/auth.json", {"auths": {"quay.io": entry("c", "3")}})
    assert await home.find("quay.io") == Credentials("c", "3")
    home.write("run/containers/auth.json", {"auths": {"quay.io": entry("r", "4")}})
    assert await home.find("quay.io") == Credentials("r", "4")
    assert await home.find("only.docker") == Credentials("d", "2")


async def test_variables_lead_elsewhere(home: Home) -> None:
    home.write("elsewhere/config.json", {"auths": {"a.de": entry("x", "1")}})
    home.environ["DOCKER_CONFIG"] = str(home.root / "elsewhere")
    assert await home.find("a.de") == Credentials("x", "1")
    alone = home.write("alone.json", {"auths": {"b.de": entry("y", "2")}})
    home.environ["REGISTRY_AUTH_FILE"] = str(alone)
    assert await home.find("b.de") == Credentials("y", "2")
    assert await home.find("a.de") is None


async def test_a_named_file_that_is_missing_is_said(home: Home) -> None:
    home.environ["REGISTRY_AUTH_FILE"] = "/nowhere/auth.json"
    with pytest.raises(UsageError, match=r"/nowhere/auth\.json"):
        await home.find("a.de")


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"])
async def test_docker_hub_is_found_by_each_of_its_names(home: Home, key: str) -> None:
    home.write(".docker/config.json", {"auths": {key: entry("hub", "1")}})
    assert await home.find("docker.io", "library/debian") == Credentials("hub", "1")


async def test_the_most_specific_entry_wins(home: Home) -> None:
    entries = {"a.de": entry("host", "1"), "a.de/team": entry("team", "2"), "a.de/team/app": entry("app", "3")}
    home.write(".config/containers/auth.json", {"auths": entries})
    for repository, name in (("team/app", "app"), ("team/other", "team"), ("team-b/app", "host"), ("", "host")):
        found = await home.find("a.de", repository)
        assert (found.username if found else None) == name


async def test_entries_of_all_forms(home: Home) -> None:
    home.write(
        ".docker/config.json",
        {
            "auths": {
                "https://url.de:5000/v2/": entry("url", "a:b"),
                "plain.de": {"username": "p", "password": "q"},
                "nul.de": {"auth": base64.b64encode(b"n:pw\0\0").decode()},
                "identity.de": {"identitytoken": "refresh"},
                "token.de": {"registrytoken": "bearer"},
                "empty.de": {},
                "null.de": {"auth": None},
            },
            "HttpHeaders": {"User-Agent": "x"},
        },
    )
    assert await home.find("url.de:5000") == Credentials("url", "a:b")
    assert await home.find("plain.de") == Credentials("p", "q")
    assert await home.find("nul.de") == Credentials("n", "pw")
    assert await home.find("identity.de") == Credentials(identity_token="refresh")
    assert await home.find("token.de") == Credentials(registry_token="bearer")
    assert await home.find("empty.de") is None
    assert await home.find("null.de") is None


@pytest.mark.parametrize("content", ["{", "[]", '{"auths": 7}', "\xff"])
async def test_a_damaged_file_is_named(home: Home, content: str) -> None:
    home.write(".docker/config.json", content)
    with pytest.raises(UsageError, match=r"config\.json is damaged"):
        await home.find("a.de")


async def test_no_secret_shows(home: Home) -> None:
    secret = "hunter2"
    assert secret not in repr(Credentials("me", secret, secret, secret))
    home.write(".docker/config.json", f'{{"auths": {{"a.de": {{"auth": "{secret}!"}}}}}}')
    with pytest.raises(UsageError) as caught:
        await home.find("a.de")
    assert secret not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


async def test_a_helper_for_one_registry_goes_before_entries(home: Home) -> None:
    home.helper("mine", '[ "$1" = get ] && read -r server; echo "{\\"Username\\":\\"u\\",\\"Secret\\":\\"$server\\"}"')
    home.write(".docker/config.json", {"credHelpers": {"a.de": "mine"}, "auths": {"a.de": entry("old", "1")}})
    assert await home.find("a.de") == Credentials("u", "a.de")


async def test_the_store_of_all_serves_what_has_no_entry(home: Home) -> None:
    home.helper("all", 'read -r server; echo "{\\"Username\\":\\"<token>\\",\\"Secret\\":\\"$server\\"}"')
    home.write(".docker/config.json", {"credsStore": "all", "auths": {"a.de": entry("own", "1"), "docker.io": {}}})
    assert await home.find("a.de") == Credentials("own", "1")
    assert await home.find("docker.io") == Credentials(identity_token="https://index.docker.io/v1/")


async def test_a_helper_that_has_nothing_is_no_error(home: Home) -> None:
    home.helper("none", 'echo "credentials not found in native keychain"; exit 1')
    home.write(".docker/config.json", {"credsStore": "none"})
    assert await home.find("a.de") is None


@pytest.mark.parametrize(
    ("script", "reason"),
    [("exit 3", "failed with status 3"), ("echo secret-garbage", "something else than JSON")],
)
async def test_a_helper_that_fails_is_named(home: Home, script: str, reason: str) -> None:
    home.helper("bad", script)
    home.write(".docker/config.json", {"credsStore": "bad"})
    with pytest.raises(RegistryError, match=reason) as caught:
        await home.find("a.de")
    assert "docker-credential-bad" in str(caught.value)
    assert "secret-garbage" not in str(caught.value)


async def test_a_helper_that_hangs_is_given_up(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "HELPER_SECONDS", 0.1)
    home.helper("slow", "exec sleep 600")
    home.write(".docker/config.json", {"credsStore": "slow"})
    with pytest.raises(RegistryError, match="no answer"):
        await home.find("a.de")


@pytest.mark.parametrize("name", ["absent", "../../bin/sh", "-x", ""])
async def test_a_helper_that_is_not_there_or_is_a_path(home: Home, name: str) -> None:
    home.write(".docker/config.json", {"credHelpers": {"a.de": name}, "credsStore": name})
    if not name:
        assert await home.find("a.de") is None
        return
    with pytest.raises(UsageError, match="credential helper"):
        await home.find("a.de")


def test_basic_is_the_header_of_the_rfc() -> None:
    # The example of RFC 7617, section 2.
    assert Credentials("Aladdin", "open sesame").basic() == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
