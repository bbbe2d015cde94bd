"""Bundles of kind task: what is written, what is refused, and where the columns stand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine._C import available_isas
from ipr_engine.bundle import (
    Bundle,
    BundleParts,
    ConcatenatedSource,
    TaskSource,
    UnsupportedDefault,
    task_identity,
    write_bundle,
)
from ipr_engine.bundle.task_names import LONGEST_TASK, MOST_TASKS
from ipr_engine.bundle.two_tiers import two_tiers
from ipr_engine.cli import main
from ipr_engine.encoders.concatenated import ConcatenatedEncoder
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.encoders.surface import SurfaceEncoder
from ipr_engine.encoders.task_columns import TaskColumns, mark_tasks
from ipr_engine.errors import (
    BundleError,
    BundleFormatError,
    BundleValueError,
    EncoderMismatchError,
    InvalidInputError,
)
from tests.support.bundles import make_bundle, make_encoder, make_tensors
from tests.support.surface_bundles import BOTH, SURFACE_DIM, TABLE_DIM
from tests.support.task_bundles import TASKS, make_task_bundle, task_parts
from tests.support.two_tier_bundles import make_prompts

PROMPTS = ("what is the story", "A) 1 B) 2", "Почему небо голубое?", "", "```\ncode\n```")


def manifest_of(folder):
    return json.loads((folder / "bundle.json").read_text())


@pytest.mark.parametrize("surface", [False, True])
def test_a_bundle_of_table_and_tasks_is_read_as_it_was_written(tmp_path, surface):
    folder = make_task_bundle(tmp_path, surface=surface)
    bundle = Bundle.load(folder)
    spec = bundle.encoder(BOTH)
    assert (spec.tasks, spec.surface_dim, spec.embedding_dim) == (TASKS, SURFACE_DIM * surface, TABLE_DIM)
    assert spec.dim == TABLE_DIM + len(TASKS) + SURFACE_DIM * surface
    assert bundle.encoder("tasks").identity == task_identity(TASKS) == TaskColumns(TASKS).identity
    assert bundle.tasks == set(TASKS)
    assert bundle.support.centroids.shape[1] == TABLE_DIM
    assert manifest_of(folder)["schema_version"] == 9
    again = write_bundle(tmp_path / "again", BundleParts(**task_parts(tmp_path / "sources", surface=surface)))
    assert again.name == folder.name  # equal input, equal bytes


def test_bundles_without_tasks_keep_their_version(tmp_path):
    bundle = make_bundle(tmp_path)
    assert manifest_of(bundle)["schema_version"] < 9
    assert Bundle.load(bundle).tasks == frozenset()


@pytest.mark.parametrize("surface", [False, True])
def test_one_call_embeds_as_the_parts_do(tmp_path, surface):
    table, tasks = StaticEncoder.from_folder(make_encoder(tmp_path / "table")), TaskColumns(TASKS)
    features = [SurfaceEncoder.load()] if surface else []
    both = ConcatenatedEncoder([table, tasks, *features])
    prompts = [*PROMPTS, *make_prompts(20, "tasks")]
    assert both.native is not None
    assert list(both.task_columns) == list(TASKS)
    assert list(both.task_columns.values()) == [table.dim, table.dim + 1, table.dim + 2]
    found, expected = both.encode(prompts), both.join([part.encode(prompts) for part in both.encoders])
    assert found.x.tobytes() == expected.x.tobytes()
    assert found.billed_tokens.tolist() == expected.billed_tokens.tolist()
    assert not found.x[:, table.dim : table.dim + len(TASKS)].any()
    assert "3 tasks" in both.summary


@pytest.mark.parametrize("isa", available_isas())
def test_a_task_sets_its_own_column_alone(tmp_path, isa):
    engine = Engine(Bundle.load(make_task_bundle(tmp_path, surface=True)), isa=isa)
    prompts, asked = list(PROMPTS[:3]), ["sql", None, "unheard of"]
    plain, told = engine.encode(prompts).x, engine.encode(prompts, task=asked).x
    differs = np.argwhere(plain != told).tolist()
    assert differs == [[0, TABLE_DIM + TASKS.index("sql")]]
    assert told[0, differs[0][1]] == 1
    assert not plain[:, TABLE_DIM : TABLE_DIM + len(TASKS)].any()


def test_marking_twice_leaves_the_last_task_and_rows_without_numbers():
    columns = {name: 2 + at for at, name in enumerate(TASKS)}
    x = np.zeros((3, 5), np.float32)
    x[2] = np.nan
    first = mark_tasks(columns, x, ["sql", "support-bot", "sql"])
    second = mark_tasks(columns, first, ["support-bot", None, "sql"])
    assert second[:2, 2:].tolist() == [[1, 0, 0], [0, 0, 0]]
    assert np.isnan(first[2]).all()
    assert np.isnan(second[2]).all()
    assert not x[:2].any()  # what was given stays


def test_tasks_stand_between_embeddings_and_surface_features(tmp_path):
    table, surface = StaticEncoder.from_folder(make_encoder(tmp_path / "table")), SurfaceEncoder.load()
    tasks = TaskColumns(TASKS)
    for parts in ([tasks, table], [table, surface, tasks], [table, tasks, TaskColumns(["other"])]):
        with pytest.raises(InvalidInputError, match="every embedding first, then the tasks"):
            ConcatenatedEncoder(parts)
    made = task_parts(tmp_path / "sources", surface=True)
    for ids, expected in (
        (("tasks", "static"), "an embedding as the first part"),
        (("static", "surface", "tasks"), "embeddings first, then one part of tasks"),
    ):
        made["encoders"][-1] = ConcatenatedSource(id=BOTH, parts=ids)
        with pytest.raises(EncoderMismatchError, match=expected):
            write_bundle(tmp_path / "bundles", BundleParts(**made))


def test_heads_on_tasks_alone_are_refused(tmp_path):
    parts = task_parts(tmp_path / "sources")
    heads = replace(parts["heads"][0], encoder="tasks", tensors=make_tensors(models=4, dim=len(TASKS)))
    with pytest.raises(EncoderMismatchError, match=r"an encoder of this bundle \(static, side_by_side\)"):
        write_bundle(tmp_path / "bundles", BundleParts(**{**parts, "heads": [heads], "support": None}))


@pytest.mark.parametrize(
    ("names", "error"),
    [
        ((), BundleFormatError),
        (("a", "a"), BundleFormatError),
        (("a", " "), BundleFormatError),
        (("x" * (LONGEST_TASK + 1),), BundleValueError),
        (tuple(map(str, range(MOST_TASKS + 1))), BundleValueError),
    ],
)
def test_names_that_no_task_may_have_are_not_written(tmp_path, names, error):
    parts = task_parts(tmp_path / "sources")
    parts["encoders"][1] = TaskSource(id="tasks", names=names)
    with pytest.raises(BundleError) as told:
        write_bundle(tmp_path / "bundles", BundleParts(**parts))
    assert isinstance(told.value, error)
    assert "names" in str(told.value)
    with pytest.raises(InvalidInputError, match="tasks: expected"):
        TaskColumns(names)


def test_no_bundle_before_schema_version_9_has_tasks(tmp_path):
    folder = make_task_bundle(tmp_path)
    copy = folder.rename(folder.with_name("copy"))
    document = manifest_of(copy)
    del document["unsupported"]  # a key of version 9 too
    (copy / "bundle.json").write_text(json.dumps({**document, "schema_version": 8}))
    with pytest.raises(BundleFormatError, match="kind"):
        Bundle.load(copy)


def test_support_is_measured_on_the_columns_before_the_tasks(tmp_path):
    engine, plain = Engine.load(make_task_bundle(tmp_path / "a")), Engine.load(make_bundle(tmp_path / "b"))
    for prompt in PROMPTS[:2]:  # of equal tables and centroids
        for task in (None, "sql"):
            assert engine.route(prompt, tau=0.2, task=task).support == plain.route(prompt, tau=0.2).support


def test_the_second_tier_decides_by_the_task_too(tmp_path):
    first, second = Bundle.load(make_bundle(tmp_path / "a", models=4)), Bundle.load(make_task_bundle(tmp_path / "b"))
    joined = Bundle.load(two_tiers(first, second, gap=0.1, root=tmp_path / "joined", provenance={}))
    assert joined.tasks == set(TASKS)
    prompts = make_prompts(10, "tiers")
    engine, alone = Engine(joined), Engine(second)
    for task in (None, "sql", [TASKS[0], None] * 5):
        both = engine.route_many(prompts, tau=0.1, escalate_below=np.inf, task=task)
        assert both.qualities.tobytes() == alone.route_many(prompts, tau=0.1, task=task).qualities.tobytes()
        kept = engine.decide(
            engine.encode(prompts, task=task),
            tau=0.1,
            escalate_below=np.inf,
            second=engine.encode(prompts, task=task, second=True),
        )
        assert kept.qualities.tobytes() == both.qualities.tobytes()
        assert [row.task for row in kept] == [row.task for row in both]


def test_escalate_says_what_it_does_not_take_from_the_second_bundle(tmp_path, capsys):
    parts, made = task_parts(tmp_path / "sources"), {}
    for name, column, rule in (("a", "task", 0.1), ("b", "dataset", 0.2), ("c", "task", 0.1)):
        said = UnsupportedDefault(min_support=rule, model=parts["candidates"][0].name)
        heads = [replace(parts["heads"][0], tensors=make_tensors(models=4, dim=TABLE_DIM + len(TASKS), seed=ord(name)))]
        given = {**parts, "heads": heads, "provenance": {"task_column": column}, "unsupported": said}
        made[name] = str(write_bundle(tmp_path / name, BundleParts(**given)))
    assert main(["escalate", made["a"], made["b"], "--gap", "0.1", "--out", str(tmp_path / "ab"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["gap"] == 0.1
    assert "evaluations and calibrations read 'task' for both, and none of 'dataset'" in err
    assert "what the second one says was left out" in err
    assert main(["escalate", made["a"], made["c"], "--gap", "0.1", "--out", str(tmp_path / "ac")]) == 0
    assert capsys.readouterr().err == ""
