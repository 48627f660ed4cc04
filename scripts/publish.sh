#!/usr/bin/env bash
# What results/ holds of a finished experiment: tables, nearest pairs, seams, a sheet, and the generator as a segmenter.
# usage: scripts/publish.sh REAL_ID SYNTHETIC_ID FOLD OUT
set -euo pipefail
real=$1 synthetic=$2 fold=$3 out=$4
dataset=$(echo "$nnUNet_raw/Dataset$(printf '%03d' "$real")"_*)
segmented=$(mktemp -d)/segmented
python scripts/publish.py "$synthetic" "$out"
python scripts/pair_sheet.py "$synthetic" 24 "$out/pairs.png" 0
jdm-sample segment "$real" "$fold" "$dataset/imagesTs" --samples 1 --out "$segmented"
jdm-evaluate --predictions "$segmented/labels" --references "$dataset/labelsTs" --out "$segmented/evaluation"
{
  printf '# The generator as a segmenter of the %s test cases\n\n' "$(find "$dataset/labelsTs" -type f | wc -l)"
  cat "$segmented/evaluation/evaluation.md"
  printf '\nBy `jdm-sample segment %s %s imagesTs --samples 1` and `jdm-evaluate` at commit %s, on %s cores.\n' \
    "$real" "$fold" "$(git rev-parse --short=12 HEAD)" "$(nproc)"
} > "$out/segmenter.md"
