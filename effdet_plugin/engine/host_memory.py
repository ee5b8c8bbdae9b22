"""Let a training on CPUs keep the memory it frees, which makes a step about a third shorter."""

import ctypes
import sys

# mallopt's parameters (glibc, malloc.h).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TOP_PAD_BYTES = 64 << 20


def keep_freed_memory() -> bool:
    """Tell glibc not to give large blocks back to the kernel between two uses.

    By default every large tensor is mapped anew and its pages are zeroed and faulted in again:
    on one core a step of Lite0 (320 px, 8 images) took 2.35 CPU seconds with that and 1.55
    without. The process keeps its peak memory until it ends. Only for tools that train.

    Returns:
        Whether this machine's C library has such a setting.
    """
    if not sys.platform.startswith('linux'):
        return False
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is None:  # musl
        return False
    settings = (
        (_M_MMAP_MAX, 0),
        (_M_TRIM_THRESHOLD, 2**31 - 1),
        (_M_TOP_PAD, _TOP_PAD_BYTES),
    )
    return all(mallopt(*setting) == 1 for setting in settings)
