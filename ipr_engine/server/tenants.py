"""A `Tenants` knows who asks by the key of a request, compared in constant time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from hmac import compare_digest

from ipr_engine.documents.provider_checks import key_in_environment
from ipr_engine.errors import InvalidInputError
from ipr_engine.server.refused import RefusedError
from ipr_engine.server.server_config import Tenant

MOST_KEYS = 4  # that one request may send, in different headers
ANYBODY = Tenant(name="anybody")


class Tenants:
    """A `Tenants` finds the tenant of a request; where none is configured everybody may ask."""

    def __init__(self, tenants: Sequence[Tenant]) -> None:
        """Read the keys that stand in the environment.

        Raises:
            InvalidInputError: a variable is not set, or two tenants share a key.
        """
        self._known: list[tuple[bytes, Tenant]] = []
        whose: dict[bytes, str] = {}
        for tenant in tenants:
            digests = [bytes.fromhex(digest) for digest in tenant.keys_sha256]
            for name in tenant.keys_env:
                key = key_in_environment(f"tenants.{tenant.name}.keys_env", name)
                digests.append(sha256(key.encode()).digest())
            for digest in digests:
                if digest in whose:
                    raise InvalidInputError(
                        f"tenants.{tenant.name}: a key of it is one of tenants.{whose[digest]}, too; give each key once"
                    )
                whose[digest] = tenant.name
            self._known += [(digest, tenant) for digest in digests]

    def of(self, headers: Iterable[tuple[bytes, bytes]]) -> Tenant:
        """Return whose key the headers hold.

        Raises:
            RefusedError: 401, no key is known, none was sent, too many were, or keys of different tenants.
        """
        if not self._known:
            return ANYBODY
        sent: set[bytes] = set()
        for name, value in headers:
            if name == b"authorization" and value[:7].lower() == b"bearer ":
                sent.add(value[7:].strip())
            elif name == b"x-api-key":
                sent.add(value.strip())
        sent.discard(b"")  # no key is one, whatever is configured
        if len(sent) > MOST_KEYS:
            raise RefusedError(401, f"at most {MOST_KEYS} keys may be sent; send one as `Authorization: Bearer KEY`")
        found: list[Tenant] = []
        for key in sent:
            digest = sha256(key).digest()
            for known, tenant in self._known:  # all of them, whichever it is: the time tells nothing
                if compare_digest(known, digest):
                    found.append(tenant)
        if not found:
            raise RefusedError(401, "the key is missing or not known; send it as `Authorization: Bearer KEY`")
        if any(tenant is not found[0] for tenant in found):
            raise RefusedError(401, "keys of different tenants were sent; send one as `Authorization: Bearer KEY`")
        return found[0]
