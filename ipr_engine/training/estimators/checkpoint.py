"""A run folder keeps what a long fit has finished so far, so that an interrupted run goes on where it stopped.

    <folder>/state.json                           {"format", "key", "units": {unit: {"file", "facts"}}}
    <folder>/<unit>.<sha256 of the bytes>.safetensors     the unit's tensors; its header repeats key, unit and facts

Every file is written whole or not at all (a temporary name, fsync, os.replace), and state.json last: after `kill -9` it
names only files that are complete. A file's name holds the hash of its bytes, so damage is found; a damaged file is
reported, dropped and its unit computed again; a damaged state.json is reported and rebuilt from the headers of the files.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._files import left_over, sync_folder, write_atomically
from ipr_engine._tensor_files import metadata_of, tensor_file
from ipr_engine.errors import InvalidInputError

STATE = "state.json"
FORMAT = 1

Tensors = dict[str, npt.NDArray[Any]]

_UNIT = re.compile(r"[A-Za-z0-9_-]+")
_FILE = re.compile(r"([A-Za-z0-9_-]+)\.([0-9a-f]{64})\.safetensors")


class RunStateWarning(UserWarning):
    """A `RunStateWarning` tells that a file of a run folder was damaged, and that its content is computed again."""


class RunState:
    """A `RunState` holds the units of one run, kept in a folder. One process at a time uses a folder.

    Args:
        folder: made if missing.
        key: names the run: a hash over everything that decides its result (data, settings, seed, versions).
    Raises:
        InvalidInputError: `folder` is a file, or holds a run of another key or of another format.

    Example:
        >>> run = RunState(folder, key)
        >>> run.save("fold-0", {"weights": np.ones(3)}, {"epochs": 7})
        >>> tensors, facts = RunState(folder, key).load("fold-0")
        >>> facts
        {'epochs': 7}
    """

    def __init__(self, folder: str | os.PathLike[str], key: str) -> None:
        self.folder, self.key = Path(folder), key
        if self.folder.exists() and not self.folder.is_dir():
            raise InvalidInputError(f"run folder: expected a folder, {self.folder} is a file")
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in left_over(self.folder):  # of a write that was killed
            path.unlink(missing_ok=True)
        found = self._read_state()
        self._units: dict[str, dict[str, Any]] = self._rebuild() if found is None else found
        if found is None:
            self._write_state()

    def load(self, unit: str) -> tuple[Tensors, dict[str, Any]] | None:
        """Return the tensors and facts of a unit; None if it was never saved, or, after a RunStateWarning, if its file is damaged."""
        entry = self._units.get(unit)
        if entry is None:
            return None
        path = self.folder / entry["file"]
        try:
            tensors, header = _read(path)
        except (OSError, ValueError) as error:
            _tell(f"{path.name} is dropped and unit {unit} computed again: {error}")
            del self._units[unit]
            self._write_state()
            path.unlink(missing_ok=True)
            return None
        return tensors, dict(header["facts"])

    def save(self, unit: str, tensors: Tensors, facts: dict[str, Any]) -> None:
        """Keep a unit, in place of what was kept of it before. `facts` hold what JSON can hold."""
        if not _UNIT.fullmatch(unit):
            raise InvalidInputError(f"unit: expected letters, digits, - and _, got {unit!r}")
        header = {"format": str(FORMAT), "key": self.key, "unit": unit, "facts": json.dumps(facts, sort_keys=True)}
        data = tensor_file({name: np.asarray(value, order="C") for name, value in tensors.items()}, header)
        name = f"{unit}.{hashlib.sha256(data).hexdigest()}.safetensors"
        self._write(name, data)
        # The new file, then the state that names it, then the old file goes: killed between any two, the state is true.
        before = self._units.get(unit)
        self._units[unit] = {"file": name, "facts": facts}
        self._write_state()
        if before is not None and before["file"] != name:
            (self.folder / before["file"]).unlink(missing_ok=True)

    def _read_state(self) -> dict[str, dict[str, Any]] | None:
        """Read the units from state.json; None if there is none yet, or if it is damaged."""
        path = self.folder / STATE
        try:
            state = json.loads(path.read_bytes())
            file_format, key, units = state["format"], state["key"], state["units"]
            sound = isinstance(key, str) and all(_FILE.fullmatch(entry["file"]) for entry in units.values())
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            _tell(f"{STATE} is damaged ({type(error).__name__}: {error}); its units are looked up in their own files")
            return None
        if file_format != FORMAT:
            raise InvalidInputError(
                f"run folder: expected format {FORMAT}, {path} has {file_format}; pass a new folder"
            )
        self._refuse_other(key)
        if not sound:
            _tell(f"{STATE} names files that are none of a run; its units are looked up in their own files")
            return None
        return dict(units)

    def _rebuild(self) -> dict[str, dict[str, Any]]:
        """Read the units from the headers of the files that are sound; of two files of one unit the later one counts."""
        units: dict[str, dict[str, Any]] = {}
        # By age, so that of two files of one unit the later one stands.
        for path in sorted(self.folder.glob("*.safetensors"), key=lambda path: (path.stat().st_mtime_ns, path.name)):
            if not _FILE.fullmatch(path.name):
                continue
            try:
                _, header = _read(path)
            except (OSError, ValueError) as error:
                _tell(f"{path.name} is dropped: {error}")
                path.unlink(missing_ok=True)
                continue
            self._refuse_other(header["key"])
            units[header["unit"]] = {"file": path.name, "facts": header["facts"]}
        return units

    def _refuse_other(self, key: str) -> None:
        if key != self.key:
            raise InvalidInputError(
                f"run folder: {self.folder} holds another run (key {key[:12]}, this run is {self.key[:12]}): the data, "
                "the settings, the seed or a version changed; pass a new folder, or delete this one"
            )

    def _write_state(self) -> None:
        state = {"format": FORMAT, "key": self.key, "units": self._units}
        self._write(STATE, (json.dumps(state, indent=2, sort_keys=True) + "\n").encode())

    def _write(self, name: str, data: bytes) -> None:
        write_atomically(self.folder / name, data)
        sync_folder(self.folder)


def _read(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Read tensors and header {"key", "unit", "facts"} of a unit's file. A ValueError says how it is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    matched = _FILE.fullmatch(path.name)
    data = path.read_bytes()
    if matched is None or hashlib.sha256(data).hexdigest() != matched[2]:
        raise ValueError("its bytes are not those that were written")
    try:
        tensors: Tensors = load(data)
        header = metadata_of(data)
        facts = json.loads(header["facts"])
        return tensors, {"key": header["key"], "unit": header["unit"], "facts": facts}
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"it is no file of a run ({error})") from None


def _tell(message: str) -> None:
    warnings.warn(f"run folder: {message}", RunStateWarning, stacklevel=4)
