"""A process that does not outlive its parent (Linux: PR_SET_PDEATHSIG)."""

import ctypes
import os
import signal
from typing import Final

from schemas.errors import ServiceFailed

_PR_SET_PDEATHSIG: Final = 1


def die_with(parent: int) -> None:
    """Have this process killed (SIGKILL) when its parent ends; immediately if it has already ended.

    The signal comes when the parent's *thread* that started us ends: start children from its main thread.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise ServiceFailed(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it ended after the fork
        os._exit(1)
