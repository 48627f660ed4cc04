"""The thirty faults: what the user gets, the tests that provoke each, and what is recorded of others."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    number: int
    name: str
    gets: str
    """What the tests assert."""
    tests: tuple[str, ...]
    """file::function, in this folder."""
    others: str = ""
    """What other software is known to do there."""


def _in(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{file}.py::{name}" for name in names)


FAULTS = [
    Fault(1, "kill -9 in training",
        "resumed from the last checkpoint; every file but clock times is the uninterrupted run's to the byte",
        _in("test_faults_killed", "test_fault_01_kill_in_training", "test_fault_01_a_torn_log_keeps_its_whole_rows")),
    Fault(2, "kill -9 in a checkpoint write",
        "the previous one is whole after every kill; the stale temporary file is removed",
        _in("test_faults_killed", "test_fault_02_kill_in_a_checkpoint_write",
        "test_fault_02_what_a_killed_writer_left_is_removed_and_a_living_one_is_not")),
    Fault(3, "kill -9 in an export",
        "no dataset until all of it is there; the resumed one is the uninterrupted one to the byte",
        _in("test_faults_killed", "test_fault_03_kill_in_an_export",
        "test_fault_03_what_a_killed_export_left_does_not_get_into_the_dataset",
        "test_fault_03_a_damaged_record_of_a_batch_is_named")),
    Fault(4, "disk full at a checkpoint",
        "refused with needed and free space; the old one is unchanged, whichever byte fails",
        _in("test_faults_full", "test_fault_04_disk_full_at_a_checkpoint",
        "test_fault_04_disk_full_before_there_is_anything_to_resume")),
    Fault(5, "disk full in an export",
        "estimated before it starts; a write that fails later leaves no half file, and the same command goes on",
        _in("test_faults_full", "test_fault_05_disk_full_in_an_export",
        "test_fault_05_a_write_that_fails_at_any_byte_is_noticed",
        "test_fault_05_the_room_for_an_export_is_estimated_first")),
    Fault(6, "truncated last checkpoint", "falls back to the one before, and says so",
        _in("test_checkpoint", "test_a_damaged_resume_state_falls_back_to_the_one_before_and_says_so")),
    Fault(7, "bit flip in a checkpoint", "refused, the file named",
        _in("test_faults", "test_fault_07_bit_flip_anywhere_in_a_checkpoint")),
    Fault(8, "code in a checkpoint", "refused and not run",
        _in("test_checkpoint", "test_code_in_a_resume_state_is_refused_and_not_run")),
    Fault(9, "checkpoint of another dataset or plan", "refused, the differing fields listed",
        _in("test_training", "test_another_plan_or_dataset_is_not_resumed")),
    Fault(10, "loss that is not finite", "stops; what is saved is finite; fp32 or a lower rate advised",
        _in("test_faults_full", "test_fault_10_loss_that_is_not_finite")),
    Fault(11, "out of memory", "one line that advises a smaller batch; no half state",
        _in("test_faults_full", "test_fault_11_out_of_memory", "test_fault_11_memory_that_runs_out_beside_the_steps",
        "test_fault_11_memory_that_python_refuses_is_one_line")),
    Fault(12, "SIGTERM, Ctrl-C", "saved at the end of the step; exit status 143 or 130; resumes",
        _in("test_faults_killed", "test_fault_12_signal_to_the_command")),
    Fault(13, "wrong or ambiguous dataset", "refused, the candidates listed",
        _in("test_raw_layout", "test_open_by_id_name_and_full_name")),
    Fault(14, "target exists", "refused; real data are never overwritten",
        _in("test_export_folder", "test_taken_names_are_refused_and_real_data_is_never_overwritten"),
        others="the thesis's reference code fails on an existing folder"),
    Fault(15, "two exports or trainings in one folder",
        "one finishes; the other is refused, and told which process is at it",
        _in("test_faults_killed", "test_fault_15_two_processes_race_for_one_export",
        "test_fault_15_two_trainings_in_one_folder")),
    Fault(16, "label value that is not declared", "refused: value, count and file",
        _in("test_raw_dataset", "test_values_outside_the_labels_name_value_file_and_cure")),
    Fault(17, "0/255 mask", "refused, the mapping that cures it given",
        _in("test_raw_dataset", "test_values_outside_the_labels_name_value_file_and_cure")),
    Fault(18, "alpha channel", "dropped where opaque, else refused",
        _in("test_image_io", "test_opaque_alpha_is_dropped_and_transparency_refused")),
    Fault(19, "mask and image of different size", "refused with both sizes; nothing is resized",
        _in("test_faults", "test_fault_19_image_and_mask_of_different_size"),
        others="the thesis's reference code takes `mask > 0` after a bilinear resize, which dilates masks"),
    Fault(20, "mask of three channels", "collapsed where equal, else refused",
        _in("test_image_io", "test_equal_label_channels_collapse_and_others_are_refused")),
    Fault(21, "palette mask", "its indices are the labels",
        _in("test_image_io", "test_palette_is_colours_in_an_image_and_indices_in_a_label")),
    Fault(22, "NaN or infinite pixels", "refused with their count",
        _in("test_image_io", "test_nan_and_infinite_pixels_are_refused")),
    Fault(23, "missing mask or image", "refused, every one listed",
        _in("test_raw_dataset", "test_every_missing_file_is_listed")),
    Fault(24, "names that occur twice", "refused: a.png beside a.jpg, and names that differ in case only",
        _in("test_conversion", "test_stems_that_occur_twice_are_refused")),
    Fault(25, "the same image in training and test", "listed; --strict refuses",
        _in("test_conversion_rules", "test_duplicates_across_training_and_test_are_told_and_strictly_refused")),
    Fault(26, "truncated, empty or misnamed files", "never pass for whole",
        _in("test_image_io", "test_truncated_files_never_pass")),
    Fault(27, "paths that lead outside", "refused before anything is opened or written",
        _in("test_raw_layout", "test_explicit_paths_that_leave_are_refused") + _in("test_faults",
        "test_fault_27_a_training_id_cannot_lead_out_of_the_dataset") + _in("test_conversion_shared",
        "test_members_outside_the_archive_are_refused", "test_links_in_archives_are_refused")),
    Fault(28, "decompression bomb", "refused by its header, or read in less than 100 MiB",
        _in("test_faults", "test_fault_28_decompression_bomb") + _in("test_conversion_shared",
        "test_bombs_are_refused_by_the_sizes_they_announce")),
    Fault(29, "DICOM: mixed series, missing or repeated slices",
        "the series is named and refused, or repaired and noted",
        _in("test_conversion_lidc", "test_lidc_mixed_series_in_a_folder_are_refused", "test_lidc_slices_at_one_place",
        "test_lidc_a_missing_slice_is_refused", "test_lidc_a_slice_unlike_the_others_is_refused"),
        others="pylidc 0.2.3 does not run with NumPy 1.24 or newer"),
    Fault(30, "empty or full masks from a generator", "the export stops",
        _in("test_export_pairs", "test_a_model_that_makes_only_degenerate_pairs_is_refused"),
        others="the thesis's published masks hold 165 grey levels and 37 % foreground, real ones 26 %"),
]  # fmt: skip
