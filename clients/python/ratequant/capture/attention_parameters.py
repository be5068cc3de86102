"""What attention of a layer computes."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class AttentionParameters:
    """What attention of one layer computes, as kernels/include/ratequant/kv/attention.h has
    it; 0: no cap, no window."""

    softmax_scale: float
    soft_cap: float
    sliding_window: int
