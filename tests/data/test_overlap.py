"""Prompt hashes: they find a prompt again by its letters, or by its question, and hold no text."""

from dataclasses import replace

import numpy as np
import pytest

from ipr_engine.audit.owner_key import OwnerKey, key_of_root, keys_beside
from ipr_engine.bundle import FittedOn
from ipr_engine.data import key_of_hashes, overlap, prompt_hashes, read_prompt_hashes
from ipr_engine.errors import BundleFormatError, KeyMismatchError
from tests.support.outcome_data import make_outcomes


def hashes_of(outcomes):
    return prompt_hashes(outcomes.prompts, outcomes.question_keys)


def test_the_same_letters_are_the_same_prompt():
    rows = make_outcomes(rows=10)
    other = replace(make_outcomes("other", rows=10), question_keys=("",) * 10)
    shouted = replace(other, prompts=(*other.prompts[:9], rows.prompts[4].upper() + " !!"))
    assert np.flatnonzero(overlap(shouted, hashes_of(rows))).tolist() == [9]


def test_the_same_question_is_the_same_prompt_unless_its_key_is_short():
    rows, other = make_outcomes(rows=4), make_outcomes("other", rows=4)
    keys = replace(other, question_keys=(rows.question_keys[0], "short", *other.question_keys[2:]))
    short = replace(rows, question_keys=(rows.question_keys[0], "short", *rows.question_keys[2:]))
    assert overlap(keys, hashes_of(short)).tolist() == [True, False, False, False]


def test_prompts_without_a_letter_are_told_apart():
    rows = make_outcomes(rows=2)
    first, second = (replace(rows, prompts=p, question_keys=("", "")) for p in (("+", "-"), ("*", "-")))
    assert overlap(second, hashes_of(first)).tolist() == [False, True]


def test_hashes_are_sorted_distinct_and_64_bits():
    hashes = hashes_of(make_outcomes(rows=30))
    assert all(part.dtype == np.uint64 and (np.diff(part.astype(object)) > 0).all() for part in hashes.values())


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"no tensors")
    with pytest.raises(BundleFormatError, match="expected prompt hashes"):
        read_prompt_hashes(path)


def test_hashes_under_a_key_are_found_with_it_and_by_no_other():
    rows = make_outcomes(rows=10)
    key, other = OwnerKey(bytes(32)), OwnerKey(bytes(range(32)))
    keyed = prompt_hashes(rows.prompts, rows.question_keys, key)
    assert overlap(rows, keyed, key).all()
    assert not overlap(rows, keyed, other).any()
    assert not overlap(rows, keyed).any()
    assert not overlap(rows, hashes_of(rows), key).any()


def test_the_key_of_a_bundle_s_hashes_must_be_at_hand():
    key, other = OwnerKey(bytes(32)), OwnerKey(bytes(range(32)))
    fitted = FittedOn(source="s", prompts=1, prompt_ids_sha256="0" * 64, hash_key=key.id)
    assert key_of_hashes(fitted, [other, key]) is key
    assert key_of_hashes(replace(fitted, hash_key=None), []) is None
    with pytest.raises(
        KeyMismatchError, match=f"fitting prompts need the key of id {key.id}, got that of id {other.id}"
    ):
        key_of_hashes(fitted, [other])
    with pytest.raises(
        KeyMismatchError, match=r"got none; give its file, or put it beside the bundle as ROOT/owner\.key"
    ):
        key_of_hashes(fitted, [])


def test_keys_beside_a_bundle(tmp_path):
    assert keys_beside(tmp_path, None) == ()
    made = key_of_root(tmp_path / "new")
    assert key_of_root(tmp_path / "new") == made
    assert keys_beside(tmp_path / "new", None) == (made,)
    other = OwnerKey.create(tmp_path / "other.key")
    assert keys_beside(tmp_path / "new", [tmp_path / "other.key", made]) == (other, made)
    assert keys_beside(tmp_path / "new", bytes(32)) == (OwnerKey(bytes(32)),)
