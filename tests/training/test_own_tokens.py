"""A candidate's tokenizer from recorded input tokens: fitted where there are enough, kept where it is better."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine._C import count_texts
from ipr_engine.bundle.candidates_file import RatiosAsked
from ipr_engine.tokens.profiles import shipped_profile
from ipr_engine.training import fitted_parts
from ipr_engine.training.fitted_parts import FEWEST_COUNTED, with_tokenizers
from tests.support.bundles import make_candidates
from tests.support.seeds import seeded

WORDS = ["the", "Story", "explain", "небо", "Почему", "空は", "12345", "{}", "naïve", "🙂"]


def prompts(count, seed):
    rng = seeded("own tokens", seed)
    return [" ".join(rng.choice(WORDS, int(rng.integers(3, 80)))) for _ in range(count)]


def fitted(tokens, terms, *, named=None, measured="records", at_home=None, keys=None):
    (candidate,) = make_candidates(1)
    candidate = replace(candidate, tokenizer=None if named is None else shipped_profile(named), token_ratio=1.0)
    billed = terms[:, 0] + 1.0
    told = []
    names = frozenset({candidate.name})
    ratios = {"records": RatiosAsked(of_records=names), "tokenizer": RatiosAsked(of_tokenizer=names)}
    home = np.ones(len(terms), np.bool_) if at_home is None else at_home
    asked = ratios.get(measured, RatiosAsked())
    questions = [str(row) for row in range(len(terms))] if keys is None else keys
    (made,) = with_tokenizers([candidate], asked, terms, billed, tokens[:, None], questions, home, told.append)
    return made, told


def recorded(profile, terms, scale=1.0, overhead=0.0):
    return np.rint(scale * profile.estimate(terms) + overhead)


def test_200_rows_are_enough_for_a_tokenizer_and_its_template():
    terms = count_texts(prompts(FEWEST_COUNTED, 1))
    tokens = recorded(shipped_profile("claude_2"), terms, scale=1.2, overhead=11)
    made, told = fitted(tokens, terms)
    fresh = count_texts(prompts(300, 2))
    error = np.abs(made.tokenizer.estimate(fresh) / recorded(shipped_profile("claude_2"), fresh, 1.2, 11) - 1)
    assert np.median(error) < 0.05
    assert "claude_2" in made.tokenizer.source
    head = f"a profile fitted to {FEWEST_COUNTED} prompts is kept in place of the encoder's count times its mean ratio: on the half that it"
    assert head in told[0]
    assert re.search(
        r"had not seen [\d.]+% off in the median, the encoder's count times its mean ratio [\d.]+%$", told[0]
    )
    _, told = fitted(tokens, terms, named="o200k_base")
    assert "is kept in place of o200k_base: on the half" in told[0]


def test_no_question_is_fitted_on_and_judged_on(monkeypatch):
    terms = count_texts(prompts(FEWEST_COUNTED, 9))
    copies = np.concatenate([np.arange(len(terms)), np.arange(7), np.arange(7, len(terms))])
    keys, tokens = [f"question {row}" for row in copies], 1000.0 + copies  # a question is known by its tokens
    seen = []
    real = fitted_parts._fit  # noqa: SLF001
    monkeypatch.setattr(fitted_parts, "_fit", lambda *given: (seen.append(given[2]), real(*given))[1])
    fitted(tokens, terms[copies], keys=keys)
    assert 0.4 < len(seen[0]) / len(copies) < 0.6
    assert set(Counter(seen[0].tolist()).values()) == {2}
    _, told = fitted(tokens, terms[copies], keys=["one question"] * len(copies))
    assert told == [f"tokens of alpha/large: no profile is fitted, since all {len(copies)} prompts are one question"]


def test_fewer_rows_measure_the_ratio_alone():
    terms = count_texts(prompts(FEWEST_COUNTED - 1, 3))
    tokens = recorded(shipped_profile("o200k_base"), terms)
    made, told = fitted(tokens, terms)
    assert made.tokenizer is None
    assert made.token_ratio == pytest.approx(tokens.sum() / (terms[:, 0] + 1).sum())
    assert told == []


def test_a_fit_that_is_no_better_is_left_out():
    terms = count_texts(prompts(FEWEST_COUNTED, 4))
    made, told = fitted(terms[:, 0] + 1.0, terms)
    assert made.tokenizer is None
    assert "is left out for the encoder's count times its mean ratio: on the half" in told[0]


def test_without_recorded_tokens_the_tokenizer_named_gives_the_ratio():
    terms = count_texts(prompts(50, 5))
    made, _ = fitted(np.full(len(terms), np.nan), terms, named="o200k_base")
    assert made.tokenizer == shipped_profile("o200k_base")
    assert made.token_ratio == pytest.approx(made.tokenizer.estimate(terms).sum() / (terms[:, 0] + 1).sum())


def test_a_ratio_that_the_file_gives_is_kept():
    terms = count_texts(prompts(FEWEST_COUNTED, 6))
    made, _ = fitted(recorded(shipped_profile("claude_2"), terms), terms, named="o200k_base", measured="stated")
    assert made.token_ratio == 1.0
    assert made.tokenizer == shipped_profile("o200k_base")


@pytest.mark.parametrize("measured", ["records", "tokenizer"])
def test_the_ratio_is_the_mean_of_the_tokenizer_at_home_whatever_few_records_say(measured):
    """It stands in for the tokenizer where texts are not known, and elsewhere the tokenizer bills."""
    terms = count_texts(prompts(120, 7))
    home = np.arange(len(terms)) < 50
    few = np.where(np.arange(len(terms)) < 20, 7.0 * terms[:, 0] + 100, np.nan)
    made, told = fitted(few, terms, named="o200k_base", measured=measured, at_home=home)
    estimate = shipped_profile("o200k_base").estimate(terms)
    assert made.tokenizer == shipped_profile("o200k_base")
    assert made.token_ratio == pytest.approx(estimate[home].sum() / (terms[home, 0] + 1).sum())
    assert told == []


def test_a_ratio_of_the_tokenizer_leaves_the_records_unread():
    terms = count_texts(prompts(FEWEST_COUNTED, 8))
    tokens = recorded(shipped_profile("claude_2"), terms, scale=1.5, overhead=40)
    made, told = fitted(tokens, terms, named="o200k_base", measured="tokenizer")
    assert made.tokenizer == shipped_profile("o200k_base")
    assert told == []
