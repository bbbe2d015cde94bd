"""A `Structure` is the package as its source shows it: who imports whom, which names are public, how long an import chain is.

An import counts wherever it stands: in a module, in a function, under TYPE_CHECKING. What a package's `__init__`
hands on counts where it is defined. The face, `ipr_engine/__init__.py`, and the compiled `_C` are no modules here.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tests.support.places import ROOT

PACKAGE = "ipr_engine"
KERNELS = f"{PACKAGE}.kernels"


@dataclass(frozen=True)
class Module:
    """A `Module` is one file: its dotted name, its path and its syntax tree."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def is_face(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def only_hands_on(self) -> bool:
        """Return whether the module is a package's face that defines nothing itself."""
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        return self.is_face and not any(
            isinstance(node, kinds) and node.name != "__getattr__" for node in self.tree.body
        )

    @property
    def room(self) -> str:
        """Return the package the module lies in; "" for the top of `ipr_engine`."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 2 or self.is_face else ""

    def imports(self) -> Iterator[tuple[str, str | None]]:
        """Return (module, name) of every import; the name is None for a plain `import module`."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, None) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    above = self.name.split(".") + ([""] if self.is_face else [])
                    base = ".".join([*above[: len(above) - node.level], *([base] if base else [])])
                yield from ((base, alias.name) for alias in node.names)


class Structure:
    """A `Structure` holds the modules of the package, `kernels` included, and the imports among them."""

    def __init__(self, root: Path = ROOT) -> None:
        package, kernels = root / PACKAGE, root / "kernels"
        found = {path: (PACKAGE, *path.relative_to(package).with_suffix("").parts) for path in package.rglob("*.py")}
        found |= {
            path: (PACKAGE, "kernels", *path.relative_to(kernels).with_suffix("").parts)
            for path in kernels.rglob("*.py")
        }
        named = {
            ".".join(parts[:-1] if parts[-1] == "__init__" else parts): path
            for path, parts in found.items()
            if not path.parent.is_symlink()
        }
        self.modules = {
            name: Module(name, path, ast.parse(path.read_text(encoding="utf-8")))
            for name, path in sorted(named.items())
            if name != PACKAGE
        }

    @cached_property
    def graph(self) -> dict[str, set[str]]:
        """Map each module to those it imports; a package's face that only hands names on stands for the modules behind it."""
        return {
            module.name: {
                target
                for base, name in module.imports()
                if (found := self.defining(base, name)) is not None
                for target in self.behind(found)
                if target != module.name
            }
            for module in self.modules.values()
            if not module.only_hands_on
        }

    def behind(self, name: str) -> set[str]:
        """Return the module itself, or, of a face that only hands names on, those that define them: all may be read of the face."""
        module = self.modules[name]
        if not module.only_hands_on:
            return {name}
        found = {self.defining(base, handed_on) for base, handed_on in module.imports()}
        return {target for target in found if target is not None and target != name}

    def defining(self, base: str, name: str | None, seen: frozenset[tuple[str, str]] = frozenset()) -> str | None:
        """Return the module that defines what `from base import name` takes; None outside the package."""
        if name is None:
            return base if base in self.modules else None
        if f"{base}.{name}" in self.modules:
            return f"{base}.{name}"
        if base not in self.modules:
            return None
        if self.modules[base].is_face and (base, name) not in seen:
            for source, handed_on in self.modules[base].imports():
                if handed_on == name:
                    return self.defining(source, name, seen | {(base, name)})
        return base

    def importers_of_the_face(self) -> list[str]:
        """Return modules that import `ipr_engine` itself, for something else than a module of it."""
        return sorted(
            module.name
            for module in self.modules.values()
            for base, name in module.imports()
            if base == PACKAGE and name != "_C" and f"{PACKAGE}.{name}" not in self.modules
        )

    @cached_property
    def rooms(self) -> dict[str, set[str]]:
        """Map each room to the rooms whose modules its modules import."""
        found: dict[str, set[str]] = defaultdict(set)
        for name, targets in self.graph.items():
            here = self.modules[name].room
            for room in {self.modules[target].room for target in targets} - {here, ""}:
                found[here].add(room)
                found[room] |= set()
        found.pop("", None)
        return dict(found)

    def public_classes(self) -> dict[str, list[str]]:
        """Map each class name to the modules that define it at their top."""
        found: dict[str, list[str]] = defaultdict(list)
        for module in self.modules.values():
            for node in module.tree.body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    found[node.name].append(module.name)
        return found

    def stems(self) -> dict[str, list[str]]:
        """Map each file stem to the modules of that name; a command of `cli` is called as what it runs."""
        found: dict[str, list[str]] = defaultdict(list)
        for module in self.modules.values():
            if not module.is_face and module.room != "cli":
                found[module.path.stem].append(module.name)
        return found

    def wide_functions(self, most: int) -> list[tuple[str, str, int]]:
        """Return (module, function, parameters) of those that take more, self and cls apart; a Triton kernel's own apart."""
        found = []
        for module in self.modules.values():
            for node in ast.walk(module.tree):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not _jitted(node):
                    written = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                    count = len(written) - (bool(written) and written[0].arg in ("self", "cls"))
                    if count > most:
                        found.append((module.name, node.name, count))
        return found

    def wide_options(self, most: int) -> list[tuple[str, str, int]]:
        """Return (function, options class, fields) of the options objects with more fields, inherited ones too.

        An options object is a dataclass of the package that a function takes and has a default instance of.
        """
        nodes = [node for module in self.modules.values() for node in ast.walk(module.tree)]
        classes = {
            node.name: node
            for node in nodes
            if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in node.decorator_list)
        }

        def fields(name: str) -> int:
            above = [ast.unparse(base) for base in classes[name].bases]
            own = sum(isinstance(line, ast.AnnAssign) for line in classes[name].body)
            return own + sum(fields(base) for base in above if base in classes)

        found = []
        for node in nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                positional, defaults = [*node.args.posonlyargs, *node.args.args], node.args.defaults
                with_default = zip(positional[len(positional) - len(defaults) :], defaults, strict=True)
                by_name = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
                for argument, default in (*with_default, *by_name):
                    if default is None or isinstance(default, ast.Constant) or argument.annotation is None:
                        continue
                    of = ast.unparse(argument.annotation).strip("'").removesuffix(" | None")
                    if of in classes and fields(of) > most:
                        found.append((node.name, of, fields(of)))
        return found


def _jitted(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("jit" in ast.unparse(decorator) for decorator in node.decorator_list)


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of nodes that reach one another (Tarjan's strongly connected components of two nodes or more)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in graph.get(node, ()):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in graph:
        if node not in index:
            visit(node)
    return found


def longest_chain(graph: Mapping[str, set[str]]) -> list[str]:
    """Return the longest path of imports, from the top down, in a graph without circles."""
    below: dict[str, list[str]] = {}

    def chain(node: str) -> list[str]:
        if node not in below:
            below[node] = [node, *max((chain(target) for target in sorted(graph.get(node, ()))), key=len, default=[])]
        return below[node]

    return max((chain(node) for node in graph), key=len)
