#!/usr/bin/env bash
# Dataset 32 of scripts/ablation.py: the first 100 training pictures of NeoPolyp at full width, and its test pictures.
# usage: scripts/neopolyp100.sh FOLDER   (with train/ and test/, each images/ and masks/; nnU-Net's variables set)
set -euo pipefail
few=$(mktemp -d)
mkdir "$few/images" "$few/masks"
find "$1/train/images" -type f | sort | head -100 | while read -r image; do
  cp "$image" "$few/images/"
  cp "$1/train/masks/$(basename "${image%.*}").png" "$few/masks/"
done
jdm-convert pairs --images "$few/images" --masks "$few/masks" --id 32 --name NeoPolyp100 \
  --labels 0=background 127=non-neoplastic 255=neoplastic --test-images "$1/test/images" --test-masks "$1/test/masks"
rm -r "$few"
