"""This room holds the GPU code, importable as `ipr_engine.kernels` alone (docs/kernels.md).

    decide.py   the Triton kernel: docs/decide.md in one launch; activate.py, choose.py, pool.py, handshake.py are its parts
    plan.py     GpuPlan: heads, policies and working memory on the device; GpuResult: the answers in one block
    run.py      decide(plan, x, ...): checks, then the launch
    packing.py  heads and policies as the arrays that the kernel reads
    variant.py  what a kernel is compiled for: KernelVariant, and LaunchParams by architecture, dim and shape class (launch.json)
    build.py    python -m ipr_engine.kernels.build: cubins for named architectures
    cubin.py    a cubin loaded and launched through the CUDA driver, without Triton
    compiling.py  a kernel compiled for a named architecture
    bert/       a BERT encoder as fused kernels (docs/bert-kernels.md)

Importing this package imports nothing heavier than itself.
"""

if __name__ == "kernels":  # the repository's root is on sys.path; the name `kernels` belongs to a published package
    import importlib.machinery
    import importlib.util
    import pathlib
    import sys

    _root = pathlib.Path(__file__).resolve().parent.parent
    _elsewhere = [entry for entry in sys.path if pathlib.Path(entry or ".").resolve() != _root]
    _spec = importlib.machinery.PathFinder.find_spec("kernels", _elsewhere)
    if _spec is not None and _spec.loader is not None:
        sys.modules["kernels"] = importlib.util.module_from_spec(_spec)
        _spec.loader.exec_module(sys.modules["kernels"])
    else:
        __version__ = "0"  # transformers parses it, and finds it too old to be used
        __path__ = []
