"""Templates and preambles make no groups and no question keys; near-duplicates among them still do; missed shares are told."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine.cli import main
from ipr_engine.data import (
    duplicate_groups,
    duplicates,
    load_outcomes,
    question_key,
    shingles,
    split_outcomes,
    write_outcomes,
)
from ipr_engine.data.outcomes import boilerplate_prompts, question_keys
from ipr_engine.data.shingles import Shingler
from tests.support.outcome_data import WORDS, make_outcomes, make_prompt
from tests.support.seeds import seeded


def text(rng, words):
    return " ".join(rng.choice(WORDS, words))


def templated(rng, rows, *, opening=60, closing=20, slot=8):
    """Prompts of one template: a long opening, a short question, a closing."""
    before, after = text(rng, opening), text(rng, closing)
    return [f"{before}\n\nQuestion {i}: {text(rng, slot)}\n\n{after}" for i in range(rows)]


def outcomes_of(prompts, keys=None):
    made = make_outcomes(rows=len(prompts))
    return replace(
        made,
        prompts=tuple(prompts),
        question_keys=question_keys(prompts) if keys is None else tuple(keys),
        datasets=("",) * len(prompts),
    )


def test_a_template_makes_no_group(rng):
    prompts = templated(rng, 361)
    done, report = split_outcomes(outcomes_of(prompts), {"train": 0.7, "calibration": 0.15, "test": 0.15})
    assert report.groups == 361
    assert report.rows == {"train": 253, "calibration": 54, "test": 54}
    assert report.notice is None
    assert set(done.splits) == {"train", "calibration", "test"}


@pytest.mark.parametrize("rows", [200, 2000])
def test_many_templates_of_a_small_share_each_make_no_groups(rows):
    """At 2,000 prompts each of 25 templates has 4 %: no shingle of it is common, its stretches are.

    One seed for all sizes: with 20 prompts a template two of 200 share a group under about one seed in eight.
    """
    rng = np.random.default_rng(1)
    share = max(rows // 25, 20)
    prompts = [prompt for _ in range(rows // share) for prompt in templated(rng, share, opening=120, slot=10)]
    groups = duplicate_groups(prompts, question_keys(prompts))
    assert len(set(groups)) == len(prompts)


def test_a_preamble_shared_by_hundreds_makes_no_group_beside_thousands_of_others(rng):
    preamble = text(rng, 300)
    prompts = [f"{preamble} {text(rng, 12)}" for _ in range(300)] + [make_prompt(rng) for _ in range(2000)]
    groups = duplicate_groups(prompts, question_keys(prompts))
    assert len(set(groups)) == len(prompts)


def test_near_duplicates_inside_a_template_still_share_a_group(rng):
    prompts = templated(rng, 361, slot=30)
    copy = prompts[5].replace("Question 5:", "QUESTION  5 :")
    reworded = prompts[9] + " lantern"
    groups = duplicate_groups([*prompts, copy, reworded], question_keys([*prompts, copy, reworded]))
    assert groups[361] == groups[5]
    assert groups[362] == groups[9]
    assert len(set(groups)) == 361


def test_one_document_under_some_instructions_stays_together(rng):
    """Fewer prompts than make boilerplate: what they share is what they ask about."""
    document = text(rng, 300)
    prompts = [f"{document} {text(rng, 5)}" for _ in range(12)] + [make_prompt(rng) for _ in range(500)]
    groups = duplicate_groups(prompts, question_keys(prompts))
    assert len(set(groups[:12])) == 1
    assert len(set(groups)) == 501


def test_keys_skip_what_many_prompts_open_with(rng):
    prompts = templated(rng, 200)
    keys = question_keys(prompts)
    assert len(set(keys)) == 200
    assert not any(key.startswith(question_key(prompts[0])[:20]) for key in keys)


def test_keys_skip_one_opening_after_another(rng):
    common, first, second = text(rng, 40), text(rng, 40), text(rng, 40)
    prompts = [f"{common} {first if i % 2 else second} {text(rng, 10)}" for i in range(300)]
    assert len(set(question_keys(prompts))) == 300


def test_keys_of_prompts_without_a_shared_opening_are_those_of_each_alone(rng):
    prompts = [make_prompt(rng) for _ in range(300)] + ["", "Hi!", "   "]
    assert question_keys(prompts) == tuple(map(question_key, prompts))


def test_one_question_asked_by_few_keeps_one_key(rng):
    opening = text(rng, 60)
    prompts = [f"{opening} {text(rng, 4)}" for _ in range(19)] + [make_prompt(rng) for _ in range(50)]
    assert len(set(question_keys(prompts)[:19])) == 1


def test_keys_and_groups_do_not_depend_on_the_order(rng):
    prompts = templated(rng, 150) + [make_prompt(rng) for _ in range(50)]
    order = rng.permutation(200)
    shuffled = [prompts[i] for i in order]
    keys = question_keys(prompts)
    assert question_keys(shuffled) == tuple(keys[i] for i in order)


def test_a_prompt_that_is_nothing_but_the_opening_keeps_it_as_key(rng):
    opening = text(rng, 60)
    prompts = [f"{opening} {text(rng, 10)}" for _ in range(40)] + [opening]
    assert question_keys(prompts)[-1] == question_key(opening)


def test_copies_of_a_prompt_make_nothing_boilerplate(rng):
    prompts = [make_prompt(rng, 60)] * 200 + [make_prompt(rng) for _ in range(100)]
    assert question_keys(prompts) == tuple(map(question_key, prompts))
    assert len(set(duplicate_groups(prompts))) == 101


@pytest.mark.parametrize(("prompts", "enough"), [(10, 20), (400, 20), (700, 35), (2000, 40), (10**6, 40)])
def test_what_makes_boilerplate_grows_with_the_source_up_to_forty(prompts, enough):
    assert boilerplate_prompts(prompts) == enough


def test_a_shingler_keeps_what_straddles_the_end_of_a_stretch(rng):
    texts = ["x" * 50 + f"{i:04d}{i * 7919 % 9973:04d}" for i in range(300)]
    sets = [frozenset(shingler.tolist()) for shingler in map(Shingler(texts), texts)]
    assert len(set(sets)) == 300
    assert max(map(len, sets)) <= 12


def test_keys_are_made_of_the_whole_source_on_load(rng, tmp_path):
    prompts = templated(rng, 60)
    folder = tmp_path / "made"
    folder.mkdir()
    with (folder / "prompts.jsonl").open("w") as table, (folder / "outcomes.jsonl").open("w") as rows:
        for i, prompt in enumerate(prompts):
            given = {"question_key": "given by hand, and long enough to say it"} if i == 3 else {}
            table.write(json.dumps({"prompt_id": f"p{i:02d}", "prompt": prompt, **given}) + "\n")
            rows.write(json.dumps({"prompt_id": f"p{i:02d}", "model": "a", "quality": 1}) + "\n")
    loaded = load_outcomes(folder)
    assert loaded.question_keys[3] == "given by hand, and long enough to say it"
    assert loaded.question_keys[:3] == question_keys(prompts)[:3]
    assert len(set(loaded.question_keys)) == 60


SHARES = {"train": 0.7, "calibration": 0.15, "test": 0.15}


@pytest.mark.parametrize(
    ("made", "origin", "fix"),
    [
        ("keys", "question_key", "column question_key"),
        ("copies", "equal text", "leave the copies out"),
        ("chain", "near-duplicates", "raise the threshold"),
    ],
)
def test_a_missed_share_is_told_with_its_cause(rng, made, origin, fix):
    rest = [make_prompt(rng) for _ in range(60)]
    keys = None
    if made == "keys":
        prompts = [make_prompt(rng) for _ in range(361)] + rest
        keys = ["one key for all that is long enough" if i < 361 else "" for i in range(len(prompts))]
    elif made == "copies":
        prompts = [make_prompt(rng)] * 361 + rest
    else:
        first = make_prompt(rng, 60)  # reworded by fewer than make boilerplate
        prompts = [f"{first} {word}" for word in rng.choice(WORDS, 18, replace=False)] + rest[:3]
        keys = [""] * 21
    _, report = split_outcomes(outcomes_of(prompts, keys), SHARES)
    assert report.largest == (18 if made == "chain" else 361)
    assert report.origin == origin
    assert set(report.missed) == set(SHARES)
    assert "train 0.857 instead of 0.7" in report.notice
    assert f"made by {origin}, prompt_id 'made:" in report.notice
    assert fix in report.notice
    assert not any(word in report.notice for prompt in prompts[:5] for word in prompt.split() if len(word) > 5)


def test_a_share_that_is_off_by_rounding_alone_is_not_told(rng):
    _, report = split_outcomes(outcomes_of([make_prompt(rng) for _ in range(11)]), SHARES)
    assert report.missed == {}


def test_the_command_line_tells_a_missed_share_on_stderr_and_in_json(rng, tmp_path, capsys):
    prompts = [make_prompt(rng)] * 300 + [make_prompt(rng) for _ in range(60)]
    source = write_outcomes(outcomes_of(prompts), tmp_path / "made", format="jsonl")
    shares = ",".join(f"{name}={share}" for name, share in SHARES.items())
    asked = ["data", "split", str(source), str(tmp_path / "out"), "--shares", shares, "--format", "jsonl"]
    assert main([*asked, "--json"]) == 0
    out, error = capsys.readouterr()
    facts = json.loads(out)
    assert facts["missed_shares"].keys() == SHARES.keys()
    assert (facts["largest_group_origin"], facts["largest_group"]) == ("equal text", 300)
    assert facts["largest_group_example"] in facts["notice"]
    assert f"ipr data: {facts['notice']}" in error


def test_shingles_of_a_large_source_are_counted_by_sample(monkeypatch):
    rng = seeded("sampled stretches")
    monkeypatch.setattr(shingles, "MOST_BITS", 16)
    prompts = templated(rng, 361)
    assert len(set(duplicate_groups(prompts))) == 361
    assert np.array_equal(*(Shingler(prompts)(prompts[0]) for _ in range(2)))


@pytest.mark.parametrize("batch", [1, 90, 1 << 14])
def test_texts_coded_together_have_the_codes_of_each_alone(rng, monkeypatch, batch):
    texts = [*(text(rng, n) for n in (0, 1, 3, 5, 8, 12, 60)), "x", "", "ab" * 60, "Köln" * 12]
    texts = list(dict.fromkeys(texts + ["x" * 50 + f"{i:04d}" for i in range(60)]))
    alone = [Shingler(texts)(one).tolist() for one in texts]
    monkeypatch.setattr(shingles, "BATCH", batch)
    shingler = Shingler(texts)
    codes, begins = shingler.of(texts)
    parts = [np.unique(part).tolist() for part in np.split(codes, begins[1:])]
    assert parts == alone == [shingler(one).tolist() for one in texts]


def test_groups_do_not_depend_on_how_many_texts_are_coded_together(rng, monkeypatch):
    prompts = [make_prompt(rng) for _ in range(40)]
    prompts += [prompt + " indeed" for prompt in prompts[:20]] + ["", "?", "ok"]
    whole = duplicate_groups(prompts)
    monkeypatch.setattr(shingles, "BATCH", 50)
    assert (duplicate_groups(prompts) == whole).all()
    assert 23 <= len(set(whole.tolist())) < len(prompts)


@pytest.mark.parametrize("bound", ["AHEAD", "MOST_KEPT", "MOST_APART"])
def test_groups_do_not_depend_on_what_is_held_between_comparisons(rng, monkeypatch, bound):
    base = [make_prompt(rng) for _ in range(30)]
    # edited more and more: some are near-duplicates, some are compared in several bands and are not
    prompts = [" ".join([*prompt.split()[n:], *WORDS[:n]]) for prompt in base for n in (0, 6, 18)]
    whole = duplicate_groups(prompts)
    assert 30 < len(set(whole.tolist())) < 90
    monkeypatch.setattr(duplicates, bound, 1)
    assert (duplicate_groups(prompts) == whole).all()
