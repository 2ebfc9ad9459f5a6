"""segment-analytics-python as it comes, but for the host. It sends its write key in the body alone."""

from importlib import import_module

from tests.sdks.senders.python_common import DOOR, KEY, run

if __name__ == "__main__":
    run(import_module("segment.analytics.client").Client(KEY, host=DOOR))
