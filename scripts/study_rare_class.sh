#!/usr/bin/env bash
# Berdjouh & Lakas 2023: a rare class topped up by variations of its images, by samples of the class, or by classical
# augmentation (arms real and augmented). Published, on IDRiD's grades: accuracy 0.330 with classical augmentation, 0.408
# with images of a diffusion model, both of networks that the authors call overfitted.
# Data: "B. Disease Grading" of IDRiD (Porwal et al. 2018), to be downloaded after signing in at
# ieee-dataport.org/open-access/indian-diabetic-retinopathy-image-dataset-idrid; or any folder with train and test, each with a
# folder per class; or the id of a dataset with masks, whose pictures have the class of their label.
# usage: scripts/study_rare_class.sh SOURCE OUT CLASS [MINUTES] [SIDE]   (nnU-Net's variables and jdm_results set)
# for example: scripts/study_rare_class.sh "B. Disease Grading.zip" out grade_1
# The results in results/classes/polyps: ID 32 (100 pictures of NeoPolyp) non-neoplastic 8 64, ITERATIONS=100 SIZE=32 ANYWAY=1.
set -euo pipefail
here=$(dirname "$0") class=$3 minutes=${4:-60} side=${5:-128}
export OMP_NUM_THREADS=1
anyway=(${ANYWAY:+--anyway}) # too few minutes: exports that look like noise
case $1 in
  *Grading*) jdm-convert idrid "$1" --id 753 --name Rare --size "$side" ;;
  [0-9] | [0-9][0-9] | [0-9][0-9][0-9])
    pictures=$(mktemp -d)/pictures
    python "$here/pictures_by_label.py" "$1" "$pictures"
    jdm-convert classes "$pictures" --id 753 --name Rare --crop-centre --size "$side"
    rm -r "$pictures"
    ;;
  *) jdm-convert classes "$1" --id 753 --name Rare --crop-centre --size "$side" ;;
esac
raw=$nnUNet_raw/Dataset753_Rare
jdm-train 753 all --budget-minutes "$minutes" --train.clock cpu --classes "$raw/classes.csv"
cases=$(awk -F, -v c="$class" '$2 == c && $1 !~ /^test/ {print $1}' "$raw/classes.csv")
# shellcheck disable=SC2086
jdm-sample vary 753 all --cases $cases --samples 2 --level 0.4 --out "$2/variations" --overwrite
python "$here/varied_dataset.py" "$2/variations" --id 781
jdm-export 753 all --class-label "$class" --count "$(($(wc -w <<<"$cases") * 2))" --id 782 "${anyway[@]}"
for set in 781:varied 782:sampled; do
  jdm-classify 753 --synthetic "${set%%:*}" --fold all --iterations "${ITERATIONS:-600}" --size "${SIZE:-$side}" \
    --classes-balanced --arms real augmented real-long pooled --out "$2/${set##*:}"
done
python "$here/class_study.py" 753 "$2" varied=781 sampled=782
