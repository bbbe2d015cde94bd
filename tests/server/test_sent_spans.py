"""The spans of `ipr serve` reach a collector, those of every worker, before it ends; a provider that somebody has set is left alone."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import skips
from tests.support.http_calls import free_port, nobody
from tests.support.local_server import LocalServer
from tests.support.places import ROOT
from tests.support.server_configs import CHAT, EVERY, KEYS, PATHS, TEAM_KEY, body_of, gateway_config
from tests.support.server_process import ServerProcess, until
from tests.support.span_receiver import SpanReceiver, attributes
from tests.support.upstream_stub import UpstreamStub

pytest.importorskip("uvicorn", reason=skips.SERVE)
pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason=skips.OTEL)

CANARY = "canary-4711"
ASKED = {"prompt": f"What is 17 * 23, {CANARY}?"}
TRACE = "0af7651916cd43dd8448eb211c80319c"
LATE = {"OTEL_BSP_SCHEDULE_DELAY": "60000"}
"""Nothing is sent before the server ends."""
ANOTHER = """
import sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
provider = TracerProvider(resource=Resource({"service.name": "another"}))
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
from ipr_engine.cli import main
sys.exit(main())
"""


@pytest.fixture
def receiver() -> Iterator[SpanReceiver]:
    with SpanReceiver() as found:
        yield found


def serving(folder: Path, receiver: SpanReceiver, *arguments: str, **environment: str) -> ServerProcess:
    found = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, **environment}
    return ServerProcess(folder, {"server": {"spans": True}}, *arguments, environment=found)


class Another(ServerProcess):
    """An `Another` is a server in a process whose provider of spans is set."""

    def __init__(self, folder: Path, receiver: SpanReceiver) -> None:
        super().__init__(folder, {"server": {"spans": True}}, environment={"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url})
        self._command[1:3] = ["-c", ANOTHER]


def ended(server: ServerProcess) -> None:
    server.process.terminate()
    assert server.process.wait(20) == 0, server.printed()
    assert "Traceback" not in server.printed()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_spans_of_all_workers_are_sent_before_the_server_ends(
    tmp_path: Path, receiver: SpanReceiver, workers: int
) -> None:
    with serving(tmp_path, receiver, "--workers", str(workers), **LATE) as server:
        until(lambda: workers == 1 or server.all_ready(workers), 20.0, server.printed)
        parent = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
        with ThreadPoolExecutor(8) as pool:  # so many at once that no worker alone takes all
            ids = set(pool.map(lambda _: server.post("/v1/route", ASKED, parent).body["id"], range(20)))
        wrong = server.post("/v1/route", {**ASKED, "ipr": {"tau": CANARY}})
        assert wrong.status == 400
        assert receiver.bodies == []
        ended(server)
    spans = receiver.spans()
    assert {service for service, _ in spans} == {"ipr"}
    told = [attributes(span) for _, span in spans]
    assert {one["ipr.id"] for one in told if "ipr.id" in one} == ids
    assert sorted(one["http.response.status_code"] for one in told) == [*[200] * 20, 400]
    assert sum(span.trace_id.hex() == TRACE for _, span in spans) == 20
    assert len(receiver.bodies) <= workers  # each sent once, in the end
    assert all(CANARY.encode() not in body for body in receiver.bodies)


def test_spans_are_sent_while_it_serves_under_the_name_that_it_is_given(tmp_path: Path, receiver: SpanReceiver) -> None:
    named = {"OTEL_SERVICE_NAME": "router", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with serving(tmp_path, receiver, **named) as server:
        server.post("/v1/route", ASKED)
        [(service, span)] = until(receiver.spans)
        assert (service, span.name) == ("router", "ipr.request")


def test_the_spans_of_a_gateway_tell_who_served_and_no_prompt(
    provider: UpstreamStub, tmp_path: Path, receiver: SpanReceiver
) -> None:
    provider.reset()
    config = gateway_config(provider.url, nobody())
    config["server"] = {"spans": True}
    environment = {**KEYS, **LATE, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
    with ServerProcess(
        tmp_path, config, environment=environment, headers={"authorization": f"Bearer {TEAM_KEY}"}
    ) as server:
        body = body_of(CHAT, ASKED["prompt"], model=EVERY[0], stream=True)
        with server.streamed(PATHS[CHAT], body) as answer:
            answer.read()
        provider.fail(EVERY[0], "status")
        assert server.post(PATHS[CHAT], body_of(CHAT, ASKED["prompt"], model=EVERY[0])).status == 500
        passed_on = [one["_headers"]["traceparent"].split("-") for one in provider.seen()]
        ended(server)
    provider.reset()
    (_, served), (_, failed) = receiver.spans()
    of_spans = [[span.trace_id.hex(), span.span_id.hex()] for span in (served, failed)]
    assert [one[1:3] for one in passed_on] == of_spans  # the upstream's own span is a child of the gateway's
    assert (served.status.code, failed.status.code) == (
        served.status.STATUS_CODE_UNSET,
        failed.status.STATUS_CODE_ERROR,
    )
    first = attributes(served)
    assert first["gen_ai.response.model"] == first["gen_ai.request.model"] == EVERY[0]
    assert (first["ipr.tenant"], first["ipr.tag.cost_centre"]) == ("team", "42")
    sent = b"".join(receiver.bodies)
    assert not [secret for secret in (CANARY, *KEYS.values()) if secret.encode() in sent]


def test_a_provider_that_somebody_has_set_is_used(tmp_path: Path, receiver: SpanReceiver) -> None:
    with Another(tmp_path, receiver) as server:
        server.post("/v1/route", ASKED)
        ended(server)
    assert [service for service, _ in receiver.spans()] == ["another"]


def test_none_is_sent_where_the_variables_say_so(tmp_path: Path, receiver: SpanReceiver) -> None:
    with serving(tmp_path, receiver, OTEL_TRACES_EXPORTER="none") as server:
        assert server.post("/v1/route", ASKED).status == 200
        ended(server)
        assert "spans" not in server.printed()
    assert receiver.bodies == []


def test_a_collector_that_does_not_answer_holds_up_no_request_and_no_end(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        with ServerProcess(tmp_path, {"server": {"spans": True}}, environment=environment) as server:
            assert {server.post("/v1/route", ASKED).status for _ in range(20)} == {200}
            begun = time.monotonic()
            server.process.terminate()
            assert server.process.wait(20) == 0
            assert time.monotonic() - begun < 12
            assert "the last spans could not be sent within 5 s" in server.printed()
            assert CANARY not in server.printed()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/xml"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
    ],
)
def test_a_variable_that_is_wrong_is_told_at_the_start(tmp_path: Path, variable: str, value: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"server": {"spans": True}}))
    command = [sys.executable, "-m", "ipr_engine", "serve", "--config", str(config), "--port", str(free_port())]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), variable: value}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert found.returncode == 1
    assert found.stderr.startswith(f"ipr serve: {config}: server.spans: ")
    assert value in found.stderr


def test_an_application_whose_spans_go_nowhere_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), LocalServer(None, {"server": {"spans": True}}) as server:
        assert server.post("/v1/route", ASKED).status == 200
    assert [line for line in caplog.messages if line.startswith("server.spans: nobody has set")]
