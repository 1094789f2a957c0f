#!/usr/bin/env bash
# A job in the image, without compose; build it by: docker build -f docker/Dockerfile -t atss_ext .
#   docker/run.sh train CONFIG GPUS [options of tools/train.py]
#   docker/run.sh test CONFIG CHECKPOINT GPUS [options of tools/test.py]
#   docker/run.sh vlsam FOLDER GPUS [options of tools/vlsam.py]
#   docker/run.sh shell [command]
# Folders data and work_dirs of the current folder are what the job sees (ATSS_DATA, ATSS_WORK_DIRS name others).
# ATSS_IMAGE (atss_ext), ATSS_GPUS (all; none: no GPU; device=0,1: these two), ATSS_SHM (16gb: loaders hand batches over
# in shared memory) and MAX_RESTARTS (3: how often the processes start again, from the last checkpoint, when one has died).
set -euo pipefail

usage() {
    sed -n 's/^#   /       /p' "${BASH_SOURCE[0]}" | sed '1s/^      /usage:/' >&2
    exit 2
}

job=${1:-}
[[ $# -gt 0 ]] && shift
case $job in
train) [[ $# -ge 2 ]] || usage ;;
test) [[ $# -ge 3 ]] || usage ;;
vlsam) [[ $# -ge 2 ]] || usage ;;
shell) ;;
*) usage ;;
esac
case $job in
shell) command=("${@:-bash}") ;;
train) command=(tools/dist_train.sh "$@" --resume) ;;
*) command=("tools/dist_$job.sh" "$@") ;;
esac

data=${ATSS_DATA:-data}
work_dirs=${ATSS_WORK_DIRS:-work_dirs}
# Made here, they are the user's; made by docker, they would be root's.
mkdir -p "$data" "$work_dirs"
data=$(cd "$data" && pwd)
work_dirs=$(cd "$work_dirs" && pwd)

options=(--rm --shm-size "${ATSS_SHM:-16gb}" --user "$(id -u):$(id -g)")
options+=(--volume "$data:/workspace/data" --volume "$work_dirs:/workspace/work_dirs")
options+=(--env HF_HOME=/workspace/data/huggingface --env TORCH_HOME=/workspace/data/torch)
[[ $job == test ]] || options+=(--env "MAX_RESTARTS=${MAX_RESTARTS:-3}")
gpus=${ATSS_GPUS:-all}
# Docker reads a line of CSV, in which only quotes keep the numbers of several GPUs together.
[[ $gpus =~ ^device=[^=\"]*,[^=\"]*$ ]] && gpus="\"$gpus\""
[[ $gpus == none ]] || options+=(--gpus "$gpus")
[[ -t 0 && -t 1 ]] && options+=(--interactive --tty)

exec docker run "${options[@]}" "${ATSS_IMAGE:-atss_ext}" "${command[@]}"
