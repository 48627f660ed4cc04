#!/usr/bin/env bash
# The classes of results/classes: polyps of two kinds, pictures reduced fourfold so that minutes of training suffice.
# usage: scripts/neopolyp.sh FOLDER   (with train/images and train/masks; nnU-Net's variables and jdm_results set)
set -euo pipefail
python scripts/reduce_neopolyp.py "$1/train" reduced
jdm-convert pairs --images reduced/images --masks reduced/masks --id 31 --name NeoPolypSmall \
  --labels 0=background 127=non-neoplastic 255=neoplastic
jdm-train 31 0 --budget-minutes 12 --classes reduced/classes.csv
python scripts/conditionals.py 31 0 --parts classes --out results/classes
