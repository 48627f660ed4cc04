#!/usr/bin/env bash
# The numbers of results/hippocampus3d: the volumes of results/hippocampus trained in 3-D, beside slices that are given the one
# before, in half the minutes.
# usage: scripts/hippocampus3d.sh   (nnU-Net's variables and jdm_results set; dataset 4 as made by scripts/hippocampus.sh)
set -euo pipefail
export OMP_NUM_THREADS=1
results=${jdm_results:-jdm_results} here=$(dirname "$0") out=results/hippocampus3d
jdm_results=$results/volumes jdm-train 4 all --data.dims 3 --budget-minutes 60 --train.clock cpu
jdm_results=$results/volumes jdm-export 4 all --count 24 --id 740 --name Hippo3d
jdm_results=$results/conditioned jdm-train 4 all --data.dims 2 --data.previous-slice --budget-minutes 30 --train.clock cpu
jdm_results=$results/conditioned jdm-export 4 all --count 24 --id 742 --name HippoConditioned
for set in "740 real synthetic" "742 synthetic"; do
  # shellcheck disable=SC2086
  set -- $set
  jdm-experiment 4 --synthetic "$1" --arms "${@:2}" --fold all --configuration 3d_fullres --iterations 1500 --epochs 30 \
    --patch-size 24 32 24 --batch-size 2 --network-features 8 16 32 64 --threads 1 --out "$results/experiment_$1"
done
python "$here/volume_sets.py" 4 "$out" --sets volumes=740 conditioned=742
python "$here/compare_scores.py" 4 "$out/scores.md" real="$results/experiment_740:real" \
  volumes="$results/experiment_740:synthetic" conditioned="$results/experiment_742:synthetic"
