#!/usr/bin/env bash
# The numbers of results/monuseg: fold 0 of the official training images, the official 14 test images.
# usage: scripts/monuseg.sh FOLDER   (with train/ and test/, each images/ and masks/; nnU-Net's variables and jdm_results set)
set -euo pipefail
jdm-convert pairs --images "$1/train/images" --masks "$1/train/masks" --id 11 --name MoNuSeg \
  --labels 0=background 255=nuclei --test-images "$1/test/images" --test-masks "$1/test/masks"
export OMP_NUM_THREADS=1
jdm-train 11 0 --budget-minutes 60 --data.canvas-size 256 256 --train.clock cpu
jdm-export 11 0 --ratio 3.0 --id 511 --canvas-size 256 256
jdm-experiment 11 --synthetic 511 --fold 0 --iterations 200 --epochs 10 --patch-size 128 128 --threads 1
scripts/publish.sh 11 511 0 results/monuseg
python scripts/conditionals.py 11 0 --parts channels --edits 6 --out results/channels
