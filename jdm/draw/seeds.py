"""One seed per sample, so that a sample does not depend on its batch."""

from __future__ import annotations

import numpy as np


def case_seed(seed: int, index: int, attempt: int) -> int:
    """63-bit seed of one draw of one case."""
    words = np.random.SeedSequence([seed, index, attempt]).generate_state(2, np.uint32)
    return (int(words[0]) << 32 | int(words[1])) >> 1
