#!/usr/bin/env bash
# Rossetti 2022 (slides) and Rossetti & Garg 2020: chest X-rays of four classes, 270 training and 36 test images of 64 pixels.
# Does a classifier learn more from synthetic images than from classical augmentation? Published mean accuracies over four
# folds: 0.923 with images of a GAN, 0.907 with those of a DDIM.
# usage: scripts/study_covid.sh FOLDER OUT [MINUTES]   (FOLDER/{train,test}/CLASS/*; nnU-Net's variables and jdm_results set)
# The results in results/classes/covid: DCGAN_WIDTH=16 SDE_COUNT=48 SDE_STEPS=60 ITERATIONS=100 SIZE=32 ANYWAY=1 and 4 minutes.
set -euo pipefail
minutes=${3:-30} here=$(dirname "$0")
export OMP_NUM_THREADS=1
anyway=(${ANYWAY:+--anyway}) # too few minutes: exports that look like noise
jdm-convert classes "$1" --id 751 --name Covid --grey
jdm-train 751 all --budget-minutes "$minutes" --train.clock cpu --classes "$nnUNet_raw/Dataset751_Covid/classes.csv"
python "$here/gan_baselines.py" dcgan 751 --fold all --id 761 --minutes "$minutes" --count 200 --width "${DCGAN_WIDTH:-64}" \
  --batch-size 32
python "$here/gan_baselines.py" stylegan2 751 --fold all --id 762 --minutes "$minutes" --count 200 --width 32 --batch-size 16
jdm-export 751 all --balance --count 200 --id 763 "${anyway[@]}"
few=${SDE_COUNT:-200}
jdm-export 751 all --balance --count "$few" --id 764 --sampler euler-maruyama --steps "${SDE_STEPS:-250}" --no-audit "${anyway[@]}"
jdm-export 751 all --balance --count "$few" --id 765 --sampler predictor-corrector --steps "$((${SDE_STEPS:-250} / 2))" --no-audit \
  "${anyway[@]}"
jdm-export 751 all --balance --count "$few" --id 766 --sampler ode --no-audit "${anyway[@]}"
python "$here/model_per_class.py" split 751 --ids 801 802 803 804
for n in 1 2 3 4; do
  jdm-train "80$n" all --budget-minutes "$(awk "BEGIN {print $minutes / 4}")" --train.clock cpu
  jdm-export "80$n" all --count 50 --id "81$n" "${anyway[@]}"
done
python "$here/model_per_class.py" join 751 --ids 811 812 813 814 --id 768
for set in 763:jdm 761:dcgan 762:stylegan2 768:model_per_class; do
  jdm-classify 751 --synthetic "${set%%:*}" --fold all --iterations "${ITERATIONS:-600}" --size "${SIZE:-64}" \
    --out "$2/${set##*:}"
done
python "$here/class_study.py" 751 "$2" DCGAN=761 StyleGAN2-ADA=762 jdm=763 jdm-per-class=768 \
  jdm-euler-maruyama=764 jdm-predictor-corrector=765 jdm-ode=766
