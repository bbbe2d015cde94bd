#!/bin/sh
# Build, test and measure on a machine with a GPU, torch, triton and transformers, without a network; under eight minutes.
#
#   benchmarks/gpu.sh ENCODER_DIR [arguments of python -m benchmarks.gpu]
#
# PYTHON (default python3), OUT (default benchmarks/results/gpu.jsonl; empty records nothing) from the environment.
# ENCODER_DIR: an export or a transformers folder, for MiniLM in float16 45 MB; with the repository under 60 MB to carry.
set -eu
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2; }
encoder=$1
shift
PYTHON=${PYTHON:-python3}
OUT=${OUT-benchmarks/results/gpu.jsonl}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
say() { printf '\n== %s\n' "$*"; }

say "machine"
"$PYTHON" -c 'import sys, torch, transformers; print(sys.version.split()[0], "torch", torch.__version__, "transformers", transformers.__version__)'
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "no nvidia-smi"

say "build"
if "$PYTHON" -c 'import ipr_engine._C' 2>/dev/null; then
    echo "ipr_engine._C is built"
elif "$PYTHON" -m pip --version >/dev/null 2>&1 &&
    "$PYTHON" -m pip install --no-build-isolation --no-deps --no-index --quiet --editable . 2>/tmp/ipr_build.log; then
    echo "installed in place with pip --no-build-isolation"
else  # pip, or a build requirement it insists on, is missing: setuptools alone builds the extension
    "$PYTHON" setup.py --quiet build_ext --inplace
fi
"$PYTHON" -c 'import ipr_engine; print("import ipr_engine: works")'

say "tests"
if "$PYTHON" -c 'import pytest, hypothesis' 2>/dev/null; then
    timeout 120 "$PYTHON" -m pytest -q -p no:cacheprovider tests/test_torch_graphs.py tests/test_torch_capture.py \
        tests/test_gpu_engine.py tests/test_kernels_decide.py || { echo "TESTS FAILED OR RAN OVER 120 s"; failed=1; }
else
    echo "pytest or hypothesis is missing: only the benchmark's own checks run, before each part is timed"
fi

say "benchmarks"
"$PYTHON" -m benchmarks.gpu "$encoder" ${OUT:+--out "$OUT"} "$@" || failed=1
exit "${failed:-0}"
