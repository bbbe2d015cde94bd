"""Profiles of tokenizers: what they estimate, how they are kept, and how they are fitted."""

import json
from dataclasses import replace

import numpy as np
import pytest
from bundles import bundle_parts

from ipr_engine import InvalidInputError
from ipr_engine.bundle import write_bundle
from ipr_engine.cli import main
from ipr_engine.tokens import TERMS, TokenProfile, count_texts, read_profiles, shipped_profile, shipped_profiles
from ipr_engine.tokens.counters import open_counter
from ipr_engine.tokens.fit import fit_coefficients
from ipr_engine.tokens.profiles import profile_of
from ipr_engine.tokens.samples import read_samples

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
        ({"per_request": float("inf")}, "per_request"),
        ({"extra": 1}, "name, source, coefficients, per_request"),
    ],
)
def test_a_bad_profile_is_refused_by_field(change, told):
    with pytest.raises(InvalidInputError, match=told):
        profile_of({**SPELLED, **change}, "own")


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
    path = write_bundle(tmp_path / "bundles", **parts)
    assert main(["info", "--bundle", str(path)]) == 0
    told = capsys.readouterr().out
    assert "profiles of tokenizers fitted, of 1 of 3 candidates" in told
    assert "alpha/large  house, fitted to recorded input tokens of 412 prompts, near bpe" in told
    rows = {line.split()[0]: line for line in told.splitlines() if line.startswith(("alpha/", "beta/", "gamma/"))}
    assert " claude_2 " in rows["beta/mid"]
    assert "(fitted)" not in rows["beta/mid"]
    assert "house (fitted)" in told
    assert all(line == line.rstrip() for line in told.splitlines())
