#!/usr/bin/env bash
# The numbers of results/hippocampus: 12 training volumes, 60 test volumes, 20 minutes of training the generator.
# usage: scripts/hippocampus.sh DECATHLON_FOLDER   (nnU-Net's variables and jdm_results set)
set -euo pipefail
source_folder=$1
out=results/hippocampus/default
jdm-convert msd "$source_folder" --id 4 --name Hippocampus12 --max-cases 12
jdm-train 4 all --budget-minutes 20
jdm-export 4 all --ratio 2.0 --id 505
jdm-experiment 4 --synthetic 505 --fold all --iterations 1500 --epochs 30
python scripts/publish.py 4 505 all "$out"
python scripts/copies.py 505 --like 4 --out "$out/copies.json"
python scripts/pair_sheet.py 505 24 "$out/pairs.png" 0
jdm-sample 4 all --given-images "$nnUNet_raw/Dataset004_Hippocampus12/imagesTs" --samples 1 --out segmented
jdm-evaluate --predictions segmented/labels --references "$nnUNet_raw/Dataset004_Hippocampus12/labelsTs" --out segmented/evaluation
{
  printf '# The generator as a segmenter of the 60 test volumes\n\n'
  cat segmented/evaluation/evaluation.md
  printf '\nBy `jdm-sample 4 all --given-images imagesTs --samples 1` and `jdm-evaluate` at commit %s, on 2 cores.\n' "$(git rev-parse --short=12 HEAD)"
} > "$out/segmenter.md"
