"""What a record or a bundle tells of the words of prompts, to one who has the shipped table, the heads and either of them."""

import json

import numpy as np
import pytest

from ipr_engine.audit.owner_key import OwnerKey
from ipr_engine.audit.record import Record
from ipr_engine.audit.record_writer import MIN_WORDS
from ipr_engine.audit.row_record import distinct_words
from ipr_engine.data import prompt_hashes, question_key
from ipr_engine.training.estimators.caps import kmeans, squared_distances
from ipr_engine.training.fitted_parts import FEWEST_NEAR, PROMPTS_PER_CENTROID, without_few
from tests.support import skips
from tests.support.privacy_attack import PROMPTS, STOPWORDS, Attacker, composed, mean_recall

pytest.importorskip("cryptography", reason=skips.RECORDS)

MOST = 0.10  # of a prompt's words, from a record or from a bundle
KEY = bytes(range(32))


@pytest.fixture(scope="module")
def engine(default_engine):
    return default_engine


@pytest.fixture(scope="module")
def attacker(default_engine):
    return Attacker(default_engine.bundle)


def records_of(engine, prompts, **options):
    lines = []
    engine.recorder(lines.append, **options).route_many(list(prompts), tau=0.2)
    return [Record.from_line(line) for line in lines[0].splitlines()]


def from_figures(attacker, attack, record, count):
    """Guesses of an attack, none where the record has no figures."""
    if record.withheld:
        return []
    observed = attacker.observed(record.outcome.quality, record.outcome.tokens_out, record.own_tokens)
    return getattr(attacker, attack)(observed, count)


def test_prompts_of_the_attack_have_up_to_forty_tokens(attacker):
    lengths = [len(attacker.ids(prompt)) for prompt in PROMPTS]
    assert (min(lengths), max(lengths)) == (1, 36)
    assert sum(length > 8 for length in lengths) > len(PROMPTS) / 2


def test_the_attack_is_real_an_embedding_tells_most_words(engine, attacker):
    some = PROMPTS[::3]
    x = engine.encode(list(some)).x
    assert mean_recall(attacker, some, lambda row, count: attacker.from_x(x[row], count)) > 0.9


@pytest.mark.parametrize("attack", ["by_projection", "by_regression"])
def test_a_default_record_tells_at_most_a_tenth_of_the_words(engine, attacker, attack):
    some = PROMPTS if attack == "by_projection" else PROMPTS[::2]
    records = records_of(engine, some)
    recalls = [
        attacker.recall(prompt, from_figures(attacker, attack, record, len(attacker.ids(prompt))))
        for prompt, record in zip(some, records, strict=True)
    ]
    known = [recall for recall, record in zip(recalls, records, strict=True) if not record.withheld]
    assert len(known) > len(some) / 2
    assert np.mean(recalls) <= MOST
    assert np.mean(known) <= MOST  # not for the withheld ones alone


def test_figures_of_one_word_tell_it_so_that_those_of_few_words_are_withheld(engine, attacker):
    for prompt, record in zip(PROMPTS, records_of(engine, PROMPTS), strict=True):
        assert record.withheld == (distinct_words(prompt) < MIN_WORDS)
    [kept] = records_of(engine, ["thanks"], min_words=0)
    observed = attacker.observed(kept.outcome.quality, kept.outcome.tokens_out)
    word, away = attacker.one_word(observed)
    assert (attacker.words[word], away < 1e-4) == ("thanks", True)
    [withheld] = records_of(engine, ["thanks"])
    assert np.isnan([*withheld.outcome.quality, *withheld.outcome.tokens_out, *withheld.outcome.cost_usd]).all()


def test_no_line_shows_an_embedding_or_a_word_whatever_is_kept_under_a_key(engine):
    lines = []
    recorder = engine.recorder(lines.append, keep_x=True, keep_prompts=True, key=KEY)
    prompt = PROMPTS[-1]
    recorder.route(prompt, tau=0.2)
    assert "x" not in json.loads(lines[0])
    assert not any(word in lines[0] for word in (b"violin", b"craftsman", b"inherited"))


# -- bundles


@pytest.mark.parametrize("attack", ["by_projection", "by_regression"])
def test_path_rows_tell_at_most_a_tenth_of_the_words(engine, attacker, attack):
    """The worst case: predicted by the very heads that the bundle holds, and the attacker knows which row is whose."""
    long = [prompt for prompt in PROMPTS if distinct_words(prompt) >= MIN_WORDS]
    long = long if attack == "by_projection" else long[::2]
    made = engine.route_many(long, tau=0.2)
    quality, tokens = made.qualities.astype(np.float16), (made.tokens_out / 64).astype(np.float16)
    guess = getattr(attacker, attack)

    def guesses(row, count):
        return guess(attacker.observed(quality[row], 64 * tokens[row].astype(np.float32), made.own_tokens[row]), count)

    assert mean_recall(attacker, long, guesses) <= MOST


def test_a_centroid_tells_no_more_of_a_prompt_than_what_many_prompts_say(engine, attacker):
    prompts = composed(200)
    x = engine.encode(list(prompts)).x.astype(np.float64)
    centroids = without_few(x, kmeans(x, len(x) // PROMPTS_PER_CENTROID, 0))
    owner = squared_distances(x, centroids).argmin(axis=1)
    assert np.bincount(owner).min() >= FEWEST_NEAR
    guesses = [attacker.from_x(centroid, 30) for centroid in centroids]
    told = mean_recall(attacker, prompts, lambda row, count: guesses[owner[row]])
    often = attacker.frequent(prompts, 30)
    plain = mean_recall(attacker, prompts, lambda row, count: often)
    assert told <= plain + MOST / 2
    assert not {attacker.words[token] for token in often} & STOPWORDS


def test_the_default_bundle_has_no_centroid_of_one_prompt(engine):
    """Its rows are not here: a centroid of one prompt is as long as an embedding, the mean of several is shorter."""
    assert np.linalg.norm(engine.bundle.support.centroids, axis=1).max() < 0.999


def test_hashes_under_a_key_tell_nothing_to_one_who_has_every_prompt_in_a_dictionary():
    keys = [question_key(prompt) for prompt in PROMPTS]
    known = prompt_hashes(PROMPTS, keys)
    keyed = prompt_hashes(PROMPTS, keys, OwnerKey(KEY))
    dictionary = {int(value) for part in prompt_hashes(PROMPTS, keys).values() for value in part}
    assert {int(value) for part in known.values() for value in part} <= dictionary  # the attack is real
    assert not {int(value) for part in keyed.values() for value in part} & dictionary
