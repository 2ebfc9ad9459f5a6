"""What the garbage collector of a role looks at."""

import gc


def settle_memory() -> None:
    """After the start: what is alive stays alive, so the collector looks at new objects alone, and rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # objects by the thousand make the default threshold double the cost
