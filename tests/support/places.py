"""These names say where things stand in a checkout."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SENTENCES = ROOT / "tests" / "support" / "sentences.json"
OPENAI_JS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ipr-engine" / "openai-js"
"""Where `make openai-js` installs the openai package of JavaScript: outside the checkout."""
