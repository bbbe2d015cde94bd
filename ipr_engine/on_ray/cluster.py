"""A `RayCluster` says which cluster does the work, and what each worker has; `connected` is in touch with it while it is needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ipr_engine._extras import need
from ipr_engine.errors import InvalidInputError, IprError

LOCAL = "local"
PURPOSE = "work on a Ray cluster"
TIMES = 3


@dataclass(frozen=True, kw_only=True)
class RayCluster:
    """A `RayCluster` says who works.

    Attributes:
        address: "local" starts a cluster on this machine and ends it afterwards; "auto" is the one that this machine is a node of; or
            HOST:PORT of one that it is a node of.
        workers: how many at most. cpus, gpus: that each of them has; parts of a GPU may be shared.
    """

    address: str = LOCAL
    workers: int = 2
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if not self.address or "://" in self.address:
            raise InvalidInputError(
                f"address: expected {LOCAL!r}, 'auto' or HOST:PORT, got {self.address!r}; ledger and cache lie on this machine, so that "
                "it must be a node of the cluster itself (`ray start --address=...`)"
            )
        if not 1 <= self.workers <= 10_000:
            raise InvalidInputError(f"workers: expected 1 to 10000, got {self.workers}")
        if not 0 < self.cpus <= 1024:
            raise InvalidInputError(f"cpus: expected more than 0 and at most 1024, got {self.cpus:g}")
        if not 0 <= self.gpus <= 64:
            raise InvalidInputError(f"gpus: expected 0 to 64, got {self.gpus:g}")

    @property
    def resources(self) -> dict[str, float]:
        """What Ray is asked for, for each worker."""
        return {"num_cpus": self.cpus, **({"num_gpus": self.gpus} if self.gpus else {})}


@contextmanager
def connected(cluster: RayCluster) -> Iterator[Any]:
    """Give the module `ray`, in touch with a cluster: the one that this process is in touch with already, or the one named.

    Raises:
        BackendUnavailableError: Ray is missing.
        InvalidInputError: the cluster cannot be reached, or could never start a worker.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray tells its makers what runs here
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    ray = need("ray", PURPOSE, "ray")
    data = need("ray.data", PURPOSE, "ray")
    begun = not ray.is_initialized()
    if begun:
        _begin(ray, cluster)
    try:
        data.DataContext.get_current().enable_progress_bars = False  # stderr is the command's own
        _check_room(ray, cluster)
        yield ray
    finally:
        if begun:
            ray.shutdown()


def until_done(ray: Any, what: str, step: Callable[[], None]) -> None:
    """Do a step whose work shrinks as it is done, and again where Ray gives up on it: more was lost than it replaces by itself.

    Raises:
        IprError: a worker failed for a reason of its own, or Ray gave up three times. No text of a prompt is in it.
    """
    reason = ""
    for _ in range(TIMES):
        try:
            step()
            return
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, IprError):
                raise cause from None
            reason = type(cause).__name__
            break
        except ray.exceptions.RayError as error:
            reason = type(error).__name__
    raise IprError(f"{what}: a worker failed ({reason}); Ray's own logs say more")


def _begin(ray: Any, cluster: RayCluster) -> None:
    options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    if cluster.address == LOCAL:
        whole = max(1, -(-int(cluster.workers * cluster.cpus * 1000) // 1000))
        ray.init(address=LOCAL, num_cpus=whole, **options)  # else Ray looks for one that runs here already
        return
    del options["include_dashboard"]
    try:
        ray.init(address=cluster.address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InvalidInputError(f"address: no Ray cluster at {cluster.address!r}: {type(error).__name__}") from None


def _check_room(ray: Any, cluster: RayCluster) -> None:
    """Refuse workers that no node could ever hold: Ray would wait for one for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    wanted = {"CPU": cluster.cpus, "GPU": cluster.gpus}
    if not any(all(node.get(name, 0.0) >= least for name, least in wanted.items()) for node in nodes):
        has = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise InvalidInputError(
            f"cpus, gpus: no node of the cluster has {cluster.cpus:g} CPUs and {cluster.gpus:g} GPUs for a worker; its nodes have {has}"
        )
