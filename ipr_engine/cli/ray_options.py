"""Options of commands whose long step may run on a Ray cluster."""

from __future__ import annotations

import argparse
from typing import Any

_NAMES = {"address": "--ray", "workers": "--ray-workers", "cpus": "--ray-cpus", "gpus": "--ray-gpus"}


def add_ray_options(parser: argparse.ArgumentParser, what: str) -> None:
    """Add where a command's long step runs. what: the step."""
    group = parser.add_argument_group("Ray", f"{what} on the workers of a Ray cluster (extra [ray]; docs/ray.md)")
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="local starts one here; auto, or HOST:PORT, is one that this machine is a node of",
    )
    group.add_argument("--ray-workers", type=int, metavar="N", help="workers at most (default 2)")
    group.add_argument("--ray-cpus", type=float, metavar="N", help="CPUs of each worker (default 1)")
    group.add_argument("--ray-gpus", type=float, metavar="N", help="GPUs of each worker, a part of one too (default 0)")


def ray_cluster(arguments: argparse.Namespace) -> Any:
    """Return the cluster that the options name, None for none.

    Raises:
        InvalidInputError: an option is out of range, or stands without --ray.
    """
    from ipr_engine.errors import InvalidInputError
    from ipr_engine.on_ray.cluster import RayCluster

    given = {
        field: value
        for field, flag in _NAMES.items()
        if (value := getattr(arguments, flag[2:].replace("-", "_"))) is not None
    }
    if not given:
        return None
    if "address" not in given:
        raise InvalidInputError(
            f"{_NAMES[next(iter(given))]}: stands without --ray, and nothing would run there; name a cluster"
        )
    try:
        return RayCluster(**given)
    except InvalidInputError as error:
        text = str(error)
        field = text.partition(":")[0]
        raise InvalidInputError(f"{_NAMES.get(field, field)}{text[len(field) :]}") from None
