"""A `Spans` opens an OpenTelemetry span for each request; the extra [otel] has the package."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ipr_engine._extras import need
from ipr_engine.server.exchange import Exchange
from ipr_engine.server.told import Told

NAMED = {"asked": "gen_ai.request.model", "served": "gen_ai.response.model"}


class Spans:
    """A `Spans` tells the tracer of this process what is known of each request, without text of a prompt."""

    def __init__(self) -> None:
        """Take the tracer.

        Raises:
            BackendUnavailableError: the extra [otel] is missing.
        """
        self._trace = need("opentelemetry.trace", "spans", "otel")
        self._propagate = need("opentelemetry.propagate", "spans", "otel")
        self._tracer = self._trace.get_tracer("ipr_engine")

    @contextlib.contextmanager
    def of(self, exchange: Exchange, told: Told) -> Iterator[None]:
        """Open the span of a request, within its client's trace."""
        carrier = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in exchange.headers if name[:5] == b"trace"
        }
        context, kind = self._propagate.extract(carrier), self._trace.SpanKind.SERVER
        with self._tracer.start_as_current_span("ipr.request", context=context, kind=kind) as span:
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
