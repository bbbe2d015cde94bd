"""python -m benchmarks.server.soak [--minutes M] [--record]: a gateway under load while upstreams die and bundles are swapped.

At a share of the most that it answers, for minutes, a tenth of it streams. Every minute an upstream is killed in the middle of its
work and started again ten seconds later; every ten seconds CURRENT names another bundle. Told are the statuses of all replies beside
what /metrics counted, how the streams ended beside what it counted as cut, latencies, and memory.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import numpy as np

from ..harness.machine import recorded
from ..harness.results import FOLDER, Line, append, as_json
from .h2load import Load, Reply, replies
from .processes import ROOT, free_port, ipr_serve, running, stub
from .streams import BROKEN, TOLD, streams

CANDIDATES = ("gpt-4o-mini-2024-07-18", "gemini-1.5-flash", "gpt-4o-2024-08-06")
CLIENTS = 16
SLICE_S = 10.0  # a load, then a swap
DOWN_S = 10.0
KILL_S = 60.0
SHARE = 0.7
STREAMS = 0.1  # of all requests
STREAM_CLIENTS = 8
MOST = 3_000  # requests by which the most is found
CHAT = {
    "model": "auto",
    "messages": [
        {"role": "system", "content": "You are a patient teacher of mathematics."},
        {"role": "user", "content": "What is 17 * 23? Explain each step."},
    ],
}


@dataclass
class Upstreams:
    """An `Upstreams` runs one stub for each candidate. kills: how many were killed in the course."""

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    kills: int = 0

    def start(self, candidate: str) -> None:
        port = self.ports.setdefault(candidate, free_port())
        log = (self.folder / f"stub-{port}.log").open("ab")
        self.running[candidate] = subprocess.Popen(stub(port), stdout=log, stderr=log, cwd=ROOT, start_new_session=True)

    def kill(self, candidate: str) -> None:
        """Kill a stub, as a machine that is gone."""
        ended = self.running.pop(candidate)
        ended.kill()
        ended.wait()

    def close(self) -> None:
        for candidate in list(self.running):
            self.kill(candidate)


def main() -> int:
    """Run the soak, and print its line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default 30)")
    parser.add_argument("--share", type=float, default=SHARE, help=f"of the most that it answers (default {SHARE})")
    parser.add_argument("--streams", type=float, default=STREAMS, help=f"their share of requests (default {STREAMS})")
    parser.add_argument("--kill-s", type=float, default=KILL_S, help=f"from one kill to the next (default {KILL_S:g})")
    parser.add_argument("--workers", type=int, default=1, help="of ipr serve (default 1)")
    parser.add_argument("--record", action="store_true", help="append the line to benchmarks/results/server_soak.jsonl")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(
            Path(folder), arguments.minutes, arguments.workers, arguments.share, arguments.streams, arguments.kill_s
        )
    line = recorded(found, f"python -m benchmarks.server.soak {' '.join(sys.argv[1:])}".strip())
    print(as_json(line))
    if arguments.record:
        append(FOLDER / "server_soak.jsonl", [line])
    told = line["streams_broken"] == 0 and line["streams_told"] == line["streams_cut"]
    return 0 if line["accounted"] and line["not_answered"] == 0 and told else 1


def soak(folder: Path, minutes: float, workers: int, at: float, streamed_share: float, kill_s: float) -> Line:
    """Return what came of it. at: the share of the most. streamed_share: of the requests. kill_s: from one kill to the next."""
    root, hashes = two_bundles(folder / "bundles")
    upstreams, port = Upstreams(folder), free_port()
    base, body = f"http://127.0.0.1:{port}", json.dumps(CHAT).encode()
    url = f"{base}/v1/chat/completions"
    with ExitStack() as stack:
        stack.callback(upstreams.close)
        for candidate in CANDIDATES:
            upstreams.start(candidate)
        config = folder / "upstreams.yaml"
        config.write_text(json.dumps(_config(upstreams.ports)))
        flags = ("--bundle", str(root), "--upstreams", str(config), "--workers", str(workers), "--tau", "0.2")
        server = stack.enter_context(running(ipr_serve(port, *flags), f"{base}/ready", folder / "gateway.log"))
        seen: list[Reply] = replies(url, body, Load(MOST, CLIENTS))
        begun = time.perf_counter()
        seen += replies(url, body, Load(MOST, CLIENTS))
        most = MOST / (time.perf_counter() - begun)
        rate = at * most
        ends: Counter[str] = Counter()
        memory, swaps, end, paced = [], 0, time.monotonic() + 60 * minutes, len(seen)
        over = Event()
        deaths = Thread(target=_let_die, args=(upstreams, over, kill_s))
        deaths.start()
        stack.callback(deaths.join)
        stack.callback(over.set)
        of_streams = json.dumps({**CHAT, "stream": True}).encode()
        share = max(1.0, streamed_share * rate)
        while time.monotonic() < end:
            with ThreadPoolExecutor(1) as beside:
                streamed = beside.submit(streams, url, of_streams, Load(round(share * SLICE_S), STREAM_CLIENTS, share))
                seen += replies(url, body, Load(round((rate - share) * SLICE_S), CLIENTS, rate - share))
                for stream in streamed.result():
                    seen.append(Reply(stream.status, stream.us))
                    ends[stream.end if stream.status == 200 else "refused"] += 1
            swaps += 1
            _point(root, hashes[swaps % 2])
            memory.append(resident_mib(server.pid))
            print(
                f"{len(seen)} replies, {Counter(reply.status for reply in seen)}, {memory[-1]:.1f} MiB", file=sys.stderr
            )
        time.sleep(2.0)
        written = urllib.request.urlopen(f"{base}/metrics", timeout=10).read().decode()
    statuses = Counter(reply.status for reply in seen)
    counted = _counted(written)
    times = np.array([reply.us for reply in seen[paced:]])
    half = memory[len(memory) // 2 :]
    return {
        "op": "server_soak",
        "minutes": minutes,
        "workers": workers,
        "most_per_s": round(most, 1),
        "rate": round(rate, 1),
        "requests": len(seen),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "counted": {str(status): count for status, count in sorted(counted.items())},
        "accounted": statuses == counted,
        "not_answered": len(seen) - statuses[200],
        "p50_us": round(float(np.percentile(times, 50)), 1),
        "p99_us": round(float(np.percentile(times, 99)), 1),
        "kills": upstreams.kills,
        "streams": ends.total(),
        "streams_told": ends[TOLD],
        "streams_broken": ends[BROKEN],
        "streams_cut": _total(written, "ipr_streams_cut_total"),
        "fallbacks": _total(written, "ipr_served_total", 'cause="fallback"'),
        "swaps": swaps,
        "swaps_counted": _total(written, "ipr_swaps_total"),
        "memory_mib_first": round(memory[0], 1),
        "memory_mib_half": round(half[0], 1),
        "memory_mib_last": round(memory[-1], 1),
    }


def _let_die(upstreams: Upstreams, over: Event, kill_s: float) -> None:
    """Kill a stub every so often, whatever it is answering, and start it again."""
    while not over.wait(max(1.0, kill_s - DOWN_S)):
        candidate = CANDIDATES[upstreams.kills % len(CANDIDATES)]
        upstreams.kill(candidate)
        upstreams.kills += 1
        over.wait(DOWN_S)
        upstreams.start(candidate)


def two_bundles(root: Path) -> tuple[Path, tuple[str, str]]:
    """Make a root with two bundles, the embedded one and one of other prices; return it and their folders' names."""
    made, prices = [], root.parent / "prices.json"
    for usd in (2.5, 2.6):
        price = {"input_usd_per_1m": usd, "output_usd_per_1m": 10.0, "basis": "of a soak"}
        prices.write_text(json.dumps({"currency": "USD", "date": "2026-11-28", "prices": {CANDIDATES[2]: price}}))
        command = [sys.executable, "-m", "ipr_engine", "set-prices", str(prices), "--out", str(root), "--json"]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
        made.append(json.loads(done.stdout)["bundle"])
    return root, (made[0], made[1])


def _point(root: Path, name: str) -> None:
    """Make CURRENT name a bundle, at once."""
    new = root / ".CURRENT.new"
    new.write_text(name + "\n")
    new.replace(root / "CURRENT")


def _config(ports: dict[str, int]) -> Line:
    return {
        "endpoints": {
            candidate: {"base_url": f"http://127.0.0.1:{port}/v1", "formats": ["openai-chat"]}
            for candidate, port in ports.items()
        },
        "upstreams": {candidate: candidate for candidate in ports},
    }


def resident_mib(parent: int) -> float:
    """Return the resident memory of a server and its workers."""
    workers = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False).stdout.split()
    total = 0
    for pid in (str(parent), *workers):
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        total += 0 if found is None else int(found[1])
    return total / 1024


def _total(written: str, name: str, label: str = "") -> int:
    """Return the sum of a metric over its labels, of those that have this one."""
    lines = [line for line in written.splitlines() if line.startswith(name) and label in line]
    return round(sum(float(line.rsplit(" ", 1)[1]) for line in lines))


def _counted(written: str) -> Counter[int]:
    """Return the replies by status that /metrics tells of the gateway's path."""
    found: Counter[int] = Counter()
    for line in written.splitlines():
        matched = re.match(r'ipr_requests_total\{path="/v1/chat/completions",status="(\d+)",.*\} ([\d.e+]+)', line)
        if matched:
            found[int(matched[1])] += round(float(matched[2]))
    return found


if __name__ == "__main__":
    sys.exit(main())
