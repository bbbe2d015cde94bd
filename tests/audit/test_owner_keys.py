"""An owner's key: its file is private and never replaced, nothing shows it, and the one of an id is found."""

import pickle

import pytest

from ipr_engine import Engine, InvalidInputError
from ipr_engine.audit.owner_key import PUBLISHED, OwnerKey, key_of
from ipr_engine.audit.replay import replay
from ipr_engine.errors import KeyMismatchError
from tests.support import skips
from tests.support.replay_logs import KEY, OTHER

pytest.importorskip("cryptography", reason=skips.RECORDS)


def test_a_key_file_is_private_and_never_replaced(tmp_path):
    path = tmp_path / "owner.key"
    key = OwnerKey.create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert OwnerKey.load(path) == OwnerKey.load(str(path)) == key
    with pytest.raises(InvalidInputError, match="is there already, and a key is never replaced"):
        OwnerKey.create(path)
    assert OwnerKey.load(path) == key


def test_neither_repr_nor_an_error_shows_a_key(tmp_path):
    path = tmp_path / "owner.key"
    OwnerKey.create(path)
    secret = path.read_text().strip()
    assert secret not in repr(OwnerKey.load(path))
    path.write_text(secret[:-1])
    with pytest.raises(InvalidInputError, match="expected 64 lower-case hex digits") as caught:
        OwnerKey.load(path)
    assert secret[:20] not in str(caught.value)
    with pytest.raises(TypeError):
        pickle.dumps(OwnerKey(KEY))


@pytest.mark.parametrize("key", [b"short", 7, "", "nowhere/owner.key", [1]])
def test_bad_keys_are_named(engine, key):
    with pytest.raises(InvalidInputError, match="key: "):
        engine.recorder([].append, key=key)
    with pytest.raises(InvalidInputError, match="key: "):
        replay([], engine, key=key)


def test_the_key_of_an_id_is_found_among_those_at_hand():
    one, other = OwnerKey(KEY), OwnerKey(OTHER)
    assert key_of(other.id, [one, other], "hashes") is other
    with pytest.raises(KeyMismatchError, match=f"got that of id {one.id}"):
        key_of(other.id, [one], "hashes")
    with pytest.raises(KeyMismatchError, match="got none"):
        key_of(other.id, [], "hashes")


def test_the_published_key_of_the_default_bundle_is_at_hand_anywhere():
    hashed = Engine.load().bundle.quality_heads.fitted_on.hash_key
    assert key_of(hashed, [], "hashes") == OwnerKey.load(PUBLISHED)


def test_a_key_in_place_of_its_file_is_not_repeated():
    digits = "ab" * 32
    for text in (digits, f"/tmp/{digits.upper()}", f" {digits}\n"):
        with pytest.raises(InvalidInputError, match="looks like a key itself") as caught:
            OwnerKey.load(text)
        assert digits not in str(caught.value).lower()
    with pytest.raises(InvalidInputError, match="lone surrogate"):
        OwnerKey.load("\ud800")
