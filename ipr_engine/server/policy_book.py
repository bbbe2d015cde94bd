"""A `PolicyBook` compiles and keeps the policy that each request means: of the server, the model asked for, the tenant and the request."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Collection, Iterable
from typing import cast

from ipr_engine.bundle import BundleSpec
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.best_position import best_position
from ipr_engine.policy.levels import merged
from ipr_engine.policy.masks import MASKS
from ipr_engine.policy.policy_spec import Options, PolicyOptions, options_on
from ipr_engine.policy.rules import with_aim
from ipr_engine.request.controls import NO_CONTROLS
from ipr_engine.server.asked_policy import AskedPolicy
from ipr_engine.server.decided import AskedRequest
from ipr_engine.server.json_text import json_text
from ipr_engine.server.judge_schema import JUDGE
from ipr_engine.server.refused import RefusedError, refused_as
from ipr_engine.server.request_formats import FORMATS, RequestFormat
from ipr_engine.server.server_config import ServerConfig
from ipr_engine.server.server_engine import PolicyMaker

MOST_KEPT = 16384
"""Bytes of options, as JSON, from which on a policy is compiled for its request alone: `limits.policies` bounds memory, too."""
FORMAT = "format"
"""The cause by which a candidate is left out that cannot speak the request's format."""


LOGGER = logging.getLogger(__name__)


class PolicyBook:
    """A `PolicyBook` keeps the policies of one server, the least lately used leaving first."""

    def __init__(self, engine: PolicyMaker, config: ServerConfig, last: Options | None = None) -> None:
        """Compile by `engine`. last: options over those of every request, of a bundle that decides beside; None for the one that serves."""
        self._engine = engine
        self._config = config
        self._last = last
        self._kept: OrderedDict[tuple[object, ...], AskedPolicy] = OrderedDict()
        self._swaps = engine.swaps

    def format_exclusions(self, form: RequestFormat | None, bundle: BundleSpec) -> dict[str, str]:
        """Return candidate -> why it cannot answer a request of this format (None: of any)."""
        config = self._config
        found: dict[str, str] = {}
        if not config.upstreams:
            return found
        for name in bundle.names:
            if name not in config.upstreams:
                found[name] = "upstream: none is configured"
                continue
            spoken = config.endpoints[config.upstream(name).endpoint].formats
            if form is not None and form.name not in spoken:
                found[name] = f"{FORMAT}: its upstream speaks {' and '.join(spoken)}, not {form.name}"
        return found

    def kept(self, question: AskedRequest) -> AskedPolicy | None:
        """Return the policy of a request, where it is kept."""
        # a bundle that serves again has a drift flag of its own: its policies are others
        if self._engine.swaps != self._swaps:
            self._swaps = self._engine.swaps
            self._kept.clear()
        key = self._engine.bundle.hash, self._means(question)[0]
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    @staticmethod
    def _means(question: AskedRequest) -> tuple[tuple[object, ...], bytes]:
        """Return what tells policies of one bundle apart, and the request's own options as JSON."""
        of_policy, form = question.controls.policy, question.form
        text = json_text(of_policy, sort_keys=True) if of_policy else b""
        name = None if form is None else form.name
        return (question.tenant.name, question.model, name, question.among, text), text

    async def of(self, question: AskedRequest) -> AskedPolicy:
        """Return the policy of a request. One that is not kept is compiled in a thread: it may take milliseconds.

        Raises:
            RefusedError: an option is wrong, or leaves nobody who could answer.
        """
        found = self.kept(question)
        if found is not None:
            return found
        controls, form, serving = question.controls, question.form, self._engine.bundle.hash
        means, text = self._means(question)
        try:
            found = await asyncio.to_thread(self.compile, question)
        except InvalidInputError as error:
            wrong = controls.blamed(error) if controls.policy else error
        else:
            if len(text) <= MOST_KEPT:
                self._kept[found.policy.bundle_hash, means] = found
            while len(self._kept) > self._config.server.limits.policies:
                self._kept.popitem(last=False)
            return found
        if self._engine.bundle.hash != serving:  # swapped meanwhile: names of the one before may be unknown
            return await self.of(question)
        if (
            controls.policy or question.among or form is not None
        ):  # where it is wrong without these, too, that is no fault of theirs
            own = question._replace(controls=NO_CONTROLS, among=(), form=None)
            asked = await self.of(own)
            if form is not None:
                plain = own._replace(form=form)
                if question._replace(prompt=None) == plain._replace(prompt=None):
                    raise self._not_in(form, question, asked)
                await self.of(plain)
            raise refused_as(wrong)
        LOGGER.error("model %s of tenant %s cannot be decided: %s", question.model, question.tenant.name, wrong)
        raise RefusedError(503, "the server's own policy does not suit the bundle that serves; its log tells why")

    def _not_in(self, form: RequestFormat, question: AskedRequest, asked: AskedPolicy) -> RefusedError:
        """Return how a request ends whose format nobody speaks that it is open to. asked: its policy in any format."""
        spoken = speakers(self._config, self._engine.bundle.names)
        if not any(form.name in formats for formats in spoken.values()):
            return RefusedError(400, f"no upstream of this server speaks {form.name}; ask in another format", "model")
        known = {one for name in asked.policy.allowed for one in spoken.get(name, ())}
        if form.name in known:
            return RefusedError(400, f"the server's own policy cannot be kept by those that speak {form.name}")
        config, tenant = self._config, question.tenant
        levels = {
            f"tenant {tenant.name}": tenant.policy,
            f"model {question.model}": config.models.get(question.model, {}),
        }
        whose = [place for place, options in levels.items() if not set(MASKS).isdisjoint(options)] or ["this server"]
        paths = " or ".join(FORMATS[one].path for one in FORMATS if one in known)
        return RefusedError(
            400, f"nobody whom the policy of {' and '.join(whose)} leaves speaks {form.name}; ask at {paths}"
        )

    def compile(self, question: AskedRequest) -> AskedPolicy:
        """Compile the policy of a request for the bundle that serves now.

        Raises:
            InvalidInputError: an option is wrong, or leaves nobody who could answer.
        """
        engine, config, tenant = self._engine, self._config, question.tenant
        bundle = engine.bundle
        among = {"allowed": question.among} if question.among else {}
        of_model = config.models.get(question.model, {})
        levels: tuple[Options, ...] = (config.policy, of_model, tenant.policy, among, question.controls.policy)
        if self._last is not None:
            levels = (*(_known_to(level, bundle.names) for level in levels), self._last)
        options, exclusions = merged(levels, bundle.candidates, self.format_exclusions(question.form, bundle))
        policy = engine.policy(**cast(PolicyOptions, with_aim(options)))
        if policy.bundle_hash != bundle.hash:  # swapped meanwhile: positions are those of the other bundle
            return self.compile(question)
        exclusions = {**policy.exclusions, **exclusions}
        masked = tuple(name for name, why in exclusions.items() if why.startswith(FORMAT))
        return AskedPolicy(policy, exclusions, best_position(policy, bundle), masked)


def _known_to(level: Options, names: Collection[str]) -> Options:
    """Return options without what concerns candidates alone that a bundle lacks. Of `allowed` somebody stays, whom it may lack."""
    said = {name: value for name, value in level.items() if value is not None}
    if not said:
        return said
    known = {name.casefold() for name in names}
    allowed = said.get("allowed")
    if isinstance(allowed, (list, tuple)):
        said["allowed"] = [name for name in allowed if name.casefold() in known] or allowed
    return options_on(said, tuple(names))


def speakers(config: ServerConfig, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return candidate -> formats its upstream speaks, of those that have one."""
    return {
        name: config.endpoints[config.upstream(name).endpoint].formats for name in names if name in config.upstreams
    }


def require_known(model: object, known: Collection[str], candidates: Collection[str], they_are: str) -> str:
    """Return the model that a request asks for.

    candidates: those of the bundle. they_are: what those of them are that may not be asked for: "a candidate, not a routed model".
    Raises:
        RefusedError: 400, it is missing or no text; 404, it is not known.
    """
    if type(model) is str and model in known:
        return model
    names = [name for name in known if name not in candidates]  # which candidates a key may name, /v1/models tells
    more = "; GET /v1/models lists all that may be asked for" if len(names) < len(known) else ""
    if not isinstance(model, str) or not model:
        raise RefusedError(400, f"model: expected one of {', '.join(names)}{more}", "model")
    if model == JUDGE:
        they_are = "for /v1/chat/completions alone"
    if model == JUDGE or model in candidates:
        raise RefusedError(404, f"model: {model} is {they_are}; ask for one of {', '.join(names)}{more}", "model")
    wrong = f"model: {model[:128]!r} is not known; known: {', '.join(names)}{more}"
    raise RefusedError(404, wrong, "model", why="model: is not known")
