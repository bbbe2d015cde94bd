"""A `DecisionCache` keeps exact decisions: the same prompt under the same policy on the same bundle is not decided twice."""

from __future__ import annotations

import os
from collections import OrderedDict
from hashlib import blake2b
from threading import Lock
from typing import TypeAlias

from ipr_engine.decision.decision import Row
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.policy import Policy
from ipr_engine.prompts import ParsedRequest
from ipr_engine.serving.metrics import CacheCounts

KEY_BYTES = 16
MAX_KNOWN_POLICIES = 1024

KeptRecord: TypeAlias = tuple[object, object]  # who made it, and the record, without id and prompt


class DecisionCache:
    """A `DecisionCache` drops the least recently used first. It holds no prompt: keys are 128-bit hashes, salted per process.

    A decision is found by what it was made of: the prompt's texts, needs and task, the policy (all of its options) and the bundle's hash.
    Entries of another bundle than the one asked for last are dropped, so that a swap frees what they keep alive.

    A decision that was recorded keeps its record, of which a hit writes another line. A recorded request finds no decision but those
    with a record that its own recorder made.

    Attributes:
        entries: key -> decision and its record, the least recently used first.
    """

    def __init__(self, limit: int) -> None:
        if type(limit) is not int or limit < 1:
            raise InvalidInputError(f"cache_entries: expected an int >= 1, or 0 for no cache, got {limit!r}")
        self._limit = limit
        self._salt = os.urandom(KEY_BYTES)
        self._bundle_hash = ""
        self.entries: OrderedDict[bytes, tuple[Row, KeptRecord | None]] = OrderedDict()
        self._by_id: dict[int, tuple[Policy, bytes]] = {}  # hashing a policy costs more than looking up its id
        self._serials: dict[tuple[object, ...], bytes] = {}
        self._issued = 0
        self._hits = self._misses = self._evictions = 0
        self._lock = Lock()

    def key(self, text: ParsedRequest, policy: Policy, task: str | None = None) -> bytes:
        """Return what a decision of this prompt, for this task, under this policy is found by."""
        known = self._by_id.get(
            id(policy)
        )  # without the lock: an entry is written whole, and its policy keeps the id taken
        serial = known[1] if known is not None else self._serial(policy)
        digest = blake2b(serial, digest_size=KEY_BYTES, key=self._salt)
        for part in (text.encoded, *text.billed_only):
            data = part.encode()
            digest.update(len(data).to_bytes(8, "little"))  # so that parts cannot run into each other
            digest.update(data)
        if text.turns:  # what is encoded of them may not be what is encoded of one text
            lengths = b"".join(len(turn).to_bytes(8, "little") for turn in text.turns)
            digest.update(b"turns" + len(lengths).to_bytes(8, "little") + lengths)  # no part begins so, as below
        if task is not None:
            data = task.encode()
            digest.update(b"task" + len(data).to_bytes(8, "little") + data)  # no part begins so: its length does not
        if text.needs is not None:
            digest.update(
                f"{sorted(text.features.items())} {text.max_output_tokens} {text.answers} {text.images}".encode()
            )
        return digest.digest()

    def _serial(self, policy: Policy) -> bytes:
        """Return the number of this policy, and of those that say the same of a decision; none is issued twice."""
        meaning = (
            policy,
            policy.drift,
            *policy.exclusions.items(),
        )  # the choice; whether it is stale; why not the others
        with self._lock:
            if len(self._by_id) >= MAX_KNOWN_POLICIES:
                self._by_id.clear()
            if len(self._serials) >= MAX_KNOWN_POLICIES:
                self._serials.clear()  # their entries are not found any more, and leave as the least recently used
            serial = self._serials.get(meaning)
            if serial is None:
                self._issued += 1
                serial = self._serials[meaning] = self._issued.to_bytes(8, "little")
            self._by_id[id(policy)] = (policy, serial)  # the kept policy cannot lose its id to another
            return serial

    def get(self, key: bytes, bundle_hash: str, by: object = None) -> tuple[Row, KeptRecord | None] | None:
        """Return a kept decision and its record; None where there is none. by: who must have made the record."""
        with self._lock:
            if bundle_hash != self._bundle_hash:
                self.entries.clear()
                self._bundle_hash = bundle_hash
            found = self.entries.get(key)
            if found is None or (by is not None and (found[1] is None or found[1][0] is not by)):
                self._misses += 1
                return None
            self.entries.move_to_end(key)
            self._hits += 1
            return found

    def put(self, key: bytes, decision: Row, record: KeptRecord | None = None) -> None:
        """Keep a decision; one of another bundle than the one that serves is not."""
        with self._lock:
            if decision.bundle_hash != self._bundle_hash:
                return
            self.entries[key] = decision, record
            self.entries.move_to_end(key)
            if len(self.entries) > self._limit:
                self.entries.popitem(last=False)
                self._evictions += 1

    def counts(self) -> CacheCounts:
        with self._lock:
            return CacheCounts(self._hits, self._misses, self._evictions, len(self.entries), self._limit)

    def after_fork(self) -> None:
        """Begin the counts anew in a forked child; what was decided holds there too."""
        self._lock = Lock()
        self._hits = self._misses = self._evictions = 0
