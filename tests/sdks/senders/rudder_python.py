"""rudder-sdk-python as it comes, but for the host; gzip and traits inside the context are its defaults."""

from importlib import import_module

from tests.sdks.senders.python_common import DOOR, KEY, run

if __name__ == "__main__":
    run(import_module("rudderstack.analytics.client").Client(KEY, host=DOOR))
