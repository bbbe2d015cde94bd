"""A `Spans` opens an OpenTelemetry span for each request, and sends them where the process is the server's own; the extra [otel]."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Iterator
from threading import Thread
from typing import Any

from ipr_engine._extras import need
from ipr_engine.errors import InvalidInputError
from ipr_engine.server.exchange import Exchange
from ipr_engine.server.told import Told

NAMED = {"asked": "gen_ai.request.model", "served": "gen_ai.response.model"}
SERVICE = "ipr"
"""What the process is called where neither OTEL_SERVICE_NAME nor OTEL_RESOURCE_ATTRIBUTES say it."""
LAST_S = 5.0
"""For so long the end of a server waits for its last spans to be sent."""
HTTP = "http/protobuf"
PROTOCOLS = {
    HTTP: "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter",
}
"""Of OTLP -> the module of its exporter."""
LOGGER = logging.getLogger(__name__)
_OF_TRACES = frozenset({b"traceparent", b"tracestate"})


class Spans:
    """A `Spans` tells the tracer of this process what is known of each request, without text of a prompt."""

    def __init__(self) -> None:
        """Take the tracer.

        Raises:
            BackendUnavailableError: the extra [otel] is missing.
        """
        self._trace = need("opentelemetry.trace", "server.spans", "otel")
        self._propagate = need("opentelemetry.propagate", "server.spans", "otel")
        self._tracer = self._trace.get_tracer("ipr_engine")
        logging.getLogger("opentelemetry.trace.span").setLevel(logging.ERROR)  # its warnings repeat a wrong tracestate
        self._exporter: Any = None  # where this process sends nothing by itself

    def send(self) -> None:
        """Have this process send its spans while it is `running`, unless somebody has set a provider: to where OTEL_* variables say.

        Raises:
            BackendUnavailableError: a package is missing. InvalidInputError: a variable has a value that is not known.
        """
        if not self._has_provider():
            need("opentelemetry.sdk.trace", "server.spans", "otel")
            kind = _exporter()
            try:
                self._exporter = None if kind is None else kind()
            except ValueError as error:
                raise InvalidInputError(
                    f"server.spans: an OTEL_EXPORTER_OTLP_* variable has no value that it may have: {error}"
                ) from None

    def _has_provider(self) -> bool:
        return not isinstance(self._trace.get_tracer_provider(), self._trace.ProxyTracerProvider)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send what `send` was asked for, all of it before this ends, or what can be sent in `LAST_S`."""
        if self._exporter is None:
            if not self._has_provider() and _said("OTEL_TRACES_EXPORTER") != "none":
                LOGGER.warning(
                    "server.spans: nobody has set an OpenTelemetry provider in this process; spans go nowhere"
                )
            yield
            return
        provider = self._provider()
        self._trace.set_tracer_provider(provider)
        try:
            yield
        finally:
            last = Thread(
                target=provider.shutdown, name="ipr spans", daemon=True
            )  # a collector that is gone keeps it for long
            last.start()
            await asyncio.to_thread(last.join, LAST_S)
            if last.is_alive():
                LOGGER.warning("server.spans: the last spans could not be sent within %g s", LAST_S)

    def _provider(self) -> Any:
        """Return a provider whose spans a thread of its own sends."""
        sdk, export, resources = (
            need(f"opentelemetry.sdk.{part}", "server.spans", "otel") for part in ("trace", "trace.export", "resources")
        )
        known = resources.Resource.create()
        if str(known.attributes.get("service.name", "")).startswith("unknown_service"):
            known = known.merge(resources.Resource({"service.name": SERVICE}))
        provider = sdk.TracerProvider(resource=known, shutdown_on_exit=False)
        provider.add_span_processor(export.BatchSpanProcessor(self._exporter))
        return provider

    @contextlib.contextmanager
    def of(self, exchange: Exchange, told: Told) -> Iterator[None]:
        """Open the span of a request, within its client's trace; what goes on of the request is within this span."""
        carrier: dict[str, str] = {}
        for header, said in exchange.headers:
            if header in _OF_TRACES:
                line, key = said.decode("latin-1"), header.decode()
                carrier[key] = f"{carrier[key]},{line}" if key in carrier else line
        context, kind = self._propagate.extract(carrier), self._trace.SpanKind.SERVER
        silent = {"record_exception": False, "set_status_on_exception": False}  # an error's text may hold a prompt
        with self._tracer.start_as_current_span("ipr.request", context=context, kind=kind, **silent) as span:
            own: dict[str, str] = {}
            self._propagate.inject(own)
            if "traceparent" in own:  # the client's tracestate belongs to its own
                exchange.replace_headers(_OF_TRACES, {name.encode(): value.encode() for name, value in own.items()})
            try:
                yield
            finally:
                known = told.fields()
                tags = known.pop("tags", {})
                for name, value in (*known.items(), *((f"tag.{tag}", said) for tag, said in tags.items())):
                    if value is not None:
                        span.set_attribute(NAMED.get(name, f"ipr.{name}"), value)
                if exchange.status is not None:
                    span.set_attribute("http.response.status_code", exchange.status)
                    if exchange.status >= 500:
                        span.set_status(self._trace.StatusCode.ERROR)


def _said(variable: str) -> str:
    return os.environ.get(variable, "").strip()


def _exporter() -> Any:
    """Return the class of the exporter that the OTEL_* variables ask for; None where they ask for none."""
    name = _said("OTEL_TRACES_EXPORTER") or "otlp"
    if name == "none":
        return None
    if name != "otlp":
        raise InvalidInputError(
            f"server.spans: OTEL_TRACES_EXPORTER: expected otlp or none, got {name!r}; run opentelemetry-instrument for others"
        )
    variables = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"
    variable = next((one for one in variables if _said(one)), variables[1])
    protocol = _said(variable) or HTTP
    if protocol not in PROTOCOLS:
        raise InvalidInputError(f"server.spans: {variable}: expected {' or '.join(PROTOCOLS)}, got {protocol!r}")
    package = None if protocol == HTTP else "opentelemetry-exporter-otlp-proto-grpc"
    module = need(PROTOCOLS[protocol], f"server.spans by {protocol}", "otel", package=package)
    return module.OTLPSpanExporter
