"""Synthetic pairs beside real crops of the same size: features, agreement, objects, colours, nearest neighbours."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
from publish import SIZE
from segmenter import real_arm
from steps_vs_quality import Judge

from jdm.config.samplers import evaluations
from jdm.data.pairs import PairDataset
from jdm.data.raw_dataset import RawDataset
from jdm.draw.request import can_estimate_masks
from jdm.draw.run import open_run
from jdm.evaluation.appearance import colours, objects
from jdm.evaluation.audit import audit, shrink
from jdm.evaluation.distribution import KernelDistance, pooled_dice, standardised
from nnunet_integration.segmenter import Segmenter

CROPS, TRAINING_CROPS, NEAR = 96, 2000, 64
"""Crops of pairs and of held-out images, of training images, and the side of those whose distances are measured."""


def pair_scores(
    folder: Path, synthetic: RawDataset, real: RawDataset, experiment: Path, seed: int
) -> dict[str, dict[str, float]]:
    """Numbers about the pairs.

    Args:
        folder: of the generator's run.
        experiment: whose arm `real`, with this seed, judges.
    Returns:
        run: steps of training, and network evaluations per pair and window.
        made: of random crops of the pairs, at most as large as an exported pair.
        test: the same numbers of as large crops of the test images.
    """
    run = open_run(str(folder), "")
    config, metadata = run.config, run.checkpoint.metadata
    provenance = json.loads((synthetic.folder / "provenance.json").read_text(encoding="utf-8"))
    as_stored = dataclasses.replace(config, facts=dataclasses.replace(config.facts, case_mean=(), case_std=()))
    labelled = [case for case, files in sorted(real.test_files.items()) if files.label is not None]
    sources = {
        "made": PairDataset(synthetic, list(synthetic.cases), as_stored),
        "test": PairDataset(real, labelled, config, test=True),
    }
    size = tuple(provenance["canvas_size"])
    crops = {name: stored_crops(pairs, size) for name, pairs in sources.items()}
    training = small_crops(PairDataset(real, metadata["training_ids"], config), TRAINING_CROPS, size)
    near = audit(small_crops(sources["made"], CROPS, size), training, small_crops(sources["test"], CROPS, size))
    judge = Judge(config, Segmenter(real_arm(experiment, seed), "cpu", experiment / "judge.log"))
    judged = {name: judge((n, *pair) for n, pair in enumerate(found)) for name, found in crops.items()}
    scale = judged["test"].features
    distance = KernelDistance(standardised(scale, scale))
    numbers = {
        name: {
            "n": len(found),
            "cases": len({item.case_id for item in sources[name].items}),
            "agreement": float(pooled_dice(judged[name].overlap, np.ones((1, len(found))))[0]),
            **appearance(found),
        }
        for name, found in crops.items()
    }
    numbers["made"]["kernel_distance"] = distance(standardised(judged["made"].features, scale))
    assert near.held_out is not None
    for name, share in (("made", near.synthetic), ("test", near.held_out)):
        numbers[name] |= {"nearest": share.median_distance, "below_ratio": share.below_ratio}
    cost = evaluations(provenance["sampler"], provenance["steps"]) + can_estimate_masks(config)  # the mask's outlines
    return {"run": {"steps": metadata["step"], "evaluations": cost}, **numbers}


def stored_crops(pairs: PairDataset, size: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random crops, of the items in turn, as a perfect sample is stored: clipped to the codec's range."""
    rng = np.random.default_rng(0)
    drawn = (pairs.codec.encode(*pairs.crop(item, size, rng)) for item in _items(pairs, CROPS, rng))
    return [pairs.codec.decode(x) for x in drawn]


def small_crops(pairs: PairDataset, count: int, most: tuple[int, ...]) -> np.ndarray:
    """Encoded crops with sides of at most NEAR pixels and `most`, reduced to SIZE: (count, channels, ...)."""
    rng = np.random.default_rng(0)
    size = tuple(min(NEAR, side) for side in most)
    crops = (pairs.codec.encode(*pairs.crop(item, size, rng)) for item in _items(pairs, count, rng))
    return np.concatenate([shrink(crop[None], SIZE) for crop in crops])


def _items(pairs: PairDataset, count: int, rng: np.random.Generator) -> list[int]:
    """Random items, each as often as the others."""
    turns = -(-count // len(pairs))
    return [int(item) for _ in range(turns) for item in rng.permutation(len(pairs))][:count]


def appearance(crops: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Means over crops of the numbers of their objects, where these are defined, and the images' colours."""
    found = [objects(label) for _, label in crops]
    defined = {name: [one[name] for one in found if not np.isnan(one[name])] for name in found[0]}
    means = {name: float(np.mean(values)) if values else np.nan for name, values in defined.items()}
    return {**means, **colours([image.astype(np.float64) for image, _ in crops])}
