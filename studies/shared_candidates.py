"""Two sources know these candidates under different names, matched by hand: the same weights or the same API version."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# {zeroeval's name: the other's}. mmlu_pro's Gemini 1.5 are later versions (002) than zeroeval's: other models, not matched.
CASCADE9 = {
    "gpt-4o-2024-08-06": "gpt-4o",
    "gpt-4o-mini-2024-07-18": "gpt-4o-mini",
    "Meta-Llama-3.1-405B-Instruct": "llama3.1-405b",
    "Meta-Llama-3.1-70B-Instruct": "llama3.1-70b",
    "Meta-Llama-3.1-8B-Instruct": "llama3.1-8b",
}  # cascade9 does not say which gpt-4o it asked
MMLU_PRO = {
    "Meta-Llama-3.1-70B-Instruct": "Meta-Llama-3_1-70B-Instruct",
    "Meta-Llama-3.1-8B-Instruct": "Meta-Llama-3_1-8B-Instruct",
}
BFCL = {name: name for name in ("claude-3-5-sonnet-20240620", "claude-3-haiku-20240307", "claude-3-opus-20240229")}

# (target, other) -> {target's name: other's name}
PAIRS: Mapping[tuple[str, str], Mapping[str, str]] = MappingProxyType(
    {
        pair: names
        for other, named in (("cascade9", CASCADE9), ("mmlu_pro", MMLU_PRO), ("bfcl", BFCL))
        for pair, names in (
            (("zeroeval", other), named),
            ((other, "zeroeval"), {there: here for here, there in named.items()}),
        )
    }
)
