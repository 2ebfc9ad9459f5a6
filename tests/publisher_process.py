"""`python -m tests.publisher_process DSN VAULT_DSN [GRANTED]`: the publish role in its own process, until SIGTERM.

Takes its settings from the environment. Prints "ready" to stdout.
"""

import os
import signal
import sys
from contextlib import closing

from infra.app import settings as reading
from infra.app.adapters import build
from infra.app.bootstrap import arm_failpoint
from infra.app.session import Session
from infra.app.stop_signals import stop_at
from infra.drivers.process import publish_role
from schemas.reads import Deployment
from tests.reading_world import DEPLOYMENT


def main(dsn: str, vault_dsn: str, granted: str = "") -> None:
    settings = reading.load(os.environ)
    arm_failpoint(settings, "publish")
    stop = stop_at(signal.SIGTERM)
    with closing(Session(settings, build(settings), dsn, vault_dsn, None, Deployment(**DEPLOYMENT))) as session:
        names = frozenset(filter(None, granted.split(",")))
        publish_role.run(session, stop, lambda: print("ready", flush=True), names)


if __name__ == "__main__":
    main(*sys.argv[1:])
