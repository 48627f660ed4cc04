#!/usr/bin/env bash
# Zhou 2023: samplers of a score-based model on slices of LIDC-IDRI with nodules (Euler-Maruyama, predictor-corrector), and
# StyleGAN2 with adaptive augmentation, which the author could not run. Judged there by eye; here by the tables of jdm-audit.
# Data: LIDC-IDRI, DICOM and XML, from The Cancer Imaging Archive (cancerimagingarchive.net/collection/lidc-idri).
# usage: scripts/study_nodules.sh FOLDER OUT [MINUTES]   (nnU-Net's variables and jdm_results set)
set -euo pipefail
export OMP_NUM_THREADS=1
jdm-convert lidc "$1" --id 754 --name Nodules
jdm-train 754 0 --budget-minutes "${3:-120}" --train.clock cpu
for set in 791:dpmpp-2m 792:euler-maruyama 793:predictor-corrector 794:ode; do
  jdm-export 754 0 --count 20 --id "${set%%:*}" --sampler "${set##*:}"
  jdm-audit "${set%%:*}" --like 754 --out "$2/${set##*:}"
done
jdm-experiment 754 --synthetic 791 --fold 0 --out "$2/experiment"
