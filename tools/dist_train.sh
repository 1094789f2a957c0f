#!/usr/bin/env bash
# Train with one process a GPU (or GPUS processes on the CPU).
#   tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT, as for mmdet's script of this name.
# MAX_RESTARTS=3: when a process dies, all start again and go on from the last checkpoint (docs/gpu_jobs.md).
set -euo pipefail

if [[ $# -lt 2 ]]; then
    echo "usage: $0 CONFIG GPUS [options of tools/train.py]" >&2
    exit 2
fi
config=$1
gpus=$2
shift 2

tools=$(dirname "${BASH_SOURCE[0]}")
exec "${PYTHON:-python}" "$tools/launch.py" "$gpus" "$tools/train.py" "$config" --launcher pytorch "$@"
