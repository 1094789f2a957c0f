#!/usr/bin/env bash
# VL-SAM over a folder with one process a GPU (or GPUS processes on the CPU): each image is one process's, and the first
# process exports what all have found.
#   tools/dist_vlsam.sh FOLDER GPUS [options of tools/vlsam.py]
# Several machines: as for tools/dist_train.sh. MAX_RESTARTS=3: when a process dies, all start again and go on.
set -euo pipefail

if [[ $# -lt 2 ]]; then
    echo "usage: $0 FOLDER GPUS [options of tools/vlsam.py]" >&2
    exit 2
fi
folder=$1
gpus=$2
shift 2

tools=$(dirname "${BASH_SOURCE[0]}")
exec "${PYTHON:-python}" "$tools/launch.py" "$gpus" "$tools/vlsam.py" "$folder" --launcher pytorch "$@"
