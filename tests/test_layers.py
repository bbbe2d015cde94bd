"""Imports go downwards only (docs/design.md section 5), read from the source, module by module."""

import ast
from pathlib import Path

import pytest

import ipr_engine

PACKAGE = Path(ipr_engine.__file__).parent
MEASURES = {f"ipr_engine.measures.{name}" for name in ("bootstrap", "kept", "prediction", "routing", "sweeps")}
RECIPE = {"studies.default_bundle.recipe", "studies.default_bundle.model_card"}


def name_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


KERNELS = {f"ipr_engine.{name_of(path)}": path for path in sorted((PACKAGE.parent / "kernels").glob("*.py"))}
MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))} | KERNELS


def imports_of(module):
    """The modules that a module imports, inside its functions too; a name of a package is that name's module."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module if MODULES[module].stem == "__init__" else module.rpartition(".")[0]
                base = ".".join(
                    [*package.split(".")[: len(package.split(".")) - node.level + 1], *([base] if base else [])]
                )
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names}
    return found - {module}


EVERY_IMPORT = {module: imports_of(module) for module in MODULES}
IMPORTS = {module: {name for name in found if name.startswith("ipr_engine")} for module, found in EVERY_IMPORT.items()}


def below(module, *packages):
    """Those of a module's imports that lie in one of the packages."""
    return {name for name in IMPORTS[module] for package in packages if f"{name}.".startswith(f"ipr_engine.{package}.")}


def of(package):
    return [module for module in MODULES if f"{module}.".startswith(f"ipr_engine.{package}.")]


def test_nothing_imports_the_command_line_but_itself():
    for module in MODULES:
        if module not in ("ipr_engine.__main__", *of("cli")):
            assert not below(module, "cli"), module


def test_nothing_imports_the_benchmarks_the_studies_or_the_tests():
    for module, found in EVERY_IMPORT.items():
        roots = {name.removeprefix("ipr_engine.").partition(".")[0] for name in found}
        assert not roots & {"benchmarks", "studies", "tests"}, module


@pytest.mark.parametrize("package", ["bundle", "encoders", "engine", "policy", "decide", "reference"])
def test_what_serves_knows_nothing_of_data_training_or_evaluation(package):
    for module in of(package):
        assert not below(module, "data", "training", "evaluation"), module


def test_kernels_stand_on_decide_and_the_cuda_driver_alone():
    assert of("kernels")
    below_them = {"ipr_engine.decide.contract", "ipr_engine.cuda.driver", "ipr_engine.errors", "ipr_engine._extras"}
    for module in of("kernels"):
        allowed = {*below_them, *of("kernels")}
        assert IMPORTS[module] <= allowed, module


def test_data_knows_nothing_of_training_or_evaluation():
    for module in of("data"):
        assert not below(module, "training", "evaluation"), module


def test_measures_know_nothing_of_training():
    for module in sorted(MEASURES):
        assert not below(module, "training")
        assert below(module, "evaluation") <= MEASURES


def test_training_uses_measures_alone_of_evaluation_and_only_the_recipe_stands_above_both():
    for module in of("training"):
        if module not in RECIPE:
            assert below(module, "evaluation") <= MEASURES, module
            assert not IMPORTS[module] & RECIPE, module
    for module in of("evaluation"):
        assert not IMPORTS[module] & RECIPE, module


def test_the_gpu_router_lies_between_loaded_bundles_and_encoders():
    assert of("gpu_router")
    for module in of("gpu_router"):
        assert not below(module, "loaded_bundle", "engine", "audit", "cli"), module
    for module in (*of("encoders"), *of("kernels"), *of("cuda")):
        assert not below(module, "gpu_router"), module


def test_what_gpu_tiers_share_knows_none_of_them():
    for module in of("cuda"):
        assert not below(module, "encoders", "kernels", "gpu_router", "bundle", "policy"), module


def test_serving_stands_on_the_engine_and_only_the_command_line_above_it():
    for module in of("serving"):
        assert not below(module, "cli", "data", "training", "evaluation", "studies", "calibration"), module
    for module in MODULES:
        if module not in ("ipr_engine", *of("serving"), *of("cli")):  # the package exports AsyncEngine, when asked for
            assert not below(module, "serving"), module


def test_a_request_is_taken_apart_knowing_neither_bundles_nor_engines():
    assert of("prompts")
    for module in of("prompts"):
        assert IMPORTS[module] <= {"ipr_engine.errors", "ipr_engine._validate", *of("prompts")}, module
