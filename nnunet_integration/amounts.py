"""Parts of an export by their amount, for curves of Dice against the amount of synthetic cases."""

from __future__ import annotations

import json
from collections.abc import Sequence

from jdm.data.raw_dataset import RawDataset
from jdm.errors import ConfigError, DataError


def ratio_counts(ratios: Sequence[float], synthetic: RawDataset) -> dict[float, int]:
    """Number of synthetic cases by ratio; the cases are the first of the export.

    Args:
        ratios: amounts of synthetic cases in amounts of real ones: cases for whole images and volumes, pixels for
            patches (see `jdm.export.amount.real_amount`).
    Raises: ConfigError for a ratio that is not positive, too small for one case or larger than the export; DataError if
        the export does not say how large the real amount is.
    """
    if not ratios:
        return {}
    real = _real_amount(synthetic)
    counts = {ratio: round(ratio * real) for ratio in ratios}
    for ratio, count in counts.items():
        if not 1 <= count <= len(synthetic.cases):
            most = len(synthetic.cases) / real
            raise ConfigError(
                f"--ratios has {ratio:g}, which is {count} cases of {synthetic.name}; expected 1 to "
                f"{len(synthetic.cases)}, at most a ratio of {int(100 * most) / 100:g}; export more pairs, or leave it "
                "out"
            )
    return counts


def _real_amount(synthetic: RawDataset) -> float:
    """Pairs that amount to the generator's training set, from provenance.json."""
    file = synthetic.folder / "provenance.json"
    amount = json.loads(file.read_text(encoding="utf-8")).get("real_amount")
    if not isinstance(amount, int | float) or not amount > 0:
        raise DataError(
            f"{file} has real_amount {amount}; expected the number of pairs that amount to the real cases; export "
            "again with this version of jdm-export"
        )
    return float(amount)
