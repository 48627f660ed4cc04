#!/usr/bin/env bash
# The numbers of results/hippocampus3d: the volumes of results/hippocampus trained as volumes, beside stacks of slices.
# usage: scripts/hippocampus3d.sh   (nnU-Net's variables and jdm_results set; dataset 4 as made by scripts/hippocampus.sh)
set -euo pipefail
export OMP_NUM_THREADS=1
results=${jdm_results:-jdm_results}
jdm_results=$results/volumes jdm-train 4 all --data.dims 3 --budget-minutes 25 --train.clock cpu
jdm_results=$results/volumes jdm-export 4 all --count 24 --id 740 --name Hippo3d --anyway
jdm_results=$results/slices jdm-train 4 all --data.dims 2 --budget-minutes 20 --train.clock cpu
jdm_results=$results/slices jdm-export 4 all --count 24 --id 741 --name HippoStacks --anyway --no-audit
python scripts/volume_sets.py 4 results/hippocampus3d --sets volumes=740 stacks=741
jdm_results=$results/volumes jdm-experiment 4 --synthetic 740 --fold all --configuration 3d_fullres --iterations 150 \
  --epochs 5 --seeds 0 --patch-size 40 56 40 --batch-size 2 --network-features 8 16 32 64 --threads 1
