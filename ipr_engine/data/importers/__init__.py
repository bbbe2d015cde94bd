"""This room reads public outcome data, in its own layouts, and scored records into `Outcomes`.

One file per layout; each names where it is described.
"""

from collections.abc import Callable

from ipr_engine.data.importers.llmrouterbench import import_llmrouterbench
from ipr_engine.data.importers.routellm import import_routellm
from ipr_engine.data.importers.routerbench import import_routerbench
from ipr_engine.data.importers.scored_records import import_records
from ipr_engine.data.importers.wide import import_wide
from ipr_engine.data.outcomes import Outcomes

IMPORTERS: dict[str, Callable[..., Outcomes]] = {
    "routerbench": import_routerbench,
    "routellm": import_routellm,
    "llmrouterbench": import_llmrouterbench,
    "wide": import_wide,
    "records": import_records,
}

__all__ = [
    "IMPORTERS",
    "import_llmrouterbench",
    "import_records",
    "import_routellm",
    "import_routerbench",
    "import_wide",
]
