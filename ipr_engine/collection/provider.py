"""A `Provider` says where candidates answer, how its key is found, and how fast it may be asked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ipr_engine.documents.provider_checks import (
    check_above_zero,
    check_base_url,
    check_headers,
    check_key,
    check_variable,
    key_in_environment,
)
from ipr_engine.documents.typed_document import take_plain
from ipr_engine.errors import InvalidInputError

MOST_AT_A_TIME = 1000  # as the connections of OpenAI's SDK
OPENAI = "https://api.openai.com/v1"
NO_KEY = "none"  # what is sent where a server needs no key: SDKs insist on one


@dataclass(frozen=True, kw_only=True)
class ProviderLimits:
    """A `ProviderLimits` bounds how one provider is asked.

    Attributes:
        concurrency: requests at a time.
        requests_per_minute, tokens_per_minute: at most; None: as fast as it answers. Tokens count as far as they can be foreseen: the
            text's and `max_tokens`.
        timeout_s: until the whole answer, in seconds, of one attempt.
        retries: attempts after the first that failed for a reason which may pass.
        most_wait_s: the longest wait that a server may ask for with Retry-After; where it asks for more, the call has failed.
    """

    concurrency: int = 8
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    timeout_s: float = 120.0
    retries: int = 5
    most_wait_s: float = 120.0

    def __post_init__(self) -> None:
        take_plain(self)
        check_above_zero(self, "concurrency", "timeout_s", "most_wait_s")
        for name in ("requests_per_minute", "tokens_per_minute"):
            if getattr(self, name) is not None:
                check_above_zero(self, name)
        if not 0 <= self.retries <= 100:
            raise InvalidInputError("retries: expected 0 to 100")
        if self.concurrency > MOST_AT_A_TIME:
            raise InvalidInputError(f"concurrency: expected at most {MOST_AT_A_TIME} requests at a time")


@dataclass(frozen=True, kw_only=True)
class Provider:
    """A `Provider` is who is asked.

    Attributes:
        base_url: everything before `/chat/completions`; None: OpenAI's, or that of LiteLLM's provider.
        sdk: "openai" for whatever speaks OpenAI's chat completions, "litellm" (extra `[litellm]`) for what LiteLLM knows.
        api_key_env, api_key_file: where its key is: a variable, or a file that holds nothing else; neither where it needs none.
        headers: sent with every request, no secrets.
        limits: how fast it may be asked.
    """

    base_url: str | None = None
    sdk: Literal["openai", "litellm"] = "openai"
    api_key_env: str | None = None
    api_key_file: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    limits: ProviderLimits = field(default_factory=ProviderLimits)

    def __post_init__(self) -> None:
        take_plain(self)
        if self.base_url is not None:
            check_base_url(self.base_url)
        elif self.sdk == "openai" and self.api_key_env is None and self.api_key_file is None:
            raise InvalidInputError("base_url: is missing; expected an address, such as https://api.openai.com/v1")
        if self.api_key_env is not None:
            check_variable("api_key_env", self.api_key_env)
            if self.api_key_file is not None:
                raise InvalidInputError("api_key_file: stands beside api_key_env; give one of them")
        check_headers(self.headers)

    @property
    def place(self) -> str:
        """What calls are known by, of who is asked."""
        return (self.base_url or (OPENAI if self.sdk == "openai" else self.sdk)).rstrip("/")

    def key(self, where: str) -> str:
        """Return its key, read now; `NO_KEY` where it needs none. where: what errors call this provider.

        Raises:
            InvalidInputError: the variable or the file is not there, or what it holds cannot be sent.
        """
        if self.api_key_env is not None:
            return key_in_environment(f"{where}.api_key_env", self.api_key_env)
        if self.api_key_file is None:
            return NO_KEY
        place = f"{where}.api_key_file"
        try:
            with open(self.api_key_file, encoding="utf-8") as file:
                text = file.read(65536)
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "is not UTF-8"
            raise InvalidInputError(f"{place}: {os.path.basename(self.api_key_file)} cannot be read: {why}") from None
        return check_key(place, "the file", text.strip())
