"""Keys of the advisory locks that FOLD, DECIDE, building and erasure take, each until its transaction ends."""

from typing import Final

ERASURE_LOCK: Final = 0x657261  # shared by FOLD, exclusive for the eraser while it names tokens
IDENTITY_LOCK: Final = 0x696465
FEED_LOCK: Final = 0x666565
FOLD_GATE: Final = 0x676174  # shared by who folds for the live revision, exclusive for who halts that
LIVE_LOCK: Final = 0x6C6976  # shared by who decides beside others, exclusive for a swap
BUILD_LOCK: Final = 0x62756C  # of the worker that builds revisions, as long as its connection
LAYOUT_LOCK: Final = 0x6C6179  # while it is found out whether an earlier build folded the states
PARTITIONS_LOCK: Final = 0x706172  # while partitions of the log, or a revision's progress in all of them, are added
SHARD_LOCKS: Final = 0x736861  # two keys: this and the shard
FIGURES_LOCK: Final = 0x666967  # shared by who changes figures while older rows are counted, exclusive for who counts
FIGURES_COMPACT: Final = 0x666963  # of who adds deltas up into cells
