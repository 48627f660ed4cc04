"""Values as strict JSON has them: NaN and infinity are null."""

from __future__ import annotations

from typing import Any

import numpy as np


def strict(value: Any) -> Any:
    """Plain values that `json.dumps(..., allow_nan=False)` takes: floats that are not finite become None."""
    if isinstance(value, dict):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
