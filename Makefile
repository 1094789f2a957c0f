# make demo, make test: each is enough on a fresh machine (Python 3.10-3.12, a C++ compiler, pip).
#   make demo VENV=            use the active environment instead of .venv
#   make demo PYTHON=python3.11
VENV ?= .venv
PYTHON ?= python3
ARGS ?=

ifeq ($(strip $(VENV)),)
RUN := $(PYTHON)
else
RUN := $(VENV)/bin/python
endif

CLANG_FORMAT := $(RUN) -c 'import clang_format; raise SystemExit(clang_format.clang_format())'
NATIVE := $(shell find atss_ext/csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu')

.PHONY: demo test lint format env clean

demo: EXTRAS := mmdet
demo: env
	@$(RUN) tools/demo.py $(ARGS)

test: EXTRAS := mmdet,dev
test: env
	@$(RUN) -m pytest $(ARGS)

lint: EXTRAS := mmdet,dev
lint: env
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@$(CLANG_FORMAT) --dry-run -Werror $(NATIVE)

format: EXTRAS := mmdet,dev
format: env
	@$(RUN) -m ruff check --fix --quiet .
	@$(RUN) -m ruff format --quiet .
	@$(CLANG_FORMAT) -i $(NATIVE)

env:
	@command -v $(PYTHON) >/dev/null || { echo "atss_ext: $(PYTHON) is not installed; install Python 3.10, 3.11 or 3.12, or name one, as in: make demo PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) tools/setup_env.py --venv "$(VENV)" --extras "$(EXTRAS)"

clean:
	rm -rf build dist *.egg-info atss_ext/_C*.so atss_ext/_C.torch
