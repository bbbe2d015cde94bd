"""`ipr train --task-column`: heads tell tasks apart, from outcomes to a decision, an evaluation and a candidate more."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle
from ipr_engine.bundle.origin import task_column
from ipr_engine.cli import main
from ipr_engine.data import load_outcomes, write_outcomes
from ipr_engine.data.task_rows import task_rows
from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.embedded import embed_rows
from ipr_engine.training.fitted_heads import HeadRows, fit_heads, predict
from ipr_engine.training.task_offsets import SHRINK, WIDTH, quality_offsets, token_offsets
from ipr_engine.training.training_tasks import FEWEST_PROMPTS, learnt_tasks
from tests.support import skips
from tests.support.evaluation_data import evaluate_engine
from tests.support.seeds import seeded
from tests.support.training_data import add_model, make_world, train

pytest.importorskip("threadpoolctl", reason="needs extra [train]: a repeatable fit")

NAMES = ("house/big", "house/small", "other/mid")
WORDS = ("prove", "sum", "story", "python", "river", "integral", "poem", "loop", "triangle", "banana")
TASKS = ("easy", "hard", "mixed")
OPTIONS = {"plain": {}, "caps": {"caps": 8}, "forest": {"trees": 10, "depth": 4, "caps": 8}}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return outcomes of 300 prompts whose words say nothing: the task says how good the small candidate is; and the candidates."""
    rng, folder = seeded("train tasks"), tmp_path_factory.mktemp("data") / "made"
    folder.mkdir()
    prompts = [("prompt_id", "prompt", "split", "task", "dataset")]
    outcomes = [("prompt_id", "model", "quality", "output_tokens")]
    for n in range(300):
        task = TASKS[n % 3] if n % 25 else ("rare" if n % 50 else "")
        words = rng.choice(WORDS, 6)
        split = "train" if n < 225 else "test"
        prompts.append((f"p{n:03d}", f"{' '.join(words)} number {n}", split, task, "set"))
        for m in range(3):
            right = rng.random() < (0.9, {"easy": 0.95, "hard": 0.1}.get(task, 0.5), 0.7)[m]
            outcomes.append(
                (f"p{n:03d}", f"m{m}", float(right), int(rng.integers(40, 60)) * (5 if task == "hard" else 1))
            )
    for name, rows in (("prompts", prompts), ("outcomes", outcomes)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    entries = [
        {"name": name, "source": f"m{m}", "family": name.split("/")[0], "provider": "test"}
        | {"input_usd_per_1m": 4.0 / 2**m, "output_usd_per_1m": 8.0 / 2**m, "context_window": 4096}
        for m, name in enumerate(NAMES)
    ]
    candidates = folder.parent / "candidates.json"
    candidates.write_text(json.dumps({"date": "2026-11-24", "candidates": entries}))
    fewer = folder.parent / "fewer.json"
    fewer.write_text(json.dumps({"date": "2026-11-24", "candidates": entries[:2]}))
    return folder, candidates, fewer


def fit(files, out, estimator, **more):
    folder, candidates, _ = files
    given = {"name": "t", "created": "2026-11-24", "allow_constant": True, "task_column": "task"}
    return train(folder, candidates, out, **{**given, "estimator": estimator, "options": OPTIONS[estimator], **more})


@pytest.fixture(scope="module", params=list(OPTIONS))
def trained(request, files, tmp_path_factory):
    if request.param == "forest":
        pytest.importorskip("sklearn", reason=skips.TREES)
    encoder = ["default", "surface"] if request.param == "forest" else None
    return fit(files, tmp_path_factory.mktemp("root"), request.param, encoder=encoder)


def test_the_task_decides_where_the_words_say_nothing(trained):
    engine = Engine.load(trained.folder)
    assert list(trained.tasks) == list(TASKS)
    assert engine.bundle.tasks == set(TASKS)
    prompts = [f"{word} {word} number {n}" for n, word in enumerate(WORDS)]
    means = {task: engine.route_many(prompts, tau=0.2, task=task) for task in (*TASKS, None, "rare")}
    quality = {task: float(made.qualities[:, 1].mean()) for task, made in means.items()}
    assert quality["hard"] < 0.35 < quality[None] < 0.75 < quality["easy"]
    assert quality["rare"] == quality[None]
    tokens = {task: float(made.tokens_out[:, 0].mean()) for task, made in means.items()}
    assert tokens["hard"] > 2 * tokens["easy"]


def test_the_bundle_says_which_column_and_which_tasks(trained):
    bundle = Bundle.load(trained.folder)
    assert task_column(bundle) == "task"
    assert bundle.provenance["tasks"] == dict(trained.tasks)
    assert all(count >= FEWEST_PROMPTS for count in trained.tasks.values())
    assert bundle.support.centroids.shape[1] == bundle.encoder(bundle.quality_heads.encoder).embedding_dim == 256


def test_embedded_rows_are_decided_for_their_tasks(trained, files):
    engine, outcomes = Engine.load(trained.folder), load_outcomes(files[0], split="test")
    tasks = task_rows(engine.bundle, outcomes)
    assert set(tasks) == {*TASKS, "rare", None}
    made = embed_rows(engine, outcomes).decide(tau=0.2)
    asked = engine.route_many(list(outcomes.prompts), tau=0.2, task=list(tasks))
    assert made.qualities.tobytes() == asked.qualities.tobytes()
    assert embed_rows(engine, outcomes).embedding.shape[1] == 256


def test_training_twice_gives_the_same_bytes(trained, files, tmp_path):
    encoder = ["default", "surface"] if trained.estimator == "forest" else None
    key = trained.folder.parent / "owner.key"
    assert fit(files, tmp_path, trained.estimator, key=key, encoder=encoder).folder.name == trained.folder.name


def test_a_candidate_is_added_with_the_tasks_of_its_prompts(files, tmp_path):
    folder, candidates, fewer = files
    given = {"name": "t", "created": "2026-11-24", "allow_constant": True, "task_column": "task", "estimator": "plain"}
    base = train(folder, fewer, tmp_path / "root", **given).folder.parent
    added = add_model(base, candidates, outcomes=folder, created="2026-11-24")
    engine, whole = Engine.load(added.folder), fit(files, tmp_path / "whole", "plain")
    assert engine.bundle.names[-1] == NAMES[2]
    assert task_column(engine.bundle) == "task"
    assert engine.bundle.path_rows is not None  # found again among the outcomes, so embedded as they were
    assert engine.bundle.path_rows.candidates == NAMES
    assert set(Bundle.load(whole.folder).tasks) == set(engine.bundle.tasks)


def test_without_a_column_nothing_is_read_and_that_is_told(files, tmp_path):
    told: list[str] = []
    made = fit(files, tmp_path, "plain", task_column=None, progress=told.append)
    assert Bundle.load(made.folder).tasks == frozenset()
    assert "tasks" not in Bundle.load(made.folder).provenance
    assert any("--task-column task" in line for line in told)


def test_one_task_for_all_tells_nothing_apart(files, tmp_path):
    told: list[str] = []
    made = fit(files, tmp_path, "plain", task_column="dataset", progress=told.append)
    assert made.tasks == {}
    assert any("no tasks are told apart: every prompt is for 'set'" in line for line in told)
    assert "task" not in {entry["kind"] for entry in json.loads((made.folder / "bundle.json").read_text())["encoders"]}


def test_tasks_of_few_prompts_get_no_column():
    told: list[str] = []
    tasks = ["b"] * FEWEST_PROMPTS + ["a"] * (FEWEST_PROMPTS - 1) + [None] * 5
    assert learnt_tasks(tasks, told.append) == {"b": FEWEST_PROMPTS}
    assert "'a'" in told[0]
    assert learnt_tasks(tasks[FEWEST_PROMPTS:], told.append) == {}
    many = [f"task {n:03d}" for n in range(300) for _ in range(FEWEST_PROMPTS + (n < 256))]
    assert list(learnt_tasks(many)) == [f"task {n:03d}" for n in range(256)]


def test_a_column_that_is_not_there_is_refused_by_name(files, tmp_path):
    with pytest.raises(InvalidInputError, match="task_column: expected one of task, dataset, got 'prompt'"):
        fit(files, tmp_path, "plain", task_column="prompt")
    bare = tmp_path / "bare"
    outcomes = load_outcomes(files[0])
    write_outcomes(outcomes.take(np.flatnonzero([task == "" for task in outcomes.tasks])), bare, format="jsonl")
    with pytest.raises(InvalidInputError, match="task_column: expected 'task' in the prompts of bare"):
        load_outcomes(bare).tasks_by("task")


def test_heads_refused_as_constant_may_be_fitted_without_tasks(files, tmp_path):
    with pytest.raises(InvalidInputError, match=r"are constant: .*; fit without --task-column \(task_column=None\)"):
        fit(files, tmp_path, "plain", allow_constant=False)
    with pytest.raises(InvalidInputError, match="are constant: ") as refused:
        fit(files, tmp_path, "plain", allow_constant=False, task_column=None)
    assert "--task-column" not in str(refused.value)


def test_the_command_tells_its_tasks(files, tmp_path, capsys):
    folder, candidates, _ = files
    given = ["--outcomes", str(folder), "--candidates", str(candidates), "--out", str(tmp_path), "--no-standing"]
    assert main(["train", *given, "--estimator", "plain", "--allow-constant", "--task-column", "task", "--json"]) == 0
    out, err = capsys.readouterr()
    assert list(json.loads(out)["tasks"]) == list(TASKS)
    assert "3 tasks are told apart: 'easy' " in err
    assert main(["route", "--bundle", str(tmp_path), "--task", "hard", "--json", "a sum"]) == 0
    assert json.loads(capsys.readouterr().out)["decision"]["task_known"] is True
    for task, marked in (("hard", False), ("else", True)):
        assert main(["route", "--bundle", str(tmp_path), "--task", task, "a sum"]) == 0
        assert ("[task unknown: decided without]" in capsys.readouterr().out) is marked
    assert main(["explain", "--bundle", str(tmp_path), "--task", "else", "a sum"]) == 0
    assert "task 'else': not known to this bundle" in capsys.readouterr().out
    assert main(["info", "--bundle", str(tmp_path)]) == 0
    assert "tasks told apart: 'easy', 'hard', 'mixed'\n" in capsys.readouterr().out
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        '{"prompt": "a sum", "task": "easy"}\n{"prompt": "a sum"}\n{"prompt": "a sum", "task": 7}\n{"prompt": "a sum", "task": ["easy"]}\n'
    )
    assert main(["route", "--bundle", str(tmp_path), "--task", "hard", "--jsonl", str(rows)]) == 3
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["decision"]["task"] for line in lines[:2]] == ["easy", "hard"]
    assert lines[0]["task"] == "easy"  # carried through as well
    assert lines[2]["error"] == "task: expected a text, got int"
    assert lines[3]["error"] == "task: expected a text, got list of str"


@pytest.mark.parametrize("estimator", ["plain", "advantage_shared", "caps", "forest"])
def test_who_names_no_task_is_decided_as_by_heads_without_tasks(estimator):
    if estimator == "forest":
        pytest.importorskip("sklearn", reason=skips.TREES)
    world, rng = make_world("unseen task", rows=800), seeded("unseen task")
    task = rng.integers(0, 5, 800)  # the last one is of no column
    level = np.array([0.4, -0.2, -0.4, 0.2, 0.0])
    quality = (rng.random(world.chance.shape) < np.clip(world.chance + level[task, None], 0, 1)).astype(float)
    quality[rng.random(quality.shape) < 0.1] = np.nan
    tokens = world.tokens * np.array([1, 2, 4, 1, 1])[task, None]
    columns, surface = np.eye(5)[task][:, :4], rng.random((800, 3))
    x = np.concatenate([world.x, columns, surface], axis=1)
    heads = fit_heads(HeadRows(x, quality, tokens, world.keys, surface_dim=3, task_dim=4), estimator=estimator)
    plain_x = np.concatenate([world.x, surface], axis=1)
    plain = fit_heads(HeadRows(plain_x, quality, tokens, world.keys, surface_dim=3), estimator=estimator)
    bare = np.concatenate([world.x, np.zeros((800, 4)), surface], axis=1)
    without = predict(heads.tensors, bare, heads.activation)
    expected = predict(plain.tensors, plain_x, plain.activation)
    np.testing.assert_array_equal(without[0], expected[0])
    np.testing.assert_array_equal(without[1], expected[1])
    assert np.array_equal(heads.out_of_fold_quality[task == 4], plain.out_of_fold_quality[task == 4])
    if "trunk" in heads.tensors:
        assert not heads.tensors["trunk"][:, 13:17].any()  # no region of x is one of tasks
    seen = predict(heads.tensors, x, heads.activation)[0]
    for one in range(4):
        judged = ~np.isnan(quality[task == one])
        told = (seen[task == one][judged].mean(), heads.out_of_fold_quality[task == one][judged].mean())
        assert np.abs(np.array(told) - quality[task == one][judged].mean()).max() < 0.06
    error = [np.nanmean(np.square(one.out_of_fold_quality - quality)) for one in (heads, plain)]
    assert error[0] < error[1] - 0.01
    spent = [np.nanmean(np.abs(np.log(one.out_of_fold_tokens / tokens))) for one in (heads, plain)]
    assert spent[0] < spent[1]


def test_an_offset_is_the_most_probable_one():
    rng = seeded("task offsets")
    logit, tasks = rng.standard_normal((60, 2)) * 3, np.eye(3)[rng.integers(0, 3, 60)]
    tasks[:9] = 0
    quality = (rng.random((60, 2)) < 0.9).astype(float)
    quality[5:20, 1] = np.nan
    offsets = quality_offsets(logit, quality, tasks)

    def loss(b):
        chance = 1 / (1 + np.exp(-(logit + tasks @ b)))
        likelihood = quality * np.log(chance) + (1 - quality) * np.log(1 - chance)
        return -np.nansum(likelihood) + np.square(b / WIDTH).sum() / 2

    for step in (1e-3, -1e-3):
        for at in np.ndindex(offsets.shape):
            moved = offsets.copy()
            moved[at] += step
            assert loss(moved) > loss(offsets)
    never = quality_offsets(np.full((40, 1), -30.0), np.ones((40, 1)), np.ones((40, 1)))
    assert np.isfinite(never).all()
    few = token_offsets(np.full((4, 1), 10.0), np.array([[20.0], [20.0], [20.0], [np.nan]]), np.ones((4, 1)))
    assert few.item() == pytest.approx(3 * np.log(2) / (3 + SHRINK))


def test_outcomes_keep_their_tasks(files, tmp_path):
    outcomes = load_outcomes(files[0])
    assert set(outcomes.tasks) == {*TASKS, "rare", ""}
    again = load_outcomes(write_outcomes(outcomes, tmp_path / "copy", format="jsonl"))
    assert again.tasks == outcomes.tasks
    assert outcomes.of_split("test").tasks == outcomes.tasks[225:]


@pytest.mark.parametrize("column", ["task", "dataset"])
def test_a_column_that_holds_no_tasks_is_an_error_of_who_asks_for_them_alone(files, tmp_path, column):
    for file in files[0].glob("*.csv"):
        text = file.read_text().replace(
            *{"task": (",easy,", f",{'x' * 201},"), "dataset": (",set", f",{'x' * 201}")}[column]
        )
        (tmp_path / file.name).write_text(text)
    outcomes = load_outcomes(tmp_path)
    assert len(outcomes) == 300
    with pytest.raises(InvalidInputError, match=rf"(?s)task_column: .*'{column}'.*a text of 1 to 200 characters"):
        outcomes.of_split("test").tasks_by(column)
    with pytest.raises(InvalidInputError, match=rf"(?s)task_column: .*'{column}'"):
        fit((tmp_path, *files[1:]), tmp_path / "root", "plain", task_column=column)


def test_a_column_task_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "prompts.jsonl").write_text(
        '{"prompt_id": "a", "prompt": "sum", "task": 1.5}\n{"prompt_id": "b", "prompt": "poem", "task": ["x"]}\n'
    )
    (tmp_path / "outcomes.jsonl").write_text('{"prompt_id": "a", "model": "m", "quality": 1}\n')
    outcomes = load_outcomes(tmp_path)
    assert outcomes.tasks == ()
    with pytest.raises(
        InvalidInputError, match=r"task_column: 2 bad rows:\n  prompts\.jsonl, row 1, column 'task': expected text"
    ):
        outcomes.tasks_by("task")


@pytest.mark.parametrize("cross_fit", [False, True])
def test_an_evaluation_decides_each_prompt_for_its_task(files, tmp_path, monkeypatch, cross_fit):
    outcomes = load_outcomes(files[0])
    asked = []
    decided = Engine.decide

    def decide(self, x, *a, **b):
        asked.append(x.x[:, 256:])
        return decided(self, x, *a, **b)

    monkeypatch.setattr(Engine, "decide", decide)
    engine = Engine.load(fit(files, tmp_path, "plain").folder)
    figures = evaluate_engine(engine, outcomes, draws=3, cross_fit=cross_fit).figures
    assert figures["prediction"][0]
    assert asked
    for columns in asked:  # most prompts are for one of the three, none for two
        assert set(columns.sum(axis=1)) <= {0.0, 1.0}
        assert columns.sum() > 0.8 * len(columns)
