"""registries.conf, version 2: which servers a name leads to."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyrt.errors import RegistryError, UsageError
from pyrt.images.reference import Reference
from pyrt.images.registries import Endpoint, Registries, is_loopback

DIGEST = "sha256:" + "ab" * 32


class Machine:
    """/etc/containers and a home."""

    def __init__(self, root: Path) -> None:
        self.system = root / "etc"
        self.home = root / "home"
        self.environ = {"HOME": str(self.home)}

    def write(self, content: str, path: str = "etc/registries.conf") -> None:
        file = self.system.parent / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)

    @property
    def registries(self) -> Registries:
        return Registries.of(self.environ, system=self.system)

    def places(self, name: str) -> list[str]:
        return [str(endpoint) for endpoint in self.registries.endpoints(Reference.parse(name))]

    def meanings(self, name: str) -> list[str]:
        return [str(reference) for reference in self.registries.resolve(name)]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_any_file_names_mean_what_they_say(machine: Machine) -> None:
    assert machine.places("quay.io/a/b") == ["quay.io/a/b"]
    assert machine.meanings("debian:12") == ["docker.io/library/debian:12"]


def test_docker_hub_answers_under_its_api_s_name() -> None:
    assert Endpoint("docker.io", "library/debian").host == "registry-1.docker.io"
    assert Endpoint("quay.io", "a").host == "quay.io"


def test_the_manual_s_example(machine: Machine) -> None:
    """containers-registries.conf(5), EXAMPLE."""
    machine.write("""
        unqualified-search-registries = ["example.com"]
        [[registry]]
        prefix = "example.com/foo"
        insecure = false
        blocked = false
        location = "internal-registry-for-example.com/bar"
        [[registry.mirror]]
        location = "example-mirror-0.local/mirror-for-foo"
        [[registry.mirror]]
        location = "example-mirror-1.local/mirrors/foo"
        insecure = true
        [[registry]]
        location = "registry.com"
        [[registry.mirror]]
        location = "mirror.registry.com"
    """)
    assert machine.places("example.com/foo/image:latest") == [
        "example-mirror-0.local/mirror-for-foo/image",
        "example-mirror-1.local/mirrors/foo/image",
        "internal-registry-for-example.com/bar/image",
    ]
    endpoints = machine.registries.endpoints(Reference.parse("example.com/foo/image:latest"))
    assert [(each.mirror, each.insecure) for each in endpoints] == [(True, False), (True, True), (False, False)]
    assert machine.places("registry.com/image") == ["mirror.registry.com/image", "registry.com/image"]
    assert machine.places("example.com/food") == ["example.com/food"]
    assert machine.meanings("app:1") == ["example.com/app:1"]


def test_the_longest_prefix_wins(machine: Machine) -> None:
    machine.write("""
        [[registry]]
        location = "a.de"
        [[registry]]
        prefix = "a.de/team"
        location = "team.de/x"
        [[registry]]
        prefix = "a.de/team/app:1"
        location = "one.de/y/app:1"
        [[registry]]
        prefix = "a.de:5000"
        location = "port.de"
    """)
    assert machine.places("a.de/other") == ["a.de/other"]
    assert machine.places("a.de/team/app:2") == ["team.de/x/app"]
    assert machine.places("a.de/team/app:1") == ["one.de/y/app"]
    assert machine.places("a.de/teams") == ["a.de/teams"]
    assert machine.places("a.de:5000/x") == ["port.de/x"]


def test_wildcards_match_any_number_of_subdomains(machine: Machine) -> None:
    machine.write("""
        [[registry]]
        prefix = "*.example.com"
        insecure = true
        [[registry.mirror]]
        location = "mirror.de/all"
        [[registry]]
        prefix = "*.corp.de"
        location = "proxy.corp.org/cache"
    """)
    for name in ("bar.example.com/x", "foo.bar.example.com/x"):
        assert machine.places(name) == ["mirror.de/all/x", name]
    assert machine.registries.endpoints(Reference.parse("bar.example.com/x"))[1].insecure
    assert machine.places("example.com/x") == ["example.com/x"]
    assert machine.places("a.corp.de/x/y") == ["proxy.corp.org/cache/x/y"]


def test_a_blocked_registry_is_refused_by_name(machine: Machine) -> None:
    machine.write('[[registry]]\nlocation = "bad.de"\nblocked = true\n[[registry.mirror]]\nlocation = "good.de"')
    with pytest.raises(RegistryError, match=r"bad\.de/app:1 is blocked"):
        machine.places("bad.de/app:1")


def test_mirrors_may_serve_digests_or_tags_alone(machine: Machine) -> None:
    machine.write("""
        [[registry]]
        location = "a.de"
        [[registry.mirror]]
        location = "digests.de"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "tags.de"
        pull-from-mirror = "tag-only"
        [[registry]]
        location = "b.de"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "m.de"
    """)
    assert machine.places("a.de/x:1") == ["tags.de/x", "a.de/x"]
    assert machine.places(f"a.de/x@{DIGEST}") == ["digests.de/x", "a.de/x"]
    assert machine.places("b.de/x:1") == ["b.de/x"]
    assert machine.places(f"b.de/x@{DIGEST}") == ["m.de/x", "b.de/x"]


def test_short_names_go_by_alias_then_search(machine: Machine) -> None:
    machine.write("""
        unqualified-search-registries = ["one.de", "two.de:5000"]
        [aliases]
        "fedora" = "registry.fedoraproject.org/fedora"
        "team/app" = "quay.io/team/app"
    """)
    assert machine.meanings("fedora:40") == ["registry.fedoraproject.org/fedora:40"]
    assert machine.meanings(f"fedora@{DIGEST}") == [f"registry.fedoraproject.org/fedora@{DIGEST}"]
    assert machine.meanings("team/app") == ["quay.io/team/app"]
    assert machine.meanings("other:1") == ["one.de/other:1", "two.de:5000/other:1"]
    assert machine.meanings("localhost:5000/fedora") == ["localhost:5000/fedora"]
    assert machine.meanings("docker.io/fedora") == ["docker.io/library/fedora"]


def test_an_ambiguous_short_name_can_be_forbidden(machine: Machine) -> None:
    machine.write('unqualified-search-registries = ["one.de", "two.de"]\nshort-name-mode = "enforcing"')
    with pytest.raises(UsageError, match=r"one\.de, two\.de"):
        machine.meanings("app")
    machine.write('unqualified-search-registries = ["one.de"]\nshort-name-mode = "enforcing"')
    assert machine.meanings("app") == ["one.de/app"]


def test_drop_ins_override_in_order(machine: Machine) -> None:
    machine.write('unqualified-search-registries = ["one.de"]\n[aliases]\na = "x.de/a"\nb = "x.de/b"')
    machine.write(
        'unqualified-search-registries = ["two.de"]\n[aliases]\na = "y.de/a"', "etc/registries.conf.d/10.conf"
    )
    machine.write('[aliases]\nb = ""', "etc/registries.conf.d/20.conf")
    machine.write('[aliases]\na = "z.de/a"', "home/.config/containers/registries.conf.d/00.conf")
    machine.write("not TOML at all", "etc/registries.conf.d/README")
    assert machine.meanings("a") == ["z.de/a"]
    assert machine.meanings("b") == ["two.de/b"]


def test_a_user_s_own_file_replaces_the_system_s(machine: Machine) -> None:
    machine.write('unqualified-search-registries = ["system.de"]')
    machine.write('unqualified-search-registries = ["dropin.de"]', "etc/registries.conf.d/10.conf")
    machine.write('unqualified-search-registries = ["user.de"]', "home/.config/containers/registries.conf")
    assert machine.meanings("a") == ["user.de/a"]
    machine.write('unqualified-search-registries = ["explicit.de"]', "own.conf")
    machine.environ["CONTAINERS_REGISTRIES_CONF"] = str(machine.system.parent / "own.conf")
    assert machine.meanings("a") == ["explicit.de/a"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("= nonsense", "malformed"),
        ('unqualified-search-registries = "one.de"', "malformed"),
        ("[registries.search]\nregistries = ['a.de']", "version 1"),
        ("[[registry]]\ninsecure = true", "without prefix"),
        ('[[registry]]\nprefix = "a.*.de"\nlocation = "b.de"', "wildcard"),
        ('[[registry]]\nprefix = "*.a.de/x"\nlocation = "b.de"', "wildcard"),
        ('[[registry]]\nprefix = "a.de"', "no location"),
        (
            '[[registry]]\nlocation = "a.de"\n[[registry.mirror]]\nlocation = "b.de"\npull-from-mirror = "x"',
            "pull-from",
        ),
    ],
)
def test_a_malformed_file_is_named_with_what_is_wrong(machine: Machine, content: str, reason: str) -> None:
    machine.write(content)
    with pytest.raises(UsageError, match=reason) as caught:
        machine.registries.endpoints(Reference.parse("a.de/x"))
    assert "registries.conf" in str(caught.value)


def test_a_location_that_names_no_registry_does_not_lead_to_docker_hub(machine: Machine) -> None:
    machine.write('[[registry]]\nprefix = "docker.io"\nlocation = "mirror"')
    with pytest.raises(UsageError, match="names no registry"):
        machine.places("debian")


def test_what_this_machine_s_distribution_ships_is_understood() -> None:
    assert Registries.of({"HOME": "/nowhere"}).resolve("quay.io/a/b")


@pytest.mark.parametrize("host", ["localhost", "localhost:5000", "127.0.0.1", "127.8.9.1:80", "[::1]", "[::1]:5000"])
def test_this_machine_may_be_asked_without_tls(host: str) -> None:
    assert is_loopback(host)
    assert Endpoint(host, "x").schemes == ("http", "https")


@pytest.mark.parametrize(
    "host", ["localhost.de", "app.localhost", "127.0.0.1.de", "10.0.0.1:5000", "[fe80::1]", "0.0.0.0", "a"]
)
def test_others_may_not(host: str) -> None:
    assert not is_loopback(host)
    assert Endpoint(host, "x").schemes == ("https",)
    assert Endpoint(host, "x", insecure=True).schemes == ("https", "http")
