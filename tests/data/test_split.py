"""Splits: near-duplicates together, shares kept, the same every time."""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine.data import duplicate_groups, question_key, split_outcomes
from ipr_engine.errors import InvalidInputError
from tests.support.outcome_data import make_outcomes, make_prompt
from tests.support.seeds import seeded


def with_prompts(prompts, keys=None):
    made = make_outcomes(rows=len(prompts))
    keys = tuple(question_key(prompt) for prompt in prompts) if keys is None else tuple(keys)
    return replace(made, prompts=tuple(prompts), question_keys=keys)


def twins(rng, count, words=60):
    """Prompts in pairs: the second with other case, spacing and one word more."""
    firsts = [make_prompt(rng, words) for _ in range(count)]
    return firsts, [f"  {prompt.upper()}\n\nlantern!" for prompt in firsts]


def test_near_duplicates_share_a_split(rng):
    firsts, seconds = twins(rng, 150)
    outcomes = with_prompts(firsts + seconds, keys=[""] * 300)
    done, report = split_outcomes(outcomes, {"train": 0.6, "val": 0.2, "test": 0.2})
    assert done.splits[:150] == done.splits[150:]
    assert (report.groups, report.joined, report.largest) == (150, 300, 2)
    assert sum(report.rows.values()) == 300


def test_unrelated_prompts_are_not_joined(rng):
    prompts = [make_prompt(rng) for _ in range(400)]
    assert duplicate_groups(prompts).max() == 399


def test_pairs_are_joined_from_the_threshold_on(rng):
    """A ninth of each second prompt is another's: similarity (1 - 1/9) / (1 + 1/9) = 0.8, give or take a word."""
    firsts = [make_prompt(rng, 90) for _ in range(40)]
    seconds = [" ".join([*prompt.split()[:80], *make_prompt(rng, 10).split()]) for prompt in firsts]
    assert len(set(duplicate_groups(firsts + seconds, threshold=0.9))) == 80
    assert len(set(duplicate_groups(firsts + seconds, threshold=0.7))) == 40


def test_equal_text_is_joined_however_short():
    assert duplicate_groups(["Hi!", "other", "hi", "HI ?"]).tolist() == [0, 1, 0, 0]


def test_a_shared_question_key_joins_when_it_is_long_enough():
    prompts = [make_prompt(seeded(i)) for i in range(4)]
    long, short = "k" * 30, "k" * 29
    assert duplicate_groups(prompts, [long, long, short, short]).tolist() == [0, 0, 1, 2]


def test_groups_of_odd_prompts_are_found():
    assert duplicate_groups([]).tolist() == []
    assert duplicate_groups(["!", "", "a"]).tolist() == [0, 0, 1]  # nothing is left of two
    assert duplicate_groups(["\ud800x", "X", "y"]).tolist() == [0, 0, 1]  # a lone surrogate is no letter


def test_boilerplate_does_not_join_a_whole_task(rng):
    shots = " ".join(make_prompt(rng, 80) for _ in range(5))
    prompts = [f"{shots} Question: {make_prompt(rng)}" for _ in range(60)]
    assert len(set(duplicate_groups(prompts))) == 60
    assert len(set(duplicate_groups([*prompts, prompts[7] + " copper"]))) == 60


def test_chinese_prompts_are_compared_too(rng):
    characters = [chr(0x4E00 + int(i)) for i in rng.integers(0, 3000, 600)]
    prompts = ["".join(characters[i * 60 : i * 60 + 60]) for i in range(10)]
    groups = duplicate_groups([*prompts, prompts[3] + "。好"])
    assert groups[-1] == groups[3]
    assert groups.max() == 9


def test_groups_do_not_depend_on_the_order(rng):
    firsts, seconds = twins(rng, 60)
    prompts = firsts + seconds
    order = rng.permutation(len(prompts))
    straight, shuffled = duplicate_groups(prompts), duplicate_groups([prompts[i] for i in order])
    pairs = {(a, b) for a, b in zip(straight[order], shuffled, strict=True)}
    assert len(pairs) == len(set(straight)) == len(set(shuffled))


def test_same_seed_same_split_other_seed_another(request):
    made = make_outcomes(request.node.name, rows=200)
    first = split_outcomes(made, seed=1)[0].splits
    assert split_outcomes(made, seed=1)[0].splits == first
    assert split_outcomes(made, seed=2)[0].splits != first


def test_every_dataset_gets_its_shares(request):
    made = make_outcomes(request.node.name, rows=601)
    done, report = split_outcomes(made, {"train": 0.7, "val": 0.1, "test": 0.2})
    for task in ("task 0", "task 1", "task 2"):
        mine = Counter(s for s, d in zip(done.splits, done.datasets, strict=True) if d == task)
        total = sum(mine.values())
        for name, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
            assert abs(mine[name] - share * total) <= 1.5
    assert report.rows["train"] == pytest.approx(0.7 * 601, abs=2)


def test_tiny_datasets_do_not_all_go_to_one_split(request):
    made = replace(make_outcomes(request.node.name, rows=100), datasets=tuple(f"own {i}" for i in range(100)))
    assert split_outcomes(made)[1].rows == {"train": 80, "test": 20}


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"train": 0.5, "test": 0.6}, "shares: expected"),
        ({"train": 1.0, "test": 0.0}, "shares: expected"),
        ({}, "shares: expected"),
        ({"": 1.0}, "shares: expected"),
        ({"train": 0.98, "val": 0.01, "test": 0.01}, "no prompt is left for"),
    ],
)
def test_bad_shares_are_refused(shares, message):
    with pytest.raises(InvalidInputError, match=message):
        split_outcomes(make_outcomes(rows=3), shares)


@pytest.mark.parametrize("threshold", [0.0, 0.69, 1.1, float("nan")])
def test_a_bad_threshold_is_refused(threshold):
    with pytest.raises(InvalidInputError, match="threshold"):
        split_outcomes(make_outcomes(), threshold=threshold)


def test_questions_of_another_source_are_dropped():
    long = "a question that is asked in both of the sources, word by word"
    mine = with_prompts([long, "short one", "this question is asked in only one of the sources, here"])
    other = with_prompts([f"{long.upper()}!", "Short one?"])
    left = mine.without_questions_of(other)
    assert left.prompt_ids == (mine.prompt_ids[1], mine.prompt_ids[2])
    assert left.quality.shape == (2, 3)
    assert len(mine.without_questions_of(mine)) == 1  # a key under 30 characters says too little


def test_take_wants_sorted_rows():
    made = make_outcomes()
    assert made.take([1, 3]).prompt_ids == (made.prompt_ids[1], made.prompt_ids[3])
    assert len(made.take(np.zeros(len(made), dtype=bool))) == 0
    with pytest.raises(InvalidInputError, match="rising"):
        made.take([3, 1])


def test_an_accent_written_as_a_character_of_its_own_makes_no_other_prompt():
    prompt = "Pourquoi la forêt était-elle brûlée après l'été, et à quoi ça a-t-il mené ?"
    apart = unicodedata.normalize("NFD", prompt)
    assert apart != prompt
    assert len(set(duplicate_groups([prompt, apart]))) == 1
