"""ipr add-model, remove-model and set-prices: from files to a new bundle."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle, activate
from ipr_engine.bundle.reliability import read_reliability
from ipr_engine.cli import main
from ipr_engine.errors import InvalidInputError, KeyMismatchError
from tests.support.seeds import seeded
from tests.support.skips import TREES
from tests.support.training_data import add_model, train

pytest.importorskip("threadpoolctl", reason="needs extra [train]: a repeatable fit")

NAMES = ("house/big", "house/small", "other/mid", "house/new")
FACTS = {"provider": "test", "context_window": 4096, "features": ["tools"]}
WORDS = ("prove", "sum", "story", "python", "river", "integral", "poem", "loop", "triangle", "banana")
CREATED = "2026-11-24"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """200 prompts; candidates fail on hard words; the new one has no outcome on every fifth."""
    rng = seeded("add model")
    folder = tmp_path_factory.mktemp("data") / "made"
    folder.mkdir()
    prompts = [("prompt_id", "prompt", "split")]
    outcomes = [("prompt_id", "model", "quality", "input_tokens", "output_tokens")]
    for n in range(200):
        words = rng.choice(WORDS, 6)
        hard = np.isin(words, ("prove", "integral", "triangle")).mean()
        prompts.append((f"p{n:03d}", f"{' '.join(words)} number {n}", "train" if n < 160 else "test"))
        for m in range(4):
            if m < 3 or n % 5:
                right = float(rng.random() < (0.95 - hard / 2, 0.9 - hard, 0.8, 0.95 - hard)[m])
                outcomes.append((f"p{n:03d}", f"m{m}", right, 40, int(50 + 100 * hard + 10 * m)))
    for name, rows in (("prompts", prompts), ("outcomes", outcomes)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder


def entry(m, **more):
    prices = {"input_usd_per_1m": 4.0 / 2**m, "output_usd_per_1m": 8.0 / 2**m}
    return {"name": NAMES[m], "source": f"m{m}", "family": NAMES[m].split("/")[0]} | prices | FACTS | more


def listed(path, *entries):
    path.write_text(json.dumps({"date": CREATED, "candidates": list(entries)}))
    return path


@pytest.fixture(scope="module", params=["plain", "caps", "forest"])
def root(request, source, tmp_path_factory):
    if request.param == "forest":
        pytest.importorskip("sklearn", reason=TREES)
    work = tmp_path_factory.mktemp(request.param)
    file = listed(work / "three.json", *(entry(m) for m in range(3)))
    train(source, file, work / "root", name="t", created=CREATED, estimator=request.param, allow_constant=True)
    return work / "root"


@pytest.fixture
def new(tmp_path):
    return listed(tmp_path / "new.json", entry(3))


def test_a_candidate_from_outcomes_routes_beside_the_others(root, source, new, tmp_path, capsys):
    before = Engine.load(root)
    arguments = ["add-model", "--bundle", str(root), "--candidates", str(new), "--outcomes", str(source)]
    assert main([*arguments, "--out", str(tmp_path / "out"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["candidate"], facts["prompts"], facts["prior_from"]) == ("house/new", 128, [])
    after = Engine.load(tmp_path / "out")
    assert after.bundle.hash == facts["bundle"]
    prompts = ["river poem banana story", "prove integral triangle prove"]
    old, now = before.route_many(prompts, tau=0.2), after.route_many(prompts, tau=0.2)
    np.testing.assert_array_equal(now.qualities[:, :3], old.qualities)
    assert now.qualities[0, 3] > now.qualities[1, 3]
    assert now.tokens_out[0, 3] == pytest.approx(80, abs=40)
    note = after.bundle.provenance["added"]["house/new"]
    assert (note["source"], note["called"], note["prompts"], note["tokens_from"]) == ("made", "m3", 128, [])
    assert after.bundle.candidates[3].token_ratio > 0.5  # measured: 40 input tokens a prompt
    assert after.bundle.prices.prices["house/new"].basis == "given in new.json, 2026-11-24"


def test_where_few_prompts_are_judged_the_others_outcomes_stand_in_for_the_rest(root, source, new, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    (few / "prompts.csv").write_bytes((source / "prompts.csv").read_bytes())
    with (source / "outcomes.csv").open(newline="") as file:
        rows = [row for row in csv.reader(file) if row[1] != "m3" or int(row[0][1:]) < 50]
    with (few / "outcomes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    added = add_model(root, new, outcomes=few, out=tmp_path / "out", created=CREATED)
    assert (added.prompts, added.imputed) == (40, 120)
    assert 0 <= added.brier <= 1
    bundle = Bundle.load(added.folder)
    assert bundle.provenance["added"]["house/new"]["imputed"] == 120
    assert sum(read_reliability(bundle)["house/new"].counts) == 40  # of its own outcomes
    whole = add_model(root, new, outcomes=source, out=tmp_path / "whole", created=CREATED)
    assert whole.imputed == 0


@pytest.mark.parametrize("judged", [True, False])
def test_a_bundle_that_is_not_activated_lies_beside_the_current_one(root, source, new, tmp_path, judged):
    out = tmp_path / "out"
    shutil.copytree(root, out)
    current = Bundle.load(out).hash
    more = {"outcomes": source} if judged else {}
    added = add_model(out, new, created=CREATED, activate=False, **more)
    assert Bundle.load(out).hash == current
    activate(out, added.folder.name)
    assert Bundle.load(out).names[-1] == "house/new"


def test_its_bins_join_the_reliability_table(root, source, new, tmp_path):
    added = add_model(root, new, outcomes=source, out=tmp_path / "out", created=CREATED)
    tables = read_reliability(Bundle.load(added.folder))
    assert set(tables) == set(NAMES)
    assert sum(tables["house/new"].counts) == 128
    assert {name: tables[name] for name in NAMES[:3]} == read_reliability(Bundle.load(root))


def test_the_same_call_gives_the_same_bundle(root, source, new, tmp_path):
    made = {add_model(root, new, outcomes=source, out=tmp_path / n, created=CREATED).folder.name for n in "12"}
    assert len(made) == 1


@pytest.mark.parametrize(
    ("terms", "members"),
    [
        ({}, ("house/small",)),
        ({"like": "other/mid"}, ("other/mid",)),
        ({"family": "house"}, ("house/big", "house/small")),
    ],
)
def test_without_outcomes_a_marked_prior_stands_in(root, new, tmp_path, capsys, terms, members):
    added = add_model(root, new, out=tmp_path / "out", created=CREATED, **terms)
    assert added.prior_from == members
    engine = Engine.load(added.folder)
    row = engine.route("prove the sum", tau=0.1).qualities
    rows = [engine.bundle.names.index(name) for name in members]
    logit = np.log(row / (1 - row))
    shift = engine.bundle.provenance["added"]["house/new"]["lowered"]["logit_shift"]
    assert shift < 0
    assert logit[3] == pytest.approx(logit[rows].mean() + shift, abs=1e-5)
    explanation = engine.explain("prove the sum", tau=0.1)
    said = f"prior from {', '.join(members)}, lowered to mean quality {added.lowered_to:.2f} by its price"
    assert explanation.priors == {"house/new": said}
    assert "no outcomes of its own" in str(explanation)
    assert "house/new" not in explanation.realised
    assert main(["info", "--bundle", str(added.folder)]) == 0
    assert f"({said}: no outcomes of its own)" in capsys.readouterr().out


def test_every_decision_that_a_prior_wins_says_so(root, new, tmp_path, capsys):
    added = add_model(root, new, out=tmp_path / "out", created=CREATED)
    engine = Engine.load(added.folder)
    won, other = engine.route("river", tau=1.0), engine.route("river", tau=0.0)
    assert won.model == "house/new"  # the cheapest, at tau 1
    assert won.prior == engine.explain("river", tau=1.0).priors["house/new"]
    assert won.to_dict()["prior"] == won.prior
    assert f"prior={won.prior!r}" in repr(won)
    assert (other.prior, other.to_dict()["prior"]) == (None, None)
    assert engine.route_many(["river", "poem"], tau=1.0).priors == [won.prior, won.prior]
    assert f"its quality is a guess: {won.prior}" in engine.explain("river", tau=1.0).summary
    assert main(["route", "river", "--tau", "1", "--bundle", str(added.folder)]) == 0
    assert f"[{won.prior}]" in capsys.readouterr().out


def test_a_prior_at_the_price_of_a_dearer_candidate_keeps_the_bits(root, tmp_path):
    dear = listed(tmp_path / "dear.json", entry(3, input_usd_per_1m=4000.0, output_usd_per_1m=8000.0))
    added = add_model(root, dear, out=tmp_path / "out", like="house/small", created=CREATED)
    qualities = Engine.load(added.folder).route_many(["prove the sum", "river", "poem loop"], tau=0.1).qualities
    assert added.lowered_to is None  # the worst of all candidates, at a price above them all
    np.testing.assert_array_equal(qualities[:, 3], qualities[:, 1])


def test_a_prior_stands_in_for_nobody(root, new, tmp_path):
    add_model(root, new, out=tmp_path / "out", created=CREATED)
    second = listed(tmp_path / "second.json", entry(3, name="house/newer"))
    with pytest.raises(InvalidInputError, match="like: 'house/new' has no outcomes of its own"):
        add_model(tmp_path / "out", second, like="house/new", created=CREATED)
    assert add_model(tmp_path / "out", second, created=CREATED).prior_from == ("house/small",)


def test_outcomes_replace_a_prior(root, source, new, tmp_path):
    prior = add_model(root, new, out=tmp_path / "out", created=CREATED).folder
    assert main(["remove-model", "house/new", "--bundle", str(prior), "--json"]) == 0
    added = add_model(tmp_path / "out", new, outcomes=source, created=CREATED, key=root / "owner.key")
    assert Engine.load(added.folder).explain("x", tau=0.1).priors == {}


def test_few_output_tokens_are_taken_from_the_most_similar_candidate(root, source, new, tmp_path):
    thin = tmp_path / "thin"
    thin.mkdir()
    (thin / "prompts.csv").write_bytes((source / "prompts.csv").read_bytes())
    with (source / "outcomes.csv").open(newline="") as file:
        rows = [row[:3] for row in csv.reader(file) if row[1] in ("model", "m3")]
    with (thin / "outcomes.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    told = []
    added = add_model(root, new, outcomes=thin, out=tmp_path / "out", created=CREATED, progress=told.append)
    assert added.tokens_from == ("house/small",)
    assert any("taken to write as much as house/small" in line for line in told)
    tokens = Engine.load(added.folder).route_many(["prove it", "river"], tau=0.1).tokens_out
    np.testing.assert_array_equal(tokens[:, 3], tokens[:, 1])


def test_a_refreshed_trunk_says_what_it_forgot(root, source, new, tmp_path, capsys):
    pytest.importorskip("torch", reason="needs extra [train]: torch")
    arguments = ["add-model", "--bundle", str(root), "--candidates", str(new), "--outcomes", str(source)]
    code = main([*arguments, "--out", str(tmp_path / "out"), "--consistency", "10"])
    captured = capsys.readouterr()
    if "trunk" not in Bundle.load(root).quality_heads.tensors:
        assert (code, "no shared trunk" in captured.err) == (1, True)
        return
    assert "the others' qualities moved by" in captured.out
    bundle = Bundle.load(tmp_path / "out")
    told = bundle.provenance["added"]["house/new"]["refreshed"]
    assert told["consistency"] == 10
    assert set(told["moved"]) == set(told["forgotten"]) == set(NAMES[:3])
    if told["epochs"]:
        assert read_reliability(bundle) == {}


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"consistency": 1.0}, "none are given"),
        ({"like": "nobody"}, "like: unknown 'nobody'"),
        ({"family": "none"}, "family: unknown 'none'; known: house, other"),
        ({"like": "house/big", "family": "house"}, "expected one of them, got both"),
        ({"like": "house/big", "outcomes": "SOURCE"}, "they stand in for outcomes"),
        ({"name": "stranger"}, "'stranger' is not in"),
        ({"name": "house/big"}, "in the bundle already"),
        ({"outcomes": "SOURCE", "split": "val"}, "val"),
    ],
)
def test_bad_arguments_are_named(root, source, tmp_path, terms, message):
    file = listed(tmp_path / "c.json", entry(0), entry(3))
    given = {key: source if value == "SOURCE" else value for key, value in terms.items()}
    with pytest.raises(InvalidInputError, match=message):
        add_model(root, file, out=tmp_path / "out", created=CREATED, **given)
    assert not (tmp_path / "out").exists()


def test_the_entry_meant_must_be_clear(root, tmp_path):
    with pytest.raises(InvalidInputError, match="expected one entry that the bundle does not have, got 0"):
        add_model(root, listed(tmp_path / "a.json", entry(0)), created=CREATED)
    two = listed(tmp_path / "b.json", entry(3), entry(3, name="house/newer"))
    with pytest.raises(InvalidInputError, match="got 2 \\(house/new, house/newer\\); name one"):
        add_model(root, two, created=CREATED)


def test_too_few_judged_prompts_are_refused(root, source, tmp_path):
    file = listed(tmp_path / "c.json", entry(3, source="m9"))
    with pytest.raises(InvalidInputError, match="judged on 0 prompts of made \\(as 'm9'\\), at least 20"):
        add_model(root, file, outcomes=source, created=CREATED)


def test_removing_and_pricing_from_the_shell(root, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["remove-model", "other/mid", "--bundle", str(root), "--out", out]) == 0
    assert "left: house/big, house/small" in capsys.readouterr().out
    free = {"input_usd_per_1m": 0, "output_usd_per_1m": 0, "fixed_usd": 0, "basis": "own machine"}
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"currency": "USD", "date": "2026-12-24", "prices": {"house/small": free}}))
    assert main(["set-prices", str(prices), "--bundle", out]) == 0
    captured = capsys.readouterr()
    assert "house/small: 2 -> 0 in, 4 -> 0 out" in captured.out
    assert "house/small now costs nothing" in captured.err
    assert Engine.load(out).route("prove it", tau=1.0).cost_usd == 0
    assert main(["remove-model", "nobody", "--bundle", out]) == 1
    assert "unknown 'nobody'" in capsys.readouterr().err


def test_what_an_added_row_was_fitted_on_is_known_and_a_removed_name_leaves_nothing_behind(source, tmp_path):
    from ipr_engine.audit.owner_key import OwnerKey
    from ipr_engine.bundle.edit import without_candidate
    from ipr_engine.data import load_outcomes, overlap, read_prompt_hashes

    three = listed(tmp_path / "three.json", *(entry(m) for m in range(3)))
    new = listed(tmp_path / "new.json", entry(3))
    base = train(
        source, three, tmp_path / "b", name="t", created=CREATED, estimator="plain", allow_constant=True
    ).folder
    seen, key = load_outcomes(source, split="test"), OwnerKey.load(tmp_path / "b" / "owner.key")
    assert not overlap(seen, read_prompt_hashes(Bundle.load(base).quality_heads.fitted_on.prompt_hashes), key).any()
    added = Bundle.load(add_model(base, new, outcomes=source, split="test", created=CREATED).folder)
    judged = seen.complete(["m3"])
    assert overlap(judged, read_prompt_hashes(added.quality_heads.fitted_on.prompt_hashes), key).all()
    assert added.quality_heads.fitted_on.hash_key == key.id
    assert added.provenance["sources"][NAMES[3]] == "m3"
    key_file = tmp_path / "b" / "owner.key"
    kept = key_file.rename(tmp_path / "kept.key")
    with pytest.raises(KeyMismatchError, match=f"need the key of id {key.id}, got none"):
        add_model(base, new, outcomes=source, split="test", created=CREATED)
    assert add_model(base, new, outcomes=source, split="test", created=CREATED, key=kept).folder == added.path
    left = Bundle.load(without_candidate(added, NAMES[3]))
    assert NAMES[3] not in left.provenance["sources"]
    again = Bundle.load(add_model(left.path, new, created=CREATED).folder)
    assert NAMES[3] not in read_reliability(again)
