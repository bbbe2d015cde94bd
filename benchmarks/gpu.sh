#!/bin/sh
# Build, measure, test on a machine with a GPU, torch, triton and transformers, without a network. All parts may take half an hour: name some.
#
#   benchmarks/gpu.sh ENCODER_DIR [PART ...]      # parts: floor encoder fused host decide last text tests tune
#                                               # tune_encoder roofs peers sanitize counters; default all
#
# Each part is a process of its own with a time limit, and appends to the results as it goes: what was measured stands if a
# later part fails or is stopped. Own figures come first; peers free memory under our graphs and come late.
# From the environment: PYTHON (default python3); IPR_RESULTS, a file, or a folder that gets gpu.jsonl and gpu.log (default
# benchmarks/results/gpu.jsonl, and no log; empty records nothing); IPR_DEVICE=cpu takes every step on a CPU, quickly.
# ENCODER_DIR: an export or a sentence-transformers folder, or one of transformers alone with IPR_POOLING=mean, cls or last, as the
# model was trained; benchmarks.gpu.pack makes one in float16 and a tree to carry.
set -u
[ $# -ge 1 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2; }
# absolute PATH: of a path as the caller means it, who may stand elsewhere
absolute() { case $1 in /*) printf '%s\n' "$1" ;; *) printf '%s/%s\n' "$PWD" "$1" ;; esac; }
encoder=$(absolute "$1")
[ -z "${IPR_RESULTS:-}" ] || IPR_RESULTS=$(absolute "$IPR_RESULTS")
cd "$(dirname "$0")/.." || exit 2
shift
[ -d "$encoder" ] || { echo "ENCODER_DIR: expected a folder, got $encoder"; exit 2; }
[ $# -ge 1 ] || set -- floor encoder fused host decide last text tests tune tune_encoder roofs peers sanitize counters
IPR_POOLING=${IPR_POOLING:-}
case $IPR_POOLING in
'' | mean | cls | last) ;;
*) echo "IPR_POOLING: expected mean, cls or last, got $IPR_POOLING" && exit 2 ;;
esac
case ${IPR_DEVICE:=cuda} in
cpu | cuda) ;;
*) echo "IPR_DEVICE: expected cpu or cuda, got $IPR_DEVICE" && exit 2 ;;
esac
PYTHON=${PYTHON:-python3}
IPR_RESULTS=${IPR_RESULTS-benchmarks/results/gpu.jsonl}
log=/dev/null
[ ! -d "$IPR_RESULTS" ] || { log="$IPR_RESULTS/gpu.log"; IPR_RESULTS="$IPR_RESULTS/gpu.jsonl"; }
[ -z "$IPR_RESULTS" ] || [ -d "$(dirname "$IPR_RESULTS")" ] || { echo "IPR_RESULTS: expected a file in a folder that is there, or a folder, got $IPR_RESULTS"; exit 2; }
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
quick=
[ "$IPR_DEVICE" != cpu ] || quick="--device cpu --quick"
status=$(mktemp)
running=$(mktemp)
trap 'rm -f "$status" "$running"' EXIT
failed=

# Ctrl-C does not reach what `timeout` runs, in a group of its own: it would keep the GPU until its limit.
stop() {
    trap '' INT TERM HUP
    [ ! -s "$running" ] || kill "$(cat "$running")" 2>/dev/null
    wait
    exit 130
}
trap stop INT TERM HUP

# step NAME SECONDS COMMAND...: run it, keep its output in the log, go on whatever comes of it.
step() {
    name=$1 limit=$2
    shift 2
    printf '\n== %s (at most %s s)\n' "$name" "$limit" | tee -a "$log"
    begun=$(date +%s)
    {
        timeout -k 10 "$limit" "$@" 2>&1 &
        echo $! >"$running"
        wait $!
        echo $? >"$status"
    } | tee -a "$log" & # a trap waits for what runs in front
    wait $!
    : >"$running"
    code=$(cat "$status")
    printf -- '-- %s: status %s after %s s\n' "$name" "$code" "$(($(date +%s) - begun))" | tee -a "$log"
    [ "$code" = 0 ] || failed="$failed $name"
}

# measure NAME PART SECONDS ARGUMENT...: a part of benchmarks.gpu, told under its name
measure() {
    name=$1 part=$2 limit=$3
    [ "$IPR_DEVICE" = cpu ] && limit=$((limit * 5)) # no device time is spent, and Triton's interpreter is slow
    shift 3
    # shellcheck disable=SC2086
    step "$name" "$limit" "$PYTHON" -m benchmarks.gpu "$part" "$encoder" $quick \
        ${IPR_POOLING:+--pooling "$IPR_POOLING"} --minutes "$(awk "BEGIN {print ($limit - 15) / 60}")" ${IPR_RESULTS:+--out "$IPR_RESULTS"} "$@"
}

# A carried tree (COMMIT) is not compared by time, which a copy may change: benchmarks.gpu.pack did so.
build() {
    built=$("$PYTHON" -c 'import ipr_engine._C as built; print(built.__file__)' 2>/dev/null)
    newer=
    [ -z "$built" ] || [ -f COMMIT ] || newer=$(find csrc setup.py -type f -newer "$built" | head -n 1)
    if [ -n "$newer" ] && [ -n "$quick" ]; then
        echo "ipr_engine._C is older than $newer: what runs is not this source; build it again (pip install -e .)"
    elif [ -n "$newer" ]; then
        echo "ipr_engine._C is older than $newer: building it again"
        "$PYTHON" setup.py --quiet build_ext --inplace --force || return 1
    elif [ -n "$built" ]; then
        echo "ipr_engine._C is built"
    elif "$PYTHON" -m pip --version >/dev/null 2>&1 &&
        "$PYTHON" -m pip install --no-build-isolation --no-deps --no-index --quiet --editable . 2>/dev/null; then
        echo "installed in place with pip --no-build-isolation"
    else # pip, or a build requirement it insists on, is missing: setuptools alone builds the extension
        "$PYTHON" setup.py --quiet build_ext --inplace
    fi
    "$PYTHON" -c 'from ipr_engine import Engine; print("import ipr_engine: works")'
}

for part in "$@"; do
    case $part in
    floor | encoder | fused | host | decide | last | text | tests | tune | tune_encoder | roofs | peers | sanitize | counters) ;;
    *) echo "PART: expected one of floor encoder fused host decide last text tests tune tune_encoder roofs peers sanitize counters, got $part" && exit 2 ;;
    esac
done

if [ ! -f "$encoder/encoder.json" ] && [ ! -f "$encoder/modules.json" ] && [ -z "$IPR_POOLING" ]; then
    echo "ENCODER_DIR: $encoder is a folder of transformers alone, which does not say how it pools; set IPR_POOLING=mean, cls or last, or export it (ipr export-encoder --pooling)"
    exit 2
fi

versions=$("$PYTHON" -c 'import sys, torch, transformers, triton; print(sys.version.split()[0], "torch", torch.__version__, "triton", triton.__version__, "transformers", transformers.__version__)') || {
    echo "PYTHON: expected one with torch, triton and transformers (in a clone: pip install -e '.[gpu]'), got $PYTHON"
    exit 2
}
if [ -z "$quick" ] && ! "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "IPR_DEVICE: expected a GPU that torch finds, got $IPR_DEVICE and $versions; see that nvidia-smi lists a GPU and torch is built for CUDA, or set IPR_DEVICE=cpu, which takes every step and times none"
    exit 2
fi
echo "$versions" | tee -a "$log"
{ nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "no nvidia-smi"; } | tee -a "$log"
{
    build 2>&1
    echo $? >"$status"
} | tee -a "$log"
[ "$(cat "$status")" = 0 ] || { echo "ipr_engine does not build here" | tee -a "$log"; exit 1; }

for part in "$@"; do
    case $part in
    floor) measure floor floor 60 ;;
    encoder) measure encoder encoder 120 ;;
    fused) measure fused text 120 --tier triton ;;
    host) measure host host 90 ;;
    decide) measure decide decide 90 ;;
    last) measure last last 60 ;;
    text) measure text text 150 ;;
    tune) measure tune tune 120 ;;
    tune_encoder) measure tune_encoder tune_encoder 180 ;;
    roofs) measure roofs roofs 40 ;;
    peers) measure peers peers 240 ;;
    tests)
        if "$PYTHON" -c 'import pytest, hypothesis' 2>/dev/null; then
            "$PYTHON" -c 'import xdist' 2>/dev/null && workers="-n $(($(nproc) * 3 / 4))" || workers=
            # shellcheck disable=SC2086
            step tests 180 "$PYTHON" -m pytest -q -p no:cacheprovider $workers tests/encoders/test_torch_graphs.py \
                tests/encoders/test_torch_capture.py tests/gpu_router/test_router.py tests/gpu_router/test_lost_device.py \
                tests/encoders/test_triton_graphs.py tests/gpu_router/test_recorded_route.py tests/gpu_router/test_recorded_engine.py tests/kernels/test_device.py \
                tests/kernels/test_handshake.py tests/kernels/test_pool.py tests/kernels/test_decide.py tests/kernels/test_input.py \
                tests/kernels/test_cubin.py tests/kernels/bert
        else
            echo "pytest or hypothesis is missing: only the checks before each timing run" | tee -a "$log"
        fi
        ;;
    sanitize)
        if command -v compute-sanitizer >/dev/null; then
            for tool in memcheck racecheck; do
                step "sanitize $tool" 60 compute-sanitizer --tool "$tool" --error-exitcode 9 --kernel-regex kns=decide \
                    "$PYTHON" -m benchmarks.gpu.once
            done
        else
            echo "no compute-sanitizer" | tee -a "$log"
        fi
        ;;
    counters)
        if command -v ncu >/dev/null; then
            step counters 60 ncu --clock-control none --kernel-name regex:decide --launch-skip 2 --launch-count 4 \
                --section SpeedOfLight --section LaunchStats --section WarpStateStats "$PYTHON" -m benchmarks.gpu.once
        else
            echo "no ncu" | tee -a "$log"
        fi
        ;;
    esac
done
[ -z "$IPR_RESULTS" ] || [ ! -f "$IPR_RESULTS" ] || step table 60 "$PYTHON" -m benchmarks.gpu table --out "$IPR_RESULTS"
[ -z "$failed" ] || { echo "failed:$failed" | tee -a "$log"; exit 1; }
