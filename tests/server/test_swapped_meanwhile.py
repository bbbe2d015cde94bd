"""A bundle that is put in its place between a request's policy and its decision fails no request and mixes up no figure."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ipr_engine import Engine
from tests.support import skips
from tests.support.bundles import NAMES, make_bundle, make_siblings

pytest.importorskip("uvicorn", reason=skips.SERVE)
CONFIG = {
    "endpoints": {"any": {"base_url": "http://127.0.0.1:9/v1", "formats": ["openai-chat"]}},
    "upstreams": dict.fromkeys(NAMES[:4], "any"),  # so that those are named as allowed
    "policy": {"tau": 0.3, "rule": "minmax"},
}


def decided_meanwhile(engine: Engine, to: Path) -> Any:
    """Return what is decided of a request whose bundle is swapped once it has its policy."""
    from ipr_engine.request.controls import NO_CONTROLS
    from ipr_engine.server import app
    from ipr_engine.server.decided import AskedRequest
    from ipr_engine.server.server_config import make_config
    from ipr_engine.server.tenants import ANYBODY

    decider = app(engine, make_config(CONFIG)).state.ipr.decider
    find, waiting = decider.book.of, [to]

    async def found_then_swapped(*asked: Any) -> Any:
        found = await find(*asked)
        if waiting:
            engine.swap(waiting.pop(), allow_fewer_candidates=True)
        return found

    async def decided() -> Any:
        await decider.engine.start()
        decider.book.of = found_then_swapped
        return await decider.decide(AskedRequest({"prompt": "why python"}, NO_CONTROLS, ANYBODY, "auto"))

    return asyncio.run(decided())


def test_figures_are_those_of_the_bundle_that_decided(tmp_path: Path) -> None:
    first, second = make_siblings(tmp_path, 2)  # the same names, in another order
    decided = decided_meanwhile(Engine.load(first), second)
    assert decided.decision.bundle_hash == second.name
    assert decided.asked.policy.bundle_hash == second.name


def test_a_bundle_with_other_candidates_fails_no_request(tmp_path: Path) -> None:
    five = make_bundle(tmp_path / "five", models=5)
    two = make_bundle(tmp_path / "two", models=2)
    decided = decided_meanwhile(Engine.load(five), two)
    assert decided.decision.bundle_hash == decided.asked.policy.bundle_hash == two.name


def test_a_policy_is_kept_for_the_bundle_that_it_was_compiled_for(tmp_path: Path) -> None:
    from ipr_engine.request.controls import NO_CONTROLS
    from ipr_engine.server.decided import AskedRequest
    from ipr_engine.server.policy_book import PolicyBook
    from ipr_engine.server.server_config import make_config
    from ipr_engine.server.tenants import ANYBODY

    first, second = make_siblings(tmp_path, 2)
    engine = Engine.load(first)
    book = PolicyBook(engine, make_config(CONFIG))
    compile_it, waiting = book.compile, [second]

    def swapped_then_compiled(*asked: Any) -> Any:
        if waiting:
            engine.swap(waiting.pop())
        return compile_it(*asked)

    book.compile = swapped_then_compiled  # type: ignore[method-assign]
    asked = AskedRequest(None, NO_CONTROLS, ANYBODY, "auto")
    assert asyncio.run(book.of(asked)).policy.bundle_hash == second.name
    engine.swap(first)
    assert asyncio.run(book.of(asked)).policy.bundle_hash == first.name


def test_a_bundle_that_serves_again_is_decided_by_policies_of_its_own(tmp_path: Path) -> None:
    """By those of before no reply would be written the short way, until others have pushed them out."""
    from ipr_engine.request.controls import NO_CONTROLS
    from ipr_engine.server.decided import AskedRequest
    from ipr_engine.server.policy_book import PolicyBook
    from ipr_engine.server.server_config import make_config
    from ipr_engine.server.tenants import ANYBODY

    first, second = make_siblings(tmp_path, 2)
    engine = Engine.load(first)
    book, asked = PolicyBook(engine, make_config(CONFIG)), AskedRequest(None, NO_CONTROLS, ANYBODY, "auto")
    for bundle in (second, first, second):
        before = asyncio.run(book.of(asked))
        assert book.kept(asked) is before
        assert engine.loaded.resolve(before.policy) is before.policy
        engine.swap(bundle)
        assert book.kept(asked) is None
