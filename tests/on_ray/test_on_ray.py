"""Long steps on a Ray cluster of two workers, one of which is killed midway: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import importlib.util
import sqlite3
from functools import partial

import numpy as np
import pytest

from ipr_engine.collection.collect import CollectOptions, collect
from ipr_engine.collection.ledger import LEDGER
from ipr_engine.collection.question import LoggedAnswer, Question
from ipr_engine.data import load_outcomes
from ipr_engine.data.embeddings import EmbeddingCache
from ipr_engine.encoders.registry import open_encoder
from ipr_engine.errors import InvalidInputError, IprError
from ipr_engine.on_ray.cluster import RayCluster
from ipr_engine.on_ray.embed_on_ray import ShardEncoder, embed_on_ray
from ipr_engine.on_ray.grade_on_ray import grade_on_ray
from tests.support import skips
from tests.support.bundles import make_encoder
from tests.support.collections import candidate, plan_for
from tests.support.places import ROOT

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason=skips.RAY)
PROMPTS = 96
CODE = {"passes": {"kind": "tests"}}


@pytest.fixture(scope="module")
def cluster():
    """A cluster of a head without processors, on which the test and the ledger's owner run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(ROOT))
        import ray
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
        try:
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


@pytest.fixture
def nodes(cluster):
    """Two nodes of one processor each; gives what removes one without a goodbye."""
    while len(cluster.worker_nodes) < 2:
        cluster.add_node(num_cpus=1)
    return lambda: cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)


class Killer:
    """Removes a node once something has been done, and keeps what was said."""

    def __init__(self, remove):
        self._remove, self.said, self.killed = remove, [], False

    def __call__(self, message):
        self.said.append(message)
        if not self.killed:
            self.killed = True
            self._remove()


def answered(count=PROMPTS):
    """Prompts with answers of two candidates, of which one is right; each takes a process of its own to grade."""
    return [
        Question(
            prompt_id=f"c{n:04d}",
            prompt=f"Write f that adds {n}.",
            body={"messages": [{"role": "user", "content": f"Write f that adds {n}."}]},
            reference=[f"assert f(1) == {n + 1}"],
            answers={
                "right": LoggedAnswer(text=f"```python\ndef f(x):\n    return x + {n}\n```"),
                "wrong": LoggedAnswer(text=f"```python\ndef f(x):\n    return x - {n + 1}\n```"),
            },
        )
        for n in range(count)
    ]


def grades_of(plan):
    with sqlite3.connect(plan.out_folder / LEDGER) as ledger:
        return ledger.execute("SELECT count(*) FROM grade").fetchone()[0]


def test_a_worker_that_is_killed_midway_loses_nothing_and_repeats_nothing(tmp_path, nodes):
    plan = plan_for(tmp_path, "http://127.0.0.1:1/v1", candidate("right"), candidate("wrong"), graders=CODE)
    told = Killer(nodes)
    grade = partial(_on_ray, plan, RayCluster(address="auto", workers=2), told)
    made = collect(plan, answered(), CollectOptions(ask=False, grade=grade))
    assert told.killed
    assert len(told.said) > 3  # the killed node was at work among others
    assert made.graders["passes"].counts.graded == 2 * PROMPTS == grades_of(plan)
    loaded = load_outcomes(plan.out_folder)
    np.testing.assert_array_equal(loaded.quality, np.tile([1.0, 0.0], (PROMPTS, 1)))
    again = collect(plan, answered(), CollectOptions(ask=False, grade=grade))
    assert again.graders["passes"].counts.graded == 0


def _on_ray(plan, cluster, say, graders, ledger, run):
    return grade_on_ray(graders, plan, ledger, run, cluster, say)


def test_shards_of_a_killed_worker_are_made_by_another(tmp_path, nodes):
    folder = make_encoder(tmp_path / "table")
    cache, encoder = EmbeddingCache(tmp_path / "cache"), open_encoder(folder)
    prompts = [f"prompt {n}, and what else {n % 7} says" for n in range(16_000)]
    told = Killer(nodes)
    workers = RayCluster(address="auto", workers=2)
    assert embed_on_ray(cache, encoder, {"folder": str(folder)}, prompts, workers, told) == len(prompts)
    assert told.killed
    assert cache.absent(encoder, prompts) == []
    np.testing.assert_array_equal(cache.embed(encoder, prompts).x, encoder.encode(prompts).x)
    assert embed_on_ray(cache, encoder, {"folder": str(folder)}, prompts, workers) == 0
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == -(-len(prompts) // 2048)  # none twice


def test_a_shard_that_ray_asks_for_again_is_not_encoded_again(tmp_path):
    folder = make_encoder(tmp_path / "table")
    encoder, row = open_encoder(folder), {"prompts": ["one", "two"]}
    made = []
    for _ in range(2):  # of two workers, as the first may be lost
        worker = ShardEncoder(str(tmp_path / "cache"), encoder.identity, {"folder": str(folder)})
        assert worker(row) == {"embedded": 2, "refused": ""}
        made.append([(path.name, path.stat().st_mtime_ns) for path in (tmp_path / "cache").rglob("*.safetensors")])
    assert made[0] == made[1]
    assert len(made[0]) == 1


def test_a_worker_with_another_grader_is_told(tmp_path, nodes):
    plan = plan_for(tmp_path, "http://127.0.0.1:1/v1", candidate("right"), candidate("wrong"), graders=CODE)

    def grade(graders, ledger, run):
        graders.filed["passes"] = bytes(32)
        return grade_on_ray(graders, plan, ledger, run, RayCluster(address="auto"))

    with pytest.raises(InvalidInputError, match=r"graders\.passes: a worker's grader is another one"):
        collect(plan, answered(8), CollectOptions(ask=False, grade=grade))
    collect(plan, answered(8), CollectOptions(ask=False))  # the ledger was given back
    assert grades_of(plan) == 16


@pytest.mark.parametrize(
    ("folder", "told"), [("absent", "encoder: on a worker: encoder: .*no such folder"), ("", "a worker failed")]
)
def test_what_a_worker_fails_of_is_told_without_prompts(tmp_path, nodes, folder, told):
    table = make_encoder(tmp_path / "table")
    cache, encoder = EmbeddingCache(tmp_path / "cache"), open_encoder(table)
    opened_by = {"folder": str(tmp_path / folder)} if folder else {"folder": str(table), "unknown": 1}
    with pytest.raises(IprError, match=told) as raised:
        embed_on_ray(cache, encoder, opened_by, ["a secret prompt"], RayCluster(address="auto"))
    assert "secret" not in str(raised.value)
