"""Wait for the revision that a command requested."""

import time
from typing import TYPE_CHECKING, Final

from infra.cli.progress import progress

if TYPE_CHECKING:
    from infra.adapters.postgres.control import PostgresControl
    from infra.app.session import Session

TRIES: Final = 3_000  # tenths of a second without progress: a swap of 400,000 profiles takes more than a minute


def await_revision_of(here: "Session", control: "PostgresControl", revision: int) -> int:
    """Build it here, or wait for the running worker, with progress on stderr. The revision that is live afterwards."""
    from infra.app.drain import drain
    from processors.rebuild.definitions import await_revision

    with progress(at_once=False) as bar:

        def tell(done: float) -> None:
            bar(f"building revision {revision}, percent", round(done * 100), 100)

        if here.joined:
            return await_revision(control, revision, tell, lambda: time.sleep(0.1), TRIES)
        drain(here, lambda _text: tell(control.revision(revision).done))
        return await_revision(control, revision, tell, lambda: None, 1)
