"""Replies that are no HTTP, have no end, or repeat a secret: each is a failed call with its reason, and the run goes on."""

from __future__ import annotations

import gzip
import itertools
import sqlite3
from dataclasses import replace

import pytest

from tests.support.skips import COLLECT

pytest.importorskip("openai", reason=COLLECT)
pytest.importorskip("aiolimiter", reason=COLLECT)

from ipr_engine.collection import bounded_reply
from ipr_engine.collection.collect import collect
from ipr_engine.collection.ledger import LEDGER
from ipr_engine.collection.provider import Provider
from tests.support.collections import FAST, candidate, plan_for, questions
from tests.support.raw_server import completion, http, raw_server

KEY = "skverysecretkey1"


def endless(status: bytes):
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    head = b"HTTP/1.1 " + status + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    return itertools.chain([head], itertools.repeat(piece))


def broken_off(body):
    made = completion(body)
    made["choices"][0]["finish_reason"] = "error"
    return made


def saying(body, text):
    made = completion(body)
    made["choices"][0]["message"]["content"] = text
    return made


def written(body, headers):
    kind, told = body["model"], headers.get("authorization", "")
    packed = gzip.compress(http(completion(body)).partition(b"\r\n\r\n")[2])
    return {
        "plain": lambda: [http(completion(body))],
        "packed": lambda: [http(packed, "200 OK", "Content-Encoding: gzip")],
        "no_http": lambda: [b"\x00\x01 hello\r\n\r\n"],
        "no_chunk": lambda: [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
        "long_header": lambda: [b"HTTP/1.1 200 OK\r\nX: " + b"a" * 2**20 + b"\r\n\r\n"],
        "endless": lambda: endless(b"200 OK"),
        "endless_error": lambda: endless(b"500 Wrong"),
        "bomb": lambda: [http(gzip.compress(b" " * 2**22), "200 OK", "Content-Encoding: gzip")],
        "half_packed": lambda: [http(b"\x1f\x8b garbage", "200 OK", "Content-Encoding: gzip")],
        "other_packing": lambda: [http(packed, "200 OK", "Content-Encoding: br")],
        "broken_off": lambda: [http(broken_off(body))],
        "key_in_text": lambda: [http(saying(body, f"You sent {told}."))],
        "key_in_model": lambda: [http(completion(body, model=told))],
        "key_in_code": lambda: [http({"error": {"code": told.split()[-1]}}, "400 Wrong")],
        "prompt_in_code": lambda: [http({"error": {"code": "Confidential"}}, "400 Wrong")],
    }[kind]()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("no_http", "not_http"),
        ("no_chunk", "not_http"),
        ("long_header", "not_http"),
        ("endless", "too_long"),
        ("endless_error", "too_long"),
        ("bomb", "too_long"),
        ("half_packed", "packed"),
        ("other_packing", "packed"),
        ("broken_off", "broken_off"),
        ("key_in_text", "repeats_key"),
        ("key_in_model", "repeats_key"),
        ("key_in_code", "http_400"),
        ("prompt_in_code", "http_400"),
    ],
)
def test_a_hostile_reply_is_a_failed_call_and_the_others_go_on(tmp_path, monkeypatch, kind, reason):
    monkeypatch.setattr(bounded_reply, "MOST_REPLY_BYTES", 2**20)
    monkeypatch.setenv("PAID_API_KEY", KEY)
    with raw_server(written) as address:
        keyed = {"paid": Provider(base_url=address, api_key_env="PAID_API_KEY", limits=replace(FAST, retries=0))}
        plan = plan_for(tmp_path, address, candidate(kind), candidate("plain"), providers=keyed)
        made = collect(plan, questions(3, "Confidential {}?"))
    assert made.done.reasons == {(kind, reason): 3}
    assert made.candidates["plain"].answers == 3
    assert not any(KEY.encode() in file.read_bytes() for file in plan.out_folder.iterdir())


def test_a_packed_reply_is_read(tmp_path):
    with raw_server(written) as address:
        assert collect(plan_for(tmp_path, address, candidate("packed")), questions(2)).done.answered == 2


def test_a_server_that_asks_for_no_wait_is_not_asked_again_at_once(tmp_path):
    wait = "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT"
    with raw_server(lambda body, headers: [http({}, "429 Later", wait)]) as address:
        providers = {"paid": Provider(base_url=address, limits=replace(FAST, retries=1))}
        plan = plan_for(tmp_path, address, providers=providers)
        collect(plan, questions(1))
    with sqlite3.connect(plan.out_folder / LEDGER) as ledger:
        first, second = (sent for (sent,) in ledger.execute("SELECT sent FROM attempt ORDER BY id"))
    assert second - first >= 0.25
