"""The thirty faults: the tests that provoke each, what the user gets, and what is recorded of others."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    number: int
    name: str
    tests: tuple[str, ...]
    """file::function, in this folder."""
    gets: str
    """What these tests assert."""
    others: str = ""
    """What other software is known to do there."""


FAULTS = [
    Fault(
        1,
        "kill -9 in training",
        (
            "test_faults_killed.py::test_fault_01_kill_in_training",
            "test_faults_killed.py::test_fault_01_a_torn_log_keeps_its_whole_rows",
        ),
        "resumed from the last checkpoint; every file but clock times is the uninterrupted run's to the byte",
    ),
    Fault(
        2,
        "kill -9 in a checkpoint write",
        (
            "test_faults_killed.py::test_fault_02_kill_in_a_checkpoint_write",
            "test_faults_killed.py::test_fault_02_what_a_killed_writer_left_is_removed_and_a_living_one_is_not",
        ),
        "the previous one is whole after every kill; the stale temporary file is removed",
    ),
    Fault(
        3,
        "kill -9 in an export",
        (
            "test_faults_killed.py::test_fault_03_kill_in_an_export",
            "test_faults_killed.py::test_fault_03_what_a_killed_export_left_does_not_get_into_the_dataset",
            "test_faults_killed.py::test_fault_03_a_damaged_record_of_a_batch_is_named",
        ),
        "no dataset until all of it is there; the resumed one is the uninterrupted one to the byte",
    ),
    Fault(
        4,
        "disk full at a checkpoint",
        (
            "test_faults_full.py::test_fault_04_disk_full_at_a_checkpoint",
            "test_faults_full.py::test_fault_04_disk_full_before_there_is_anything_to_resume",
        ),
        "refused with needed and free space; the old one is unchanged, whichever byte fails",
    ),
    Fault(
        5,
        "disk full in an export",
        (
            "test_faults_full.py::test_fault_05_disk_full_in_an_export",
            "test_faults_full.py::test_fault_05_a_write_that_fails_at_any_byte_is_noticed",
            "test_faults_full.py::test_fault_05_the_room_for_an_export_is_estimated_first",
        ),
        "estimated before it starts; a write that fails later leaves no half file, and the same command goes on",
    ),
    Fault(
        6,
        "truncated last checkpoint",
        ("test_checkpoint.py::test_a_damaged_resume_state_falls_back_to_the_one_before_and_says_so",),
        "falls back to the one before, and says so",
    ),
    Fault(
        7,
        "bit flip in a checkpoint",
        ("test_faults.py::test_fault_07_bit_flip_anywhere_in_a_checkpoint",),
        "refused, the file named",
    ),
    Fault(
        8,
        "code in a checkpoint",
        ("test_checkpoint.py::test_code_in_a_resume_state_is_refused_and_not_run",),
        "refused and not run",
    ),
    Fault(
        9,
        "checkpoint of another dataset or plan",
        ("test_training.py::test_another_plan_or_dataset_is_not_resumed",),
        "refused, the differing fields listed",
    ),
    Fault(
        10,
        "loss that is not finite",
        ("test_faults_full.py::test_fault_10_loss_that_is_not_finite",),
        "stops; what is saved is finite; fp32 or a lower rate advised",
    ),
    Fault(
        11,
        "out of memory",
        (
            "test_faults_full.py::test_fault_11_out_of_memory",
            "test_faults_full.py::test_fault_11_memory_that_python_refuses_is_one_line",
        ),
        "one line that advises a smaller batch; no half state",
    ),
    Fault(
        12,
        "SIGTERM, Ctrl-C",
        ("test_faults_killed.py::test_fault_12_signal_to_the_command",),
        "saved at the end of the step; exit status 143 or 130; resumes",
    ),
    Fault(
        13,
        "wrong or ambiguous dataset",
        ("test_raw_layout.py::test_open_by_id_name_and_full_name",),
        "refused, the candidates listed",
    ),
    Fault(
        14,
        "target exists",
        ("test_export_folder.py::test_taken_names_are_refused_and_real_data_is_never_overwritten",),
        "refused; real data are never overwritten",
        "the thesis's reference code fails on an existing folder",
    ),
    Fault(
        15,
        "two exports or trainings in one folder",
        (
            "test_faults_killed.py::test_fault_15_two_processes_race_for_one_export",
            "test_faults_killed.py::test_fault_15_two_trainings_in_one_folder",
        ),
        "one finishes; the other is refused, and told which process is at it",
    ),
    Fault(
        16,
        "label value that is not declared",
        ("test_raw_dataset.py::test_values_outside_the_labels_name_value_file_and_cure",),
        "refused: value, count and file",
    ),
    Fault(
        17,
        "0/255 mask",
        ("test_raw_dataset.py::test_values_outside_the_labels_name_value_file_and_cure",),
        "refused, the mapping that cures it given",
    ),
    Fault(
        18,
        "alpha channel",
        ("test_image_io.py::test_opaque_alpha_is_dropped_and_transparency_refused",),
        "dropped where opaque, else refused",
    ),
    Fault(
        19,
        "mask and image of different size",
        ("test_faults.py::test_fault_19_image_and_mask_of_different_size",),
        "refused with both sizes; nothing is resized",
        "the thesis's reference code takes `mask > 0` after a bilinear resize, which dilates masks",
    ),
    Fault(
        20,
        "mask of three channels",
        ("test_image_io.py::test_equal_label_channels_collapse_and_others_are_refused",),
        "collapsed where equal, else refused",
    ),
    Fault(
        21,
        "palette mask",
        ("test_image_io.py::test_palette_is_colours_in_an_image_and_indices_in_a_label",),
        "its indices are the labels",
    ),
    Fault(
        22,
        "NaN or infinite pixels",
        ("test_image_io.py::test_nan_and_infinite_pixels_are_refused",),
        "refused with their count",
    ),
    Fault(
        23,
        "missing mask or image",
        ("test_raw_dataset.py::test_every_missing_file_is_listed",),
        "refused, every one listed",
    ),
    Fault(
        24,
        "names that occur twice",
        ("test_conversion.py::test_stems_that_occur_twice_are_refused",),
        "refused: a.png beside a.jpg, and names that differ in case only",
    ),
    Fault(
        25,
        "the same image in training and test",
        ("test_conversion_rules.py::test_duplicates_across_training_and_test_are_told_and_strictly_refused",),
        "listed; --strict refuses",
    ),
    Fault(
        26,
        "truncated, empty or misnamed files",
        ("test_image_io.py::test_truncated_files_never_pass",),
        "never pass for whole",
    ),
    Fault(
        27,
        "paths that lead outside",
        (
            "test_raw_layout.py::test_explicit_paths_that_leave_are_refused",
            "test_faults.py::test_fault_27_a_training_id_cannot_lead_out_of_the_dataset",
            "test_conversion_shared.py::test_members_outside_the_archive_are_refused",
            "test_conversion_shared.py::test_links_in_archives_are_refused",
        ),
        "refused before anything is opened or written",
    ),
    Fault(
        28,
        "decompression bomb",
        (
            "test_faults.py::test_fault_28_decompression_bomb",
            "test_conversion_shared.py::test_bombs_are_refused_by_the_sizes_they_announce",
        ),
        "refused by its header, or read in less than 100 MiB",
    ),
    Fault(
        29,
        "DICOM: mixed series, missing or repeated slices",
        (
            "test_conversion_lidc.py::test_lidc_mixed_series_in_a_folder_are_refused",
            "test_conversion_lidc.py::test_lidc_slices_at_one_place",
            "test_conversion_lidc.py::test_lidc_a_missing_slice_is_refused",
            "test_conversion_lidc.py::test_lidc_a_slice_unlike_the_others_is_refused",
        ),
        "the series is named and refused, or repaired and noted",
        "pylidc 0.2.3 does not run with NumPy 1.24 or newer",
    ),
    Fault(
        30,
        "empty or full masks from a generator",
        ("test_export_pairs.py::test_a_model_that_makes_only_degenerate_pairs_is_refused",),
        "the export stops",
        "the masks among the thesis's published samples hold 165 grey levels and 37 % foreground, real ones 26 %",
    ),
]
