"""An owner's key: its file is private and never replaced, nothing shows it, and the one of an id is found."""

import errno
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from ipr_engine import Engine, InvalidInputError
from ipr_engine.audit.owner_key import KEY_FILE, PUBLISHED, OwnerKey, key_of, key_of_root
from ipr_engine.audit.replay import replay
from ipr_engine.errors import KeyMismatchError
from tests.support import skips
from tests.support.places import ROOT
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


def refused(*_):
    raise PermissionError(errno.EPERM, "not permitted")


@pytest.mark.parametrize("links", [True, False])
def test_a_key_file_is_whole_or_not_there(tmp_path, monkeypatch, links):
    if not links:  # as FAT and some network file systems
        monkeypatch.setattr("ipr_engine._files.os.link", refused)
    path = tmp_path / "owner.key"
    with monkeypatch.context() as full:
        full.setattr("ipr_engine._files.os.fsync", refused)
        with pytest.raises(InvalidInputError, match="cannot write"):
            OwnerKey.create(path)
    assert not list(tmp_path.iterdir())
    key = OwnerKey.create(path)
    assert [one.name for one in tmp_path.iterdir()] == ["owner.key"]
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InvalidInputError, match="never replaced"):
        OwnerKey.create(path)
    assert OwnerKey.load(path) == key


@pytest.mark.parametrize("before", ["fchmod", "fsync", "link"])
def test_a_process_killed_while_it_makes_a_key_leaves_none_and_the_next_one_makes_it(tmp_path, before):
    killed = (
        "import os, pathlib, sys\n"
        "from ipr_engine.audit.owner_key import key_of_root\n"
        "setattr(os, sys.argv[2], lambda *_: os.kill(os.getpid(), 9))\n"
        "key_of_root(pathlib.Path(sys.argv[1]))"
    )
    done = subprocess.run([sys.executable, "-c", killed, str(tmp_path), before], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / KEY_FILE).exists()
    assert key_of_root(tmp_path) == OwnerKey.load(tmp_path / KEY_FILE)


def test_of_several_that_make_the_key_of_a_root_at_once_all_have_one(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(key_of_root, [tmp_path] * 32))
    assert set(made) == {OwnerKey.load(tmp_path / KEY_FILE)}
    assert [one.name for one in tmp_path.iterdir()] == [KEY_FILE]


def test_an_empty_key_file_is_told_from_one_that_holds_something_else(tmp_path):
    (tmp_path / "owner.key").touch()
    with pytest.raises(InvalidInputError, match=r"owner\.key is empty, and nothing is lost with it; delete it"):
        key_of_root(tmp_path)


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
