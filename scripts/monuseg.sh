#!/usr/bin/env bash
# The numbers of results/monuseg: fold 0 of the official training images, the official 14 test images.
# usage: scripts/monuseg.sh FOLDER   (with train/ and test/, each images/ and masks/; nnU-Net's variables and jdm_results set)
set -euo pipefail
source_folder=$1
out=results/monuseg
jdm-convert pairs --images "$source_folder/train/images" --masks "$source_folder/train/masks" --id 11 --name MoNuSeg \
  --labels 0=background 255=nuclei --test-images "$source_folder/test/images" --test-masks "$source_folder/test/masks"
jdm-train 11 0 --budget-minutes 60 --data.canvas-size 256 256
jdm-export 11 0 --ratio 0.2 --id 511 --steps 10
jdm-experiment 11 --synthetic 511 --fold 0 --iterations 200 --epochs 10 --patch-size 128 128
python scripts/publish.py 11 511 0 "$out"
python scripts/copies.py 511 --like 11 --out "$out/copies.json"
python scripts/seams.py 511 --like 11 --out "$out/seams.json"
python scripts/pair_sheet.py 511 24 "$out/pairs.png" 0
