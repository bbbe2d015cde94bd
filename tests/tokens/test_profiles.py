"""Profiles of tokenizers: what they estimate, how they are kept, and how they are fitted."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import InvalidInputError
from ipr_engine._C import TEXT_TERMS as TERMS
from ipr_engine._C import count_texts
from ipr_engine.bundle import BundleParts, write_bundle
from ipr_engine.cli import main
from ipr_engine.tokens.fit_profile import fit_coefficients, fit_some
from ipr_engine.tokens.profiles import profile_of, read_profiles, shipped_profile, shipped_profiles
from ipr_engine.tokens.samples import read_samples
from ipr_engine.tokens.token_profile import PARTS, TokenProfile, coefficients_apart, coefficients_beside
from ipr_engine.tokens.tokenizers_at_hand import open_counter
from tests.support.bundles import bundle_parts
from tests.support.places import SENTENCES as SENTENCES_FILE

SENTENCES = json.loads(SENTENCES_FILE.read_text(encoding="utf-8"))
TEXTS_OF_OLD_TERMS = [*(text for texts in SENTENCES.values() for text in texts), "a == b  # ----\n\n\t\tx = [1]"]
SPELLED = {"name": "own", "source": "a test", "coefficients": {"words": 1.25, "han": 0.5}, "per_request": 3.0}


def test_an_estimate_is_the_rounded_sum_of_its_terms():
    profile = profile_of(SPELLED, "own")
    assert profile.tokens(["one two three", "漢字"]).tolist() == [7, 4]  # 3.75 and 1 beyond 3, to even


def test_a_text_has_at_least_one_token_and_no_text_what_every_request_has():
    profile = profile_of({**SPELLED, "per_request": 0.0}, "own")
    assert profile.tokens(["!", ""]).tolist() == [1, 0]
    assert profile_of(SPELLED, "own").tokens([""]).tolist() == [3]


def test_a_profile_survives_its_json():
    for profile in shipped_profiles().values():
        assert profile_of(json.loads(json.dumps(profile.to_json())), "again") == profile


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": " "}, "name"),
        ({"coefficients": {}}, "coefficients"),
        ({"coefficients": {"wrods": 1.0}}, "wrods"),
        ({"coefficients": {"words": -1.0}}, r"coefficients\.words"),
        ({"coefficients": {"words": float("nan")}}, r"coefficients\.words"),
        ({"coefficients": {"words": True}}, r"coefficients\.words"),
        ({"coefficients": {"words": 0.0}}, "zeros alone"),
        ({"coefficients": {"other_4": 2.0, "emoji": -2.5}}, r"coefficients\.emoji: expected -2 or more"),
        ({"coefficients": {"words": 2.0, "emoji": -1.0}}, r"coefficients\.emoji: expected -0 or more"),
        ({"coefficients": {"other_4": "2", "emoji": -1.0}}, r"coefficients\.other_4"),
        ({"coefficients": {"other_4": 2.0, "emoji": float("-inf")}}, r"coefficients\.emoji"),
        ({"coefficients": {"other_4": 2.0, "long_letters": -1.0}}, r"coefficients\.long_letters"),
        ({"per_request": float("inf")}, "per_request"),
        ({"extra": 1}, "name, source, coefficients, per_request"),
    ],
)
def test_a_bad_profile_is_refused_by_field(change, told):
    with pytest.raises(InvalidInputError, match=told):
        profile_of({**SPELLED, **change}, "own")


WITHOUT_PARTS = {  # a profile as it was kept before emoji and long runs had terms, and what it counted then
    "name": "before",
    "source": "a test",
    "coefficients": {
        "words": 0.4058,
        "letter_pairs": 4.2959,
        "punctuation": 0.2198,
        "controls": 0.8902,
        "other_3": 0.4092,
        "other_4": 7.6201,
    },
    "per_request": 3.0,
}
COUNTED = {
    "👍": 11,
    "😀" * 6: 49,
    "ok 👍🏽 thanks 🙏": 28,
    "❤️ ☀️ ✅": 5,
    "🇩🇪👩\u200d💻": 33,
    "𝐇𝐞𝐥𝐥𝐨 𠮷": 49,
    "=" * 200: 47,
    "a" * 3000: 1924,
    "\t" * 50 + "x": 49,
    "\n" * 200 + "x": 4,
}


def test_a_profile_that_knows_no_parts_counts_and_is_called_as_before():
    profile = profile_of(WITHOUT_PARTS, "before")
    assert profile.tokens(list(COUNTED)).tolist() == list(COUNTED.values())
    assert profile.key == "before:35a950967af9"
    assert profile.to_json() == WITHOUT_PARTS


NEW_TERMS = (*PARTS, "long_letters", "long_line_breaks")
KEYS_BEFORE = (
    "o200k_base:5b7fa7c6ab47",
    "cl100k_base:cbe5ba4c5132",
    "deepseek:644cfad2208f",
    "tekken:edcc127b4602",
    "claude_2:a210985cf3e5",
    "bpe:cc2ab74398c7",
)


def without_new_terms(profile):
    document = profile.to_json()
    kept = {term: c for term, c in document["coefficients"].items() if term not in NEW_TERMS}
    return profile_of({**document, "coefficients": kept}, "before")


def test_shipped_profiles_count_texts_without_emoji_or_long_runs_as_before():
    texts = [*TEXTS_OF_OLD_TERMS, " ".join(TEXTS_OF_OLD_TERMS)]
    assert not count_texts(texts)[:, [TERMS.index(term) for term in NEW_TERMS]].any()
    before = [without_new_terms(profile) for profile in shipped_profiles().values()]
    assert tuple(profile.key for profile in before) == KEYS_BEFORE
    for old, new in zip(before, shipped_profiles().values(), strict=True):
        assert new.tokens(texts).tolist() == old.tokens(texts).tolist()


def test_an_unknown_profile_names_those_that_ship():
    with pytest.raises(InvalidInputError, match="o200k_base"):
        shipped_profile("o300k")


def test_shipped_profiles_estimate_whole_numbers_of_any_text():
    tokens = [profile.tokens(["What is 17 * 23?", "🙂" * 50]) for profile in shipped_profiles().values()]
    assert len(tokens) == 6
    assert (np.array(tokens) >= 4).all()
    assert (np.array(tokens) % 1 == 0).all()


def drawn_terms(rows, seed):
    rng = np.random.default_rng(seed)
    terms = np.zeros((rows, len(TERMS)))
    terms[:, [TERMS.index(name) for name in ("words", "digits", "punctuation")]] = rng.integers(1, 60, (rows, 3))
    return terms


def test_a_fit_finds_the_coefficients_that_made_the_tokens():
    terms = drawn_terms(400, 1)
    true = np.zeros(len(TERMS))
    true[[TERMS.index("words"), TERMS.index("digits"), TERMS.index("punctuation")]] = 1.3, 0.4, 0.0
    found = fit_coefficients(terms, terms @ true)
    np.testing.assert_allclose(found, true, atol=0.01)
    assert (found >= 0).all()


def test_a_fit_near_a_profile_keeps_it_where_rows_say_nothing_and_scales_it_as_a_whole():
    near = np.array(shipped_profile("o200k_base").coefficients)
    terms = drawn_terms(200, 2)
    found = fit_coefficients(terms, 1.5 * (terms @ near), near)
    np.testing.assert_allclose(found, 1.5 * near, rtol=0.02, atol=0.01)


def drawn_emoji(rows, seed):
    """Texts of words, styled letters (of four bytes, a part) and emoji, another part of the same."""
    rng = np.random.default_rng(seed)
    return count_texts(
        ["a " * words + "𝐇" * bold + "😀" * emoji for words, bold, emoji in rng.integers(0, 9, (rows, 3)) + 1]
    )


def test_a_part_may_cost_less_than_its_whole_but_never_less_than_nothing():
    terms, true = drawn_emoji(300, 3), np.zeros(len(TERMS))
    for term, cost in (("words", 1.2), ("styled_letters", 2.5), ("emoji", 0.0)):
        true[TERMS.index(term)] = cost
    found = fit_coefficients(terms, np.maximum(terms @ true, 0.1))
    np.testing.assert_allclose(terms @ found, terms @ true, rtol=0.01)
    assert (coefficients_apart(found) >= 0).all()
    assert profile_of(TokenProfile.rounded("a", "b", found).to_json(), "again").tokens(["a 😀"]) == 1


def test_without_rows_a_part_costs_what_its_whole_costs():
    terms = drawn_terms(100, 5)
    terms[:, TERMS.index("other_4")] = 3
    found = fit_coefficients(terms, terms.sum(axis=1))
    assert found[TERMS.index("other_4")] > 0
    assert not found[[TERMS.index(part) for part in PARTS]].any()


def test_coefficients_apart_and_beside_are_each_others_inverse():
    rng = np.random.default_rng(6)
    given = rng.integers(0, 99, len(TERMS) + 1).astype(float)
    np.testing.assert_array_equal(coefficients_beside(coefficients_apart(given)), given)


def test_fitting_some_terms_keeps_the_others_to_the_bit():
    before, terms = np.array(shipped_profile("o200k_base").coefficients), drawn_emoji(200, 4)
    fitted = np.isin(TERMS, ("emoji", "late_emoji"))
    true = before.copy()
    true[TERMS.index("emoji")] += 2.0
    found = fit_some(terms, terms @ true, before, fitted)
    assert found[~fitted].tobytes() == before[~fitted].tobytes()
    np.testing.assert_allclose(found[TERMS.index("emoji")], true[TERMS.index("emoji")], atol=0.01)


def test_fit_on_the_command_line_keeps_profiles_but_for_the_terms_it_is_given(tmp_path, capsys):
    texts, kept, out = tmp_path / "texts.jsonl", tmp_path / "kept.json", tmp_path / "profiles.json"
    lines = [{"text": f"word {'😀 ' * (1 + n % 5)}", "group": "en", "kind": f"half {n % 2}"} for n in range(40)]
    texts.write_text("\n".join(map(json.dumps, lines)))
    kept.write_text(json.dumps([{**SPELLED, "coefficients": {"words": 1.0, "other_4": 7.5}}]))
    spec = ["tokens", "fit", "--texts", str(texts), "--out", str(out), "--source", "smileys"]
    spec += ["--tokenizer", f"own={open_counter_file(tmp_path)}"]
    assert main([*spec, "--keep", str(kept), "--term", "emoji"]) == 0
    assert json.loads(capsys.readouterr().out)["median"] < 0.1
    made = read_profiles(out)["own"].to_json()
    assert made["coefficients"].keys() == {"words", "other_4", "emoji"}
    assert made["coefficients"] == {"words": 1.0, "other_4": 7.5, "emoji": pytest.approx(-6.5, abs=0.01)}
    assert (made["source"], made["per_request"]) == ("a test; smileys", 3.0)
    out.unlink()
    for more, told in (
        (["--keep", str(kept)], "--term"),
        (["--term", "emoji"], "--keep"),
        (["--keep", str(kept), "--term", "smileys"], "smileys"),
        (["--keep", str(kept), "--term", "emoji", "--tokenizer", f"new={tmp_path / 'own.json'}"], "new"),
    ):
        assert main([*spec, *more]) == 1
        assert told in capsys.readouterr().err


def test_tokens_that_are_not_above_zero_are_refused():
    with pytest.raises(ValueError, match="tokens"):
        fit_coefficients(drawn_terms(3, 0), np.array([1.0, 0.0, 2.0]))


def test_fit_on_the_command_line_writes_profiles_and_tells_errors_of_kinds_held_out(tmp_path, capsys):
    texts, out = tmp_path / "texts.jsonl", tmp_path / "profiles.json"
    lines = [
        {"text": f"{word} number {n} " * (1 + n % 7), "group": "en", "kind": kind}
        for n in range(30)
        for word, kind in (("Ticket", "forms"), ("street", "addresses"))
    ]
    texts.write_text("\n".join(map(json.dumps, lines)))
    tokenizer = open_counter_file(tmp_path)
    spec = ["tokens", "fit", "--texts", str(texts), "--out", str(out)]
    assert main([*spec, "--tokenizer", f"own={tokenizer}", "--mean", "both"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["tokenizer"] == "own"
    assert set(line["groups"]) == {"en/forms", "en/addresses"}
    assert line["median"] < 0.1
    assert list(read_profiles(out)) == ["own", "both"]
    assert main([*spec, "--tokenizer", str(tokenizer)]) == 1  # the file exists
    assert "--out" in capsys.readouterr().err


def open_counter_file(folder):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "own.json"))
    return folder / "own.json"


def test_an_unknown_tokenizer_says_what_can_be_opened():
    with pytest.raises(InvalidInputError, match="bpe-openai:NAME"):
        open_counter("no-such-package")


@pytest.mark.parametrize("line", ["no json", '{"group": "de"}', '{"text": 1}', '{"text": "a", "language": "de"}', "[]"])
def test_a_bad_line_of_texts_is_told_by_number_and_not_by_its_text(tmp_path, line):
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "good"}\n' + line)
    with pytest.raises(InvalidInputError, match=r"texts\.jsonl:2"):
        read_samples(path)


def test_rounded_coefficients_are_those_that_a_file_keeps():
    made = TokenProfile.rounded("a", "b", np.full(len(TERMS), 1 / 3), 0.123456)
    assert set(made.coefficients) == {0.3333}
    assert made.per_request == 0.1235
    assert made.estimate(count_texts(["a b"])).shape == (1,)


def test_info_says_which_tokenizers_were_fitted_and_to_what(tmp_path, capsys):
    parts = bundle_parts(tmp_path)
    own = TokenProfile(
        name="house", source="recorded input tokens of 412 prompts, near bpe", coefficients=(1.5,) * len(TERMS)
    )
    profiles = (own, shipped_profile("claude_2"), None)
    parts["candidates"] = [replace(c, tokenizer=p) for c, p in zip(parts["candidates"], profiles, strict=True)]
    path = write_bundle(tmp_path / "bundles", BundleParts(**parts))
    assert main(["info", "--bundle", str(path)]) == 0
    told = capsys.readouterr().out
    assert "profiles of tokenizers fitted, of 1 of 3 candidates" in told
    assert "alpha/large  house, fitted to recorded input tokens of 412 prompts, near bpe" in told
    rows = {line.split()[0]: line for line in told.splitlines() if line.startswith(("alpha/", "beta/", "gamma/"))}
    assert " claude_2 " in rows["beta/mid"]
    assert "(fitted)" not in rows["beta/mid"]
    assert "house (fitted)" in told
    assert all(line == line.rstrip() for line in told.splitlines())
