"""`embed_on_ray` embeds prompts by the workers of a Ray cluster, into the shards of a cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ipr_engine.data.embeddings import EmbeddingCache
from ipr_engine.encoders.base import Encoder
from ipr_engine.encoders.registry import open_encoder
from ipr_engine.errors import InvalidInputError, IprError
from ipr_engine.on_ray.cluster import RayCluster, connected, until_done

AT_ONCE = 2048  # prompts that a worker takes at a time: a shard, and what is begun again where it is lost


def embed_on_ray(
    cache: EmbeddingCache,
    encoder: Encoder,
    opened_by: Mapping[str, Any],
    prompts: Sequence[str],
    cluster: RayCluster,
    say: Callable[[str], None] = lambda message: None,
) -> int:
    """Embed the prompts that are not in the cache, on the workers; return how many that were.

    A worker that is lost is replaced, and the shard that it was at is begun again; shards that are written are not.

    Args:
        cache: in a folder that every node sees under the same path.
        encoder: the same as the workers', opened here; its identity names the shards.
        opened_by: arguments of `open_encoder`, `folder` among them, under which every node finds it.
    Raises:
        InvalidInputError: a worker's encoder is another one, or a prompt is no text.
        BackendUnavailableError: Ray is missing here, or what the encoder needs is missing where it runs.
    """
    absent = cache.absent(encoder, prompts)
    if not absent:
        return 0

    def embed() -> None:
        left = cache.absent(encoder, absent)
        rows = [{"prompts": left[begin : begin + AT_ONCE]} for begin in range(0, len(left), AT_ONCE)]
        if not rows:
            return
        done = len(absent) - len(left)
        shards = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            ShardEncoder,
            fn_constructor_args=(str(cache.folder.resolve()), encoder.identity, dict(opened_by)),
            concurrency=(1, min(cluster.workers, len(rows))),
            **cluster.resources,
        )
        for row in shards.iter_rows():
            if row["refused"]:
                raise InvalidInputError(f"encoder: {row['refused']}")
            done += int(row["embedded"])
            say(f"{done:,} of {len(absent):,} prompts embedded")

    with connected(cluster) as ray:
        until_done(ray, "encoder", embed)
    return len(absent)


class ShardEncoder:
    """A `ShardEncoder` encodes some prompts at a time into a shard of the cache, in a worker; the encoder is opened once."""

    def __init__(self, folder: str, identity: str, opened_by: Mapping[str, Any]) -> None:
        self._cache, self._refused = EmbeddingCache(folder), ""
        try:
            self._encoder = open_encoder(**opened_by)
        except IprError as error:
            self._refused = f"on a worker: {error}"
            return
        if self._encoder.identity != identity:
            self._refused = (
                "every node must see the same folder and have the same packages; a worker's encoder is another one"
            )

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Encode the prompts of a row. Ray may ask twice: where a node is lost, what it had to say of a shard that is written is, too."""
        prompts = [str(one) for one in row["prompts"]]
        if not self._refused and not self._cache.has_shard(self._encoder, prompts):
            self._cache.add(self._encoder, prompts)
        return {"embedded": 0 if self._refused else len(prompts), "refused": self._refused}
