#!/usr/bin/env bash
# Test with one process a GPU (or GPUS processes on the CPU).
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
# Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT, as for mmdet's script of this name.
set -euo pipefail

if [[ $# -lt 3 ]]; then
    echo "usage: $0 CONFIG CHECKPOINT GPUS [options of tools/test.py]" >&2
    exit 2
fi
config=$1
checkpoint=$2
gpus=$3
shift 3

tools=$(dirname "${BASH_SOURCE[0]}")
exec "${PYTHON:-python}" "$tools/launch.py" "$gpus" "$tools/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
