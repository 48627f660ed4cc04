"""Which files a dataset names, where they may lie, and how datasets are found."""

from pathlib import Path

import pytest
from raw_miniatures import LABELS, edit_json, make_dataset, make_pair, same

from jdm.data.raw_dataset import (
    check_dataset,
    dataset_name,
    nnunet_folder,
    open_dataset,
    read_case,
    read_dataset,
    used_ids,
    write_dataset_json,
)
from jdm.data.raw_layout import environment_folder
from jdm.errors import ConfigError, DataError

# ---------------------------------------------------------------- explicit paths


def explicit(folder: Path, image: str, label: str = "labelsTr/a.png") -> None:
    edit_json(folder, dataset={"a": {"images": [image], "label": label}})


def test_explicit_paths_are_followed_inside(tmp_path: Path, nnunet_folders: dict[str, Path]) -> None:
    raw = nnunet_folders["nnUNet_raw"]
    folder = make_dataset(raw, [make_pair()])
    other = raw / "Dataset008_Merged"
    other.mkdir()
    write_dataset_json(other, channel_names=["R", "G", "B"], labels=LABELS, file_ending=".png", num_training=1)
    for image in (f"../{folder.name}/imagesTr/a_0000.png", f"$nnUNet_raw/{folder.name}/imagesTr/a_0000.png"):
        explicit(other, image, str(folder / "labelsTr/a.png"))
        same(read_case(read_dataset(other), "a"), make_pair())
    assert check_dataset(read_dataset(other)) == []


def test_explicit_paths_that_leave_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    folder = make_dataset(root, [make_pair()])
    outside = tmp_path / "outside.png"
    outside.write_bytes((folder / "imagesTr/a_0000.png").read_bytes())
    (folder / "link.png").symlink_to(outside)
    for path in ("../../outside.png", str(outside), "link.png", "$HOME/x.png"):
        explicit(folder, path)
        with pytest.raises(DataError, match=r"dataset\.json.*nnUNet_raw"):
            read_dataset(folder)
    explicit(folder, "imagesTr/none.png", "labelsTr/none.png")
    with pytest.raises(DataError, match=r" 2 .*imagesTr/none.png.*labelsTr/none.png"):
        read_dataset(folder)
    explicit(folder, "imagesTr/" + 300 * "n" + ".png")
    with pytest.raises(DataError, match=r" 1 .*nnn"):
        read_dataset(folder)


def test_a_message_is_one_line_of_bounded_length_with_both_its_ends() -> None:
    line = str(DataError(f"dataset.json: found {10_000 * 'x'}\n; expected a name; correct it"))
    assert len(line) < 2000 and "\n" not in line
    assert line.startswith("dataset.json: found xxx") and line.endswith("expected a name; correct it")


# ---------------------------------------------------------------- finding datasets


def test_open_by_id_name_and_full_name(nnunet_folders: dict[str, Path]) -> None:
    folder = make_dataset(nnunet_folders["nnUNet_raw"], [make_pair()], id=11)
    for key in (11, "11", "011", "Cells", "Dataset011_Cells"):
        assert open_dataset(key).folder == folder
    for key in (12, "", "..", "Dataset011_Cells/", "²"):
        with pytest.raises(ConfigError, match="Dataset011_Cells"):
            open_dataset(key)
    assert used_ids() == {11: [folder]}
    twin = nnunet_folders["nnUNet_results"] / "Dataset011_Other"
    twin.mkdir()
    assert used_ids() == {11: [folder, twin]}
    with pytest.raises(ConfigError, match=r"11.*Dataset011_Cells.*Dataset011_Other"):
        open_dataset(11)


def test_folders_that_are_unset_show_the_line_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("nnUNet_raw", raising=False)
    with pytest.raises(ConfigError, match="export nnUNet_raw="):
        nnunet_folder("nnUNet_raw")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=rf"mkdir -p {tmp_path}/none"):
        nnunet_folder("nnUNet_raw")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("nnUNet_raw", "~/raw")
    (tmp_path / "raw").mkdir()
    for use in (nnunet_folder, environment_folder, lambda _: used_ids(), lambda _: open_dataset("Cells")):
        with pytest.raises(ConfigError, match=rf"nnUNet_raw is ~/raw.*export nnUNet_raw={tmp_path}/raw$"):
            use("nnUNet_raw")


def test_dataset_names() -> None:
    assert dataset_name(7, "A_b-c.1") == "Dataset007_A_b-c.1"
    for id, name in ((0, "A"), (1000, "A"), (1, ""), (1, "a/b"), (1, "../a"), (1, "a b")):
        with pytest.raises(ConfigError):
            dataset_name(id, name)
