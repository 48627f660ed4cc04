"""jdm-sample on volumes larger than the training patch: segment, images, inpaint, vary and channels in 3-D."""

import dataclasses

import numpy as np
import pytest
from small_runs import tiny_run, write_pictures

import jdm
from jdm.data.raw_dataset import Pair, read_case, read_dataset, write_case
from jdm.errors import ConfigError
from jdm.sample.request import ChannelsRequest, ImagesRequest, InpaintRequest, SegmentRequest, VaryRequest

SHAPE, SPACING = (12, 20, 14), (1.5, 1.0, 1.2)
PATCH = {"dims": 3, "whole": False, "patch_size": [8, 8, 8], "canvas_size": [12, 16, 14], "position": True}
QUICK = {"samples": 1, "steps": 4, "overwrite": True}


@pytest.fixture(scope="module")
def real(module_folders):
    kind = {"shape": SHAPE, "classes": 3, "channels": 2, "dtype": "int16", "spacing": SPACING}
    dataset = write_pictures(module_folders["nnUNet_raw"], "Dataset031_Layers", cases=4, **kind)
    tiny_run(dataset, data=PATCH, train={"steps": 1})
    return dataset


def sampled(real, request, folder):
    """The only sample of a request, and the case from which it was made."""
    out = folder / "Dataset091_Out"
    jdm.sample(dataclasses.replace(request, out=out, **QUICK))
    made = read_dataset(out)
    pair, like = read_case(made, made.cases[0]), read_case(real, "case_3")
    assert pair.label.shape == SHAPE and pair.spacing == pytest.approx(SPACING)
    assert pair.image.dtype == like.image.dtype and pair.geometry == like.geometry
    return pair, like


def test_volumes_are_segmented_by_windows_with_probabilities_as_nnunet_has_them(real, tmp_path):
    images, out = tmp_path / "images", tmp_path / "out"
    taken = read_case(real, "case_3")
    write_case(tmp_path, Pair("new", taken.image, taken.label, taken.spacing, taken.geometry), ".nii.gz",
               images_folder="images")  # fmt: skip
    jdm.sample(SegmentRequest("31", "all", images=images, samples=1, save_probabilities=True, out=out))
    shares = np.load(out / "labels" / "new.npz")["probabilities"]
    assert shares.shape == (3, *SHAPE) and shares.dtype == np.float32
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-5)
    from jdm.data.case_io import read_label

    np.testing.assert_array_equal(read_label(out / "labels" / "new.nii.gz").array[0], shares.argmax(0))


def test_a_box_of_six_numbers_is_inpainted_and_nothing_else(real, tmp_path):
    request = InpaintRequest("31", "all", case="case_3", box=(2, 3, 4, 8, 12, 11))
    pair, like = sampled(real, request, tmp_path)
    outside = np.ones(SHAPE, bool)
    outside[2:8, 3:12, 4:11] = False
    np.testing.assert_array_equal(pair.image[:, outside], like.image[:, outside])
    np.testing.assert_array_equal(pair.label[outside], like.label[outside])
    assert (pair.image != like.image).any()
    with pytest.raises(ConfigError, match="--box"):
        jdm.sample(InpaintRequest("31", "all", case="case_3", box=(2, 3, 8, 12)))


def test_a_lesion_is_inpainted_at_a_random_place_inside_an_organ(real, tmp_path):
    asked = {"case": "case_3", "inside": "class1", "lesion": "class2"}
    places = []
    for seed in (0, 0, 1):
        pair, like = sampled(
            real, InpaintRequest("31", "all", seed=seed, feather=0, **asked), tmp_path / "Dataset091_Out"
        )
        changed = pair.label != like.label
        assert changed.any() and (pair.label[changed] == 2).all()
        places.append(changed)
    assert (places[0] == places[1]).all() and (places[0] != places[2]).any()
    with pytest.raises(ConfigError, match="--inside"):
        jdm.sample(InpaintRequest("31", "all", **{**asked, "inside": "liver"}))


def test_known_parts_of_volumes_stay_and_the_others_are_sampled(real, tmp_path):
    pair, like = sampled(
        real,
        VaryRequest("31", "all", cases=("case_3",)),
        tmp_path / "Dataset092_Out",
    )
    assert (pair.image != like.image).any()
    request = ChannelsRequest("31", "all", known=("0", "mask"), cases=("case_3",))
    pair, like = sampled(real, request, tmp_path)
    np.testing.assert_array_equal(pair.image[0], like.image[0])
    np.testing.assert_array_equal(pair.label, like.label)
    assert (pair.image[1] != like.image[1]).any()
    masks = tmp_path / "masks"
    write_case(tmp_path, Pair("case_3", like.image, like.label, like.spacing, like.geometry), ".nii.gz", "masks", "i")
    pair, _ = sampled(
        real,
        ImagesRequest("31", "all", masks=masks),
        tmp_path / "Dataset094_Out",
    )
    np.testing.assert_array_equal(pair.label, like.label)
