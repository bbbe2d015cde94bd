"""What importing the package may and may not do."""

import ast
import importlib
import inspect
import subprocess
import sys
import typing
from functools import cached_property

import pytest

import ipr_engine
from tests.support.places import ROOT

HEAVY = (
    "torch",
    "triton",
    "tensorrt",
    "transformers",
    "onnxruntime",
    "openvino",
    "tokenizers",
    "safetensors",
    "rich",
    "model2vec",
)


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_loads_nothing_heavy():
    loaded = run("import sys; from ipr_engine import Engine; print('\\n'.join(sys.modules))").split()
    assert not set(HEAVY) & set(loaded)


def test_import_leaves_what_only_some_calls_need_to_those_calls():
    loaded = run("import sys; from ipr_engine import Engine; print('\\n'.join(sys.modules))").split()
    assert not {"asyncio", "hashlib", "logging", "numpy.ma"} & set(loaded)


def test_the_package_alone_brings_its_errors_and_nothing_else():
    loaded = run("import sys, ipr_engine; print('\\n'.join(sys.modules))").split()
    ours = {name for name in loaded if name.startswith("ipr_engine")}
    assert ours <= {"ipr_engine", "ipr_engine.errors", "ipr_engine._lazy_names", "ipr_engine._clone"}
    assert not {"numpy", "typing", "json"} & set(loaded)


@pytest.mark.parametrize("statement", ["from ipr_engine import Engine", "import ipr_engine; ipr_engine.Engine"])
@pytest.mark.parametrize("shadow", ["numpy", "weakref"])
def test_a_package_that_is_not_what_it_should_be_is_named(tmp_path, statement, shadow):
    (tmp_path / f"{shadow}.py").write_text("")
    # What a name of a module that is half there leads to is an AttributeError, which `from ... import` takes for a missing name.
    first = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.modules.pop({shadow!r}, None)"
    code = "for _ in 'twice':\n try:\n  {}\n except ImportError as error: print(error)"
    said = run(f"{first}\n{code.format(statement)}").splitlines()
    assert len(said) == len("twice")
    assert all(f"'{shadow}'" in line and "cannot import name" not in line for line in said)


def test_the_first_route_imports_no_masked_arrays():
    code = "import sys, ipr_engine; ipr_engine.Engine.load().route('hello', tau=0.1); print('\\n'.join(sys.modules))"
    assert "numpy.ma" not in run(code).split()


def test_an_engine_with_the_default_bundle_needs_no_heavy_package_either():
    code = "import sys, ipr_engine; ipr_engine.Engine.load().route('hello', tau=0.1); print('\\n'.join(sys.modules))"
    assert not (set(HEAVY) - {"safetensors"}) & set(run(code).split())


def test_the_public_names_are_few_and_exist():
    assert len(ipr_engine.__all__) <= 13
    assert all(hasattr(ipr_engine, name) for name in ipr_engine.__all__)


def told_to_mypy(face):
    """(module, name) of what a face imports under TYPE_CHECKING."""
    for node in ast.parse(face.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for line in node.body:
                yield from ((line.module, alias.name) for alias in line.names)


LAZY = [
    face for face in (ROOT / "ipr_engine").rglob("__init__.py") if "lazy_names(" in face.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("face", LAZY, ids=lambda face: face.parent.name)
def test_a_lazy_face_gives_what_it_tells_mypy(face):
    package = ".".join(face.parent.relative_to(ROOT).parts)
    told = sorted(told_to_mypy(face), key=lambda pair: pair[1])
    wanted = [getattr(importlib.import_module(home), name) for home, name in told]
    module = importlib.import_module(package)
    assert wanted
    assert all(getattr(module, name) is value for (_, name), value in zip(told, wanted, strict=True))
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018 - the attribute is the test


def test_a_name_that_is_not_public_is_refused():
    with pytest.raises(AttributeError, match="module 'ipr_engine' has no attribute 'Router'"):
        ipr_engine.Router  # noqa: B018 - the attribute is the test
    with pytest.raises(ImportError, match="Router"):
        exec("from ipr_engine import Router")


def test_public_names_are_listed_before_they_are_asked_for():
    listed = run("import ipr_engine; print('\\n'.join(dir(ipr_engine)))").split()
    assert set(ipr_engine.__all__) <= set(listed)


def functions_of(public):
    """(name, function) of a public function, or of every method and property of a class but the private ones, inherited ones too."""
    if inspect.isfunction(public):
        yield public.__name__, public
        return
    for name in dir(public):
        found = inspect.getattr_static(public, name)
        for kind, inner in ((property, "fget"), (cached_property, "func"), ((classmethod, staticmethod), "__func__")):
            if isinstance(found, kind):
                found = getattr(found, inner)
        private = name.startswith("_") and not name.endswith("__")
        if inspect.isfunction(found) and not private:
            yield f"{public.__name__}.{name}", found


@pytest.mark.parametrize("name", ipr_engine.__all__)
def test_the_annotations_of_every_public_class_and_method_resolve(name):
    public = getattr(ipr_engine, name)
    typing.get_type_hints(public)
    functions = dict(functions_of(public))
    assert functions or issubclass(public, Exception)
    for of, function in functions.items():
        try:
            typing.get_type_hints(function)
        except NameError as error:
            pytest.fail(
                f"{of}: {error}; import the name where {function.__module__} is loaded, not under TYPE_CHECKING"
            )
