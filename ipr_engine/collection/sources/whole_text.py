"""`require_whole` refuses a request whose text was cut or masked before it came into a log: what is left of it is another prompt.

The marks are those of LiteLLM 1.110 (constants.py, litellm_core_utils/logging_utils.py and safe_json_dumps.py,
proxy/spend_tracking/spend_tracking_utils.py) and of Langfuse's Python SDK 5.0 (_client/constants.py, media.py) and earlier ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ipr_engine.collection.sources.asked_row import UnaskableError

# whole texts
_MASKED = {
    "redacted-by-litellm": "LiteLLM masked it (turn_off_message_logging)",
    "REDACTED_BY_LITELM": "LiteLLM masked it",
    "REDACTED_BY_LITELLM": "LiteLLM masked it",
    "<fully masked due to failed mask function>": "Langfuse masked it",
    "<truncated due to size exceeding limit>": "Langfuse's SDK cut it",
    "CircularReference Detected": "LiteLLM did not write it out",
    "MaxDepthExceeded": "LiteLLM did not write it out",
}
# parts of a text: a prompt that tells of such a mark without its numbers is none
_CUT = re.compile(
    r"(?P<text>\(litellm_truncated (?:skipped )?\d+ chars)"
    r"|(?P<data>\[base64_data truncated: )"
    r"|(?P<media>@@@langfuseMedia:type=[^@]*@@@)"
    r"|(?P<omitted>^\[(?:image|file|audio) omitted\]$)",
    re.MULTILINE,
)
_WHY = {
    "text": "LiteLLM cut it (MAX_STRING_LENGTH_PROMPT_IN_DB); the logs of its callbacks hold it whole",
    "data": "LiteLLM cut a file or image out of it",
    "media": "Langfuse keeps a file or image of it elsewhere",
    "omitted": "LiteLLM left an image, file or sound out of it (spend_logs_prompt_storage)",
}


def is_whole(text: str) -> bool:
    return _missing(text) is None


def require_whole(value: Any, what: str) -> None:
    """Raise UnaskableError where a text in a value was cut or masked."""
    for text in _texts(value):
        why = _missing(text)
        if why is not None:
            raise UnaskableError(f"{what} is not whole: {why}")


def _missing(text: str) -> str | None:
    """Return why a text is not what was sent; None where it is."""
    if text in _MASKED:
        return _MASKED[text]
    # most texts hold none of these characters together, and a search from each line's start is slow
    if "omitted]" in text or "litellm_truncated" in text or "truncated: " in text or "@@@" in text:
        found = _CUT.search(text)
        if found is not None:
            return _WHY[str(found.lastgroup)]
    return None


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a value, from any depth that JSON was read from."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, Mapping):
            left.extend(one.values())
        elif isinstance(one, list):
            left.extend(one)
