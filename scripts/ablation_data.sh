#!/usr/bin/env bash
# The datasets of scripts/ablation.py: 12 volumes of hippocampus, 24 (fold 0) of MoNuSeg's images, 100 of NeoPolyp's.
# usage: scripts/ablation_data.sh FOLDER   (with hippocampus/, monuseg/ and neopolyp/; nnU-Net's variables set)
set -euo pipefail
jdm-convert msd "$1/hippocampus" --id 4 --name Hippocampus12 --max-cases 12
jdm-convert pairs --images "$1/monuseg/train/images" --masks "$1/monuseg/train/masks" --id 11 --name MoNuSeg \
  --labels 0=background 255=nuclei --test-images "$1/monuseg/test/images" --test-masks "$1/monuseg/test/masks"
few=$(mktemp -d)
mkdir "$few/images" "$few/masks"
find "$1/neopolyp/train/images" -type f | sort | head -100 | while read -r image; do
  cp "$image" "$few/images/"
  cp "$1/neopolyp/train/masks/$(basename "${image%.*}").png" "$few/masks/"
done
jdm-convert pairs --images "$few/images" --masks "$few/masks" --id 32 --name NeoPolyp100 \
  --labels 0=background 127=non-neoplastic 255=neoplastic \
  --test-images "$1/neopolyp/test/images" --test-masks "$1/neopolyp/test/masks"
rm -r "$few"
