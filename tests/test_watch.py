"""Watching a bundle root: CURRENT is followed, and what cannot be served leaves the old bundle serving and says so."""

import gc
import logging
import os
import shutil
import threading
import time
import weakref

import pytest

from ipr_engine import Bundle, Engine, InvalidInputError
from ipr_engine.bundle import activate
from ipr_engine.errors import BundleFormatError, BundleHashError, BundleNotFoundError, EncoderMismatchError
from tests.support.bundles import make_bundle, make_siblings

NEVER_S = 1e6  # the thread sleeps; the test looks


@pytest.fixture
def paths(tmp_path):
    return make_siblings(tmp_path, 3)


@pytest.fixture
def root(paths):
    return paths[0].parent


def damage(path):
    weights = path / "heads" / "static.safetensors"
    data = weights.read_bytes()
    weights.unlink()  # the file of a sibling may be the same
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    return data


def point(root, text):
    """Replace CURRENT whatever stands behind it, as a deployment that checks nothing would."""
    (root / "next").write_text(text)
    os.replace(root / "next", root / "CURRENT")


def thread_of(watch):
    """The thread of a running watch, which its name tells."""
    [thread] = [thread for thread in threading.enumerate() if thread.name == f"ipr watch {watch.root}"]
    return thread


def test_current_is_served_from_the_start_and_followed(paths, root):
    engine, seen = Engine.load(paths[2]), []
    with engine.watch(root, interval_s=NEVER_S, on_swap=seen.append) as watch:
        assert engine.bundle.hash == paths[0].name
        activate(root, paths[1].name)
        assert watch.look()
        assert not watch.look()
        assert engine.bundle.hash == paths[1].name
        assert engine.route("why", tau=0.2).bundle_hash == paths[1].name
    assert [bundle.hash for bundle in seen] == [paths[0].name, paths[1].name]
    assert (watch.swaps, watch.last_error, watch.closed) == (2, None, True)


def test_the_thread_looks_by_itself(paths, root):
    engine, swapped = Engine.load(root), threading.Event()
    with engine.watch(root, interval_s=0.01, on_swap=lambda _: swapped.set()):
        activate(root, paths[1].name)
        assert swapped.wait(30)
        assert engine.bundle.hash == paths[1].name


def test_a_corrupt_bundle_behind_current_keeps_the_old_one_serving(paths, root, caplog):
    engine, errors = Engine.load(root), []
    expected = engine.route("why", tau=0.2).to_dict()
    with engine.watch(root, interval_s=NEVER_S, on_error=errors.append) as watch, caplog.at_level(logging.INFO):
        data = damage(paths[1])
        point(root, paths[1].name)
        assert not watch.look()
        assert engine.route("why", tau=0.2).to_dict() == expected
        assert isinstance(watch.last_error, BundleHashError)
        assert errors == [watch.last_error]
        assert f"bundle {paths[0].name[:12]} goes on" in caplog.text
        assert "static.safetensors" in repr(watch)

        watch.look()
        assert len(errors) == 1  # told once, not at every look

        (paths[1] / "heads" / "static.safetensors").write_bytes(data)
        watch.look()
        assert engine.bundle.hash == paths[0].name  # repaired, but CURRENT was not replaced
        activate(root, paths[1].name)
        assert watch.look()
        assert (engine.bundle.hash, watch.last_error) == (paths[1].name, None)
        assert f"bundle {paths[1].name[:12]} serves in place of {paths[0].name[:12]}" in caplog.text


@pytest.mark.parametrize("text", ["", "nonsense", "0" * 64, "g" * 64, "../elsewhere"])
def test_a_current_that_names_no_bundle_is_an_error_and_the_way_back_clears_it(paths, root, text):
    engine = Engine.load(root)
    with engine.watch(root, interval_s=NEVER_S) as watch:
        point(root, text)
        assert not watch.look()
        assert isinstance(watch.last_error, (BundleFormatError, BundleNotFoundError))
        assert engine.route("why", tau=0.2).bundle_hash == paths[0].name
        activate(root, paths[0].name)
        assert not watch.look()
        assert watch.last_error is None


def test_a_current_that_is_gone_is_an_error_until_it_is_back(paths, root):
    engine = Engine.load(root)
    with engine.watch(root, interval_s=NEVER_S) as watch:
        (root / "CURRENT").unlink()
        watch.look()
        assert isinstance(watch.last_error, BundleNotFoundError)
        activate(root, paths[2].name)
        assert watch.look()
        assert engine.bundle.hash == paths[2].name


def test_a_root_that_vanishes_is_an_error_and_no_end(paths, root):
    engine = Engine.load(root)
    with engine.watch(root, interval_s=NEVER_S) as watch:
        shutil.move(root, root.with_name("elsewhere"))
        watch.look()
        assert watch.last_error is not None
        assert engine.route("why", tau=0.2).status == "ok"
        shutil.move(root.with_name("elsewhere"), root)
        activate(root, paths[1].name)
        assert watch.look()


def test_a_bundle_that_swap_refuses_is_refused_here_unless_allowed(root, tmp_path):
    engine = Engine.load(root)
    other = make_bundle(tmp_path / "other", models=5, seed=1)
    shutil.copytree(other, root / other.name)
    point(root, other.name)
    with engine.watch(root, interval_s=NEVER_S) as watch:
        assert isinstance(watch.last_error, EncoderMismatchError)
        assert engine.bundle.hash != other.name
    with engine.watch(root, interval_s=NEVER_S, allow_other_encoder=True) as watch:
        assert watch.last_error is None
        assert engine.bundle.hash == other.name


def test_a_bundle_swapped_by_hand_stays_until_current_is_replaced(paths, root):
    engine = Engine.load(root)
    with engine.watch(root, interval_s=NEVER_S) as watch:
        engine.swap(paths[2])
        assert not watch.look()
        assert engine.bundle.hash == paths[2].name
        activate(root, paths[0].name)
        assert watch.look()
        assert engine.bundle.hash == paths[0].name


def test_a_callback_that_fails_is_logged_and_watching_goes_on(paths, root, caplog):
    engine = Engine.load(root)

    def fail(_):
        raise ValueError("callback of the test")

    with engine.watch(root, interval_s=NEVER_S, on_swap=fail, on_error=fail) as watch:
        activate(root, paths[1].name)
        assert watch.look()
        point(root, "nonsense")
        assert not watch.look()
        activate(root, paths[2].name)
        assert watch.look()
    assert caplog.text.count("callback of the test") >= 3
    assert engine.bundle.hash == paths[2].name


def test_a_callback_may_close_the_watch(paths, root):
    engine, closed = Engine.load(root), threading.Event()

    def close(_):
        watch.close()
        closed.set()

    watch = engine.watch(root, interval_s=0.01, on_swap=close)
    thread = thread_of(watch)
    activate(root, paths[1].name)
    assert closed.wait(30)
    thread.join(30)
    assert not thread.is_alive()


def test_a_closed_watch_follows_nothing_and_leaves_no_thread(paths, root):
    engine = Engine.load(root)
    watch = engine.watch(root, interval_s=0.01)
    thread = thread_of(watch)
    watch.close()
    watch.close()
    assert not thread.is_alive()
    activate(root, paths[1].name)
    assert not watch.look()
    assert engine.bundle.hash == paths[0].name


@pytest.mark.parametrize("broken", [False, True])
def test_a_watch_ends_with_its_engine_and_keeps_it_alive_no_longer(paths, root, broken):
    engine = Engine.load(root)
    watch = engine.watch(root, interval_s=NEVER_S)
    thread = thread_of(watch)
    if broken:
        damage(paths[1])
        point(root, paths[1].name)
        watch.look()
        assert watch.last_error is not None
    gone = weakref.ref(engine)
    gc.disable()
    try:
        del engine
        assert gone() is None
    finally:
        gc.enable()
    thread.join(30)
    assert not thread.is_alive()
    assert watch.closed
    assert thread.daemon


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"interval_s": 0}, "interval_s: expected seconds above 0"),
        ({"interval_s": float("nan")}, "interval_s: expected a finite number"),
        ({"interval_s": 1e30}, "interval_s: expected seconds above 0"),
        ({"interval_s": "5"}, "interval_s: expected a number"),
    ],
)
def test_a_bad_interval_is_named(root, arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        Engine.load(root).watch(root, **arguments)


def test_a_root_that_is_none_is_refused_at_once(paths, root):
    engine = Engine.load(root)
    for path in (root / "nowhere", paths[0], root / "CURRENT"):
        with pytest.raises(InvalidInputError, match="root: expected a folder of bundles"):
            engine.watch(path)
    with pytest.raises(InvalidInputError, match="root: expected"):
        engine.watch(None)


def test_routing_goes_on_while_current_moves(paths, root):
    bundles = {path.name: Engine(Bundle.load(path)) for path in paths}
    expected = {name: one.route("why", tau=0.3).to_dict() for name, one in bundles.items()}
    engine, wrong, seen, done = Engine.load(root), [], set(), threading.Event()
    policy = engine.policy(tau=0.3)

    def work():
        while not done.is_set():
            decision = engine.route("why", policy).to_dict()
            seen.add(decision["bundle"])
            if decision != expected[decision["bundle"]]:
                wrong.append(decision)

    threads = [threading.Thread(target=work) for _ in range(2)]
    with engine.watch(root, interval_s=0.002) as watch:
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 60
        for turn in range(4):
            name = paths[turn % 2 + 1].name
            activate(root, name)
            while watch.swaps <= turn and time.monotonic() < deadline:  # counted once the bundle is in place
                time.sleep(0.001)
        done.set()
        for thread in threads:
            thread.join()
        assert (watch.last_error, watch.swaps) == (None, 4)
    assert not wrong
    assert {path.name for path in paths[1:]} <= seen
