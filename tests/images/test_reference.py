"""Names as people type them: what Docker accepts means the same here, what it refuses is refused with a reason."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrt.errors import UsageError
from pyrt.images.reference import Reference, has_registry, is_digest

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("debian", "docker.io/library/debian", "debian"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("grafana/grafana", "docker.io/grafana/grafana", "grafana/grafana"),
        ("docker.io/debian", "docker.io/library/debian", "debian"),
        ("docker.io/library/debian", "docker.io/library/debian", "debian"),
        ("index.docker.io/debian:12", "docker.io/library/debian:12", "debian:12"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/debian:12", "localhost:5000/debian:12", "localhost:5000/debian:12"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("127.0.0.1:5000/a/b/c:v1.2", "127.0.0.1:5000/a/b/c:v1.2", "127.0.0.1:5000/a/b/c:v1.2"),
        ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"),
        ("[2001:db8::1]/app:1", "[2001:db8::1]/app:1", "[2001:db8::1]/app:1"),
        ("Registry/app", "Registry/app", "Registry/app"),
        ("quay.io/a__b/c-d/e--f.g", "quay.io/a__b/c-d/e--f.g", "quay.io/a__b/c-d/e--f.g"),
        (f"debian@{DIGEST}", f"docker.io/library/debian@{DIGEST}", f"debian@{DIGEST}"),
        (f"debian:12@{DIGEST}", f"docker.io/library/debian:12@{DIGEST}", f"debian:12@{DIGEST}"),
        # What the reference implementation shortens to something else is left long.
        ("docker.io/foo.bar/baz", "docker.io/foo.bar/baz", "docker.io/foo.bar/baz"),
        ("docker.io/library/foo/bar", "docker.io/library/foo/bar", "library/foo/bar"),
        ("a" * 255, f"docker.io/library/{'a' * 247}", None),
    ],
)
def test_names_mean_what_they_mean_to_docker(text: str, canonical: str, familiar: str | None) -> None:
    if familiar is None:
        text = text[:247]
        familiar = text
    reference = Reference.parse(text)
    assert (str(reference), reference.familiar()) == (canonical, familiar)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("Debian", "lowercase"),
        ("docker.io/Foo/bar", "lowercase"),
        ("debian:", "tag is empty"),
        ("debian:.x", "no tag"),
        ("debian:a b", "no tag"),
        ("debian:" + "t" * 129, "no tag"),
        ("debian@sha256:abc", "digest is malformed"),
        ("debian@", "digest is malformed"),
        (f"debian@{DIGEST.upper()}", "digest"),
        ("debian@sha256:../../etc/passwd", "digest is malformed"),
        ("debian@sha512:" + "0" * 128, "sha512"),
        (f"debian@{DIGEST}:12", "digest is malformed"),
        ("a//b", "empty"),
        ("a/", "empty"),
        ("/a", "empty"),
        ("a..b/c/..", "no host name"),
        ("x/../y", "no repository name"),
        ("a___b", "no repository name"),
        ("-a", "no repository name"),
        ("a_", "no repository name"),
        ("localhost:99999/a", "port"),
        ("localhost:x/a", "no host name"),
        ("[::1/a", "no host name"),
        ("-host.de/a", "no host name"),
        ("docker://debian", "URL"),
        ("https://quay.io/a/b", "URL"),
        ("x.de/" + "a" * 256, "255"),
        ("a" * 5000, "1024"),
        ("f" * 64, "id"),
        ("debian\n", "no repository name"),
        ("débian", "no repository name"),
        ("debian:١٢", "no tag"),
    ],
)
def test_what_is_no_name_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=re.escape(reason)):
        Reference.parse(text)


def test_a_wrong_case_comes_with_the_right_one() -> None:
    with pytest.raises(UsageError) as caught:
        Reference.parse("docker.io/My/App")
    assert caught.value.hint == "did you mean 'my/app'?"


def test_the_default_tag_fills_in_only_where_nothing_is_said() -> None:
    assert str(Reference.parse("debian").with_default_tag()) == "docker.io/library/debian:latest"
    assert Reference.parse("debian:12").with_default_tag().tag == "12"
    assert Reference.parse(f"debian@{DIGEST}").with_default_tag().tag is None
    assert str(Reference.parse("debian:12").pinned(DIGEST)) == f"docker.io/library/debian@{DIGEST}"


@pytest.mark.parametrize("text", ["a.b/c", "a:1/c", "localhost/c", "A/c", "[::1]/c"])
def test_a_first_component_that_looks_like_a_host_is_one(text: str) -> None:
    assert has_registry(text)


@pytest.mark.parametrize("text", ["a", "a/b", "a/b.c", "localhost", "a.b"])
def test_other_first_components_are_not(text: str) -> None:
    assert not has_registry(text)


components = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,6}){0,2}", fullmatch=True)
registries = st.one_of(
    st.sampled_from(["docker.io", "localhost", "localhost:5000", "[::1]:80", "[fe80::1]"]),
    st.from_regex(r"[a-z][a-z0-9]{0,8}\.[a-zA-Z0-9]{1,8}(:[1-9][0-9]{0,3})?", fullmatch=True),
)
references = st.builds(
    Reference,
    registries,
    st.lists(components, min_size=1, max_size=4).map("/".join),
    st.none() | st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}", fullmatch=True),
    st.none() | st.just(DIGEST),
)


@given(references)
def test_canonical_and_familiar_forms_lead_back(reference: Reference) -> None:
    parsed = Reference.parse(str(reference))
    assert Reference.parse(str(parsed)) == parsed
    assert Reference.parse(parsed.familiar()) == parsed
    assert len(parsed.familiar()) <= len(str(parsed))


@given(st.text(max_size=80) | st.text(alphabet="aA0./:@-_[]%\n sha256", max_size=60))
def test_any_text_is_a_reference_or_a_usage_error(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except UsageError:
        return
    assert Reference.parse(str(reference)) == reference
    # Whatever was accepted may become a path of a URL.
    assert not re.search(r"[^a-z0-9._/-]|\.\.|//", reference.repository)


@pytest.mark.parametrize("value", [None, 7, "", "sha256:", DIGEST + "\n", DIGEST.upper(), "sha256:" + "/" * 64])
def test_only_a_digest_is_a_digest(value: object) -> None:
    assert is_digest(DIGEST)
    assert not is_digest(value)
