"""`app` makes the ASGI application of a server: one engine, its endpoints, and a gateway where there are upstreams."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Unpack

from ipr_engine._extras import need
from ipr_engine._validate import shown
from ipr_engine.audit.record_writer import RecordKeywords
from ipr_engine.encoders.load_options import LoadKeywords
from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError
from ipr_engine.server.answering import OVERVIEW, Answering
from ipr_engine.server.asked_query import query_of
from ipr_engine.server.chooser import Chooser
from ipr_engine.server.config_checks import as_record_errors, as_service_errors, check_form, placed
from ipr_engine.server.decision_endpoints import NO_UPSTREAMS, DecisionEndpoints
from ipr_engine.server.exchange import SHORT_WAY, Exchange
from ipr_engine.server.gateway import Gateway
from ipr_engine.server.judge_schema import JUDGE
from ipr_engine.server.model_list import model_list
from ipr_engine.server.overview import Overview
from ipr_engine.server.page import page
from ipr_engine.server.plain_decisions import PlainDecisions
from ipr_engine.server.question_endpoints import QuestionEndpoints
from ipr_engine.server.refused import RefusedError
from ipr_engine.server.request_formats import CHAT, FORMATS, MESSAGES, SYSTEMONE, RequestFormat
from ipr_engine.server.server_config import Records, ServerConfig, Tenant
from ipr_engine.server.server_state import ServerState
from ipr_engine.server.told import Told
from ipr_engine.serving import AsyncEngine
from ipr_engine.serving.decision_writer import DecisionWriter
from ipr_engine.serving.queueing import Limits
from ipr_engine.serving.recorders import AsyncRecorder

Handler = Callable[[Exchange, Tenant, Told], Awaitable[None]]
ROUTE = "/v1/route"
VERSION = "/v1"
"""What the paths begin with that SDKs ask for: some of them have it in their base URL, some in their paths."""


def app(
    engine: Engine | str | os.PathLike[str] | None = None,
    config: ServerConfig | None = None,
    *,
    follow: str | os.PathLike[str] | None = None,
    **options: Unpack[LoadKeywords],
) -> Any:
    """Return an ASGI application that decides, and with upstreams passes requests on.

        >>> application = app("bundles/", read_config("upstreams.yaml"))     # for uvicorn, or a mount of your own app

    Everything is loaded here; the lifespan opens connections and warms up, so run it; a mount does not (docs/server.md).

    Args:
        engine: what decides: an Engine, or a bundle's root or folder; None for the embedded bundle. A root is followed: when
            its CURRENT is replaced, the new bundle serves.
        config: None for a decision server that anybody may ask.
        follow: the root whose CURRENT is followed, where `engine` is one bundle of it; None for `engine` itself.
        options: those of `Engine.load`, where a bundle is loaded here.
    Returns:
        A Starlette application; `state.ipr` is its `ServerState`.
    Raises:
        BundleError: the bundle cannot be loaded. BackendUnavailableError: the extra [serve] is missing.
        InvalidInputError: the config does not fit the bundle, or a key is not in the environment.
        RecordError: the file of records cannot be opened.
    """
    applications = need("starlette.applications", "a server", "serve")
    routing = need("starlette.routing", "a server", "serve")
    config = ServerConfig() if config is None else config
    root = None
    if engine is None or not isinstance(engine, Engine):
        root = None if engine is None else Path(engine)
        engine = Engine.load(root, **options)
    root = root if follow is None else Path(follow)
    if not isinstance(config, ServerConfig):
        raise InvalidInputError(
            f"config: expected a ServerConfig, got {type(config).__name__}; read_config(path) makes one"
        )
    service: dict[str, Any] = {name: value for name, value in config.server.service.items() if name != "budget_us"}
    shadow = None
    if config.shadow is not None:
        with placed("shadow.bundle"):
            beside = Engine.load(config.shadow.bundle)
        shadow = AsyncEngine(beside), beside
    with as_service_errors():
        check_form(Limits | None, service.get("limits"), "")
        serving = AsyncEngine(engine, **service)
    recorder = None if config.records is None else _recorder(serving, config.records)
    state = ServerState(serving, engine, config, root=root, recorder=recorder, shadow=shadow)
    chooser = Chooser(config, state.decider)
    decisions, questions = DecisionEndpoints(chooser), QuestionEndpoints(chooser)
    gateway = None if state.upstreams is None else Gateway(config, state.decider, state.upstreams)
    overview = Overview(config, state.decider, state.upstreams, state.shadow)

    @contextlib.asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        async with state.running():
            yield

    def posted(path: str, handler: Handler, form: RequestFormat = CHAT, plain: PlainDecisions | None = None) -> Any:
        in_one = None if plain is None else plain.answer
        answering = at_once["POST", path] = Answering(state, path, handler, form, plain=in_one)
        return routing.Route(path, answering, methods=["POST"])

    def read(path: str, handler: Handler, *, open_to_all: bool = True) -> Any:
        label = path.replace(":path}", "}")
        return routing.Route(path, Answering(state, label, handler, CHAT, open_to_all=open_to_all), methods=["GET"])

    at_once: dict[tuple[str, str], Answering] = {}
    plain = (
        PlainDecisions(state, ROUTE, DecisionWriter(serving.service))
        if recorder is None and state.spans is None
        else None
    )
    routes = [
        posted(ROUTE, decisions.route, plain=plain),
        posted("/v1/decisions", questions.decisions),
        posted(SYSTEMONE.path, questions.systemone, SYSTEMONE),
        *(posted(form.path, _passed_on(config, decisions, gateway, form), form) for form in FORMATS.values()),
        read("/", _page()),
        read(OVERVIEW, _overview(overview), open_to_all=False),
        read("/v1/models", _models(state), open_to_all=False),
        read("/v1/models/{model:path}", _model(state), open_to_all=False),
        read("/health", _health),
        read("/ready", _ready(state)),
        read("/metrics", _metrics(state)),
    ]
    unknown = _unknown(state, {route.path: min(route.methods - {"HEAD"}) for route in routes})
    made = _application(applications.Starlette)(
        routes=routes, lifespan=lifespan, exception_handlers={404: unknown, 405: unknown}
    )
    made.router.redirect_slashes = (
        False  # a path is known or not: a client would repeat its body, and its key, elsewhere
    )
    made.state.ipr = state
    made.at_once = at_once
    return made


@cache
def _application(starlette: type) -> Any:
    """Return the class of an application that finds what is asked most without Starlette's walk, which takes longer than deciding."""

    class Application(starlette):  # type: ignore[misc]  # any, to mypy
        at_once: Mapping[tuple[str, str], Any]

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            plain = scope["type"] == "http" and not scope.get("root_path") and not self.user_middleware
            answering = self.at_once.get((scope["method"], scope["path"])) if plain else None
            await (super().__call__ if answering is None else answering)(scope, receive, send)

    return Application


def _passed_on(
    config: ServerConfig, decisions: DecisionEndpoints, gateway: Gateway | None, form: RequestFormat
) -> Handler:
    """Return what answers requests of a format: the gateway; without upstreams, and for the judge's model, a decision."""

    async def answer(exchange: Exchange, tenant: Tenant, told: Told) -> None:
        body = await exchange.json(config.server.limits)
        if form is CHAT and (gateway is None or body.get("model") == JUDGE):
            await decisions.judge(exchange, tenant, told, body)
        elif gateway is None:
            raise RefusedError(404, NO_UPSTREAMS)
        else:
            await gateway.answer(exchange, tenant, form, told, body)

    return answer


def _recorder(serving: AsyncEngine, records: Records) -> AsyncRecorder:
    kept: RecordKeywords = {
        "keep_prompts": records.keep_prompts,
        "keep_x": records.keep_x,
        "key": records.key,
        "min_words": records.min_words,
    }
    with as_record_errors():
        return serving.recorder(records.path, **kept)


def _models(state: ServerState) -> Handler:
    async def answer(exchange: Exchange, tenant: Tenant, told: Told) -> None:
        await exchange.json_reply(
            200, {"object": "list", "data": await model_list(state.config, state.decider, tenant)}
        )

    return answer


def _model(state: ServerState) -> Handler:
    async def answer(exchange: Exchange, tenant: Tenant, told: Told) -> None:
        name = exchange.of_path["model"]
        for one in await model_list(state.config, state.decider, tenant):
            if one["id"] == name:
                await exchange.json_reply(200, one)
                return
        wrong = "is not known; GET /v1/models lists those that are"
        raise RefusedError(404, f"model: {shown(name)} {wrong}", "model", why=f"model: {wrong}")

    return answer


def _page() -> Handler:
    written, headers = page()

    async def answer(exchange: Exchange, tenant: Tenant, told: Told) -> None:
        await exchange.reply(200, written, headers)

    return answer


def _overview(overview: Overview) -> Handler:
    async def answer(exchange: Exchange, tenant: Tenant, told: Told) -> None:
        form = query_of(exchange, ("format",)).form
        await exchange.json_reply(200, await overview.of(tenant, form), [(b"cache-control", b"no-store")])

    return answer


async def _health(exchange: Exchange, tenant: Tenant, told: Told) -> None:
    await exchange.json_reply(200, {"status": "ok"})


def _ready(state: ServerState) -> Handler:
    async def answer(exchange: Exchange, tenant: Tenant, told: Told) -> None:
        ready, found = state.readiness()
        await exchange.json_reply(200 if ready else 503, found)

    return answer


def _metrics(state: ServerState) -> Handler:
    async def answer(exchange: Exchange, tenant: Tenant, told: Told) -> None:
        written = await state.metrics_text()
        await exchange.reply(200, written, [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")])

    return answer


def _unknown(state: ServerState, known: Mapping[str, str]) -> Callable[[Any, Any], Awaitable[Any]]:
    """Return what answers a path or a method that is not known, as clients read errors; it counts under one name.

    known: path -> its method.
    """
    responses = need("starlette.responses", "a server", "serve")
    asked_by_sdks = [path for path in known if path.startswith(VERSION)]
    every = "; ".join(
        f"{method} {', '.join(_paths(known, method))}" for method in sorted({*known.values()}, reverse=True)
    )

    async def answer(request: Any, error: Any) -> Any:
        # the scope would hold the connection, and the connection the scope
        request.scope.get("extensions", {}).pop(SHORT_WAY, None)
        status = error.status_code
        path = request.url.path.removeprefix(request.scope.get("root_path", ""))
        meant, why = _meant(path, asked_by_sdks)
        short = f"the path is not known{why}"
        message = short if why else f"{short}; these are: {every}"
        if status == 405:
            short = message = f"method: expected {' or '.join(sorted(error.headers['Allow'].split(', ')))} here"
        state.metrics.requests("other", "", str(status)).inc()
        if state.logs_requests:
            told = Told("other")
            told.refused = short
            state.log(told, status, math.nan)
        form = MESSAGES if meant.startswith(MESSAGES.path) else CHAT
        return responses.JSONResponse(form.error(status, message), status, headers=error.headers)

    return answer


def _paths(known: Mapping[str, str], method: str) -> list[str]:
    return [path.replace(":path}", "}") for path, its in known.items() if its == method]


def _meant(path: str, known: Collection[str]) -> tuple[str, str]:
    """Return the path that is meant where a client's base URL has one /v1 too few or too many, and what to do; else the path itself."""
    if VERSION + path in known:
        return VERSION + path, f"; {VERSION}{path} is: give the client a base URL that ends in {VERSION}"
    once = path.removeprefix(VERSION)
    if once in known:
        return once, f"; {once} is: give the client a base URL without {VERSION}"
    return path, ""
