#!/usr/bin/env bash
# Runs the op tests against a library built with AddressSanitizer and UndefinedBehaviorSanitizer.
#   tools/sanitize.sh [pytest arguments]
# PYTHON names the interpreter; the build lies in work_dirs/sanitize and touches nothing else.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
case $python in */*) python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python") ;; esac
compiler=${CXX:-g++}
asan=$("$compiler" -print-file-name=libasan.so)
if [ ! -f "$asan" ]; then
  echo "sanitize: $compiler has no libasan; install it (Debian/Ubuntu: apt-get install libasan8)" >&2
  exit 2
fi

build=$root/work_dirs/sanitize
mkdir -p "$build/lib"
cd "$root"
ATSS_EXT_SANITIZE=1 "$python" setup.py --quiet build_ext --build-lib "$build/lib" --build-temp "$build/tmp"
# Python finds the package in the working folder first: ours, with the other library.
(cd "$root" && find atss_ext -name '*.py' -print0 | tar --create --null --files-from=-) |
  tar --extract --directory="$build/lib"
cd "$build/lib"
# Leaks are those of the interpreter; an error of ours ends the run.
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=1 UBSAN_OPTIONS=print_stacktrace=1
# The C++ runtime comes along: ASan looks for its exceptions before the interpreter has loaded it.
runtime=$("$compiler" -print-file-name=libstdc++.so)
export LD_PRELOAD="$asan $runtime"
"$python" -c "
import atss_ext.ops, sys
sys.exit(atss_ext.__file__ != '$build/lib/atss_ext/__init__.py' or not atss_ext.ops.available())"
# Capturing what Python prints only: a sanitizer writes past it.
exec "$python" -m pytest -p no:cacheprovider --capture=sys "$root/tests/ops" "$@"
