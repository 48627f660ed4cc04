"""Synthetic pairs beside real crops of the same size: features, agreement, objects, colours, nearest neighbours."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from distribution import KernelDistance, pooled_dice, standardised
from publish import SIZE
from segmenter import Segmenter, real_arm
from steps_vs_quality import Judge

from jdm.config.samplers import evaluations
from jdm.config.settings import Config
from jdm.data.codec import PairCodec
from jdm.data.pairs import PairDataset
from jdm.data.raw_dataset import RawDataset
from jdm.draw.run import open_run
from jdm.evaluation.appearance import colours, objects
from jdm.evaluation.audit import audit

CROPS, TRAINING_CROPS = 72, 2000


def pair_scores(folder: Path, synthetic: RawDataset, real: RawDataset, experiment: Path, seed: int) -> dict[str, Any]:
    """Numbers about the pairs; `real_*` are those of held-out real crops of the same size and number.

    Args: folder: of the generator's run. experiment: whose arm `real` judges.
    """
    run, config = (found := open_run(str(folder), "")), found.config
    provenance = json.loads((synthetic.folder / "provenance.json").read_text(encoding="utf-8"))
    exported = dataclasses.replace(config, facts=dataclasses.replace(config.facts, case_mean=(), case_std=()))
    made = Crops.of(PairDataset(synthetic, list(synthetic.cases), exported), exported)
    others = [case for case, files in sorted(real.test_files.items()) if files.label is not None]
    held_out = Crops.of(PairDataset(real, others, config, test=True), config)
    judge = Judge(config, Segmenter(real_arm(experiment, seed), "cpu", experiment / "judge.log"))
    judged, reference = (judge((n, *pair) for n, pair in enumerate(crops.pairs)) for crops in (made, held_out))
    distance = KernelDistance(standardised(reference.features, reference.features))
    everyone = np.ones((1, len(judged)))
    training = Crops.of(PairDataset(real, run.checkpoint.metadata["training_ids"], config), config, TRAINING_CROPS)
    near = audit(made.encoded(config), training.encoded(config), held_out.encoded(config), size=SIZE)
    assert near.held_out is not None
    return {
        "steps": run.checkpoint.metadata["step"],
        "evaluations": evaluations(provenance["sampler"], provenance["steps"]),
        "pairs": len(made.pairs),
        "agreement": float(pooled_dice(judged.overlap, everyone)[0]),
        "real_agreement": float(pooled_dice(reference.overlap, np.ones((1, len(reference))))[0]),
        "kernel_distance": distance(standardised(judged.features, reference.features)),
        **made.numbers(""),
        **held_out.numbers("real_"),
        "nearest": near.synthetic.median_distance / near.held_out.median_distance,
        "below_ratio": near.synthetic.below_ratio,
    }


@dataclasses.dataclass(frozen=True)
class Crops:
    """Images (channels, *canvas) in stored units, and labels (*canvas)."""

    pairs: list[tuple[np.ndarray, np.ndarray]]

    @classmethod
    def of(cls, pairs: PairDataset, config: Config, count: int = CROPS) -> Crops:
        """Random crops of the export's canvas, of the items in turn."""
        rng = np.random.default_rng(0)
        order = rng.permutation(np.arange(count) % len(pairs) if count >= len(pairs) else len(pairs))[:count]
        drawn = (pairs.codec.encode(*pairs.crop(int(item), config.data.canvas_size, rng)) for item in order)
        return cls([pairs.codec.decode(x) for x in drawn])

    def encoded(self, config: Config) -> np.ndarray:
        codec = PairCodec(config)
        return np.stack([codec.encode(*pair) for pair in self.pairs])

    def numbers(self, prefix: str) -> dict[str, float]:
        """Means over the crops of what is known of their objects, and their colours."""
        found = [objects(label) for _, label in self.pairs]
        means = {name: float(np.nanmean([one[name] for one in found])) for name in found[0]}
        seen = colours([image.astype(np.float64) for image, _ in self.pairs])
        return {prefix + name: value for name, value in {**means, **seen}.items()}
