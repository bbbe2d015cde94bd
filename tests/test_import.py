"""What importing the package may and may not do."""

import subprocess
import sys

HEAVY = ("torch", "triton", "tensorrt", "transformers", "onnxruntime", "tokenizers", "safetensors", "rich", "model2vec")


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_loads_nothing_heavy():
    loaded = run("import sys, ipr_engine; print('\\n'.join(sys.modules))").split()
    assert not set(HEAVY) & set(loaded)


def test_an_engine_with_the_default_bundle_needs_no_heavy_package_either():
    code = "import sys, ipr_engine; ipr_engine.Engine.load().route('hello', tau=0.1); print('\\n'.join(sys.modules))"
    assert not (set(HEAVY) - {"safetensors"}) & set(run(code).split())


def test_the_public_names_are_few_and_exist():
    import ipr_engine

    assert len(ipr_engine.__all__) <= 13
    assert all(hasattr(ipr_engine, name) for name in ipr_engine.__all__)
