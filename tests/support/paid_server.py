"""A provider that charges: a small HTTP server in a process of its own, whose answers depend on the request alone, and which keeps a
list of every call that it took, so that a test can count what was paid.

The name of a model says how it behaves, `BEHAVIOURS`; a number after a dash is for it: `slow-0.2`, `limited-3`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.support.places import ROOT

BEHAVIOURS = {
    "plain": "answers at once",
    "slow": "answers after so many seconds",
    "adding": "adds two numbers of at most so many digits, and is wrong of longer ones",
    "lucky": "as adding-9, but right in so many of a hundred answers, whichever these are: a prompt asked again may be answered otherwise",
    "judging": "a judge: gives the highest points to an answer that holds the reference, and the lowest to others",
    "limited": "429 with Retry-After for the first so many calls, then answers",
    "flaky": "503 to the first attempt of every second prompt",
    "html": "200 with a page",
    "half": "200 with half a JSON",
    "nan": "200 whose usage is NaN",
    "failing": "200 with an error body",
    "bare": "200 without choices",
    "cut": "finish_reason length",
    "refusing": "finish_reason content_filter",
    "filtered": "400 with code content_filter",
    "greedy": "reports so many times the tokens that were possible",
    "silent": "reports no usage",
    "halved": "an answer that is no Unicode",
    "wrong": "400, and repeats the prompt and the key in its message",
    "locked": "401, and repeats the key in its message",
    "broke": "429 with code insufficient_quota",
    "closing": "closes the connection without a reply",
}


class PaidServer:
    """A `PaidServer` runs the server as long as its `with` lasts.

    Attributes:
        base_url: as a plan's provider names it. taken: the file of the calls that it took, a line each: the digest of model and messages.
    """

    def __init__(self, taken: Path) -> None:
        self.taken = taken
        self.base_url = ""

    def __enter__(self) -> PaidServer:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.paid_server", str(self.taken)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        )
        assert self._process.stdout is not None
        self.base_url = f"http://127.0.0.1:{int(self._process.stdout.readline())}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def calls(self) -> Counter[str]:
        """Return call -> how often it was taken."""
        return Counter(self.taken.read_text().split()) if self.taken.exists() else Counter()


def answer_of(prompt: str) -> str:
    """Return what every model answers to a prompt."""
    return f"The answer is {int(hashlib.sha256(prompt.encode()).hexdigest()[:4], 16) % 10}."


def _sum(prompt: str, digits: int) -> str:
    numbers = [int(number) for number in re.findall(r"\d+", prompt)]
    known = all(len(str(number)) <= digits for number in numbers)
    return f"The answer is {sum(numbers) if known else sum(numbers) + 1}."


def _judgement(prompt: str) -> str:
    parts = dict(re.findall(r"The (reference|answer):\n<[^>]*>\n(.*?)\n</", prompt, re.DOTALL))
    right = re.search(rf"\b{re.escape(parts.get('reference', '?'))}\b", parts.get("answer", ""))
    return json.dumps({"thoughts": "-", "points": 10 if right else 1})


def _completion(body: dict[str, Any], **changed: Any) -> dict[str, Any]:
    prompt = body["messages"][-1]["content"]
    text = answer_of(prompt if isinstance(prompt, str) else json.dumps(prompt))
    usage = {"prompt_tokens": 8 + len(str(prompt)) // 4, "completion_tokens": 6}
    made = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {**usage, "total_tokens": sum(usage.values())},
    }
    return made | changed


def _serve(taken: str) -> None:
    from aiohttp import web

    log = os.open(taken, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    seen: Counter[str] = Counter()

    async def complete(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        named = hashlib.sha256(json.dumps([body["model"], body["messages"]]).encode()).hexdigest()
        os.write(log, f"{named}\n".encode())
        seen[named] += 1
        kind, _, amount = body["model"].partition("-")
        seen[body["model"]] += 1
        return await _behave(request, body, kind, amount, seen[named], seen[body["model"]])

    async def _behave(
        request: web.Request, body: dict[str, Any], kind: str, amount: str, times: int, of_model: int
    ) -> web.StreamResponse:
        whole = _completion(body)
        choice, message = whole["choices"][0], whole["choices"][0]["message"]
        if kind == "adding":
            message["content"] = _sum(str(body["messages"][-1]["content"]), int(amount))
        elif kind == "lucky":
            drawn = int(hashlib.sha256(json.dumps([body, times]).encode()).hexdigest()[:8], 16) % 100
            message["content"] = _sum(str(body["messages"][-1]["content"]), 9 if drawn < int(amount) else 0)
        elif kind == "judging":
            message["content"] = _judgement(str(body["messages"][-1]["content"]))
        elif kind == "slow":
            await asyncio.sleep(float(amount))
        elif kind == "limited" and of_model <= int(amount):
            error = {"error": {"code": "rate_limit_exceeded", "message": "slow down"}}
            return web.json_response(error, status=429, headers={"Retry-After": "0.2"})
        elif kind == "flaky" and times == 1 and len(str(body["messages"])) % 2:
            return web.Response(status=503, text="later")
        elif kind == "html":
            return web.Response(text="<!doctype html><title>Please log in</title>", content_type="text/html")
        elif kind == "half":
            return web.Response(text=json.dumps(whole)[:60], content_type="application/json")
        elif kind == "nan":
            text = json.dumps(whole).replace('"completion_tokens": 6', '"completion_tokens": NaN')
            return web.Response(text=text, content_type="application/json")
        elif kind == "failing":
            return web.json_response({"error": {"code": "overloaded", "message": str(body["messages"])}})
        elif kind == "bare":
            return web.json_response({**whole, "choices": []})
        elif kind == "cut":
            choice["finish_reason"] = "length"
        elif kind == "refusing":
            choice["finish_reason"], message["content"] = "content_filter", ""
            if amount == "silent":
                del whole["usage"]
        elif kind == "filtered":
            return web.json_response({"error": {"code": "content_filter", "message": "no"}}, status=400)
        elif kind == "greedy":
            whole["usage"]["completion_tokens"] = body["max_tokens"] * int(amount)
        elif kind == "silent":
            del whole["usage"]
        elif kind == "halved":
            message["content"] = "\ud800"
            return web.Response(text=json.dumps(whole), content_type="application/json")
        elif kind in ("wrong", "locked"):
            told = f"{request.headers.get('Authorization')} {body['messages']}"
            error = {"error": {"code": "invalid_request", "message": told}}
            return web.json_response(error, status=400 if kind == "wrong" else 401)
        elif kind == "broke":
            return web.json_response({"error": {"code": "insufficient_quota", "message": "pay"}}, status=429)
        elif kind == "closing":
            assert request.transport is not None
            request.transport.close()
        return web.json_response(whole)

    async def run() -> None:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", complete)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()

    asyncio.run(run())


if __name__ == "__main__":
    _serve(sys.argv[1])
