"""What runs before the first request: the encoder on prompts of several sizes, so that its cost is known."""

from __future__ import annotations

from ipr_engine._C import clock_ns
from ipr_engine.errors import BackendUnavailableError
from ipr_engine.loaded_bundle import LoadedBundle
from ipr_engine.serving.forward_cost import ForwardCost

SIZES = ((1, 16), (1, 128), (8, 16))  # prompts and words of each; a word is a token or more
ROUNDS = 3  # the first one is not counted: it allocates, compiles, captures


def warm_up(loaded: LoadedBundle) -> ForwardCost:
    """Run the encoder and the heads; how long a forward takes, as far as these tell.

    Raises:
        Whatever the encoder raises: an engine that cannot encode is not ready.
        BackendUnavailableError: it gives embeddings of the wrong width.
    """
    encoder, cost = loaded.encoder, ForwardCost(loaded.encoder_identity)
    for turn in range(ROUNDS):
        for prompts, words in SIZES:
            texts = [" ".join(["what"] * min(words, encoder.max_tokens))] * prompts
            tokens = min(encoder.count_tokens(texts[0]), encoder.max_tokens)
            start = clock_ns()
            encoded = encoder.encode(texts)
            if loaded.second is not None:  # who comes to the worker mostly needs both
                loaded.second.encode(texts)
            if turn:
                cost.observe(prompts * tokens, (clock_ns() - start) / 1e3)
    if encoded.x.shape[1] != loaded.plan.dim:
        raise BackendUnavailableError(
            f"encoder: its embeddings have {encoded.x.shape[1]} dimensions, the heads read {loaded.plan.dim}"
        )
    return cost
