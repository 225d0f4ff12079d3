# Fieldmark's everyday commands. `make` lists them; each one first makes .venv if it is missing or out of date.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
WEB := .venv-web
RESOLVE = $(PY) -m pip install --no-input --quiet --dry-run --ignore-installed --report

# Nothing here needs the hub: the pocket model is in the repository. Unset for runs on hub models (`make HF_HUB_OFFLINE=0 ...`).
export HF_HUB_OFFLINE ?= 1
export HF_HUB_DISABLE_TELEMETRY ?= 1
export TOKENIZERS_PARALLELISM ?= false

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-ci test-web test-all check format wheel constraints table-spine table-grounding table-credit table-captions pets docs tree screenshots bench bench-quick kill fuzz audit

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(READY)  ## make .venv with the exact versions of constraints.txt

# torch alone and first: the build machine's own wheel (CPU or CUDA) is taken, and nothing later may change it.
$(READY): pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --no-input --progress-bar off torch==2.13.0
	$(PY) -m pip install --no-input --progress-bar off -c constraints.txt -e '.[dev]'
	touch $@

# What gradio needs, over the packages of .venv: pillow below 13 among it.
$(WEB)/.ready: $(READY) constraints-web.txt
	test -x $(WEB)/bin/python || $(PY) -m venv --without-pip $(WEB)
	$(WEB)/bin/python .ci/overlay.py $(VENV)
	$(PY) -m pip --python $(WEB)/bin/python install --no-input --progress-bar off -c constraints-web.txt gradio pillow
	touch $@

demo: $(READY)  ## make data, train, measure and write report.html on the pocket world (10 minutes on two cores)
	$(PY) -m mllm.cli demo

table-credit: $(READY)  ## after table-spine: credit for each step of the reasoning, three seeds (two hours; resumes)
	$(PY) -m mllm.cli table-credit

test: test-fast test-ci test-web  ## run what continuous integration runs (8 minutes on two cores)

test-fast: $(READY)  ## run the fast suite, one worker a core (2 minutes)
	$(PY) -m pytest -n auto --maxprocesses 4 --dist worksteal < /dev/null

test-ci: $(READY)  ## a two-process run of each kind, one kill, the wheel and a tiny end-to-end, two tests at a time (5 minutes)
	$(PY) -m pytest -m ci -n 2 --dist worksteal < /dev/null

test-web: $(WEB)/.ready  ## run the tests of the web page, in an environment with gradio
	$(WEB)/bin/python -m pytest tests/inference/web < /dev/null

test-all: $(READY)  ## run every test, slow ones included
	$(PY) -m pytest -m "ci or slow or not slow" < /dev/null

check: $(READY)  ## run ruff, the formatter's check and pyright
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright

format: $(READY)  ## fix formatting and imports
	$(PY) -m ruff check --fix-only .
	$(PY) -m ruff format .

wheel: $(READY)  ## build dist/fieldmark-*.whl
	rm -rf build
	$(PY) -m build --wheel --no-isolation

tree: $(READY)  ## write the list of all files in docs/architecture.md
	$(PY) .ci/tree.py

docs: tree  ## build the documentation as a site: build/site/index.html
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet
	@echo "build/site/index.html"

screenshots: $(READY)  ## make the images in docs/images from the runs of `make demo`, in Chromium (look at them)
	$(PY) .ci/screenshots.py
	$(PY) .ci/base_and_tuned.py

# gradio asks for pillow below 13, so that the web extra has versions of its own; vllm pins its own torch and is left out.
constraints: $(READY)  ## resolve constraints.txt and constraints-web.txt again
	mkdir -p build
	$(RESOLVE) build/resolved.json torch==2.13.0 -e '.[dev,vision,wandb,tensorboard,openai,serve,fuzz,docs]'
	$(PY) .ci/constraints.py build/resolved.json "every dependency and every extra but web and vllm" > build/constraints.txt
	$(RESOLVE) build/web.json torch==2.13.0 -e '.[web,openai,serve]'
	$(PY) .ci/constraints.py build/web.json "every dependency and the extras web, openai and serve" > build/constraints-web.txt
	mv build/constraints.txt build/constraints-web.txt .

table-spine: $(READY)  ## compare SFT, checked thoughts and GRPO, the table of the README: three seeds (hours; resumes)
	$(PY) -m mllm.cli table-spine

table-grounding: $(READY)  ## compare plain GRPO, KARL as published and ours, three seeds (two hours; resumes)
	$(PY) -m mllm.cli table-grounding

table-captions: $(READY)  ## compare self-retrieval, BagCurri and CLIP reward from sparse and boosted captions, three seeds (an hour; resumes)
	$(PY) -m mllm.cli table-captions

pets: $(READY)  ## run the whole chain on real photos of cats and dogs
	$(PY) -m mllm.cli pets

kill: $(READY)  ## trainings killed at random moments, every program on a full disk: do they end as undisturbed runs?
	OMP_NUM_THREADS=1 PYTHONPATH=. $(PY) tests/recipes/killed.py --kills 25
	OMP_NUM_THREADS=1 PYTHONPATH=. $(PY) tests/support/full_disk.py

fuzz: $(READY)  ## give every parser a million bad inputs (5 minutes; guided by coverage with the extra `fuzz`)
	OMP_NUM_THREADS=1 PYTHONPATH=. $(PY) tests/support/fuzzed.py --inputs 1000000

audit:  ## look for known weaknesses of the versions in constraints*.txt (needs pip-audit and the network)
	@command -v pip-audit > /dev/null || { echo "pip-audit is missing: pipx install pip-audit"; exit 1; }
	pip-audit --disable-pip --no-deps -r constraints.txt
	pip-audit --disable-pip --no-deps -r constraints-web.txt

bench: $(READY)  ## time stock TRL against the engine, every size (long); numbers and a plot
	mkdir -p runs/bench
	$(PY) -m bench.engine --out runs/bench/engine.json

bench-quick: $(READY)  ## run the same at prompt 300, completion 128, eight completions
	$(PY) -m bench.engine --quick
