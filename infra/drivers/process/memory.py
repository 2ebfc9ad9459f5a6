"""Garbage collector settings of a role."""

import gc


def tune_memory() -> None:
    """Call after the start: objects alive now stay alive, so only new ones are collected, and rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # objects by the thousand make the default threshold double the cost
