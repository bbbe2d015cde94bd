"""Every TensorRT call of the tier exists, with these arguments, in the real bindings: TensorRT-RTX's, which build and run, and the
lean run time of TensorRT 11, each loaded in a process of its own."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ipr_engine.encoders.tensorrt as package
from ipr_engine.encoders.tensorrt import bindings
from tests.support import skips

FOLDER = Path(package.__file__).parent
RUNTIME = ("Runtime", "ICudaEngine", "IRuntimeConfig", "IExecutionContext")
RTX_ALONE = {"IRuntimeCache", "IRuntimeConfig.create_runtime_cache", "IRuntimeConfig.set_runtime_cache"}
RUNTIME_FILES = ("api.py", "runtime.py")
BUILDER_NAMES = {"Builder", "OnnxParser"}  # of the module, which a lean run time lacks
DESCRIBE = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
names = {name: {member: getattr(value, member).__doc__ for member in dir(value) if not member.startswith("__")}
         for name, value in vars(module).items() if isinstance(value, type)}
print(json.dumps({"version": module.__version__, "names": names}))
"""


def describe(module, reason):
    """{class: {member: docstring}} of a module, from another process."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(reason)
    done = subprocess.run([sys.executable, "-c", DESCRIBE, module], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def rtx():
    return describe("tensorrt_rtx_bindings", skips.TENSORRT)


@pytest.fixture(scope="module")
def lean():
    return describe("tensorrt_lean_bindings", skips.TENSORRT_LEAN)


def used():
    """(class, member, its arguments or None for a property) of all that the types of bindings.py let through."""
    for name, kind in vars(bindings).items():
        if not (inspect.isclass(kind) and kind.__module__ == bindings.__name__):
            continue
        for member in kind.__annotations__:
            yield name, member, None
        for member, function in vars(kind).items():
            if inspect.isfunction(function) and not member.startswith("_"):
                yield name, member, list(inspect.signature(function).parameters)[1:]


def signatures(doc, member):
    """The argument names of every overload that a pybind11 docstring lists, and how many of them have no default."""
    found = []
    for line in doc.splitlines():
        match = re.match(rf"\s*(?:\d+\. )?{member}\((.*)\) ->", line)
        if match and match[1] != "*args, **kwargs":
            parts = re.findall(r"(\w+): (?:[^,\[]|\[[^\]]*\])*", match[1])[1:]
            required = [part for part in parts if not re.search(rf"\b{part}: [^=]*?=", match[1])]
            found.append((parts, len(required)))
    return found


def missing(description, wanted):
    """What of (class, member, arguments) the described module does not take."""
    faults = []
    for name, member, arguments in wanted:
        doc = description["names"].get(name, {}).get(member, "absent")
        if doc == "absent":
            faults.append(f"{name}.{member}")
        elif arguments is not None and not any(
            parts[: len(arguments)] == arguments and required <= len(arguments)
            for parts, required in signatures(doc or "", member)
        ):
            faults.append(f"{name}.{member}({', '.join(arguments)}): {signatures(doc or '', member)}")
    return faults


def module_names():
    """(file, ("BuilderFlag", "TF32")) for each chain after `module` in the tier's source."""
    for file in sorted(FOLDER.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            chain = []
            while isinstance(node, ast.Attribute):
                chain.insert(0, node.attr)
                node = node.value
            if isinstance(node, ast.Name):
                chain.insert(0, node.id)
            if "module" in chain[:-1]:
                yield file.name, tuple(chain[chain.index("module") + 1 :])


def absent(description, chains):
    """Chains that do not resolve: a class of the module, and a member of it."""
    names = {"__version__": {}, **description["names"]}
    return [chain for chain in chains if chain[0] not in names or (len(chain) > 1 and chain[1] not in names[chain[0]])]


def test_every_call_exists_in_tensorrt_rtx_with_these_arguments(rtx):
    assert rtx["version"].startswith("1.")
    wanted = list(used())
    assert len(wanted) >= 40
    assert missing(rtx, wanted) == []


def test_every_run_time_call_exists_in_tensorrt_11_with_these_arguments(lean):
    assert lean["version"].startswith("11.")
    wanted = [call for call in used() if call[0] in RUNTIME and f"{call[0]}.{call[1]}" not in RTX_ALONE]
    assert len(wanted) >= 18
    assert missing(lean, wanted) == []


def test_what_only_rtx_has_is_indeed_absent_from_tensorrt_11(lean):
    """So that the one difference at run time is dropped when it ends."""
    only = [call for call in used() if call[0] in RTX_ALONE or f"{call[0]}.{call[1]}" in RTX_ALONE]
    assert len(missing(lean, only)) == len(only) == 4


def test_every_class_and_enumeration_named_exists(rtx, lean):
    chains = list(module_names())
    assert ("engine_order.py", ("BuilderFlag", "TF32")) in chains
    assert ("runtime.py", ("ExecutionContextAllocationStrategy", "USER_MANAGED")) in chains
    assert absent(rtx, {chain for _, chain in chains}) == []
    run_time = {chain for file, chain in chains if file in RUNTIME_FILES and chain[0] not in BUILDER_NAMES}
    assert len(run_time) >= 3
    assert absent(lean, run_time) == []


def test_the_run_time_reads_no_attribute_of_tensorrt_that_the_types_do_not_state():
    """mypy checks the calls; this checks that nothing hides behind Any: in runtime.py only an enumeration is reached that way."""
    chains = {chain for file, chain in module_names() if file == "runtime.py"}
    assert chains == {("ExecutionContextAllocationStrategy",), ("ExecutionContextAllocationStrategy", "USER_MANAGED")}


def test_the_types_state_no_call_that_the_tier_does_not_make():
    source = "".join(file.read_text(encoding="utf-8") for file in FOLDER.glob("*.py") if file.name != "bindings.py")
    assert [f"{name}.{member}" for name, member, _ in used() if not re.search(rf"\.{member}\b", source)] == []


def test_a_call_that_does_not_exist_is_noticed(rtx):
    faults = missing(
        rtx,
        [
            ("IExecutionContext", "execute_async_v4", ["stream_handle"]),
            ("IExecutionContext", "execute_async_v3", ["stream"]),
            ("IExecutionContext", "execute_async_v3", []),
            ("IExecutionContext", "set_device_memory", ["memory"]),
        ],
    )
    assert len(faults) == 4
    assert absent(rtx, [("BuilderFlag", "FP16"), ("NoSuchClass",)]) == [("BuilderFlag", "FP16"), ("NoSuchClass",)]
