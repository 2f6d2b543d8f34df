"""Layers on their way in: promised digests, halves of downloads, waiting for another, and what a cut leaves."""

from __future__ import annotations

import gzip
import os
import threading
from typing import TYPE_CHECKING

import pytest

from pyrt.errors import InvalidImage
from pyrt.images.scratch import Cancelled
from tests.images.making import debris, digest_of, ingest, piped, tar_of

if TYPE_CHECKING:
    from pyrt.images.ingestion import LayerIngestion
    from pyrt.images.store import Store

PLAIN = tar_of({"a": b"1" * 100_000, "b": os.urandom(50_000)})
PACKED = gzip.compress(PLAIN, mtime=0)
WRONG = "sha256:" + "0" * 64


def extract(layer: LayerIngestion, data: bytes) -> str:
    from pyrt._native import extract_layer

    with piped(data) as source:
        return layer.commit(extract_layer(source, layer.directory, blob=layer.blob, cancel=None))


def test_a_layer_is_there_when_it_is_committed_and_not_before(store: Store) -> None:
    with store.ingest_layer(digest_of(PLAIN), digest_of(PACKED)) as layer:
        assert not layer.exists
        assert not store.has_layer(digest_of(PLAIN))
        extract(layer, PACKED)
        assert store.has_layer(digest_of(PLAIN))
    found = store.layer(digest_of(PLAIN))
    assert found
    assert (found.digest, found.blob_size, found.size) == (digest_of(PACKED), len(PACKED), len(PLAIN))
    assert (store.root / "blobs/sha256" / digest_of(PACKED)[7:]).read_bytes() == PACKED
    assert debris(store.root) == []


def test_one_that_is_there_is_not_done_again(store: Store) -> None:
    ingest(store, PLAIN)
    for diff_id, digest in ((digest_of(PLAIN), digest_of(PACKED)), (digest_of(PLAIN), None), (None, digest_of(PACKED))):
        with store.ingest_layer(diff_id, digest) as layer:
            assert layer.exists
            assert (layer.diff_id, layer.digest) == (digest_of(PLAIN), digest_of(PACKED))


def test_nothing_need_be_known_beforehand(store: Store) -> None:
    with store.ingest_layer(None, None) as layer:
        assert extract(layer, PACKED) == digest_of(PLAIN)
    with store.ingest_layer(None, None) as layer:
        assert extract(layer, PACKED) == digest_of(PLAIN)
    assert debris(store.root) == []


@pytest.mark.parametrize(("diff_id", "digest"), [(WRONG, digest_of(PACKED)), (digest_of(PLAIN), WRONG)])
def test_a_broken_promise(store: Store, diff_id: str, digest: str) -> None:
    with pytest.raises(InvalidImage, match="promised"), store.ingest_layer(diff_id, digest) as layer:
        extract(layer, PACKED)
    assert not store.has_layer(digest_of(PLAIN))
    assert debris(store.root) == []


def test_what_was_downloaded_before_a_cut_is_there_at_the_next_attempt(store: Store) -> None:
    class Cut(Exception):
        pass

    def attempt() -> None:
        with store.ingest_layer(digest_of(PLAIN), digest_of(PACKED)) as layer:
            os.write(layer.blob, PACKED[:20_000])
            os.mkdir("half", dir_fd=layer.directory)
            raise Cut

    with pytest.raises(Cut):
        attempt()
    store.sweep()
    with store.ingest_layer(digest_of(PLAIN), digest_of(PACKED)) as layer:
        assert layer.blob_size == 20_000
        assert os.pread(layer.blob, 20_000, 0) == PACKED[:20_000]
        assert os.listdir(layer.directory) == []
        extract(layer, PACKED)
    assert debris(store.root) == []


def test_a_half_is_not_kept_for_ever(store: Store) -> None:
    with store.ingest_layer(digest_of(PLAIN), digest_of(PACKED)) as layer:
        os.write(layer.blob, b"half")
    assert debris(store.root)
    store.prune()
    assert debris(store.root) == []


def test_more_than_there_is_was_left_by_an_earlier_attempt(store: Store) -> None:
    with store.ingest_layer(digest_of(PLAIN), digest_of(PACKED)) as layer:
        os.write(layer.blob, PACKED + b"more")
    with store.ingest_layer(digest_of(PLAIN), digest_of(PACKED)) as layer:
        extract(layer, PACKED)
    assert (store.root / "blobs/sha256" / digest_of(PACKED)[7:]).read_bytes() == PACKED


def test_the_second_waits_for_the_first_and_finds_it_done(store: Store) -> None:
    begun, seen = threading.Event(), []

    def second() -> None:
        begun.set()
        with store.ingest_layer(digest_of(PLAIN), digest_of(PACKED)) as layer:
            seen.append(layer.exists)

    thread = threading.Thread(target=second)
    with store.ingest_layer(digest_of(PLAIN), digest_of(PACKED)) as layer:
        thread.start()
        assert begun.wait(10)
        extract(layer, PACKED)
        assert seen == []
    thread.join(10)
    assert seen == [True]


def test_waiting_can_be_cancelled(store: Store) -> None:
    asked = iter([False, False, True])
    with (
        store.ingest_layer(digest_of(PLAIN), digest_of(PACKED)),
        pytest.raises(Cancelled),
        store.ingest_layer(digest_of(PLAIN), digest_of(PACKED), cancelled=lambda: next(asked)),
    ):
        pass
    assert debris(store.root) == []


def test_a_file_of_ours_becomes_the_blob(store: Store) -> None:
    from pyrt._native import extract_layer

    with store.scratch() as scratch, store.ingest_layer(None, None) as layer:
        file = os.open("spooled", os.O_RDWR | os.O_CREAT, 0o600, dir_fd=scratch.descriptor)
        os.write(file, PACKED)
        os.lseek(file, 0, os.SEEK_SET)
        report = extract_layer(file, layer.directory, blob=None, cancel=None)
        os.close(file)
        layer.adopt("spooled", within=scratch.descriptor)
        layer.commit(report)
        assert os.listdir(scratch.descriptor) == []
    assert (store.root / "blobs/sha256" / digest_of(PACKED)[7:]).read_bytes() == PACKED
    assert debris(store.root) == []


def test_a_directory_without_a_row_is_not_trusted(store: Store) -> None:
    """What a crash between rename and transaction, or somebody's hand, left there."""
    orphan = store.root / "layers/sha256" / digest_of(PLAIN)[7:]
    (orphan / "evil").mkdir(parents=True)
    ingest(store, PLAIN)
    assert sorted(os.listdir(orphan)) == ["a", "b"]
    assert debris(store.root) == []


def test_no_descriptor_is_left(store: Store) -> None:
    before = os.listdir("/proc/self/fd")
    ingest(store, PLAIN)
    store.prune()
    with pytest.raises(InvalidImage), store.ingest_layer(WRONG, None) as layer:
        extract(layer, PACKED)
    assert len(os.listdir("/proc/self/fd")) == len(before)
