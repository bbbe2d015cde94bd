"""A lexicon gives surface features their categories of words: what it may hold, and that its words are found."""

import json
import random

import pytest

from ipr_engine._C import SurfaceFeatures
from ipr_engine.bundle.surface_lexicon import SurfaceLexicon, parse_lexicon
from ipr_engine.data.prompt_edits import SAME_WORDS
from ipr_engine.encoders.surface import SurfaceEncoder
from ipr_engine.encoders.surface_reference import surface_reference, word_hash
from ipr_engine.errors import BundleError, BundleValueError, InvalidInputError


def test_instruction_words_that_say_the_same_are_of_one_category():
    of = {word: name for name, words in SurfaceEncoder.load().lexicon.categories.items() for word in words}
    for word, same in SAME_WORDS.items():
        if word in of and " " not in same:
            assert of[word] in {of.get(part) for part in same.split()}, (word, same)


def lexicon(categories, flags=()):
    return SurfaceLexicon({name: tuple(words) for name, words in categories.items()}, tuple(flags))


def test_a_lexicon_of_another_language_is_matched_whatever_the_case():
    russian = lexicon({"вопрос": ["что", "почему"], "frage": ["erklären"]}, ["вопрос"])
    encoder = SurfaceEncoder(russian, identity="0" * 64)
    for text in ("Почему?", "ПОЧЕМУ ЧТО", "ERKLÄREN Sie", "чтобы"):
        assert encoder.encode([text]).x[0].tobytes() == surface_reference(text, russian).tobytes()
    assert encoder.encode(["ЧТО"]).x[0, encoder.feature_names.index("of_вопрос")] > 0
    assert not encoder.encode(["чтобы"]).x[0, encoder.feature_names.index("of_вопрос")]


@pytest.mark.parametrize("words", [0, 1, 300, 1024])
def test_lexicons_of_any_size_are_looked_up_right(words):
    drawn = random.Random(words)
    made = {"".join(drawn.choices("abcdefgh", k=drawn.randint(1, 12))) for _ in range(4 * words)}
    some = lexicon({"one": sorted(made)[: words // 2], "two": sorted(made)[words // 2 : words]})
    encoder = SurfaceEncoder(some, identity="0" * 64)
    text = " ".join(sorted(made, key=word_hash_of)[: 2 * words])
    assert encoder.encode([text]).x[0].tobytes() == surface_reference(text, some).tobytes()


def word_hash_of(word):
    return word_hash(word.encode())


@pytest.mark.parametrize(
    "categories", [{"a": ["two words"]}, {"a": ["日本"]}, {"a": ["É"], "b": ["é"]}, {"a": ["x-y"]}]
)
def test_words_that_cannot_be_matched_are_refused(categories):
    with pytest.raises(InvalidInputError, match="lexicon: expected"):
        SurfaceFeatures(list(categories.values()), [])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"flags": [], "categories": {"a": ["x"], "b": ["x"]}}', "no category has yet"),
        (b'{"flags": ["b"], "categories": {"a": ["x"]}}', "flags"),
        (b'{"flags": [], "categories": {"a": ["X"]}}', "lower case"),
        (b'{"flags": ["a", "a"], "categories": {"a": ["x"]}}', "once"),
    ],
)
def test_a_lexicon_that_is_none_is_refused_by_its_file(text, reason):
    with pytest.raises(BundleError, match=reason):
        parse_lexicon(text, "lexicon.json")


@pytest.mark.parametrize(
    ("words", "place", "told"),
    [
        (["hier", "日本"], 1, "letters and digits, of a script with spaces"),
        (["don't"], 0, "letters and digits, of a script with spaces"),
        (["\u200b", "ok"], 0, "letters and digits, of a script with spaces"),
        (["what", "why", "ｗｈａｔ", "x"], 2, "does not look like 'what'"),
        ([*(f"w{n}" for n in range(1021)), "α", "б"], 1022, "does not look like 'α'"),  # one symbol stands for both
    ],
)
def test_a_word_that_cannot_be_matched_is_named_by_its_place_in_the_file(words, place, told):
    text = json.dumps({"flags": [], "categories": {"a": ["first"], "b": words}}).encode()
    with pytest.raises(BundleValueError, match=rf"lexicon\.json: categories\.b\[{place}\]: expected .*{told}"):
        parse_lexicon(text, "lexicon.json")
