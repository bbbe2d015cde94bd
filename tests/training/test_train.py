"""ipr train: outcomes of one's own become a bundle that routes."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.audit.owner_key import OwnerKey
from ipr_engine.bundle import Bundle
from ipr_engine.bundle.candidates_file import read_candidates
from ipr_engine.cli import main
from ipr_engine.data import load_outcomes, overlap, read_prompt_hashes
from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.sweeps import choose
from ipr_engine.training.fitted_heads import predict
from tests.support.seeds import seeded
from tests.support.skips import TORCH
from tests.support.training_data import train

pytest.importorskip("threadpoolctl", reason="needs extra [train]: a repeatable fit")

NAMES = ("house/big", "house/small", "other/mid")
WORDS = ("prove", "sum", "story", "python", "river", "integral", "poem", "loop", "triangle", "banana")


TIER = {"above_tokens": 3, "input_usd_per_1m": 4.0, "output_usd_per_1m": 9.0}


@pytest.fixture
def source(tmp_path):
    """200 prompts; the small candidate fails on hard words, output tokens grow with the prompt."""
    rng = seeded("train")
    folder = tmp_path / "made"
    folder.mkdir()
    with (
        (folder / "prompts.csv").open("w", newline="") as prompts,
        (folder / "outcomes.csv").open("w", newline="") as rows,
    ):
        prompt_table, outcome_table = csv.writer(prompts), csv.writer(rows)
        prompt_table.writerow(("prompt_id", "prompt", "split"))
        outcome_table.writerow(("prompt_id", "model", "quality", "output_tokens"))
        for n in range(200):
            words = rng.choice(WORDS, 6)
            hard = np.isin(words, ("prove", "integral", "triangle")).mean()
            prompt_table.writerow((f"p{n:03d}", f"{' '.join(words)} number {n}", "train" if n < 160 else "test"))
            for m, _ in enumerate(NAMES):
                if m == 2 and n == 5:
                    continue  # sparse outcomes are normal
                right = rng.random() < (0.95, 0.9 - hard, 0.8)[m]
                outcome_table.writerow((f"p{n:03d}", f"m{m}", float(right), int(50 + 100 * hard + 10 * m)))
    return folder


@pytest.fixture
def candidates(tmp_path):
    path = tmp_path / "candidates.json"
    entries = [
        {"name": name, "source": f"m{m}", "family": name.split("/")[0], "provider": "test", "context_window": 4096}
        | {"input_usd_per_1m": 4.0 / 2**m, "output_usd_per_1m": 8.0 / 2**m, "features": ["tools"]}
        for m, name in enumerate(NAMES)
    ]
    path.write_text(json.dumps({"date": "2026-11-24", "candidates": entries}))
    return path


def test_trained_heads_route(source, candidates, tmp_path, capsys):
    arguments = ["--outcomes", str(source), "--candidates", str(candidates), "--out", str(tmp_path / "root")]
    assert main(["train", *arguments, "--estimator", "plain", "--allow-constant", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["prompts"], facts["dropped"], facts["estimator"]) == (160, 0, "plain")
    engine = Engine.load(tmp_path / "root")
    assert engine.bundle.hash == facts["bundle"]
    easy, hard = engine.route_many(["river poem banana story", "prove integral triangle prove"], tau=0.2)
    small = engine.bundle.names.index("house/small")
    assert easy.qualities[small] > hard.qualities[small]


def test_the_engine_decides_as_the_fitted_heads_predict(source, candidates, tmp_path):
    trained = train(
        source,
        candidates,
        tmp_path / "root",
        name="t",
        created="2026-11-24",
        allow_constant=True,
        estimator="advantage_each",
    )
    engine = Engine.load(trained.folder)
    prompts = ["river poem banana", "prove the integral", "python loop sum"]
    quality, tokens = predict(dict(engine.bundle.quality_heads.tensors), engine.encode(prompts).x.astype(np.float64))
    decisions = engine.route_many(prompts, tau=0.1)
    np.testing.assert_allclose(decisions.qualities, quality, atol=1e-6)
    np.testing.assert_allclose(decisions.tokens_out, tokens, rtol=1e-5)


def test_the_bundle_keeps_hashes_of_its_fitting_prompts(source, candidates, tmp_path):
    trained = train(
        source, candidates, tmp_path / "root", name="t", created="2026-11-24", allow_constant=True, estimator="plain"
    )
    fitted = Bundle.load(trained.folder).quality_heads.fitted_on
    hashes = read_prompt_hashes(fitted.prompt_hashes)
    key = OwnerKey.load(tmp_path / "root" / "owner.key")
    assert fitted.hash_key == key.id
    assert overlap(load_outcomes(source, split="train"), hashes, key).sum() == fitted.prompts == 160
    assert not overlap(load_outcomes(source, split="test"), hashes, key).any()
    assert (tmp_path / "root" / "owner.key").stat().st_mode & 0o777 == 0o600
    assert not list(trained.folder.rglob("*.key"))


@pytest.mark.parametrize("estimator", ["plain", "caps", "paper", "adapters"])
def test_the_op_decides_as_the_trained_model_outside_the_gap(source, candidates, tmp_path, estimator):
    if estimator in ("paper", "adapters"):
        pytest.importorskip("torch", reason=TORCH)
    options = {"epochs": 5, "hidden": 9} if estimator in ("paper", "adapters") else {}
    trained = train(
        source,
        candidates,
        tmp_path / "root",
        name="t",
        created="2026-11-24",
        estimator=estimator,
        allow_constant=True,
        options=options,
    )
    engine = Engine.load(trained.folder)
    prompts = list(load_outcomes(source).of_split("test").prompts)
    x = engine.encode(prompts)
    heads = engine.bundle.quality_heads
    quality, tokens = predict(dict(heads.tensors), x.x.astype(np.float64), heads.activation)
    np.testing.assert_allclose(engine.decide(x, tau=0.0).qualities, quality, atol=2e-6)
    price = [engine.bundle.prices.prices[name] for name in engine.bundle.names]
    ratio = np.array([candidate.token_ratio for candidate in engine.bundle.candidates])
    cost = (
        x.billed_tokens[:, None] * np.array([p.input_usd_per_1m for p in price]) * ratio
        + tokens * np.array([p.output_usd_per_1m for p in price])
    ) / 1e6
    for tau in (0.0, 0.1, 0.3, 1.0):
        decisions = engine.decide(x, tau=tau, rule="minmax")
        clear = decisions.gap > 1e-5
        assert clear.mean() > 0.75
        np.testing.assert_array_equal(decisions.index[clear], choose(quality, cost, tau=tau)[clear])


def test_a_network_run_that_was_stopped_goes_on_to_the_same_bundle(source, candidates, tmp_path):
    pytest.importorskip("torch", reason=TORCH)

    def stop(message: str) -> None:
        if "fold 2" in message:
            raise KeyboardInterrupt

    given = {
        "name": "t",
        "created": "2026-11-24",
        "allow_constant": True,
        "estimator": "paper",
        "options": {"epochs": 4, "hidden": 5},
        "key": bytes(32),
    }
    with pytest.raises(KeyboardInterrupt):
        train(source, candidates, tmp_path / "one", run=tmp_path / "run", progress=stop, **given)
    resumed = train(source, candidates, tmp_path / "one", run=tmp_path / "run", **given)
    at_once = train(source, candidates, tmp_path / "two", **given)
    assert resumed.folder.name == at_once.folder.name


def test_a_run_folder_of_another_fit_is_refused(source, candidates, tmp_path):
    pytest.importorskip("torch", reason=TORCH)
    given = {
        "name": "t",
        "created": "2026-11-24",
        "allow_constant": True,
        "estimator": "paper",
        "run": tmp_path / "run",
    }
    train(source, candidates, tmp_path / "one", options={"epochs": 2, "hidden": 5}, **given)
    with pytest.raises(InvalidInputError, match="run folder"):
        train(source, candidates, tmp_path / "two", options={"epochs": 2, "hidden": 6}, **given)


def test_token_ratio_is_measured_where_it_is_not_given(source, candidates, tmp_path):
    table = (source / "outcomes.csv").read_text().splitlines()
    lines = [f"{table[0]},input_tokens", *(f"{line},{24 if ',m0,' in line else 12}" for line in table[1:])]
    (source / "outcomes.csv").write_text("\n".join(lines) + "\n")
    document = json.loads(candidates.read_text())
    document["candidates"][2]["token_ratio"] = 1.5
    candidates.write_text(json.dumps(document))
    trained = train(
        source, candidates, tmp_path / "root", name="t", created="2026-11-24", allow_constant=True, estimator="plain"
    )
    big, small, mid = (candidate.token_ratio for candidate in Engine.load(trained.folder).bundle.candidates)
    assert mid == 1.5
    assert big == pytest.approx(2 * small)


def test_options_of_a_network_come_from_the_command_line(source, candidates, tmp_path, capsys):
    pytest.importorskip("torch", reason=TORCH)
    base = ["train", "--outcomes", str(source), "--candidates", str(candidates), "--out", str(tmp_path / "root")]
    more = ["loss.squared=1", "loss.pairwise=0.5", "hidden=4", "epochs=2", "activation=silu"]
    options = [word for item in more for word in ("--option", item)]
    assert main([*base, "--estimator", "adapters", "--allow-constant", *options]) == 0
    bundle = Engine.load(tmp_path / "root").bundle
    config = bundle.provenance["settings"]["config"]
    assert config["loss"] == {"squared": 1, "pairwise": 0.5}
    assert (config["hidden"], bundle.quality_heads.activation) == (4, "silu")


def test_training_twice_under_one_key_gives_the_same_bundle(source, candidates, tmp_path):
    given = {"name": "t", "created": "2026-11-24", "allow_constant": True, "estimator": "plain"}
    one = train(source, candidates, tmp_path / "one", **given).folder
    two = train(source, candidates, tmp_path / "two", key=tmp_path / "one" / "owner.key", **given).folder
    assert one.name == two.name
    assert not (tmp_path / "two" / "owner.key").exists()
    other = train(source, candidates, tmp_path / "three", **given).folder
    differ = [name for name in ("heads/trained.safetensors", "heads/trained.prompts.safetensors", "path.safetensors")
              if (one / name).read_bytes() != (other / name).read_bytes()]  # fmt: skip
    assert differ == ["heads/trained.prompts.safetensors"]


def test_auto_chooses_one_of_the_closed_forms(source, candidates, tmp_path, monkeypatch):
    monkeypatch.setattr("ipr_engine.training.train.comparable", lambda progress: ("plain", "advantage_each"))
    trained = train(source, candidates, tmp_path / "root", name="t", created="2026-11-24", allow_constant=True)
    assert trained.estimator in ("plain", "advantage_each")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("date"), 'expected {"date"'),
        (lambda d: d.update(candidates=[]), "at least one candidate"),
        (lambda d: d["candidates"][1].pop("family"), r"candidates\[1\]: lacks family"),
        (lambda d: d["candidates"][1].update(prize=1), r"candidates\[1\]: has unknown prize"),
        (
            lambda d: d["candidates"][1].update(input_usd_per_1m="1"),
            r"candidates\[1\].input_usd_per_1m: expected a number",
        ),
        (lambda d: d["candidates"][0].update(input_usd_per_1m=float("nan")), r"candidates\[0\].input_usd_per_1m"),
        (lambda d: d["candidates"][0].update(features="tools"), r"candidates\[0\].features: expected a list"),
        (lambda d: d["candidates"][2].update(context_window="8k"), r"candidates\[2\].context_window: expected a whole"),
        (lambda d: d["candidates"][2].update(token_ratio=0), r"candidates\[2\].token_ratio: expected a number > 0"),
        (lambda d: d["candidates"][2].update(name="house/big"), "distinct names"),
        (
            lambda d: d.update(date="24/11/2026"),
            r"candidates: date in .*: expected a date YYYY-MM-DD, got '24/11/2026'",
        ),
        (lambda d: d.update(date="2026-02-30"), "expected a date YYYY-MM-DD"),
        (lambda d: d["candidates"][0].update(features=["tools", "tools"]), r"candidates\[0\].features: .* distinct"),
        (lambda d: d["candidates"][0].update(features=["\ud83d"]), r"candidates\[0\].features"),
        (
            lambda d: d["candidates"][0].update(token_ratio="tokenizer"),
            r"candidates\[0\].token_ratio: .* beside a tokenizer",
        ),
        (
            lambda d: d["candidates"][0].update(token_ratio="claude_2"),
            r"candidates\[0\].token_ratio: .* got 'claude_2'",
        ),
        (lambda d: d["candidates"][0].update(token_ratio=2e6), r"candidates\[0\].token_ratio: .* <= 1e\+06"),
        (lambda d: d["candidates"][1].update(family="\ud83d"), r"candidates\[1\].family: .* Unicode, got '.ud83d'"),
        (lambda d: d["candidates"][1].update(name="\ud83d"), r"candidates\[1\].name: .* Unicode"),
        (lambda d: d["candidates"][1].update(fixed_usd=10**400), r"candidates\[1\].fixed_usd: expected a number"),
        (
            lambda d: d["candidates"][1].update(latency_ms=float("inf")),
            r"candidates\[1\].latency_ms: expected a number",
        ),
        (
            lambda d: d["candidates"][1].update(context_window=2**63),
            r"candidates\[1\].context_window: expected a whole",
        ),
        (lambda d: d["candidates"][1].update(source={"made": "\udc00"}), r"candidates\[1\].source: expected its name"),
        (lambda d: d["candidates"][1].update(source=3), r"candidates\[1\].source: expected its name"),
        (
            lambda d: d["candidates"][0].update(tiers=[TIER, TIER]),
            r"candidates\[0\].tiers\[1\].above_tokens: .* overlap",
        ),
        (lambda d: d["candidates"][0].update(cache_min_tokens=9), r"candidates\[0\].cached_read_usd_per_1m: expected"),
        (
            lambda d: d["candidates"][0].update(input_usd_above_200k=9),
            r"candidates\[0\]: has unknown input_usd_above_200k",
        ),
    ],
)
def test_a_bad_candidates_file_is_named(candidates, change, message):
    document = json.loads(candidates.read_text())
    change(document)
    candidates.write_text(json.dumps(document))
    with pytest.raises(InvalidInputError, match=message):
        read_candidates(candidates)


def test_a_key_that_stands_twice_is_refused(candidates):
    candidates.write_text('{"date": "2026-11-24", "date": "2026-11-25", "candidates": []}')
    with pytest.raises(InvalidInputError, match="'date' stands twice"):
        read_candidates(candidates)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"created": "2026-13-45"}, "created: expected a date YYYY-MM-DD, got '2026-13-45'"),
        ({"created": "20261124"}, "created: expected a date"),
        ({"name": ""}, "name: expected a text that is not blank"),
        ({"name": "\ud83d"}, "name: expected a text .* Unicode"),
        ({"out": "FILE"}, "out: expected a folder to write to, got .*/file: .*/file is no folder"),
        ({"out": "FILE/below/it"}, "out: expected a folder .*/file is no folder"),
        ({"cache": "FILE"}, "cache: expected a folder"),
        ({"estimator": "paper", "run": "FILE"}, "run: expected a folder"),
    ],
)
def test_what_cannot_be_written_is_told_before_any_fit(source, candidates, tmp_path, more, message):
    (tmp_path / "file").touch()
    said = []
    given = {"out": tmp_path / "root", "name": "t", "created": "2026-11-24", "progress": said.append}
    given |= {key: value.replace("FILE", str(tmp_path / "file")) for key, value in more.items()}
    with pytest.raises(InvalidInputError, match=message):
        train(source, candidates, **given)
    assert said == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"max_tokens": 64}, "max_tokens: of a transformer"),
        ({"pooling": "cls", "dtype": "int8"}, "pooling, dtype: of a transformer"),
        ({"contained": False}, "contained: of a transformer"),
    ],
)
def test_what_only_a_transformer_has_is_refused_beside_a_table(source, candidates, tmp_path, more, message):
    with pytest.raises(InvalidInputError, match=message):
        train(source, candidates, tmp_path / "root", name="t", created="2026-11-24", **more)


def test_a_bundle_is_no_root_for_bundles(source, candidates, tmp_path):
    given = {"name": "t", "created": "2026-11-24", "estimator": "plain", "allow_constant": True}
    made = train(source, candidates, tmp_path / "root", **given)
    with pytest.raises(InvalidInputError, match=r"out: expected a folder of bundles, got .*, which is a bundle"):
        train(source, candidates, made.folder, **given)


def test_too_few_output_tokens_are_told_apart_from_too_few_qualities(source, candidates, tmp_path):
    rows = [row.split(",") for row in (source / "outcomes.csv").read_text().splitlines()]
    kept = [row[:3] + ([""] if row[1] == "m1" else row[3:]) for row in rows]
    (source / "outcomes.csv").write_text("\n".join(map(",".join, kept)) + "\n")
    with pytest.raises(
        InvalidInputError, match=r"'house/small' has output_tokens on 0 prompts .* record how many tokens"
    ):
        train(source, candidates, tmp_path / "root", name="t", created="2026-11-24")


def test_prices_of_the_candidates_file_may_say_more_and_are_trained_with(source, candidates, tmp_path):
    document = json.loads(candidates.read_text())
    document["candidates"][0].update(tiers=[TIER], cached_read_usd_per_1m=0.1, cache_min_tokens=4)
    candidates.write_text(json.dumps(document))
    made = train(
        source, candidates, tmp_path / "root", name="t", created="2026-11-24", estimator="plain", allow_constant=True
    )
    price = Bundle.load(made.folder).prices.prices[document["candidates"][0]["name"]]
    assert (price.tiers[0].above_tokens, price.tiers[0].output_usd_per_1m, price.cache_min_tokens) == (3, 9.0, 4)


def test_a_price_that_is_none_is_refused_and_nothing_is_written(source, candidates, tmp_path):
    document = json.loads(candidates.read_text())
    document["candidates"][0]["input_usd_per_1m"] = -1
    candidates.write_text(json.dumps(document))
    with pytest.raises(InvalidInputError, match="input_usd_per_1m"):
        train(source, candidates, tmp_path / "root", name="t", created="2026-11-24", estimator="plain")
    assert not (tmp_path / "root" / "CURRENT").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--estimator", "deep"], "estimator: expected 'auto' or one of plain"),
        (["--estimator", "plain", "--option", "hidden=8"], "options: plain has none, got hidden"),
        (["--option", "hidden"], "--option: expected NAME=VALUE"),
        (["--outcomes", "/nowhere"], "expected a folder"),
        (["--candidates", "/nowhere.json"], "candidates: expected a JSON file"),
        (["--split", "validation"], "validation"),
    ],
)
def test_bad_arguments_are_named(source, candidates, tmp_path, capsys, more, message):
    base = ["--outcomes", str(source), "--candidates", str(candidates), "--out", str(tmp_path / "root")]
    assert main(["train", *base, *more]) == 1
    assert message in capsys.readouterr().err
