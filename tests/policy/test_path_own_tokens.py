"""Path rows hold each candidate's own input tokens, so that tau's path bills what a decision bills."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle, BundleParts, write_bundle
from ipr_engine.bundle.edit import without_candidate
from ipr_engine.data import load_outcomes
from ipr_engine.errors import BundleError
from ipr_engine.policy.cost_weights import row_costs
from ipr_engine.policy.tau_path import TauPath
from tests.support.hard_words import CREATED, NAMES, write_outcomes
from tests.support.path_rows import assert_equal_rows, make_path_rows, with_path_rows
from tests.support.tokenized_bundles import RUSSIAN, tokenized_parts
from tests.support.training_data import add_model, train

pytest.importorskip("threadpoolctl", reason="needs extra [train]: a repeatable fit")

TEXTS = ["what is the story", RUSSIAN, "explain " * 40, "空はなぜ青いのか", '{"a": [1, 22, 333]}'] * 8


def counted_bundle(folder: Path, **changed: Any) -> Bundle:
    """A bundle whose path rows are of TEXTS, with what the engine bills for them."""
    parts = tokenized_parts(folder / "sources")
    plain = Engine.load(write_bundle(folder / "plain", BundleParts(**parts)))
    made = plain.route_many(TEXTS, tau=0.5, rule="minmax")
    rows = replace(
        make_path_rows([c.name for c in parts["candidates"]], rows=len(TEXTS)),
        billed_tokens=made.billed_tokens.astype(np.uint32),
        tokens_in=made.own_tokens,
        **changed,
    )
    return Bundle.load(write_bundle(folder / "bundles", BundleParts(**with_path_rows(parts, rows))))


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return counted_bundle(tmp_path_factory.mktemp("counted"))


# -- in a bundle


def test_own_tokens_are_read_as_they_were_written(tmp_path: Path) -> None:
    parts = with_path_rows(tokenized_parts(tmp_path / "sources"), rows=7, own=True)
    folder = write_bundle(tmp_path / "bundles", BundleParts(**parts))
    assert json.loads((folder / "bundle.json").read_text())["schema_version"] == 6
    bundle = Bundle.load(folder)
    assert_equal_rows(bundle.path_rows, parts["path_rows"])
    left = [name for name in bundle.names if name != bundle.names[1]]
    after = Bundle.load(without_candidate(bundle, bundle.names[1]))
    assert bundle.path_rows is not None
    assert_equal_rows(after.path_rows, bundle.path_rows.of(left))


def test_a_bundle_of_tokenizers_whose_rows_hold_no_own_tokens_loads(tmp_path: Path) -> None:
    parts = with_path_rows(tokenized_parts(tmp_path / "sources"), rows=7)
    bundle = Bundle.load(write_bundle(tmp_path / "bundles", BundleParts(**parts)))
    assert bundle.path_rows is not None
    assert bundle.path_rows.tokens_in is None
    assert Engine(bundle).policy(tau=0.5).rule == "path"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda own: -own, "tokens_in: expected values >= 0"),
        (lambda own: own * np.float32("inf"), "tokens_in.* finite"),
        (lambda own: own[:, :-1], "tokens_in.*models"),
        (lambda own: own.astype(np.float64), "tokens_in: expected a float32 array"),
    ],
)
def test_wrong_own_tokens_are_refused_by_name(tmp_path: Path, wrong: Any, named: str) -> None:
    parts = with_path_rows(tokenized_parts(tmp_path / "sources"), rows=7, own=True)
    rows = parts["path_rows"]
    with pytest.raises(BundleError, match=named):
        write_bundle(
            tmp_path / "bundles", BundleParts(**{**parts, "path_rows": replace(rows, tokens_in=wrong(rows.tokens_in))})
        )


def test_own_tokens_are_refused_before_schema_version_6(tmp_path: Path) -> None:
    parts = with_path_rows(tokenized_parts(tmp_path / "sources", (None, None)), rows=7, own=True)
    folder = write_bundle(tmp_path / "bundles", BundleParts(**parts))
    old = Path(shutil.copytree(folder, tmp_path / "old"))
    manifest = json.loads((folder / "bundle.json").read_text())
    (old / "bundle.json").write_text(json.dumps({**manifest, "schema_version": 5}))
    with pytest.raises(BundleError, match="tokens_in: expected no such tensor before schema_version 6"):
        Bundle.load(old)


# -- what it decides


def test_costs_of_rows_are_those_of_the_op_for_the_same_texts(counted: Bundle) -> None:
    rows, engine = counted.path_rows, Engine(counted)
    assert rows is not None
    ours = row_costs(rows.tokens_out, rows.billed_tokens, counted.candidates, counted.prices, tokens_in=rows.tokens_in)
    theirs = engine.decide(engine.encode(TEXTS), tau=0.5, tokens_out=rows.tokens_out)
    np.testing.assert_allclose(ours, theirs.costs_usd, rtol=1e-6)
    by_ratio = row_costs(rows.tokens_out, rows.billed_tokens, counted.candidates, counted.prices)
    assert np.abs(by_ratio / theirs.costs_usd - 1).max() > 0.05  # the bundle's count bills Russian otherwise


def test_the_path_and_the_best_single_are_computed_from_own_tokens(counted: Bundle, tmp_path: Path) -> None:
    rows, engine = counted.path_rows, Engine(counted)
    assert rows is not None
    cost = row_costs(rows.tokens_out, rows.billed_tokens, counted.candidates, counted.prices, tokens_in=rows.tokens_in)
    wanted = TauPath.fit(rows.quality.astype(np.float64), rows.realised(), cost, counted.tie_rank)
    path = engine.policy(tau=0.5).path
    assert path is not None
    np.testing.assert_array_equal(path.single_usd, wanted.single_usd)
    np.testing.assert_array_equal(path.worth, wanted.worth)
    # equal outcomes everywhere: the best single is the one of least mean cost, by own tokens
    level = counted_bundle(
        tmp_path,
        outcome=np.full_like(rows.outcome, 254),
        tokens_out=np.zeros_like(rows.tokens_out),
    )
    policy = Engine(level).policy(
        tau=0.5, rule="minmax", min_support=0.5, unsupported="best", prices=dict.fromkeys(level.names, (2.0, 2.0))
    )
    assert level.path_rows is not None
    assert level.path_rows.tokens_in is not None
    cheapest = np.lexsort((level.tie_rank, level.path_rows.tokens_in.mean(axis=0)))[0]
    assert policy.unsupported.candidate == level.names[cheapest]


# -- from outcomes


def listed(path: Path, which: dict[int, str | None]) -> Path:
    entries = [
        {"name": NAMES[m], "source": f"m{m}", "family": NAMES[m].split("/")[0], "provider": "test"}
        | {"input_usd_per_1m": 4.0 / 2**m, "output_usd_per_1m": 8.0 / 2**m}
        | ({} if tokenizer is None else {"tokenizer": tokenizer})
        for m, tokenizer in which.items()
    ]
    path.write_text(json.dumps({"date": CREATED, "candidates": entries}))
    return path


def trained(source: Path, folder: Path, which: dict[int, str | None]) -> Bundle:
    folder.mkdir()
    file = listed(folder / "candidates.json", which)
    made = train(source, file, folder / "root", name="t", created=CREATED, estimator="plain", allow_constant=True)
    return Bundle.load(made.folder)


def billed_by(bundle: Bundle, source: Path) -> list[tuple[float, ...]]:
    """What its engine bills for the prompts of the outcomes that have one, sorted."""
    data = load_outcomes(source)
    judged = ~np.isnan(data.quality).all(axis=1)
    prompts = [prompt for prompt, some in zip(data.prompts, judged, strict=True) if some]
    own = Engine(bundle).route_many(prompts, tau=0.5).own_tokens
    assert own is not None
    return sorted(map(tuple, own.tolist()))


def own_of(bundle: Bundle) -> list[tuple[float, ...]]:
    assert bundle.path_rows is not None
    assert bundle.path_rows.tokens_in is not None
    return sorted(map(tuple, bundle.path_rows.tokens_in.tolist()))


def test_trained_rows_hold_what_the_engine_bills_and_a_new_candidates_column_too(tmp_path: Path) -> None:
    source = write_outcomes(tmp_path / "home")
    base = trained(source, tmp_path / "base", {0: "o200k_base", 1: None, 2: "claude_2"})
    assert own_of(base) == billed_by(base, source)
    plain = trained(source, tmp_path / "plain", {0: None, 1: None, 2: None})
    assert plain.path_rows is not None
    assert plain.path_rows.tokens_in is None
    for number, (before, tokenizer) in enumerate([(base, "deepseek"), (base, None), (plain, "deepseek")]):
        new = listed(tmp_path / f"new{number}.json", {3: tokenizer})
        added = add_model(before.path, new, outcomes=source, created=CREATED, out=tmp_path / f"out{number}")
        grown = Bundle.load(added.folder)
        assert "gained a column" in str(added.path)
        assert own_of(grown) == billed_by(grown, source)


def test_new_rows_of_unseen_prompts_hold_what_the_engine_bills(tmp_path: Path) -> None:
    base = trained(write_outcomes(tmp_path / "home"), tmp_path / "base", {0: "o200k_base", 1: None, 2: "claude_2"})
    fresh = write_outcomes(tmp_path / "fresh", first=1000, rows=520, gaps=False)
    new = listed(tmp_path / "new.json", {3: "deepseek"})
    grown = Bundle.load(add_model(base.path, new, outcomes=fresh, created=CREATED, out=tmp_path / "out").folder)
    assert own_of(grown) == billed_by(grown, fresh)


def test_a_prior_takes_the_ratio_of_a_candidate_with_its_tokenizer(tmp_path: Path) -> None:
    base = trained(write_outcomes(tmp_path / "home"), tmp_path / "base", {0: "o200k_base", 1: None, 2: "claude_2"})
    ratios = {candidate.name: candidate.token_ratio for candidate in base.candidates}
    for number, (tokenizer, alike) in enumerate([("claude_2", "other/mid"), ("deepseek", "house/big")]):
        new = listed(tmp_path / f"new{number}.json", {3: tokenizer})
        added = add_model(base.path, new, like="house/big", created=CREATED, out=tmp_path / f"out{number}")
        assert Bundle.load(added.folder).candidates[3].token_ratio == ratios[alike]
