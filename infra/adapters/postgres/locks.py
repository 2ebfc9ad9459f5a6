"""Keys of the advisory locks that FOLD, DECIDE, building and erasure take, each until its transaction ends."""

from typing import Final

ERASURE_LOCK: Final = 0x657261  # shared by FOLD, exclusive for the eraser while it names tokens
IDENTITY_LOCK: Final = 0x696465
FEED_LOCK: Final = 0x666565
FOLD_GATE: Final = 0x676174  # shared by workers folding for the live revision, exclusive for pausing them
LIVE_LOCK: Final = 0x6C6976  # shared by workers deciding in parallel, exclusive for a swap
BUILD_LOCK: Final = 0x62756C  # held by the worker that builds revisions, as long as its connection lasts
LAYOUT_LOCK: Final = 0x6C6179  # while checking whether an earlier build folded the states
PARTITIONS_LOCK: Final = 0x706172  # while partitions of the log, or a revision's progress in all of them, are added
SHARD_LOCKS: Final = 0x736861  # two keys: this and the shard
FIGURES_LOCK: Final = 0x666967  # shared while changing figures and older rows are being counted, exclusive for counting
FIGURES_COMPACT: Final = 0x666963  # held while adding deltas into cells
