#!/usr/bin/env bash
# The numbers of results/hippocampus: 12 training volumes, 60 test volumes, 20 minutes of training the generator of slices
# on one core.
# usage: scripts/hippocampus.sh DECATHLON_FOLDER   (nnU-Net's variables and jdm_results set)
set -euo pipefail
jdm-convert msd "$1" --id 4 --name Hippocampus12 --max-cases 12
export OMP_NUM_THREADS=1
jdm-train 4 all --data.dims 2 --budget-minutes 20 --train.clock cpu
jdm-export 4 all --ratio 2.0 --id 505
jdm-experiment 4 --synthetic 505 --fold all --iterations 1500 --epochs 30 --threads 1
scripts/publish.sh 4 505 all results/hippocampus
