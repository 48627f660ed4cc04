"""One seed per sample: neither the batch nor its neighbours change what a sample is."""

from __future__ import annotations

import numpy as np


def case_seed(seed: int, index: int, attempt: int) -> int:
    """Seed of one draw of one case, 63 bits."""
    words = np.random.SeedSequence([seed, index, attempt]).generate_state(2, np.uint32)
    return (int(words[0]) << 32 | int(words[1])) >> 1
