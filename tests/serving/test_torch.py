"""The serving engine over a real transformer: many tasks get the answers that the engine gives one by one."""

import asyncio

import numpy as np
import pytest

from ipr_engine import AsyncEngine, Engine
from ipr_engine.loaded.loaded_bundle import LoadedBundle
from tests.support.bundles import make_bundle
from tests.support.serving_encoders import PROMPTS
from tests.support.transformer_folders import import_torch, make_sentence_transformer


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    import_torch()
    from ipr_engine.encoders.torch import TorchEncoder

    folder = tmp_path_factory.mktemp("torch")
    encoder = TorchEncoder.from_folder(make_sentence_transformer(folder / "model"), max_tokens=48)
    made = Engine.load(make_bundle(folder, models=5, dim=encoder.dim))
    made.loaded = LoadedBundle(made.bundle, options=made.options, encoders={made.encoder.identity: encoder})
    return made


def test_tasks_that_share_forwards_get_the_engines_qualities_within_the_encoders_bound(engine):
    async def main():
        async with AsyncEngine(engine, limits={"max_batch": 8}) as serving:
            answers = await asyncio.gather(*(serving.route(prompt, tau=0.3) for prompt in PROMPTS * 3))
            return answers, serving.counters()

    answers, counters = asyncio.run(main())
    for prompt, answer in zip(PROMPTS * 3, answers, strict=True):
        alone = engine.route(prompt, tau=0.3)
        np.testing.assert_allclose(answer.qualities, alone.qualities, atol=1e-4)
        assert answer.model == alone.model or alone.gap < 1e-3
        assert (answer.billed_tokens, answer.truncated) == (alone.billed_tokens, alone.truncated)
    assert max(counters.batch_sizes) > 1
    assert counters.decided == len(answers)
