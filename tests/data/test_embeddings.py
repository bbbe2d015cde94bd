"""The embedding cache: the encoder's own bits, once each, and never another encoder's."""

from __future__ import annotations

import doctest
import os
import shutil
import warnings

import numpy as np
import pytest

from ipr_engine.data import EmbeddingCache, EmbeddingCacheWarning, embeddings
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.errors import InvalidInputError
from tests.support.bundles import make_encoder
from tests.support.outcome_data import make_prompt


class Counting:
    """An encoder that notes what it was asked to encode."""

    def __init__(self, encoder, fail_after=None):
        self.inner, self.seen, self._fail_after = encoder, [], fail_after
        self.dim, self.identity, self.max_tokens = encoder.dim, encoder.identity, encoder.max_tokens
        self.native = None

    def encode(self, prompts):
        if self._fail_after is not None and len(self.seen) >= self._fail_after:
            raise KeyboardInterrupt
        self.seen += prompts
        return self.inner.encode(prompts)

    def count_tokens(self, text):
        return self.inner.count_tokens(text)


@pytest.fixture
def encoder(tmp_path):
    return Counting(StaticEncoder.from_folder(make_encoder(tmp_path / "encoder"), max_tokens=8))


@pytest.fixture
def prompts(rng):
    return ["the sum of two", "", "prove it " * 20, "the sum of two", *(make_prompt(rng) for _ in range(40))]


def assert_equal(got, want):
    for name in ("x", "billed_tokens", "truncated"):
        a, b = getattr(got, name), getattr(want, name)
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


def shards(folder):
    return sorted(folder.rglob("*.safetensors"))


def test_the_answer_is_the_encoders(tmp_path, encoder, prompts):
    cache = EmbeddingCache(tmp_path / "cache")
    want = encoder.inner.encode(prompts)
    for _ in range(3):
        assert_equal(cache.embed(encoder, prompts), want)
    assert want.truncated.any()


def test_a_prompt_is_encoded_once(tmp_path, encoder, prompts):
    EmbeddingCache(tmp_path / "cache").embed(encoder, prompts[:10])
    again = EmbeddingCache(tmp_path / "cache")
    again.embed(encoder, prompts[::-1])
    again.embed(encoder, prompts)
    assert sorted(encoder.seen) == sorted(set(prompts))


def test_no_prompts_give_no_rows(tmp_path, encoder):
    encoded = EmbeddingCache(tmp_path / "cache").embed(encoder, [])
    assert encoded.x.shape == (0, 16)
    assert not (tmp_path / "cache").exists()


def test_another_encoders_rows_are_never_returned(tmp_path, encoder, prompts):
    other = Counting(StaticEncoder.from_folder(make_encoder(tmp_path / "other", seed=1), max_tokens=8))
    cache = EmbeddingCache(tmp_path / "cache")
    cache.embed(encoder, prompts)
    assert_equal(cache.embed(other, prompts), other.inner.encode(prompts))
    # even where a shard was copied into its folder
    shutil.rmtree(cache.folder / other.identity)
    shutil.copytree(cache.folder / encoder.identity, cache.folder / other.identity)
    with pytest.warns(EmbeddingCacheWarning, match="another encoder"):
        assert_equal(cache.embed(other, prompts), other.inner.encode(prompts))


def test_max_tokens_is_part_of_the_identity(tmp_path, encoder, prompts):
    longer = Counting(StaticEncoder.from_folder(tmp_path / "encoder", max_tokens=64))
    cache = EmbeddingCache(tmp_path / "cache")
    cache.embed(encoder, prompts)
    assert_equal(cache.embed(longer, prompts), longer.inner.encode(prompts))


@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "text"])
def test_a_damaged_shard_is_told_and_computed_again(tmp_path, encoder, prompts, damage):
    cache = EmbeddingCache(tmp_path / "cache")
    want = cache.embed(encoder, prompts)
    (shard,) = shards(cache.folder)
    data = shard.read_bytes()
    middle = len(data) // 2
    shard.write_bytes(
        {
            "flipped": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            "cut": data[:-7],
            "emptied": b"",
            "text": b"not a tensor",
        }[damage]
    )
    with pytest.warns(EmbeddingCacheWarning, match="computed again"):
        assert_equal(cache.embed(encoder, prompts), want)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_equal(cache.embed(encoder, prompts), want)


def test_an_interrupted_run_keeps_its_shards(tmp_path, encoder, prompts, monkeypatch):
    monkeypatch.setattr(embeddings, "SHARD_ROWS", 10)
    stopping = Counting(encoder.inner, fail_after=20)
    cache = EmbeddingCache(tmp_path / "cache")
    with pytest.raises(KeyboardInterrupt):
        cache.embed(stopping, prompts)
    assert len(shards(cache.folder)) == 2
    assert_equal(cache.embed(encoder, prompts), encoder.inner.encode(prompts))
    assert not set(stopping.seen) & set(encoder.seen)


def test_a_failed_write_leaves_nothing_behind(tmp_path, encoder, prompts, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    cache = EmbeddingCache(tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            cache.embed(encoder, prompts)
    assert [path for path in cache.folder.rglob("*") if path.is_file()] == []
    assert_equal(cache.embed(encoder, prompts), encoder.inner.encode(prompts))


def test_an_identity_is_never_a_path(tmp_path, encoder, prompts):
    encoder.identity = "../outside"
    EmbeddingCache(tmp_path / "cache").embed(encoder, prompts)
    (shard,) = shards(tmp_path / "cache")
    assert set(tmp_path.iterdir()) == {tmp_path / "cache", tmp_path / "encoder"}
    assert shard.parent.parent == tmp_path / "cache"


def test_bad_prompts_are_told(tmp_path, encoder):
    cache = EmbeddingCache(tmp_path / "cache")
    for prompts, message in (
        ("one", "got one str"),
        (["a", 3], r"prompts\[1\]: expected a str"),
        (["\ud800"], "surrogate"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            cache.embed(encoder, prompts)


def test_progress_is_silent_unless_asked_for(tmp_path, encoder, prompts, capsys):
    EmbeddingCache(tmp_path / "a").embed(encoder, prompts)
    assert capsys.readouterr() == ("", "")
    EmbeddingCache(tmp_path / "b").embed(encoder, prompts, verbose=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "embedding" in captured.err


def test_the_example_runs(tmp_path, encoder):
    results = doctest.testmod(embeddings, extraglobs={"folder": tmp_path / "cache", "encoder": encoder})
    assert results.attempted > 0
    assert results.failed == 0


def test_what_is_absent_is_told_and_added_as_one_shard(tmp_path, encoder, prompts):
    cache = EmbeddingCache(tmp_path / "cache")
    distinct = list(dict.fromkeys(prompts))
    assert cache.absent(encoder, prompts) == distinct
    cache.add(encoder, distinct[:10])
    assert cache.absent(encoder, prompts) == distinct[10:]
    cache.add(encoder, distinct[10:])
    assert len(shards(tmp_path / "cache")) == 2
    seen = list(encoder.seen)
    assert_equal(cache.embed(encoder, prompts), encoder.inner.encode(prompts))
    assert encoder.seen == seen


def test_a_shard_of_the_same_prompts_is_the_same_file(tmp_path, encoder, prompts):
    cache = EmbeddingCache(tmp_path / "cache")
    distinct = list(dict.fromkeys(prompts))
    for _ in range(20):  # the order of a file's metadata was one of chance
        cache.add(encoder, distinct)
    assert len(shards(tmp_path / "cache")) == 1


def test_a_shard_is_known_by_its_prompts(tmp_path, encoder, prompts):
    cache, other = EmbeddingCache(tmp_path / "cache"), EmbeddingCache(tmp_path / "cache")
    distinct = list(dict.fromkeys(prompts))
    assert not cache.has_shard(encoder, distinct)
    other.add(encoder, distinct)
    assert cache.has_shard(encoder, distinct)
    assert not cache.has_shard(encoder, distinct[:-1])
    assert not cache.has_shard(encoder, distinct[::-1])
    shards(tmp_path / "cache")[0].write_bytes(b"damaged")
    assert not EmbeddingCache(tmp_path / "cache").has_shard(encoder, distinct)
