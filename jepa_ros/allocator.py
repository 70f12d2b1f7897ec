"""Memory that is freed stays with a training process."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # mallopt(3)


def keep_freed_memory() -> bool:
    """Serve large blocks from the heap and give none of it back: every update needs the same blocks again, and to map
    and clear fresh pages for them each time was a tenth of a training step. False where the C library is not glibc,
    which changes nothing but the time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
