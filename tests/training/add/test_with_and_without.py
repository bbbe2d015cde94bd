"""Does a new candidate help routing: the same prompts with it and without, and the sentences made of that."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ipr_engine.bundle import Bundle
from ipr_engine.data import MEASURES, load_outcomes, write_outcomes
from ipr_engine.measures.resampling import Estimate
from ipr_engine.training.add.routing_help import RoutingHelp
from studies.default_bundle.recipe import CANDIDATES
from tests.support import skips
from tests.support.seeds import seeded
from tests.support.training_data import add_model, train

pytest.importorskip("threadpoolctl", reason="needs extra [train]: a repeatable fit")
pytest.importorskip("pyarrow", reason=skips.TRAIN)

WORDS = ("prove", "sum", "story", "python", "river", "integral", "poem", "loop", "triangle", "banana")
HARD = ("prove", "integral", "triangle", "sum", "loop")
RATES = {"old/dear": 40.0, "old/cheap": 1.0, "new/one": 4.0}


def write(folder, *, skill, answers=300, rows=300):
    """Write a source: the dear candidate is always good, the cheap one on easy prompts alone, the new one by `skill` of hard ones."""
    from pyarrow import Table, parquet

    rng = seeded("with and without", skill)
    folder.mkdir()
    prompts, outcomes = [], []
    for n in range(rows):
        hard = n % 2 == 0
        words = rng.choice(HARD if hard else [w for w in WORDS if w not in HARD], 8)
        prompts.append({"prompt_id": f"p{n:03d}", "prompt": f"{' '.join(words)} {n}", "split": "train"})
        chance = {"old/dear": 0.95, "old/cheap": 0.1 if hard else 0.95, "new/one": skill if hard else 0.95}
        for name, right in chance.items():
            if name == "new/one" and n >= answers:
                continue
            quality = float(rng.random() < right)
            outcomes.append({"prompt_id": f"p{n:03d}", "model": name, "quality": quality, "output_tokens": 100})
    parquet.write_table(Table.from_pylist(prompts), folder / "prompts.parquet")
    parquet.write_table(Table.from_pylist(outcomes), folder / "outcomes.parquet")
    return folder


def listed(path, names, rates):
    entries = [
        {"name": name, "family": name.split("/")[0], "provider": "test", "features": []}
        | {"input_usd_per_1m": rates[name], "output_usd_per_1m": rates[name]}
        for name in names
    ]
    path.write_text(json.dumps({"date": "2026-11-24", "candidates": entries}))
    return path


def added(tmp_path, *, rate=4.0, **given):
    source, rates = write(tmp_path / "made", **given), RATES | {"new/one": rate}
    old, every = (listed(tmp_path / f"{n}.json", list(rates)[:n], rates) for n in (2, 3))
    train(
        source,
        old,
        tmp_path / "root",
        name="t",
        created="2026-11-24",
        estimator="advantage_shared",
        allow_constant=True,
    )
    return add_model(tmp_path / "root", every, created="2026-11-25", outcomes=source)


def test_a_cheap_candidate_that_is_good_where_the_cheapest_is_not_helps(tmp_path):
    made = added(tmp_path, skill=0.95)
    helps = made.help
    assert (helps.candidate, helps.best, helps.prompts) == ("new/one", "old/dear", 300)
    assert helps.gain[0].high < 0 < helps.gain[1].low
    assert helps.beside[0].value < helps.without[0].value
    assert helps.verdict == "helps"
    figures, advice = helps.says()
    assert "98% of old/dear's quality costs" in figures
    assert advice.startswith("new/one helps routing; twice the answers moved the area by ")
    kept = Bundle.load(made.folder).provenance["added"]["new/one"]["help"]
    assert kept == json.loads(json.dumps(helps.to_json()))
    assert kept["verdict"] == "helps"


def test_a_candidate_of_few_answers_is_judged_on_these_alone_and_not_on_imputed_ones(tmp_path):
    made = added(tmp_path, skill=0.95, answers=80)
    assert made.imputed > 0
    assert made.help.prompts == 80


def test_a_candidate_that_adds_nothing_is_advised_against(tmp_path):
    made = added(tmp_path, skill=0.1, rate=60.0)
    assert made.help.verdict != "helps"
    assert "leave it out of `allowed`" in made.help.says()[1]


def test_too_few_prompts_say_nothing(tmp_path):
    made = added(tmp_path, skill=0.95, answers=30)
    assert made.help.verdict == "not told"
    assert made.help.says() == [
        "whether new/one helps routing is not told: 30 prompts have outcomes and output tokens of it and of 2 others, fewer than 50 or "
        "than 2"
    ]


def test_on_real_outcomes_a_candidate_left_out_is_judged_with_200_answers(request, tmp_path):
    """Of zeroeval: the cheapest good candidate, left out, is never said to harm, and the figures are of its own answers."""
    folder = request.config.getoption("--outcomes")
    if folder is None:
        pytest.skip(skips.OUTCOMES)
    name = "gpt-4o-mini-2024-07-18"
    document = json.loads(CANDIDATES.read_text())
    table = load_outcomes(Path(folder) / "zeroeval", split="train")
    column = table.models.index(name)
    judged = np.flatnonzero(~np.isnan(table.quality[:, column]))
    hidden = np.ones(len(table), bool)
    hidden[seeded("left out").permutation(judged)[:200]] = False
    measures = {measure: getattr(table, measure).copy() for measure in MEASURES}
    for values in measures.values():
        values[hidden, column] = np.nan
    source = tmp_path / "zeroeval"
    source.mkdir()
    write_outcomes(replace(table, **measures), source, format="parquet")
    every, old = tmp_path / "every.json", tmp_path / "old.json"
    every.write_text(json.dumps(document))
    left = [one for one in document["candidates"] if one["name"] != name]
    old.write_text(json.dumps(document | {"candidates": left}))
    train(
        source,
        old,
        tmp_path / "root",
        name="t",
        created="2026-11-24",
        estimator="advantage_shared",
        allow_constant=True,
    )
    helps = add_model(tmp_path / "root", every, created="2026-11-25", outcomes=source).help
    assert helps.why_not is None
    assert 190 <= helps.prompts <= 200
    assert helps.verdict != "harms"
    assert len(helps.doubling) == 2


@pytest.mark.parametrize(
    ("cost", "area", "verdict"),
    [
        ((-0.2, -0.01), (-1, 1), "helps"),
        ((-1, 1), (0.01, 0.2), "helps"),
        ((0.01, 0.2), (-1, 1), "harms"),
        ((-1, 1), (-0.2, -0.01), "harms"),
        ((-0.2, -0.01), (-0.2, -0.01), "not told"),
        ((-1, 1), (-1, 1), "not told"),
        ((np.nan, np.nan), (np.nan, np.nan), "not told"),
    ],
)
def test_the_verdict_is_what_the_intervals_tell(cost, area, verdict):
    one = (Estimate(0.5, 0.4, 0.6),) * 2
    gain = (Estimate(0.0, *cost), Estimate(0.0, *area))
    helps = RoutingHelp("new", 200, "best", one, one, gain)
    assert helps.verdict == verdict
    assert ("leave it out of `allowed`" in helps.says()[1]) == (verdict != "helps")
    assert helps.says()[1].endswith("whether more answers would help cannot be told from so few")
