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
NATIVE := $(shell find atss_ext/csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

.PHONY: demo demo-vlsam test test-browser lint format docs cuda sanitize env clean

demo: EXTRAS := mmdet
demo: env
	@$(RUN) tools/demo.py $(ARGS)

# The whole of VL-SAM with the small models of the package: two minutes, and no network once installed.
demo-vlsam: EXTRAS := mmdet,vlsam
demo-vlsam: env
	@$(RUN) tools/vlsam_world/demo.py $(ARGS)

test: EXTRAS := mmdet,dev
# One process a core, up to four; a file's tests stay together. Threads of PyTorch that wait by spinning would
# take the cores from the other processes.
test: env
	@OMP_WAIT_POLICY=passive $(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

# The web page in a real browser; needs Chromium (Debian: apt-get install chromium).
test-browser: EXTRAS := mmdet,dev
test-browser: env
	@$(RUN) -m pytest tests/webui -m browser $(ARGS)

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

# The pages of docs/ as a site, below work_dirs/docs; a warning is an error.
docs: EXTRAS := mmdet,docs
docs: env
	@$(RUN) -m sphinx --nitpicky --fail-on-warning --quiet docs work_dirs/docs $(ARGS)

# Compiles the CUDA sources too; needs nvcc but no GPU.
cuda: EXTRAS := mmdet,dev
cuda: env
	@FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST=$${TORCH_CUDA_ARCH_LIST:-9.0} $(RUN) setup.py --quiet build_ext --build-lib work_dirs/cuda/lib --build-temp work_dirs/cuda/tmp

# The op tests against a library built with AddressSanitizer and UndefinedBehaviorSanitizer.
sanitize: EXTRAS := mmdet,dev
sanitize: env
	@PYTHON="$(RUN)" tools/sanitize.sh $(ARGS)

env:
	@command -v $(PYTHON) >/dev/null || { echo "atss_ext: $(PYTHON) is not installed; install Python 3.10, 3.11 or 3.12, or name one, as in: make demo PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) tools/setup_env.py --venv "$(VENV)" --extras "$(EXTRAS)"

clean:
	rm -rf build dist *.egg-info atss_ext/_C*.so atss_ext/_C.torch
