# Each target sets up what it needs on a fresh Linux or macOS machine: environment, packages, run.
# An active environment (venv or conda) that has torch is used as it is; otherwise .venv is created here.
# Written for GNU make 3.81 (macOS) and later.

VENV := .venv
ACTIVE := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX))
HAS_TORCH := import importlib.util, sys; sys.exit(importlib.util.find_spec("torch") is None)
USE_ACTIVE := $(shell test -n "$(ACTIVE)" && test "$(ACTIVE)" != "$(CURDIR)/$(VENV)" \
	&& "$(ACTIVE)/bin/python" -c '$(HAS_TORCH)' 2>/dev/null && echo yes)

ifeq ($(USE_ACTIVE),yes)
BIN := $(ACTIVE)/bin
RUN_READY := active-run
DEV_READY := active-dev
APP_READY := active-app
GOODBYE := Your active environment was used: $(ACTIVE)
else
BIN := $(CURDIR)/$(VENV)/bin
RUN_READY := $(VENV)/.installed-run
DEV_READY := $(VENV)/.installed-dev
APP_READY := $(VENV)/.installed-app
GOODBYE := To type such commands yourself: source $(VENV)/bin/activate
endif

# Show a command as one would type it, then run it with the environment's programs.
type = @echo '$$ $(1)' && PATH="$(BIN):$$PATH" $(1)

.PHONY: help install demo test test-app test-cuda exhaustive fuzz soak quick check active-run active-dev active-app

help:
	@echo 'make demo     train, evaluate and predict on a small generated data set'
	@echo 'make test     the tests that CI runs, about 8 minutes on 2 cores'
	@echo 'make test-app the tests of the page of app.py, in Chromium; says what is missing for them'
	@echo 'make test-cuda   the tests that need a GPU; says how many were skipped'
	@echo 'make exhaustive  also every data fault through every command'
	@echo 'make fuzz     damaged files for every reader, five minutes each; FUZZ_SECONDS and FUZZ_SEED change that'
	@echo 'make soak     all commands in turns for 40 minutes: nothing may grow; SOAK_SECONDS changes that'
	@echo 'make quick    the fast tests of modules, not of whole commands, about a minute'
	@echo 'make check    lint, format, types, layers'
	@echo 'make install  only the environment, in $(VENV)'

install: $(DEV_READY)

demo: $(RUN_READY)
	$(call type,python train.py --demo)
	$(call type,python evaluate.py --weights last --data runs/demo --split test)
	$(call type,python predict.py "runs/demo/JPEGImages/test_*.jpg" --weights last)
	@echo '$(GOODBYE)'

test: $(DEV_READY)
	$(call type,env OMP_NUM_THREADS=1 python -m pytest -n auto -m "not exhaustive")

test-app: $(APP_READY)
	$(call type,env OMP_NUM_THREADS=1 python -m pytest tests/app tests/utils/cli/test_app_config.py)

test-cuda: $(DEV_READY)
	$(call type,python -m pytest tests/cuda)

exhaustive: $(DEV_READY)
	$(call type,env OMP_NUM_THREADS=1 python -m pytest -n auto)

fuzz: $(DEV_READY)
	$(call type,env OMP_NUM_THREADS=1 FUZZ_SECONDS=$(or $(FUZZ_SECONDS),300) python -m pytest -n auto -rP tests/fuzz)

soak: $(DEV_READY)
	$(call type,env SOAK_SECONDS=$(or $(SOAK_SECONDS),2400) SOAK_CALLS=10000 python -m pytest tests/test_soak.py)

quick: $(DEV_READY)
	$(call type,env OMP_NUM_THREADS=1 python -m pytest -n auto -m "not slow" tests/nets tests/utils tests/test_layers.py tests/test_docs.py)

check: $(DEV_READY)
	$(call type,ruff check .)
	$(call type,ruff format --check .)
	$(call type,mypy)
	$(call type,python -m pytest -q tests/test_layers.py)

# The stamps make a second call instant; a changed list of requirements installs again.
$(VENV)/.installed-run: requirements.txt | $(VENV)/bin/python
	$(call install,requirements.txt)
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements-export.txt requirements.txt | $(VENV)/bin/python
	$(call install,requirements-dev.txt)
	@touch $@ $(VENV)/.installed-run

$(VENV)/.installed-app: requirements-app.txt $(VENV)/.installed-dev
	$(call install,requirements-app.txt)
	@touch $@

# uv is several times faster than pip, the fallback; it uses pip's configured index.
define install
	@echo 'Installing $(1) into $(VENV) (several GB: torch brings its CUDA libraries on Linux)'
	@cd $(VENV)/bin || exit 1; \
	./python -m pip --version >/dev/null 2>&1 || ./python -m ensurepip; \
	./python -m pip install --quiet --disable-pip-version-check uv; \
	index=$${PIP_INDEX_URL:-`./python -m pip config get global.index-url 2>/dev/null`}; \
	./python -m uv pip install --python ./python $${index:+--default-index "$$index"} -r ../../$(1) \
	|| ./python -m pip install --disable-pip-version-check -r ../../$(1)
endef

$(VENV)/bin/python:
	@for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then \
	    echo "Making $(VENV) with `command -v $$python`"; \
	    "$$python" -m venv $(VENV) && exit 0; \
	    rm -rf $(VENV); \
	    echo "error: $$python cannot make a venv; on Debian and Ubuntu: sudo apt install python3-venv" >&2; \
	    exit 1; \
	  fi; \
	done; \
	echo 'error: no Python 3.10 or newer found; install one from python.org or your package manager' >&2; \
	exit 1

# Packages that an active environment lacks are named, not installed: it belongs to the user.
RUN_MODULES := torchvision albumentations cv2 pycocotools tqdm matplotlib scipy yaml filelock defusedxml
FIND_MISSING = @"$(BIN)/python" -c 'import importlib.util, sys; \
	missing = [name for name in sys.argv[2:] if importlib.util.find_spec(name) is None]; \
	missing and sys.exit(f"error: $(ACTIVE) lacks {missing}; pip install -r {sys.argv[1]}, or deactivate it")'

active-run:
	$(FIND_MISSING) requirements.txt $(RUN_MODULES)

active-app: active-dev
	$(FIND_MISSING) requirements-app.txt gradio gradio_image_annotation

active-dev:
	$(FIND_MISSING) requirements-dev.txt $(RUN_MODULES) onnx onnxscript onnxruntime openvino ncnn pnnx pytest xdist ruff mypy
