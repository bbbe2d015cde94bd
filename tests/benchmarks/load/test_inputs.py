"""Arrivals and prompts: made from a seed, of the shape asked for."""

import json

import numpy as np
import pytest

from benchmarks.load.arrivals import KINDS, schedule
from benchmarks.load.lengths import fixed_lengths, from_file, log_normal
from ipr_engine import Engine
from ipr_engine.errors import InvalidInputError


@pytest.fixture(scope="module")
def count_tokens():
    return Engine.load().encoder.count_tokens


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_give_equal_schedules(kind):
    first, again, other = (schedule(kind, rate=500, seconds=2, seed=seed).due_ns for seed in (1, 1, 2))
    assert (first == again).all()
    assert kind == "constant" or len(first) != len(other) or (first != other).any()
    assert (np.diff(first) >= 0).all()
    assert first[0] >= 0
    assert first[-1] < 2e9


def test_poisson_arrivals_have_exponential_gaps():
    gaps = np.diff(schedule("poisson", rate=10_000, seconds=20, seed=0).due_ns) / 1e9
    assert gaps.mean() == pytest.approx(1e-4, rel=0.02)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.02)


def test_bursts_arrive_together_and_keep_the_mean_rate():
    due = schedule("bursts", rate=10_000, seconds=50, seed=0, burst=20).due_ns
    _, sizes = np.unique(due, return_counts=True)
    assert (sizes % 20 == 0).all()
    assert len(due) == pytest.approx(500_000, rel=0.05)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"kind": "steady"}, "arrivals: expected one of"),
        ({"rate": 0}, "rate: expected a number > 0"),
        ({"rate": float("inf")}, "rate: expected a finite number"),
        ({"rate": 1e8}, "a run keeps at most"),
        ({"rate": 0.001, "kind": "constant"}, "no request falls into"),
        ({"burst": 0}, "burst: expected a whole number >= 1"),
    ],
)
def test_a_schedule_out_of_range_is_refused(given, named):
    with pytest.raises(InvalidInputError, match=named):
        schedule(**{"kind": "poisson", "rate": 100, "seconds": 1, "seed": 0, **given})


def test_generated_prompts_have_the_lengths_asked_for(count_tokens):
    mix = fixed_lengths([1, 16, 512], count_tokens, seed=0)
    assert {count_tokens(prompt) for prompt in mix.prompts} == {1, 16, 512}
    assert mix.tokens == tuple(map(count_tokens, mix.prompts))
    assert mix == fixed_lengths([1, 16, 512], count_tokens, seed=0)
    assert mix.prompts != fixed_lengths([1, 16, 512], count_tokens, seed=1).prompts


def test_the_built_in_mix_is_log_normal_about_its_median(count_tokens):
    tokens = np.array(log_normal(count_tokens, seed=0).tokens)
    assert 70 < np.median(tokens) < 115
    assert tokens.max() > 400
    assert tokens.min() >= 4


def test_a_recorded_mix_holds_prompts_and_lengths(tmp_path, count_tokens):
    path = tmp_path / "mix.jsonl"
    path.write_text('{"prompt": "What is 17 * 23?"}\n\n{"tokens": 40}\n"hello there"\n7\n')
    mix = from_file(path, count_tokens, seed=0)
    assert {"What is 17 * 23?", "hello there"} < set(mix.prompts)
    assert {7, 40} < set(mix.tokens)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "got an empty file"),
        ("{", "line 1: expected one JSON value"),
        ('{"tokens": 0}', "line 1: expected a whole number of tokens"),
        ('"a"\n{"tokens": 1.5}', "line 2: expected a whole number of tokens"),
        ('{"prompt": "a", "tokens": 1}', 'either "prompt" or "tokens"'),
        ('{"prompt": "  "}', "expected a prompt with text"),
        ("[1]", "expected a whole number of tokens"),
    ],
)
def test_a_bad_line_of_a_mix_is_named(text, named, tmp_path, count_tokens):
    path = tmp_path / "mix.jsonl"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=named):
        from_file(path, count_tokens, seed=0)


def test_a_mix_that_cannot_be_read_is_named(tmp_path, count_tokens):
    with pytest.raises(InvalidInputError, match="--mix: cannot read"):
        from_file(tmp_path / "missing.jsonl", count_tokens, seed=0)
    (tmp_path / "latin").write_bytes(json.dumps("café", ensure_ascii=False).encode("latin-1"))
    with pytest.raises(InvalidInputError, match="expected UTF-8"):
        from_file(tmp_path / "latin", count_tokens, seed=0)


def test_a_length_out_of_range_is_refused(count_tokens):
    with pytest.raises(InvalidInputError, match="--lengths: expected a whole number of tokens"):
        fixed_lengths([10**6], count_tokens, seed=0)
