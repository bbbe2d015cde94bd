"""What a fit puts into its bundle: the heads, with hashes of their prompts, and the bins of `reliability.json`."""

from __future__ import annotations

from hashlib import sha256

import numpy as np

from ipr_engine.audit.owner_key import OwnerKey
from ipr_engine.bundle import FittedOn, HeadsSource, RuleConstants
from ipr_engine.bundle.reliability import reliability_bins, reliability_bytes
from ipr_engine.data import prompt_hashes
from ipr_engine.training.heads import FittedHeads
from ipr_engine.training.sources import TrainingRows


def heads_source(heads: FittedHeads, encoder: str, names: list[str], rows: TrainingRows, key: OwnerKey) -> HeadsSource:
    """The heads with hashes of their prompts under the owner's key."""
    return HeadsSource(
        id="trained",
        encoder=encoder,
        outputs=("quality", "tokens"),
        activation=heads.activation,
        candidates=names,
        rule_constants=RuleConstants(**heads.rule_constants),
        fitted_on=FittedOn(
            source=" + ".join(rows.names),
            prompts=len(rows),
            prompt_ids_sha256=sha256("\n".join(rows.prompt_ids).encode()).hexdigest(),
            hash_key=key.id,
        ),
        tensors=heads.tensors,
        prompt_hashes=prompt_hashes(rows.prompts, rows.keys, key),
    )


def reliability(heads: FittedHeads, names: list[str], rows: TrainingRows) -> bytes:
    """Realised against predicted quality out of fold, at home where a candidate is judged there: what the heads speak of."""
    tables = {}
    for m, name in enumerate(names):
        judged = ~np.isnan(rows.quality[:, m])
        home = judged & (rows.source == 0)
        at = home if home.any() else judged
        tables[name] = reliability_bins(heads.out_of_fold_quality[at, m], rows.quality[at, m])
    return reliability_bytes(tables)
