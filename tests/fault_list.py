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

INPUTS = [
    Fault(1, "arms compared over different cells", "a difference is over the same image and class cells of both arms; "
        "cells without the class are scored apart",
        _in("test_nnunet_comparison", "test_a_class_that_no_reference_has_moves_no_difference",
        "test_an_arm_that_hallucinates_is_worse_and_shown_to_be", "test_differences_are_means_over_the_same_cells")),
    Fault(2, "a small bright or dark class clipped", "ranges keep every class; CT is clipped as nnU-Net does",
        _in("test_intensities", "test_a_small_class_is_not_clipped_be_it_bright_or_dark",
        "test_ct_is_clipped_at_percentiles_of_the_foreground_as_nnunet_does")),
    Fault(3, "another reader of the same files", "arrays, axes and spacing as nnU-Net's reader has them, exports too",
        _in("test_readers", "test_every_reader_has_nnunets_array_of_any_orientation",
        "test_the_reader_is_nnunets_and_what_is_made_is_read_alike")
        + _in("test_volumes_end_to_end",
        "test_a_set_that_nnunet_turns_is_cut_and_exported_along_the_axes_that_nnunet_sees")),
    Fault(4, "masks of mixed codings", "matched exactly, or refused with the mapping that fits",
        _in("test_conversion_coding", "test_values_as_declared_are_taken",
        "test_other_values_are_refused_with_the_flags_that_fit",
        "test_no_mask_is_ever_misread_whatever_codings_are_mixed")),
    Fault(5, "the ignore label scored as a class", "left out; regions are scored as regions, as nnU-Net does",
        _in("test_metrics_stored", "test_regions_and_ignored_voxels_are_scored_as_nnunet_scores_them",
        "test_what_is_predicted_where_the_reference_ignores_changes_no_score",
        "test_scores_are_those_of_the_voxels_however_labels_are_stored")),
    Fault(6, "labels that are almost integers, or of two codings", "taken file by file, or refused by name",
        _in("test_metrics_stored", "test_a_folder_may_mix_0_1_and_0_255",
        "test_a_file_whose_values_say_nothing_is_refused_by_name")),
    Fault(7, "pictures that nnU-Net cannot read", "found by doctor and before training",
        _in("test_nnunet_can_read", "test_pictures_are_read_as_nnunet_reads_them_or_found")),
    Fault(8, "channels that nnU-Net does not standardise", "taken as stored",
        _in("test_intensities", "test_channels_that_nnunet_does_not_standardise_are_taken_as_stored")),
    Fault(9, "TIFF in YCbCr and other colours", "converted, or refused with a command that converts it",
        _in("test_picture_io", "test_colours_of_a_tiff_file", "test_ycbcr_in_other_forms_is_refused",
        "test_other_colour_spaces_are_refused_with_a_command_that_converts_them")),
    Fault(10, "files of a case, or predictions, of other directions", "flipped onto each other, or refused",
        _in("test_readers", "test_label_and_channels_of_other_axes_come_onto_the_first_image",
        "test_files_of_a_case_that_lie_elsewhere_are_refused_with_both_grids")
        + _in("test_metrics_stored", "test_a_prediction_stored_along_other_axes_is_compared_in_space",
        "test_a_prediction_that_lies_elsewhere_is_refused_with_both_geometries")),
    Fault(11, "volumes of one slice", "are images",
        _in("test_fingerprint", "test_volumes_of_one_slice_are_images_however_thin_it_is")),
    Fault(12, "regions of interest and ellipses in Aperio XML", "by layer and type, each in the ledger",
        _in("test_conversion_monuseg", "test_what_a_region_is_decides_and_is_told", "test_negative_regions_are_holes",
        "test_an_ellipse_has_the_pixels_whose_centres_it_holds")),
    Fault(13, "files of two and three axes, ~, leftover launchers, ASCII terminals", "handled, or one line",
        _in("test_nnunet_can_read",
        "test_files_of_two_and_three_axes_in_one_dataset_are_read_as_nnunet_reads_them_or_named")
        + _in("test_terminal", "test_names_that_a_terminal_cannot_show_are_written_all_the_same",
        "test_variables_of_a_launcher_are_whole_or_told_with_the_line_to_type")),
    Fault(14, "images larger than the median", "trained whole only where all fit; exported at the sizes there are",
        _in("test_plan", "test_images_are_trained_whole_where_all_fit_and_else_as_patches")
        + _in("test_export_pairs", "test_pairs_have_the_sizes_of_real_images_without_padding")),
    Fault(15, "real texture flattened to zero", "borders of zeros come back where they were, and nowhere else",
        _in("test_codec", "test_borders_of_zeros_come_back_where_they_were_and_nowhere_else")),
    Fault(16, "patients on both sides of fold all, folds of two names, versions, churn", "as the names promise",
        _in("test_prepare", "test_fold_all_holds_out_whole_patients")
        + _in("test_splits", "test_a_fold_has_one_name_which_is_that_of_its_folder")
        + _in("test_training", "test_a_checkpoint_is_due_by_the_clock")
        + _in("test_repaint", "test_churn_within_repaint_raises_each_level_by_its_share_of_the_whole_schedule")
        + _in("test_fingerprint", "test_names_of_sides_and_of_bodies_are_not_mirrored_whatever_the_cases_show")),
    Fault(17, "intervals of few images too narrow", "cover at least .93 at n = 8, by simulation",
        _in("test_statistics", "test_interval_of_few_images_covers_the_truth", "test_groups_are_resampled_whole")),
    Fault(18, "cases without HD95 dropped", "counted, or scored with the diagonal",
        _in("test_metrics_stored", "test_cases_without_a_distance_are_counted_or_score_the_diagonal")),
    Fault(19, "biased conditioning offered without a word", "the figures stand where it is offered, and hold",
        _in("test_conditioning", "test_replacement_and_repaint_are_as_biased_as_their_docstrings_say")
        + _in("test_samplers", "test_gaussian_data_keep_the_share_of_their_variance_that_the_docstring_says",
        "test_ddim_keeps_the_share_of_the_variance_that_its_docstring_says")),
    Fault(20, "the verdict far down a report", "the first line: helped, did not help, or cannot tell",
        _in("test_nnunet_comparison", "test_the_verdict_says_what_the_interval_says",
        "test_results_begin_with_the_verdict_and_every_table_says_over_how_many_cells")),
    Fault(21, "advice that does not help", "the line names a command that works",
        _in("test_conversion_coding", "test_masks_in_colours_can_be_made_grey_by_the_command_that_is_named",
        "test_transparency_of_a_mask_that_hides_something_is_flattened_by_the_command_that_is_named")
        + _in("test_picture_io", "test_alpha_over_something_is_flattened_by_the_command_that_is_named")),
    Fault(22, "pipes that close, silent progress", "a quiet exit; a line a minute where there is no terminal",
        _in("test_terminal", "test_a_reader_that_closes_its_pipe_ends_a_command_quietly")
        + _in("test_progress", "test_without_a_terminal_a_line_a_minute_says_what_is_left")),
    Fault(23, "byte-identical exports claimed for any hardware", "claimed for the CPU, where it is tested",
        _in("test_export", "test_repeated_resumed_and_sharded_exports_are_the_same_bytes")),
    Fault(24, "patients in training and validation", "--groups for every converter; a line asks for it",
        _in("test_conversion_groups", "test_a_pattern_keeps_patients_on_one_side", "test_every_kind_takes_groups",
        "test_one_line_asks_for_groups_with_a_pattern_that_fits", "test_folds_are_balanced_by_cases")),
    Fault(25, "noise exported without a word", "the export stops and says how long to train; --anyway goes on",
        _in("test_export_pairs", "test_pairs_are_judged_by_their_noise_specks_and_agreement",
        "test_an_export_of_noise_is_stopped_and_says_how_long_to_train")),
    Fault(26, "a budget that holds a handful of steps", "smaller batches; the dry run says steps",
        _in("test_plan", "test_a_budget_buys_the_largest_step_of_which_it_holds_enough",
        "test_the_dry_run_is_a_table_of_decisions_with_reasons")
        + _in("test_training", "test_a_budget_leaves_room_for_what_comes_beside_the_steps")),
    Fault(27, "patches smaller than an object", "patches of 256 pixels, or whole images",
        _in("test_plan", "test_images_are_trained_whole_where_all_fit_and_else_as_patches")),
    Fault(28, "mirroring decided by label names", "decided by where things lie; names only forbid it",
        _in("test_fingerprint", "test_mirroring_is_decided_by_where_things_lie",
        "test_names_of_sides_and_of_bodies_are_not_mirrored_whatever_the_cases_show")),
    Fault(29, "advice that takes a day", "the count that is suggested fits ten minutes",
        _in("test_prepare", "test_the_export_that_is_suggested_fits_ten_minutes")),
    Fault(30, "soft masks without a threshold, notes as problems", "as one would expect",
        _in("test_conversion_coding", "test_a_threshold_is_recorded", "test_noise_and_soft_borders_are_cut",
        "test_a_jpeg_mask_of_another_value_is_not_cut_through_its_middle")
        + _in("test_doctor", "test_little_room_is_a_note")),
]  # fmt: skip
"""Faults on real-world inputs, each mended by its kind."""
