"""A queued request runs through few files of the package between the call and its answer, the worker's included."""

import asyncio

from ipr_engine import AsyncEngine
from tests.support.serving_encoders import queued_engine, sibling_bundles
from tests.support.walks import recorded_walk

MOST_FILES = 10
PROMPTS = ("why", "explain the code")


class RememberingEncoder:
    """Another encoder's rows of PROMPTS, made beforehand: no file of the package runs within it."""

    native = None

    def __init__(self, inner):
        self.dim, self.max_tokens, self.identity = inner.dim, inner.max_tokens, inner.identity
        self.summary, self.tier = "remembering", inner.tier
        self._inner = inner
        self._rows = {text: inner.encode([text]) for text in PROMPTS}
        self._counts = {text: inner.count_tokens(text) for text in PROMPTS}

    def encode(self, prompts):
        return (
            self._rows[prompts[0]] if tuple(prompts) in {(text,) for text in PROMPTS} else self._inner.encode(prompts)
        )

    def count_tokens(self, text):
        return self._counts[text] if text in self._counts else self._inner.count_tokens(text)


def test_a_queued_route_runs_through_at_most_ten_files(tmp_path):
    engine, encoder = queued_engine(sibling_bundles(tmp_path, 1)[0])
    engine.loaded.encoder = RememberingEncoder(encoder)

    async def main(walk):
        async with AsyncEngine(engine) as serving:
            policy = serving.policy(tau=0.1)
            await serving.route(PROMPTS[0], policy)
            walk.clear()
            decision = await serving.route(PROMPTS[1], policy)
            walk.stop()
            return decision, serving.counters()

    with recorded_walk() as walk:
        decision, counters = asyncio.run(main(walk))
    assert decision.model
    assert counters.stages["queued"].count == 2
    assert len(walk.files) <= MOST_FILES, str(walk)
