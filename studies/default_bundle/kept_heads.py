"""`with_kept_heads` writes a default bundle again with the options of today; heads, support and path rows stay as they are.

It is for options that change no prompt that was fitted on, as the folding of width changes none in plain ASCII, and what is encoded of
several turns changes none of one: a fit would move decisions for reasons of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ipr_engine.bundle import Bundle
from ipr_engine.bundle.conversation import ALL
from ipr_engine.bundle.encoder_entry import TABLE_OPTIONS, encoder_json
from ipr_engine.bundle.encoder_source import EncoderSource
from ipr_engine.bundle.fitted_entries import CONVERSATION
from ipr_engine.bundle.load import raised
from ipr_engine.bundle.write import begin_rewrite
from ipr_engine.encoders.registry import make_encoder
from ipr_engine.errors import InvalidInputError
from ipr_engine.training.train_options import EncoderChoice


def with_kept_heads(bundle: Bundle, choice: EncoderChoice, prompts: Sequence[str], root: Path) -> Path:
    """Write the bundle with encoder and conversation of `choice` in the place of its own, under `root`; returns the new folder.

    Args:
        bundle: of one encoder, a table. choice: of the same table.
        prompts: those that the heads were fitted on.
    Raises:
        InvalidInputError: the encoder of `choice` is no table, or gives one of `prompts` another embedding or number of tokens.
    """
    frozen = choice.open()
    source, own = frozen.sources[0], bundle.encoders[0]
    if len(bundle.encoders) != 1 or len(frozen.sources) != 1 or not isinstance(source, EncoderSource):
        raise InvalidInputError("heads: expected a bundle of one table, to be kept on one table; fit them anew")
    before, now = make_encoder(bundle, own.id).encode(prompts), frozen.encoder.encode(prompts)
    if before.x.tobytes() != now.x.tobytes() or before.billed_tokens.tolist() != now.billed_tokens.tolist():
        raise InvalidInputError("heads: the table reads a prompt of theirs otherwise than before; fit them anew")
    draft, document = begin_rewrite(bundle.path, root)
    draft.keep(document, bundle.path)
    manifest = raised(document.value, TABLE_OPTIONS)
    files = {file["path"]: file for file in manifest["encoders"][0]["files"].values()}

    def kept(relative: str, path: Path) -> dict[str, Any]:
        return dict(files[relative])

    manifest["encoders"] = [encoder_json(kept, replace(source, id=own.id))]
    for heads in manifest["heads"]:
        heads.pop(CONVERSATION, None)
        if frozen.conversation != ALL:
            heads[CONVERSATION] = frozen.conversation
    return draft.publish(manifest, activate=True)
