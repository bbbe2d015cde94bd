"""A `ServerConfig` says what a server does besides deciding; `read_config` reads it from YAML, and names the key that is wrong."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from ipr_engine.documents import provider_checks as providers
from ipr_engine.documents.typed_document import read_typed, take_plain, told
from ipr_engine.documents.yaml_file import YamlKind, read_yaml
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.masks import MASKS
from ipr_engine.policy.policy_spec import POLICY_CONTROLS
from ipr_engine.prompts.parsed import ASSUMED_TOKENS
from ipr_engine.request.route_request import REQUEST_OPTIONS
from ipr_engine.server import config_checks as checks
from ipr_engine.server.judge_schema import JUDGE

FormatName = Literal["openai-chat", "openai-responses", "anthropic-messages"]
MOST_TOLD = 5  # mistakes of one config, in one error
CONFIG = YamlKind("config", "serve", "endpoints and upstreams", {"records": ("path", "key"), "shadow": ("bundle",)})


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """A `Timeouts` bounds one attempt at an upstream, in seconds.

    Attributes:
        connect_s: until the connection stands, the look-up of the name included.
        first_byte_s: until the first byte of a streamed reply, from the attempt's begin.
        whole_s: until all of a reply that is not streamed.
        idle_s: between two pieces of a streamed reply.
    """

    connect_s: float = 2.0
    first_byte_s: float = 60.0
    whole_s: float = 600.0
    idle_s: float = 60.0

    def __post_init__(self) -> None:
        take_plain(self)
        providers.check_above_zero(self, "connect_s", "first_byte_s", "whole_s", "idle_s")

    def until_first_byte(self, streamed: bool) -> float:
        """Return how long an attempt waits before anything of an answer can be passed on."""
        return self.first_byte_s if streamed else self.whole_s


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """An `Endpoint` is one provider's address.

    Attributes:
        base_url: everything before `/chat/completions`, `/responses` or `/messages`.
        formats: what it speaks.
        api_key_env: the environment variable that holds its key; None where it needs none.
        api_key_header: the header that holds the key in place of the format's own (`Authorization: Bearer KEY` of OpenAI's formats,
            `x-api-key: KEY` of Anthropic's): `api-key`, say. `authorization` has Bearer before the key, every other the key alone.
        headers: sent with every request, no secrets.
        timeouts: of every attempt.
    """

    base_url: str
    formats: tuple[FormatName, ...]
    api_key_env: str | None = None
    api_key_header: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeouts: Timeouts = field(default_factory=Timeouts)

    def __post_init__(self) -> None:
        take_plain(self)
        providers.check_base_url(self.base_url)
        if not self.formats:
            raise InvalidInputError(
                "formats: expected at least one of openai-chat, openai-responses, anthropic-messages"
            )
        if self.api_key_env is not None:
            providers.check_variable("api_key_env", self.api_key_env)
        providers.check_headers(self.headers, key_header=True)
        if self.api_key_header is not None:
            providers.check_key_header(self.api_key_header, self.headers, self.api_key_env)


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """An `Upstream` says where a candidate answers.

    Attributes:
        endpoint: the name of its endpoint.
        model: what the endpoint calls it; None: as the bundle does.
        body: format -> fields that are set in the body of every request, an effort of reasoning, say.
    """

    endpoint: str
    model: str | None = None
    body: Mapping[FormatName, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        take_plain(self)
        checks.check_some(self, "endpoint", "model")
        checks.check_body(self.body)


@dataclass(frozen=True, kw_only=True)
class CoolDown:
    """A `CoolDown` says when a candidate that fails is passed over.

    Attributes:
        failures: so many in a row.
        seconds: for so long the first time; each failed probe after it doubles it, up to most_seconds.
    """

    failures: int = 2
    seconds: float = 1.0
    most_seconds: float = 30.0

    def __post_init__(self) -> None:
        take_plain(self)
        providers.check_above_zero(self, "failures", "seconds", "most_seconds")
        if self.most_seconds < self.seconds:
            raise InvalidInputError("most_seconds: expected at least as many as seconds")


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

    name: str
    keys_sha256: tuple[str, ...] = ()
    keys_env: tuple[str, ...] = ()
    policy: Mapping[str, Any] = field(default_factory=dict)
    controls: tuple[str, ...] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        take_plain(self)
        checks.check_name("name", self.name)
        checks.check_options("policy", self.policy)
        object.__setattr__(self, "keys_sha256", tuple(digest.lower() for digest in self.keys_sha256))
        checks.check_digests("keys_sha256", self.keys_sha256)
        for name in self.keys_env:
            providers.check_variable("keys_env", name)
        for name in self.controls or ():
            if name not in (*POLICY_CONTROLS, *REQUEST_OPTIONS):
                known = ", ".join((*POLICY_CONTROLS, *REQUEST_OPTIONS))
                raise InvalidInputError(f"controls: expected some of {known}, got {told(name)}")


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """A `ServerLimits` bounds what one worker takes.

    Attributes:
        head_bytes, head_s: of a request's head, and how long it may take to come.
        body_bytes, body_s: of a request's body, and how long it may take to come; a client that reads nothing of a stream for so
            long has left.
        reply_bytes: of a reply that is not streamed by its upstream and kept whole, so that another may still answer; a longer
            one is passed on as it comes.
        requests: at the same time; more are refused with 503.
        connections: at the same time, of `ipr serve`; for one more the one is closed that was idle for longest, else it gets 503.
        policies: different sets of options kept compiled.
    """

    head_bytes: int = 64 * 2**10
    head_s: float = 30.0
    body_bytes: int = 32 * 2**20
    body_s: float = 30.0
    reply_bytes: int = 16 * 2**20
    requests: int = 1024
    connections: int = 2048
    policies: int = 512

    def __post_init__(self) -> None:
        take_plain(self)
        sizes = "head_bytes", "body_bytes", "reply_bytes", "requests", "connections", "policies"
        providers.check_above_zero(self, *sizes, "head_s", "body_s")
        if self.head_bytes < checks.HEAD_BYTES:
            raise InvalidInputError(f"head_bytes: expected at least {checks.HEAD_BYTES}")


@dataclass(frozen=True, kw_only=True)
class Records:
    """A `Records` says where decisions are recorded, as `Engine.recorder` does; decisions are its arguments' meaning there."""

    path: str
    key: str | None = None
    keep_prompts: bool = False
    keep_x: bool = False
    min_words: int | None = None

    def __post_init__(self) -> None:
        take_plain(self)
        checks.check_some(self, "path", "key")
        if self.keep_x and self.key is None:
            raise InvalidInputError(
                "keep_x: an embedding tells the words of its prompt, and is kept under an owner's key alone; give key, a file that "
                "`ipr key FILE` makes"
            )
        if self.min_words is not None and self.min_words < 0:
            raise InvalidInputError("min_words: expected a whole number >= 0")


@dataclass(frozen=True, kw_only=True)
class ShadowBundle:
    """A `ShadowBundle` decides beside, and never serves.

    Attributes:
        bundle: its root or folder, or an embedded bundle's name. policy: options over those of the request.
        waiting: so many requests may wait for it; more are left out, and counted.
    """

    bundle: str
    policy: Mapping[str, Any] = field(default_factory=dict)
    waiting: int = 64

    def __post_init__(self) -> None:
        take_plain(self)
        checks.check_some(self, "bundle")
        checks.check_options("policy", self.policy)
        providers.check_above_zero(self, "waiting")


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

    limits: ServerLimits = field(default_factory=ServerLimits)
    cool_down: CoolDown = field(default_factory=CoolDown)
    assumed_tokens: int | None = ASSUMED_TOKENS
    service: Mapping[str, Any] = field(default_factory=dict)
    follow_s: float = 5.0
    hosts: tuple[str, ...] = ()
    log_requests: bool = False
    spans: bool = False

    def __post_init__(self) -> None:
        take_plain(self)
        checks.check_service(self.service)
        checks.check_hosts(self.hosts)
        if not 0 <= self.follow_s <= providers.MOST:
            raise InvalidInputError(f"follow_s: expected seconds >= 0 and at most {providers.MOST:g}, 0 for never")
        if self.assumed_tokens is not None and not 1 <= self.assumed_tokens <= providers.MOST:
            raise InvalidInputError(
                f"assumed_tokens: expected a whole number >= 1 and at most {providers.MOST:g}, or null, which refuses such parts"
            )


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """A `ServerConfig` holds what a server does besides deciding. Every part may be left out.

    A part is what is named here, or an object as YAML has it: `ServerConfig(server={"spans": True})`.

    Attributes:
        endpoints: name -> provider. upstreams: candidate -> endpoint, or an `Upstream`. Without them no request is passed on.
        policy: options of `Engine.policy` for every request. models: name asked for -> options over these.
        tenants: who may ask; with none everybody may.
        records, shadow: None for none. exploration: share of requests, in [0, 1), whose candidate is drawn by chance, and recorded so.
        server: how it runs.
    """

    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    upstreams: Mapping[str, Upstream | str] = field(default_factory=dict)
    policy: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"auto": {}})
    tenants: tuple[Tenant, ...] = ()
    records: Records | None = None
    exploration: float = 0.0
    shadow: ShadowBundle | None = None
    server: ServerOptions = field(default_factory=ServerOptions)

    def __post_init__(self) -> None:
        take_plain(self)
        checks.check_options("policy", self.policy)
        checks.check_exploration(self.exploration, self.records is not None)
        if not self.models:
            raise InvalidInputError("models: expected at least one name that is routed, such as auto")
        for name, options in self.models.items():
            checks.check_name("models", name)
            if name == JUDGE:
                raise InvalidInputError(f"models.{name}: is the judge's own name; give it another")
            checks.check_options(f"models.{name}", options)
        for candidate, upstream in self.upstreams.items():
            if upstream == "":
                raise InvalidInputError(f"upstreams.{candidate}: is empty; write the name of an endpoint")
        used = {candidate: self.upstream(candidate) for candidate in self.upstreams}
        for candidate, upstream in used.items():
            where = f"upstreams.{candidate}"
            if upstream.endpoint not in self.endpoints:
                known = ", ".join(self.endpoints) or "none"
                raise InvalidInputError(
                    f"{where}: expected the name of an endpoint, got {told(upstream.endpoint)}; known: {known}"
                )
            spoken = self.endpoints[upstream.endpoint].formats
            for form in upstream.body:
                if form not in spoken:
                    raise InvalidInputError(
                        f"{where}.body.{form}: its endpoint speaks {' and '.join(spoken)} alone; leave it out"
                    )
            if candidate in self.models:
                raise InvalidInputError(
                    f"models.{candidate}: is a candidate of upstreams too; give the alias another name"
                )
        for name in self.endpoints:
            if name not in {upstream.endpoint for upstream in used.values()}:
                raise InvalidInputError(
                    f"endpoints.{name}: no candidate of upstreams answers there; name it there, or leave it out"
                )
        names = [tenant.name for tenant in self.tenants]
        for number, tenant in enumerate(self.tenants):
            if tenant.name in names[:number]:
                raise InvalidInputError(f"tenants.{tenant.name}: two have this name; give each its own")
            if not tenant.keys_sha256 and not tenant.keys_env:
                raise InvalidInputError(f"tenants.{tenant.name}: has no key; give keys_sha256 or keys_env")

    def upstream(self, candidate: str) -> Upstream:
        """Return where a candidate answers; it must have an upstream."""
        found = self.upstreams[candidate]
        return Upstream(endpoint=found) if isinstance(found, str) else found


def place_of(config: ServerConfig, tenant: Tenant, model: str, option: str) -> str:
    """Return which key of a config holds an option of a policy, or a part of one, for a tenant that asks for a model.

    The last level that says it counts: the tenant's, the model's, the server's. Of masks, which add up, all are told. Where none says
    it, the last level that says anything is returned, or the model.
    """
    levels = {"policy": config.policy, f"models.{model}": config.models.get(model, {})}
    levels[f"tenants.{tenant.name}.policy"] = tenant.policy
    name = leading_name(option)
    held = [f"{place}.{option}" for place, options in levels.items() if options.get(name) is not None]
    if name in MASKS and held:
        return " or ".join(held)
    said = [place for place, options in levels.items() if options]
    return (held or said or [f"models.{model}"])[-1]


def leading_name(option: str) -> str:
    """Return the option that an error names, of which it may name a part: `prices` of `prices['gpt']`."""
    return re.split(r"\W", option, maxsplit=1)[0]


def read_config(*paths: str | os.PathLike[str]) -> ServerConfig:
    """Read a config from YAML files, which hold different keys of one `ServerConfig`.

    Paths in a file (`records.path`, `records.key`, `shadow.bundle`) are those from its own folder, unless they are absolute. Where
    nothing is there, `shadow.bundle` may be an embedded bundle's name.

    Raises:
        InvalidInputError: a file cannot be read, or a key is unknown, missing, doubled or wrong; the file and the key are named, and
            no value that may be a key.
    """
    found: dict[str, Any] = {}
    files: dict[str, str] = {}
    for path in paths:
        for key, value in read_yaml(path, CONFIG).items():
            if key in found:
                raise InvalidInputError(f"{path}: {key} stands in {files[key]} too; give it once")
            found[key], files[key] = checks.shadow_by_name(value, path) if key == "shadow" else value, str(path)
    return make_config(found, ", ".join(str(path) for path in paths), files)


def make_config(
    document: Mapping[str, Any], where: str = "config", files: Mapping[str, str] = MappingProxyType({})
) -> ServerConfig:
    """Return the config of a document as YAML or JSON gives it.

    Args:
        where: what errors call the document. files: key at its top -> what they call the file that holds it, where there are several.
    Raises:
        InvalidInputError: as `read_config`.
    """
    made, mistakes = read_typed(ServerConfig, document)
    if made is not None:
        return made
    told = [f"{files.get(mistake.top, where)}: {mistake.text}" for mistake in mistakes[:MOST_TOLD]]
    more = len(mistakes) - MOST_TOLD
    raise InvalidInputError("\n".join([*told, *([f"and {more} more"] if more > 0 else [])]))
