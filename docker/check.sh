#!/usr/bin/env bash
# Builds the Dockerfile without a Docker engine and without a GPU, and runs jobs in the image on the CPU:
#   docker/check.sh [--base IMAGE] [--certificates FILE] [--keep] [-- options of `buildah bud`]
# on Debian or Ubuntu as root, with buildah and debootstrap; about 30 GB of disk in TMPDIR, given back at the end.
#   --base IMAGE          stands for both images of the Dockerfile, instead of a Debian made by debootstrap
#   --certificates FILE   what that Debian is to trust besides its own, as behind a proxy
#   --keep                leave the image, and say where
# A local package index reaches pip by options behind --, such as --volume /srv/wheels:/srv/wheels:ro and
# --volume /etc/pip.conf:/etc/pip.conf:ro.
# What runs: the native library loads, the demo trains an epoch and its test command evaluates it, two processes train,
# are stopped with SIGTERM and go on from their checkpoint; all as a user that /etc/passwd does not know.
set -euo pipefail

base=
certificates=
keep=
while [[ $# -gt 0 ]]; do
    case $1 in
    --base) base=$2 && shift 2 ;;
    --certificates) certificates=$2 && shift 2 ;;
    --keep) keep=1 && shift ;;
    --) shift && break ;;
    *)
        sed -n 's/^#   //p' "${BASH_SOURCE[0]}" >&2
        exit 2
        ;;
    esac
done
need() {
    command -v "$1" >/dev/null || {
        echo "check: $1 is not installed; apt-get install $1" >&2
        exit 2
    }
}
need buildah
[[ -n $base ]] || need debootstrap
[[ $(id -u) == 0 ]] || {
    echo 'check: only root can build here' >&2
    exit 2
}

root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
# Neither overlay mounts nor namespaces: both fail in many sandboxes.
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
b() { buildah --root "$work/store" --runroot "$work/run" "$@"; }
clean() {
    if [[ -n $keep ]]; then
        echo "check: kept; buildah --root $work/store --runroot $work/run images"
        return
    fi
    b rm --all >/dev/null 2>&1 || true
    b rmi --all --force >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap clean EXIT
say() { echo "check: $* ($((SECONDS))s)"; }

if [[ -z $base ]]; then
    say 'making a Debian base'
    debootstrap --variant=minbase --include=ca-certificates bookworm "$work/debian" >"$work/debootstrap.log" ||
        { tail "$work/debootstrap.log" >&2 && exit 1; }
    if [[ -n $certificates ]]; then
        cp "$certificates" "$work/debian/usr/local/share/ca-certificates/extra.crt"
        chroot "$work/debian" update-ca-certificates >/dev/null 2>&1
    fi
    container=$(b from scratch)
    b add --quiet "$container" "$work/debian" / >/dev/null
    base=localhost/debian
    b commit --quiet --rm "$container" "$base" >/dev/null
    rm -rf "$work/debian"
fi

say 'building the image'
b bud --quiet --build-arg BASE_IMAGE="$base" --build-arg RUNTIME_IMAGE="$base" --build-arg FORCE_CUDA=0 "$@" \
    --file "$root/docker/Dockerfile" --tag atss_ext "$root" >"$work/build.log" 2>&1 ||
    { tail -n 30 "$work/build.log" >&2 && exit 1; }

say 'the image is there'
container=$(b from atss_ext)
user=12345:23456
mkdir -p "$work/data" "$work/work_dirs"
chown "$user" "$work/data" "$work/work_dirs"
job() {
    b run --user "$user" --volume "$work/data:/workspace/data" --volume "$work/work_dirs:/workspace/work_dirs" \
        --env OMP_NUM_THREADS=1 "$container" -- "$@"
}

job python -c "
import os
from atss_ext.ops import native
assert native.available() and os.getuid() == 12345
print('check: the native library serves', *native.DEVICES)"
job sh -c '! command -v g++' || {
    echo 'check: the image holds what only the build needs' >&2
    exit 1
}

say 'the demo and its test command'
config=configs/demo/atss_r18_shapes.py
job python tools/demo.py --epochs 1 --train-images 48 --val-images 8 >"$work/demo.log" 2>&1 ||
    { tail "$work/demo.log" >&2 && exit 1; }
job python tools/test.py "$config" work_dirs/demo/training/epoch_1.pth --work-dir work_dirs/test \
    --out work_dirs/detections.json 2>&1 | grep 'coco/bbox_mAP:'
[[ -s $work/work_dirs/detections.json ]]

say 'two processes'
two=(tools/dist_train.sh "$config" 2 --work-dir work_dirs/two --cfg-options train_cfg.max_epochs=3
    train_dataloader.num_workers=0 train_dataloader.persistent_workers=False train_dataloader.batch_size=4
    val_dataloader.num_workers=0 val_dataloader.persistent_workers=False)
# shellcheck disable=SC2016  # the shell in the container says which process it is, and becomes tini
job sh -c 'echo $$ >work_dirs/pid && exec tini -s -g -- "$@"' sh "${two[@]}" >"$work/two.log" 2>&1 &
started=$!
until [[ -s $work/work_dirs/two/last_checkpoint ]]; do
    kill -0 "$started" 2>/dev/null || { tail -n 30 "$work/two.log" >&2 && exit 1; }
    sleep 0.2
done
kill -TERM "$(cat "$work/work_dirs/pid")"
code=0
wait "$started" || code=$?
# 143 is what tools/launch.py says of SIGTERM, and tini and buildah hand it on: a crash that comes in time is no stop.
said=$(grep -o 'stopped by SIGTERM' "$work/two.log" || true)
[[ $code == 143 && -n $said && ! -e $work/work_dirs/two/epoch_3.pth ]] || {
    tail -n 30 "$work/two.log" >&2
    echo "check: SIGTERM did not stop the training (exit code $code instead of 143, or it had ended by itself)" >&2
    exit 1
}
say "stopped with SIGTERM (exit code $code), $(basename "$(cat "$work/work_dirs/two/last_checkpoint")") is there"

job "${two[@]}" --resume >"$work/again.log" 2>&1 || { tail -n 30 "$work/again.log" >&2 && exit 1; }
grep -o 'resumed epoch: [0-9]*, iter: [0-9]*' "$work/again.log" | head -n 1
[[ -s $work/work_dirs/two/epoch_3.pth ]]
say 'resumed and finished: all is well'
