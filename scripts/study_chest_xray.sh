#!/usr/bin/env bash
# Abeywardane et al. 2023: likeness of real and synthetic X-rays by class. Published SSIM: real and synthetic images of the
# ill 0.43, healthy and synthetic ill ones 0.28, healthy and ill real ones 0.26; nothing is said of two ill real ones, which
# are the floor. Data: Ozturk et al. 2020, a folder each for covid-19, no_findings and pneumonia.
# usage: scripts/study_chest_xray.sh FOLDER OUT [MINUTES] [SIDE]   (nnU-Net's variables and jdm_results set)
set -euo pipefail
export OMP_NUM_THREADS=1
jdm-convert classes "$1" --id 752 --name ChestXray --grey --crop-centre --size "${4:-64}"
jdm-train 752 all --budget-minutes "${3:-30}" --train.clock cpu --classes "$nnUNet_raw/Dataset752_ChestXray/classes.csv"
for class in 771:covid-19 772:no_findings 773:pneumonia; do
  jdm-export 752 all --class-label "${class##*:}" --count 50 --id "${class%%:*}" --no-audit
done
python "$(dirname "$0")/class_study.py" 752 "$2" covid-19=771 no_findings=772 pneumonia=773 --no-real
