#!/usr/bin/env bash
# Builds the extension for the GPU of this machine, tests it, times it and runs it under compute-sanitizer:
#   tools/gpu_check.sh
# within ten minutes (GPU_CHECK_SECONDS=570), on a machine with torch, torchvision, pytest, nvcc and no more;
# what needs mmdet is left out without it. PYTHON names another interpreter. The result is one JSON,
# gpu_check.json, beside the log of every step, in $OUT or work_dirs/gpu_check. The build happens in a copy
# of the tree in work_dirs/gpu_check/tree, so that neither checkout nor environment changes.
# Exits with 1 if a step failed or ran out of time, with 2 where the machine cannot do it.
set -uo pipefail

started=$SECONDS
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
budget=${GPU_CHECK_SECONDS:-570}
work=$root/work_dirs/gpu_check
report=$root/tools/benchmarks/gpu_report.py

if ! "$python" -c '' 2>/dev/null; then
  echo "gpu_check: $python does not run; name an interpreter, as in PYTHON=/path/to/python $0" >&2
  exit 2
fi
arch=$("$python" "$report" probe) || exit 2

# The folder is the caller's: only what an earlier check left there goes.
mkdir -p "${OUT:-$work}" || exit 2
out=$(cd "${OUT:-$work}" && pwd)
rm -f "$out"/{build,tests,benchmarks,memcheck,initcheck}.log "$out"/{steps.tsv,benchmarks.json,gpu_check.json}
tree=$work/tree
mkdir -p "$tree"
tar --create --directory="$root" --exclude='*.so' --exclude=.mim --exclude=__pycache__ \
  atss_ext configs tests tools docs setup.py pyproject.toml README.md LICENSE CHANGELOG.md model-index.yml |
  tar --extract --directory="$tree" || exit 2
cd "$tree" || exit 2

export PYTHONPATH=$tree${PYTHONPATH:+:$PYTHONPATH}
export FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST=${TORCH_CUDA_ARCH_LIST:-$arch}
export MAX_JOBS=${MAX_JOBS:-$(nproc)}

left() { echo $((budget - (SECONDS - started))); }

note() { printf '%s\t%s\t%s\t%s\n' "$@" >>"$out/steps.tsv"; }

# step NAME LIMIT COMMAND...: runs it within its limit and the time left, and notes how it went.
step() {
  local name=$1 limit=$2 begun=$SECONDS code=0
  shift 2
  if [ "$(left)" -lt "$limit" ]; then limit=$(left); fi
  if [ "$limit" -lt 10 ]; then
    echo "no time left of $budget seconds" >"$out/$name.log"
    note "$name" 124 0 0
    return 124
  fi
  echo "gpu_check: $name, at most $limit seconds"
  timeout --kill-after=5 "$limit" "$@" >"$out/$name.log" 2>&1 || code=$?
  note "$name" "$code" $((SECONDS - begun)) "$limit"
  return "$code"
}

skip() {
  echo "$2" >"$out/$1.log"
  note "$1" skipped 0 0
}

# Every kernel is instrumented, torch's too: initcheck has to see who writes what our kernels read, and a filter
# of names that matched none would pass. Racecheck would have nothing to see: no kernel of ours has shared memory.
# Without torch's cache every tensor is an allocation of its own, whose end and whose first write the tool knows;
# graphs cannot be captured that way, and compiling adds kernels that are not ours.
sanitize() {
  local name=$1 limit=$2
  step "$name" "$limit" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 \
    compute-sanitizer --tool "$name" --error-exitcode 9 \
    "$python" -m pytest -q -m cuda -k 'not graph and not compile and not export' -p no:cacheprovider tests/ops
}

if step build 300 "$python" setup.py build_ext --inplace; then
  step tests 150 "$python" -m pytest -q -m cuda -p no:cacheprovider tests/ops
  step benchmarks 150 "$python" tools/benchmarks/run.py --device cuda --json "$out/benchmarks.json"
  if command -v compute-sanitizer >/dev/null; then
    sanitize memcheck 200
    if [ "$(left)" -ge 45 ]; then sanitize initcheck 120; else skip initcheck 'no time left for it'; fi
  else
    skip memcheck 'compute-sanitizer was not found: put the bin folder of the CUDA toolkit on PATH'
    skip initcheck 'compute-sanitizer was not found'
  fi
else
  for name in tests benchmarks memcheck initcheck; do skip "$name" 'the build failed'; done
  tail -n 20 "$out/build.log"
fi
exec "$python" "$report" write "$out"
