#!/usr/bin/env bash
# Runs the integration part of the suite in another environment than .venv:
#   tools/check_family.sh onedl     the maintained fork's family (onedl-mmdetection, -mmengine, -mmcv)
#   tools/check_family.sh oldest    Python 3.10, torch 2.4, NumPy 1.26 and the official family
# The environment and a copy of the tree lie in work_dirs/family-NAME and are reused. PYTHON names another
# interpreter; further arguments go to pytest.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
family=${1:-}
case "$family" in
  onedl) python=${PYTHON:-python3} extras=onedl,dev constraint= ;;
  oldest) python=${PYTHON:-python3.10} extras=mmdet,dev constraint=$root/tools/constraints-oldest.txt ;;
  *)
    echo "usage: tools/check_family.sh onedl|oldest [pytest arguments]" >&2
    exit 2
    ;;
esac
shift
if ! "$python" -c '' 2>/dev/null; then
  echo "check_family: $python does not run; name an interpreter, as in PYTHON=/path/to/python3.10 $0 $family" >&2
  exit 2
fi

# A copy, because the compiled library of an editable install lies in the tree and fits one torch only.
tree=$root/work_dirs/family-$family
copied=$tree/.copied
mkdir -p "$tree"
# What the last run copied goes first, so that no file deleted here is tested there. .venv and the library stay.
if [ -f "$copied" ]; then
  (cd "$tree" && xargs -0 rm -f <"$copied")
else
  find "$tree" -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {} +
fi
cd "$root"
git ls-files -z --cached --others --exclude-standard >"$copied"
tar --create --null --files-from="$copied" --ignore-failed-read | tar --extract --directory="$tree"
cd "$tree"
if [ -n "$constraint" ]; then export PIP_CONSTRAINT=$constraint; fi
"$python" tools/setup_env.py --venv .venv --extras "$extras"
.venv/bin/python - <<'PY'
import importlib.metadata as metadata, platform
names = 'torch torchvision numpy mmdet mmengine mmcv-lite onedl-mmdetection onedl-mmengine onedl-mmcv'.split()
have = {dist.metadata['Name'].lower() for dist in metadata.distributions()}
print('python', platform.python_version(), *(f'{n} {metadata.version(n)}' for n in names if n in have))
PY
exec .venv/bin/python -m pytest tests/compat tests/ops tests/assigners tests/models tests/datasets tests/tools "$@"
