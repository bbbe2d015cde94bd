"""This benchmark times `ipr serve` over loopback: a decision over an empty route of the same server, and a gateway over its upstream.

Every part is a process of its own: h2load asks, uvicorn serves, an upstream stub answers at once. Variants take turns; what is
told is the median over turns of paired differences. The replies are checked before anything is timed. Proxies that decide nothing
(one of the same libraries, nginx where it is installed) tell what passing on takes by itself.
"""

from __future__ import annotations

import importlib.util
import json
import math
import socket
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from ipr_engine import Engine

from ..harness.results import Line
from ..harness.turns import FULL, Size, percentiles
from ..server.h2load import Load, asked, available
from ..server.processes import NGINX, ROOT, asgi, emptied, free_port, ipr_serve, nginx, running, stub
from .bounds import Figure, of_turns, server_bounds, verdict_at_most

TURNS = 15
SHORT_TURNS = 120  # of the decision endpoint: the machine drifts by more than a decision takes
REQUESTS = 500  # of such a turn, one after another
RATE = 200.0  # requests a second through the gateway
PACED = 400  # of a turn at that rate
STREAMS = 40  # of a turn
TEXT = {
    "messages": [
        {"role": "user", "content": "What is 17 * 23? Explain each step as you would to a pupil of twelve years."}
    ]
}
CHAT: Line = {
    "messages": [
        {"role": "system", "content": "You are a patient teacher of mathematics. Answer in at most five sentences."},
        *TEXT["messages"],
    ],
    "max_tokens": 300,
}
CANDIDATE = "gpt-4o-mini-2024-07-18"
LITELLM = ROOT / ".venv-gateways" / "bin" / "litellm"


def run(size: Size = FULL) -> Iterator[Line]:
    needed = ("uvicorn", "httptools", "uvloop", "starlette", "aiohttp", "orjson", "yaml", "prometheus_client")
    missing = [package for package in needed if importlib.util.find_spec(package) is None]
    if missing or not available():
        print(f"server: not run: {', '.join(missing) or 'h2load'} is not installed", file=sys.stderr)
        return
    wanted = server_bounds()
    with tempfile.TemporaryDirectory() as folder:
        for measured in (decisions(size, Path(folder)), gateway(size, Path(folder))):
            for line in measured:
                most = wanted.get((line["what"], line.get("body")))
                yield line if most is None else line | judged(line, most)


def judged(line: Line, most: float) -> Line:
    """Return what a target says of a line: met, missed, or cannot tell."""
    low, high = line["over_interval_us"]
    found = Figure(
        line["over_us"], -math.inf if low is None else low, math.inf if high is None else high, line["turns"]
    )
    return {"at_most_us": most, "verdict": verdict_at_most(most, found)}


def decisions(size: Size, folder: Path) -> Iterator[Line]:
    """Time `/v1/route` beside an empty route of the same server, one connection."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    engine = Engine.load()
    with running(emptied(port), f"{base}/ready", folder / "decisions.log"):
        bodies = {"text": TEXT, "chat": CHAT}
        for name, body in bodies.items():
            assert _post(f"{base}/v1/route", body)["model"] == engine.route(body, tau=0.1).model, name
        variants: dict[str, Callable[[], list[int]]] = {}
        load = Load(size.of(REQUESTS, 50))
        for name, body in bodies.items():
            written = json.dumps(body).encode()
            variants[f"empty {name}"] = lambda written=written: asked(f"{base}/empty", written, load)  # type: ignore[misc]
            variants[f"route {name}"] = lambda written=written: asked(f"{base}/v1/route", written, load)  # type: ignore[misc]
        times = _in_turns(variants, size.of(SHORT_TURNS, 2))
    for name in bodies:
        line = {"op": "server", "what": "decision endpoint", "body": name, "requests": load.requests}
        yield (line | _beside(times[f"route {name}"], times[f"empty {name}"], "empty"))


def gateway(size: Size, folder: Path) -> Iterator[Line]:
    """Time a gateway at a steady rate beside its upstream, and the first piece of a stream; LiteLLM's proxy where it is installed."""
    upstream, port = free_port(), free_port()
    straight, routed = f"http://127.0.0.1:{upstream}/v1", f"http://127.0.0.1:{port}/v1"
    config = folder / "upstreams.yaml"
    config.write_text(
        f"endpoints: {{stub: {{base_url: '{straight}', formats: [openai-chat]}}}}\nupstreams: {{{CANDIDATE}: stub}}\n"
    )
    body = json.dumps({"model": "auto", **CHAT}).encode()
    chat = "/chat/completions"
    answering = running(stub(upstream), f"{straight}/x", folder / "stub.log")
    ready = f"http://127.0.0.1:{port}/ready"
    serving = running(ipr_serve(port, "--upstreams", str(config)), ready, folder / "gateway.log")
    with answering, serving:
        reply = _post(f"{routed}{chat}", {"model": "auto", **CHAT})
        assert reply["model"] == CANDIDATE, reply
        load = Load(size.of(PACED, 20), rate=RATE)
        variants: dict[str, Callable[[], list[int]]] = {
            "stub": lambda: asked(f"{straight}{chat}", body, load),
            "gateway": lambda: asked(f"{routed}{chat}", body, load),
        }
        times = _in_turns(variants, size.of(TURNS, 2))
        line: Line = {"op": "server", "what": "gateway", "rate": RATE, "requests": load.requests}
        yield line | _beside(times["gateway"], times["stub"], "stub")
        streams = _in_turns(
            {
                "stub": lambda: first_pieces(upstream, body, size.of(STREAMS, 2)),
                "gateway": lambda: first_pieces(port, body, size.of(STREAMS, 2)),
            },
            size.of(TURNS, 2),
        )
        line = {
            "op": "server",
            "what": "first streamed byte, from the upstream's write",
            "streams": size.of(STREAMS, 2),
        }
        yield line | _beside(streams["gateway"], streams["stub"], "stub")
        for name, command, environment in _peers(folder, upstream):
            yield peer(folder, name, command, environment, {"stub": straight, "gateway": routed}, body, size)
        if LITELLM.exists() and not size.smallest:
            yield litellm(folder, straight, routed, body, load, size.of(TURNS, 2))


def _peers(folder: Path, upstream: int) -> Iterator[tuple[str, Callable[[int], list[str]], dict[str, str]]]:
    """Yield proxies that decide nothing: name, the command for a port, what is set in the environment."""
    address = {"UPSTREAM": f"http://127.0.0.1:{upstream}"}
    yield "a bare proxy of uvicorn and aiohttp", lambda port: asgi("benchmarks.server.bare:bare", port), address
    if NGINX:
        yield "nginx", lambda port: nginx(port, upstream, folder), {}


def peer(
    folder: Path,
    name: str,
    command: Callable[[int], list[str]],
    environment: Mapping[str, str],
    beside: Mapping[str, str],
    body: bytes,
    size: Size,
) -> Line:
    """Time a proxy that decides nothing, in turns with the upstream and the gateway."""
    port, load = free_port(), Load(size.of(PACED, 20), rate=RATE)
    url = f"http://127.0.0.1:{port}/v1"
    with running(command(port), f"{url}/x", folder / "peer.log", environment):
        urls = {**beside, "peer": url}
        asking: dict[str, Callable[[], list[int]]] = {
            key: lambda at=at: asked(f"{at}/chat/completions", body, load)  # type: ignore[misc]
            for key, at in urls.items()
        }
        times = _in_turns(asking, size.of(TURNS, 2))
    found, ours = _beside(times["peer"], times["stub"], "stub"), _beside(times["gateway"], times["stub"], "stub")
    line: Line = {"op": "server", "what": name, "rate": RATE, "requests": load.requests}
    return line | found | {"gateway_over_us": ours["over_us"]}


def litellm(folder: Path, straight: str, routed: str, body: bytes, load: Load, turns: int) -> Line:
    """Time LiteLLM's proxy, one model and no routing, beside the gateway on the same upstream."""
    port = free_port()
    config = folder / "litellm.yaml"
    config.write_text(
        "model_list:\n  - model_name: auto\n    litellm_params:\n      model: openai/" + CANDIDATE + "\n"
        f"      api_base: {straight}\n      api_key: none\n"
    )
    # nothing is fetched; no key of its own: it is on loopback for a minute
    environment = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    command = [str(LITELLM), "--config", str(config), "--port", str(port)]
    base = f"http://127.0.0.1:{port}"
    with running(command, f"{base}/health/liveliness", folder / "litellm.log", environment):
        _post(f"{base}/v1/chat/completions", {"model": "auto", **CHAT})
        times = _in_turns(
            {
                "stub": lambda: asked(f"{straight}/chat/completions", body, load),
                "gateway": lambda: asked(f"{routed}/chat/completions", body, load),
                "litellm": lambda: asked(f"{base}/v1/chat/completions", body, load),
            },
            turns,
        )
    found = _beside(times["litellm"], times["stub"], "stub")
    ours = _beside(times["gateway"], times["stub"], "stub")
    pairs = zip(_medians(times["litellm"]), _medians(times["gateway"]), _medians(times["stub"]), strict=True)
    ratio = statistics.median((theirs - stub) / (mine - stub) for theirs, mine, stub in pairs)
    return {
        "op": "server",
        "what": "LiteLLM's proxy, one model",
        "rate": RATE,
        "requests": load.requests,
        **found,
        "gateway_over_us": ours["over_us"],
        "added_ratio": round(ratio, 2),
    }


def first_pieces(port: int, body: bytes, streams: int) -> list[int]:
    """Return microseconds from the upstream's write of a stream's first piece to its arrival here."""
    asked_for = json.dumps({**json.loads(body), "stream": True}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    head += f"content-length: {len(asked_for)}\r\n\r\n"
    took = []
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(streams):
            client.sendall(head.encode() + asked_for)
            seen = b""
            while b'"content": "' not in seen:
                seen += client.recv(65536)
            arrived = time.time()
            written = float(seen.split(b'"content": "')[1].split(b'"')[0])
            took.append(round(1e6 * (arrived - written)))
            while not seen.endswith(b"0\r\n\r\n"):
                seen += client.recv(65536)
    return took


def _in_turns(variants: Mapping[str, Callable[[], list[int]]], turns: int) -> dict[str, list[list[int]]]:
    """Return the times of every variant, turn by turn, the order changing; a first turn is not counted."""
    times: dict[str, list[list[int]]] = {name: [] for name in variants}
    for turn in range(turns + 1):
        order = list(variants) if turn % 2 else list(variants)[::-1]
        for name in order:
            seen = variants[name]()
            if turn:
                times[name].append(seen)
    return times


def _medians(turns: list[list[int]]) -> list[float]:
    return [statistics.median(turn) for turn in turns]


def _beside(times: list[list[int]], base: list[list[int]], name: str) -> Line:
    """Return both medians, and the median over turns of what a variant takes over its base, with its spread."""
    over = [mine - theirs for mine, theirs in zip(_medians(times), _medians(base), strict=True)]
    low, high = np.percentile(over, [10, 90])
    found = of_turns(over)
    interval = [round(edge, 1) if math.isfinite(edge) else None for edge in (found.low, found.high)]
    return {
        **percentiles(np.concatenate(times), digits=1),
        **{f"{mark}_{name}": value for mark, value in percentiles(np.concatenate(base), digits=1).items()},
        "over_us": round(statistics.median(over), 1),
        "over_low_us": round(float(low), 1),
        "over_high_us": round(float(high), 1),
        "over_interval_us": interval,  # of the median, 99 %
        "turns": len(over),
    }


def _post(url: str, body: object) -> Line:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        found: Line = json.load(reply)
        return found
