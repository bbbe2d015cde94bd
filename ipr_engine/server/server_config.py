"""A `ServerConfig` says what a server does besides deciding; `read_config` reads it from YAML, and names the key that is wrong."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from ipr_engine._extras import need
from ipr_engine._files import as_path
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.policy_spec import DEFAULTS, POLICY_CONTROLS
from ipr_engine.prompts.parsed import ASSUMED_TOKENS
from ipr_engine.request.route_request import REQUEST_OPTIONS

FormatName = Literal["openai-chat", "openai-responses", "anthropic-messages"]
_STRICT = {"extra": "forbid", "strict": True}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/@-]{0,127}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """A `Timeouts` bounds one attempt at an upstream, in seconds.

    Attributes:
        connect_s: until the connection stands.
        first_byte_s: until the first byte of a streamed reply, from the attempt's begin.
        whole_s: until all of a reply that is not streamed.
        idle_s: between two pieces of a streamed reply.
    """

    __pydantic_config__ = _STRICT

    connect_s: float = 2.0
    first_byte_s: float = 60.0
    whole_s: float = 600.0
    idle_s: float = 60.0

    def __post_init__(self) -> None:
        _above_zero(self, "connect_s", "first_byte_s", "whole_s", "idle_s")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """An `Endpoint` is one provider's address.

    Attributes:
        base_url: everything before `/chat/completions`, `/responses` or `/messages`.
        formats: what it speaks.
        api_key_env: the environment variable that holds its key; None where it needs none.
        headers: sent with every request, no secrets.
        timeouts: of every attempt.
    """

    __pydantic_config__ = _STRICT

    base_url: str
    formats: tuple[FormatName, ...]
    api_key_env: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeouts: Timeouts = field(default_factory=Timeouts)

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("base_url: expected http(s)://host[:port]/path, such as https://api.openai.com/v1")
        if parts.username or parts.password:
            raise ValueError("base_url: holds a user or password; keys come from the environment, see api_key_env")
        if not self.formats:
            raise ValueError("formats: expected at least one of openai-chat, openai-responses, anthropic-messages")
        if self.api_key_env is not None and not _VARIABLE.match(self.api_key_env):
            raise ValueError("api_key_env: expected the name of an environment variable, not a key")
        for name in self.headers:
            if name.lower() in ("authorization", "x-api-key", "proxy-authorization"):
                raise ValueError(f"headers: {name} holds a key; keys come from the environment, see api_key_env")


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """An `Upstream` says where a candidate answers.

    Attributes:
        endpoint: the name of its endpoint.
        model: what the endpoint calls it; None: as the bundle does.
        body: format -> fields that are set in the body of every request, an effort of reasoning, say.
    """

    __pydantic_config__ = _STRICT

    endpoint: str
    model: str | None = None
    body: Mapping[FormatName, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CoolDown:
    """A `CoolDown` says when a candidate that fails is passed over.

    Attributes:
        failures: so many in a row.
        seconds: for so long the first time; each failed probe after it doubles it, up to most_seconds.
    """

    __pydantic_config__ = _STRICT

    failures: int = 2
    seconds: float = 1.0
    most_seconds: float = 30.0

    def __post_init__(self) -> None:
        _above_zero(self, "failures", "seconds", "most_seconds")


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """A `Tenant` is who asks: it is known by its keys.

    Attributes:
        name: what logs and metrics call it.
        keys_sha256: the SHA-256 of each of its keys, in hex. keys_env: environment variables that hold keys.
        policy: options of `Engine.policy` over those of the server; masks add up.
        controls: what its requests may set, options of a policy and of a prompt (tokens_in, extra_usd ...); None: all.
        tags: put into logs and spans.
    """

    __pydantic_config__ = _STRICT

    name: str
    keys_sha256: tuple[str, ...] = ()
    keys_env: tuple[str, ...] = ()
    policy: Mapping[str, Any] = field(default_factory=dict)
    controls: tuple[str, ...] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _named("name", self.name)
        _options("policy", self.policy)
        for digest in self.keys_sha256:
            if not _SHA256.match(digest):
                raise ValueError("keys_sha256: expected 64 hex digits each, what `printf %s KEY | sha256sum` prints")
        for name in self.keys_env:
            if not _VARIABLE.match(name):
                raise ValueError("keys_env: expected names of environment variables, not keys")
        for name in self.controls or ():
            if name not in (*POLICY_CONTROLS, *REQUEST_OPTIONS):
                known = ", ".join((*POLICY_CONTROLS, *REQUEST_OPTIONS))
                raise ValueError(f"controls: expected some of {known}, got {name!r}")


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """A `ServerLimits` bounds what one worker takes.

    Attributes:
        head_bytes, head_s: of what is read of a request at once, its head above all, and how long the head may take to come.
        body_bytes, body_s: of a request's body, and how long it may take to come.
        reply_bytes: of a reply that is not streamed by its upstream and kept whole, so that another may still answer; a longer
            one is passed on as it comes.
        requests: at the same time; more are refused with 503.
        policies: different sets of options kept compiled.
    """

    __pydantic_config__ = _STRICT

    head_bytes: int = 64 * 2**10
    head_s: float = 30.0
    body_bytes: int = 32 * 2**20
    body_s: float = 30.0
    reply_bytes: int = 16 * 2**20
    requests: int = 1024
    policies: int = 512

    def __post_init__(self) -> None:
        _above_zero(self, "head_bytes", "head_s", "body_bytes", "body_s", "reply_bytes", "requests", "policies")


@dataclass(frozen=True, kw_only=True)
class Records:
    """A `Records` says where decisions are recorded, as `Engine.recorder` does; decisions are its arguments' meaning there."""

    __pydantic_config__ = _STRICT

    path: str
    key: str | None = None
    keep_prompts: bool = False
    keep_x: bool = False
    min_words: int | None = None


@dataclass(frozen=True, kw_only=True)
class ShadowBundle:
    """A `ShadowBundle` decides beside, and never serves.

    Attributes:
        bundle: its root or folder. policy: options over those of the request.
        waiting: so many requests may wait for it; more are left out, and counted.
    """

    __pydantic_config__ = _STRICT

    bundle: str
    policy: Mapping[str, Any] = field(default_factory=dict)
    waiting: int = 64

    def __post_init__(self) -> None:
        _options("policy", self.policy)
        _above_zero(self, "waiting")


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """A `ServerOptions` holds how a server runs.

    Attributes:
        limits: of one worker. cool_down: when a candidate that fails is passed over.
        assumed_tokens: billed for each part that cannot be counted, an image, say; None refuses such a request.
        service: `fallback`, `cache_entries` and `limits` of `AsyncEngine`, and `budget_us` of its `route`.
        follow_s: seconds between two looks at CURRENT of the bundle's root; 0 never looks.
        hosts: what the header Host may say, without its port; others are refused, as of a page whose name was made to mean this
            machine. None of them: anything. `ipr serve` on a loopback address takes its names alone, unless some are given.
        log_requests: one line of JSON a request, without a prompt's text. spans: of OpenTelemetry.
    """

    __pydantic_config__ = _STRICT

    limits: ServerLimits = field(default_factory=ServerLimits)
    cool_down: CoolDown = field(default_factory=CoolDown)
    assumed_tokens: int | None = ASSUMED_TOKENS
    service: Mapping[str, Any] = field(default_factory=dict)
    follow_s: float = 5.0
    hosts: tuple[str, ...] = ()
    log_requests: bool = False
    spans: bool = False

    def __post_init__(self) -> None:
        for name in self.service:
            if name not in ("fallback", "cache_entries", "limits", "budget_us"):
                raise ValueError(f"service: expected fallback, cache_entries, limits or budget_us, got {name!r}")
        if not self.follow_s >= 0:
            raise ValueError("follow_s: expected seconds >= 0")
        if self.assumed_tokens is not None and self.assumed_tokens < 1:
            raise ValueError("assumed_tokens: expected a whole number >= 1, or null")


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """A `ServerConfig` holds what a server does besides deciding. Every part may be left out.

    Attributes:
        endpoints: name -> provider. upstreams: candidate -> endpoint, or an `Upstream`. Without them no request is passed on.
        policy: options of `Engine.policy` for every request. models: name asked for -> options over these.
        tenants: who may ask; with none everybody may.
        records, shadow: None for none.
        server: how it runs.
    """

    __pydantic_config__ = _STRICT

    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    upstreams: Mapping[str, Upstream | str] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"auto": {}})
    tenants: tuple[Tenant, ...] = ()
    records: Records | None = None
    shadow: ShadowBundle | None = None
    server: ServerOptions = field(default_factory=ServerOptions)

    def __post_init__(self) -> None:
        _options("policy", self.policy)
        if not self.models:
            raise ValueError("models: expected at least one name that is routed, such as auto")
        for name, options in self.models.items():
            _named("models", name)
            _options(f"models.{name}", options)
        for candidate, upstream in self.upstreams.items():
            named = upstream if isinstance(upstream, str) else upstream.endpoint
            if named not in self.endpoints:
                known = ", ".join(self.endpoints) or "none"
                raise ValueError(f"upstreams.{candidate}: no endpoint is called {named!r}; known: {known}")
            if candidate in self.models:
                raise ValueError(f"models: {candidate!r} is a candidate too; give the alias another name")
        names = [tenant.name for tenant in self.tenants]
        if len(set(names)) < len(names):
            raise ValueError("tenants: two have the same name")

    def upstream(self, candidate: str) -> Upstream:
        """Return where a candidate answers; it must have an upstream."""
        found = self.upstreams[candidate]
        return Upstream(endpoint=found) if isinstance(found, str) else found


def read_config(*paths: str | os.PathLike[str]) -> ServerConfig:
    """Read a config from YAML files, which hold different keys of one `ServerConfig`.

    Raises:
        InvalidInputError: a file cannot be read, or a key is unknown, missing or wrong; the file and the key are named, and no value.
    """
    yaml = need("yaml", "a server's config", "serve")
    found: dict[str, Any] = {}
    for path in paths:
        file = as_path(path, "config")
        try:
            document = yaml.safe_load(file.read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"{file}: cannot be read: {error}") from error
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = "" if mark is None else f", line {mark.line + 1}"
            raise InvalidInputError(f"{file}{where}: is not YAML; check indentation, colons and quotes") from None
        if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
            raise InvalidInputError(f"{file}: expected keys such as endpoints and upstreams at its top")
        for key in document:
            if key in found:
                raise InvalidInputError(f"{file}: {key} stands in another file too; give it once")
        found |= document
    return make_config(found, ", ".join(str(path) for path in paths))


def make_config(document: Mapping[str, Any], where: str = "config") -> ServerConfig:
    """Return the config of a document as YAML or JSON gives it.

    Raises:
        InvalidInputError: as `read_config`.
    """
    pydantic = need("pydantic", "a server's config", "serve")
    try:
        text = json.dumps(document)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{where}: expected text, numbers, lists and mappings alone: {error}") from None
    try:  # as JSON: read strictly, a list is a tuple and a mapping a dataclass there
        made: ServerConfig = pydantic.TypeAdapter(ServerConfig).validate_json(text)
        return made
    except pydantic.ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
    lines = [f"{'.'.join(_place(problem['loc'])) or 'top'}: {_said(problem['msg'])}" for problem in problems[:5]]
    raise InvalidInputError(f"{where}: {'; '.join(dict.fromkeys(lines))}")


def _place(loc: Sequence[object]) -> list[str]:
    """Return the keys to a value, without the names that pydantic gives to the arms of a union."""
    return [str(part) for part in loc if part not in ("Upstream", "str", "dataclass", "function-after")]


def _said(message: str) -> str:
    return message.removeprefix("Value error, ")


def _above_zero(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if isinstance(value, bool) or not 0 < value < float("inf"):
            raise ValueError(f"{name}: expected a number > 0, got {value!r}")


def _named(where: str, name: str) -> None:
    if not _NAME.match(name):
        raise ValueError(f"{where}: expected a name of letters, digits and ._:/@-, at most 128, got {name!r}")


def _options(where: str, options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in DEFAULTS:
            raise ValueError(f"{where}: {name!r} is no option of a policy; known: {', '.join(DEFAULTS)}")
