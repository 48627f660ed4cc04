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
jdm-sample 11 0 --given-images "$nnUNet_raw/Dataset011_MoNuSeg/imagesTs" --samples 1 --out segmented
jdm-evaluate --predictions segmented/labels --references "$nnUNet_raw/Dataset011_MoNuSeg/labelsTs" --out segmented/evaluation
{
  printf '# The generator as a segmenter of the 14 test images\n\n'
  cat segmented/evaluation/evaluation.md
  printf '\nBy `jdm-sample 11 0 --given-images imagesTs --samples 1` and `jdm-evaluate` at commit %s, on 2 cores.\n' "$(git rev-parse --short=12 HEAD)"
} > "$out/segmenter.md"
python scripts/conditionals.py 11 0 --parts channels --edits 6 --out results/channels
