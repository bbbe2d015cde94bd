"""`page` reads the page at `/`: one file, with headers by which a browser runs its own script and style and nothing else."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

FILE = Path(__file__).with_name("page.html")


def page() -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """Return the page, and the headers of its reply. It holds no data: its script asks for `/ipr/overview`."""
    text = FILE.read_text("utf-8")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hashes(text, 'script')}",
            f"style-src {_hashes(text, 'style')}",
            "connect-src 'self'",
            "img-src data:",  # the empty icon, so that none is asked for
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    headers = {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "no-cache",
    }
    return text.encode(), [(name.encode(), value.encode()) for name, value in headers.items()]


def _hashes(text: str, tag: str) -> str:
    """Return the sources of a policy that allow what stands in these elements."""
    found = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    return " ".join(f"'sha256-{b64encode(sha256(one.encode()).digest()).decode()}'" for one in found)
