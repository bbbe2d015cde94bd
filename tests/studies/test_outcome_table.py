"""A token table learned from outcomes: deterministic, unit embeddings, learns what tokens say about outcomes."""

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from studies import outcome_table
from studies.outcome_table import BUCKETS, MOST_TOKENS, fit_outcome_table, token_features
from tests.support import skips
from tests.support.seeds import seeded

VOCABULARY = 50


def make_prompts(*seed, rows=400):
    """Token ids; token 7 makes the first candidate fail, token 8 the second."""
    rng = seeded("ids", rows, *seed)
    ids = [rng.integers(10, VOCABULARY, rng.integers(4, 12)) for _ in range(rows)]
    for row, tokens in enumerate(ids):
        tokens[0] = 7 + row % 2
    quality = np.stack([np.arange(rows) % 2 == 1, np.arange(rows) % 2 == 0, np.ones(rows)], axis=1).astype(float)
    return ids, quality


def fit(ids, quality, **options):
    pytest.importorskip("torch", reason=skips.TORCH)
    return fit_outcome_table(ids, quality, VOCABULARY, **options)


def test_same_input_gives_the_same_bytes_and_the_seed_matters():
    ids, quality = make_prompts()
    tables = [fit(ids, [quality], dim=8, seed=seed).rows.tobytes() for seed in (0, 0, 1)]
    assert tables[0] == tables[1]
    assert tables[0] != tables[2]


def test_embeddings_are_of_unit_norm_and_zero_without_tokens():
    ids, quality = make_prompts()
    x = fit(ids, [quality], dim=8).embed([*ids[:3], np.zeros(0, np.int64)])
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), [1, 1, 1, 0])


def test_training_separates_tokens_that_candidates_fail_on(monkeypatch):
    ids, quality = make_prompts(rows=3000)
    sides = np.where(np.arange(1000) % 2, 1.0, -1.0)
    told_apart = []
    for rate in (1e-9, 0.03):  # as good as untrained, trained
        monkeypatch.setattr(outcome_table, "TABLE_RATE", rate)
        table = fit(ids[:2000], [quality[:1000], quality[1000:2000, :2]], dim=3)
        assert table.rows.shape == (VOCABULARY + BUCKETS, 3)
        x = table.embed(ids[2000:])
        centred = x - x.mean(axis=0)
        direction = np.linalg.lstsq(centred[:500], sides[:500], rcond=None)[0]
        told_apart.append(((centred[500:] @ direction > 0) == (sides[500:] > 0)).mean())
    assert told_apart[0] < 0.85
    assert told_apart[1] > 0.95


def test_missing_outcomes_are_left_out():
    ids, quality = make_prompts()
    quality[::3, 1] = np.nan
    assert np.isfinite(fit(ids, [quality], dim=8).rows).all()


def test_pairs_look_up_rows_behind_the_vocabulary_and_long_prompts_are_cut():
    features = token_features(np.arange(2000) % VOCABULARY, VOCABULARY)
    assert len(features) == 2 * MOST_TOKENS - 1
    assert features[:MOST_TOKENS].max() < VOCABULARY
    assert features[MOST_TOKENS:].min() >= VOCABULARY
    assert features.max() < VOCABULARY + BUCKETS
    assert len(token_features(np.array([3]), VOCABULARY)) == 1


def test_rows_that_disagree_are_refused():
    ids, quality = make_prompts()
    for ids_given, tables in ((ids[:-1], [quality]), ([], [])):
        with pytest.raises(InvalidInputError, match="ids, quality: expected equal rows > 0"):
            fit(ids_given, tables)
