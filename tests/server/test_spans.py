"""A server opens an OpenTelemetry span for each request where spans are asked for; it tells the decision, and no prompt."""

import asyncio
import json
from importlib.util import find_spec

import pytest

from tests.support import skips

PROMPT = "What is 17 * 23, canary-4711?"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def finished(monkeypatch):
    """The spans that have ended, of a provider that only this test uses."""
    if find_spec("opentelemetry.sdk" if find_spec("opentelemetry") else "opentelemetry") is None:
        pytest.skip(skips.OTEL)
    if find_spec("starlette") is None:
        pytest.skip(skips.SERVE)
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter.get_finished_spans


def posted(application, path, body):
    """Return the messages of one request to the application, in its lifespan."""

    async def ask():
        sent = []

        async def receive():
            return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

        async def send(message):
            sent.append(message)

        headers = [(b"traceparent", PARENT.encode())]
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": headers,
            "query_string": b"",
            "root_path": "",
        }
        async with application.router.lifespan_context(application):
            while not application.state.ipr.readiness()[0]:
                await asyncio.sleep(0.01)
            await application(scope, receive, send)
        return sent

    return asyncio.run(ask())


def test_a_span_tells_the_decision_and_no_prompt(finished):
    from ipr_engine.server import ServerConfig, app
    from ipr_engine.server.server_config import ServerOptions

    application = app(None, ServerConfig(server=ServerOptions(spans=True)))
    sent = posted(application, "/v1/route", {"prompt": PROMPT, "ipr": {"tau": 0.3}})
    decided = json.loads(sent[1]["body"])
    (span,) = finished()
    told = span.attributes
    assert told["ipr.tau"] == pytest.approx(0.3)
    assert told["ipr.chosen"] == decided["model"]
    assert told["ipr.id"] == decided["id"]
    assert told["ipr.cost_usd"] == pytest.approx(decided["cost_usd"])
    assert told["http.response.status_code"] == 200
    assert f"{span.parent.trace_id:032x}" == PARENT.split("-")[1]
    assert "canary" not in str(dict(told))


def test_a_tracestate_is_the_clients_joined_or_left_out_with_its_own_trace(finished, caplog):
    from ipr_engine.server.exchange import Exchange
    from ipr_engine.server.patience import Patience
    from ipr_engine.server.spans import Spans
    from ipr_engine.server.told import Told

    def passed_on(*headers):
        exchange = Exchange({"headers": list(headers)}, None, None, Patience(1.0))
        with Spans().of(exchange, Told("/")):
            return [(name, value) for name, value in exchange.headers if name == b"tracestate"]

    parent = (b"traceparent", PARENT.encode())
    assert passed_on(parent, (b"tracestate", b"a=1"), (b"tracestate", b"b=2")) == [(b"tracestate", b"a=1,b=2")]
    assert passed_on(parent, (b"tracestate", b"canary wrong \xe9")) == []
    assert passed_on((b"traceparent", b"00-wrong"), (b"tracestate", b"a=1")) == []
    assert "canary" not in caplog.text


def test_no_span_is_opened_unless_asked_for(finished):
    from ipr_engine.server import app

    posted(app(), "/v1/route", {"prompt": PROMPT})
    assert finished() == ()
