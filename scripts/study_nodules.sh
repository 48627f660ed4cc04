#!/usr/bin/env bash
# Zhou 2023: slices of LIDC-IDRI with nodules by samplers of a score-based model (Euler-Maruyama, predictor-corrector), and
# by StyleGAN2 with adaptive augmentation, which the author could not run. Judged there by eye; here by distances beside
# those of real images that no generator saw.
# Data: LIDC-IDRI, DICOM and XML, from The Cancer Imaging Archive (cancerimagingarchive.net/collection/lidc-idri): crops of
# 128 pixels with and without a nodule. Or the id of any dataset with masks, whose slices have the class of their label.
# usage: scripts/study_nodules.sh FOLDER|ID OUT [MINUTES]   (nnU-Net's variables and jdm_results set)
# The results in results/classes/slices: ID 4 (12 volumes of hippocampus), 6 minutes, COUNT=120 STEPS=60.
set -euo pipefail
minutes=${3:-120} here=$(dirname "$0") id=$1 view=() pictures=$(mktemp -d)/pictures
export OMP_NUM_THREADS=1
if [[ -d $1 ]]; then
  jdm-convert lidc "$1" --id 754 --name Nodules
  id=754 view=(--crop 128 --window -1000 400)
fi
python "$here/pictures_by_label.py" "$id" "$pictures" "${view[@]}"
jdm-convert classes "$pictures" --id 755 --name Slices --grey --crop-centre --size 64
rm -r "$pictures"
jdm-train 755 all --budget-minutes "$minutes" --train.clock cpu --classes classes.csv
python "$here/gan_baselines.py" stylegan2 755 --fold all --id 795 --minutes "$minutes" --count "${COUNT:-400}" --width 32 \
  --batch-size 16
steps=${STEPS:-250}
for set in "791:dpmpp-2m" "792:euler-maruyama --steps $steps" "793:predictor-corrector --steps $((steps / 2))" "794:ode"; do
  # shellcheck disable=SC2086
  jdm-export 755 all --balance --count "${COUNT:-400}" --id "${set%%:*}" --sampler ${set#*:} --no-audit
done
python "$here/class_study.py" 755 "$2" StyleGAN2-ADA=795 jdm=791 jdm-euler-maruyama=792 jdm-predictor-corrector=793 \
  jdm-ode=794
