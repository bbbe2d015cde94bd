"""What is wrong at the start of `ipr serve` is named by the flag, or by the file and the key, that says it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Sequence

from ipr_engine._options import flags
from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.errors import IprError
from ipr_engine.policy.policy_spec import PolicySpec

_POLICY = re.compile(r"(?<![\w.])policy\.(\w+)")  # none of a tenant's or the shadow's


def flag_of(option: str, options: type = PolicySpec) -> str:
    """Return the flag that gives an option of a policy, or of loading."""
    return flags(options)[option].name or f"--{option.replace('_', '-')}"


@contextlib.contextmanager
def named_by_flags(given: Collection[str]) -> Iterator[None]:
    """Name options of the server's policy by their flags, in what is raised. given: those that flags give."""
    try:
        yield
    except IprError as error:
        text = _POLICY.sub(lambda found: flag_of(found[1]) if found[1] in given else found[0], str(error))
        if given and text.startswith("policy: "):
            text = " and ".join(map(flag_of, given)) + text.removeprefix("policy")
        error.args = (text,)
        raise


@contextlib.contextmanager
def named_by_files(paths: Sequence[str]) -> Iterator[None]:
    """Put the files before the keys of a config that an error names."""
    try:
        yield
    except IprError as error:
        file_of = files_of_keys(paths)
        places = str(error).partition(": ")[0].split(" or ")
        tops = [re.split(r"\W", place, maxsplit=1)[0] for place in places]
        files = dict.fromkeys(file_of[top] for top in tops if top in file_of)
        if files:
            error.args = (f"{', '.join(files)}: {error}",)
        raise


def files_of_keys(paths: Sequence[str]) -> dict[str, str]:
    """Return key at the top of a config -> the file that holds it. They were read before; one that has gone meanwhile is left out."""
    from ipr_engine.documents.yaml_file import read_yaml
    from ipr_engine.server.server_config import CONFIG  # the extra [serve]

    found: dict[str, str] = {}
    for path in paths:
        with contextlib.suppress(IprError):
            found |= dict.fromkeys(read_yaml(path, CONFIG), path)
    return found


@contextlib.contextmanager
def named_as_bundle(bundle: str | None) -> Iterator[None]:
    """Name the flag of what keeps a bundle from being loaded: that of an option, or `--bundle`, where that is given."""
    try:
        yield
    except IprError as error:
        option, _, why = str(error).partition(": ")
        if option in flags(LoadOptions):
            error.args = (f"{flag_of(option, LoadOptions)}: {why}",)
        elif bundle is not None:
            error.args = (f"--bundle: {error}",)
        raise
