"""`grade_on_ray` grades the answers of a ledger by the workers of a Ray cluster."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ipr_engine._extras import need
from ipr_engine._version import __version__
from ipr_engine.collection.collection_plan import CollectionPlan
from ipr_engine.collection.grading_step import GradedCounts, PlanGraders
from ipr_engine.collection.ledger import Ledger
from ipr_engine.errors import InvalidInputError, IprError
from ipr_engine.grading.grader_specs import GraderSpec
from ipr_engine.grading.make_grader import make_grader
from ipr_engine.on_ray.cluster import PURPOSE, RayCluster, connected, until_done
from ipr_engine.on_ray.ledger_owner import LedgerOwner

Say = Callable[[str], None]
MOST_BLOCKS = 4096  # that Ray keeps apart: one a page would be 94,000 for 1.5 million prompts
CLOSING_S = 60.0  # for what the ledger's owner has begun


def grade_on_ray(
    graders: PlanGraders,
    plan: CollectionPlan,
    ledger: Ledger,
    run: int,
    cluster: RayCluster,
    say: Say = lambda message: None,
) -> dict[str, GradedCounts]:
    """Grade what has no grade yet, page by page, on the workers; return name -> what was done.

    The ledger is lent to an actor on this machine, which alone reads and writes it meanwhile. A worker that is lost is replaced, and the
    prompts that it was at are graded again; what was noted is not. Replies of judges are read here: they need no machine.

    Raises:
        InvalidInputError: a worker's grader is another one: it has other packages or weights.
        BackendUnavailableError: Ray is missing here, or what a grader needs is missing where it runs.
    """
    counts: dict[str, GradedCounts] = {}
    with connected(cluster) as ray:
        for name in graders.specs:
            with ledger.lent() as path:
                counts[name] = _grade(ray, graders, plan, str(path.absolute()), run, name, cluster, say)
    for name in graders.judgings:
        counts[name] = graders.grade_one(name, ledger, run)
    return {name: counts[name] for name in graders.filed}


def _grade(
    ray: Any,
    graders: PlanGraders,
    plan: CollectionPlan,
    path: str,
    run: int,
    name: str,
    cluster: RayCluster,
    say: Say,
) -> GradedCounts:
    spec, filed = graders.specs[name], graders.filed[name]
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    owners = ray.remote(LedgerOwner).options(num_cpus=0, scheduling_strategy=here)
    owner = owners.remote(path, plan, run, name, filed)
    counts = GradedCounts()

    def grade() -> None:
        pages = ray.get(owner.open_questions.remote())
        if not pages:
            return
        rows = [{"questions": np.array(page)} for page in pages]
        done = ray.data.from_items(rows, override_num_blocks=min(len(rows), MOST_BLOCKS)).map(
            WorkerGrader,
            fn_constructor_args=(owner, spec, filed),
            concurrency=(1, min(cluster.workers, len(rows))),
            **cluster.resources,
        )
        for row in done.iter_rows():
            if row["refused"]:
                raise InvalidInputError(f"graders.{name}: {row['refused']}")
            say(f"grader {name}: {row['graded']:,} answers graded")

    try:
        until_done(ray, f"graders.{name}", grade)
    finally:
        with contextlib.suppress(ray.exceptions.RayError):  # an owner that is gone has given the ledger back
            counts = ray.get(owner.end.remote(), timeout=CLOSING_S)
        ray.kill(owner)
    return counts


class WorkerGrader:
    """A `WorkerGrader` grades the answers to some prompts at a time, in a worker; models are loaded once."""

    def __init__(self, owner: Any, spec: GraderSpec, filed: bytes) -> None:
        self._owner, self._refused = owner, ""
        try:
            self._grader = make_grader(spec)
        except IprError as error:
            self._refused = f"on a worker: {error}"
            return
        if hashlib.sha256(self._grader.identity.encode()).digest() != filed:
            self._refused = (
                "a worker's grader is another one than this machine's: it has other packages or weights; install the same "
                f"on every node (this worker has ipr_engine {__version__})"
            )

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Grade what has no grade yet of the prompts of a row; return how many answers were graded so far, by all workers."""
        graded = 0
        if not self._refused:
            ray = need("ray", PURPOSE, "ray")
            todo = ray.get(self._owner.todo.remote([int(one) for one in row["questions"]]))
            grades = self._grader.grade([one.answer for one in todo])
            graded = ray.get(self._owner.note.remote(todo, grades))
        return {"graded": graded, "refused": self._refused}
