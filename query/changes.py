"""The change feed for its readers: numbered changes in order, by an opaque cursor, with a way to wait for new ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from query.cursors import END_OF_BATCH, FeedPlace, feed_cursor, feed_place
from schemas.changes import change_body
from schemas.errors import BadRequest, Problem
from schemas.reads import ChangeRow, FeedGrowth, Reads

TYPES: Final = ("profile", "segment", "lifecycle", "risk", "identity", "erased")
Answer = dict[str, Any]


class Page(NamedTuple):
    """`next` continues after this page; it advances even if the page is empty, so that nothing is read twice."""

    items: list[Answer]
    next: str

    def answer(self) -> Answer:
        return {"items": self.items, "next": self.next}


@dataclass(frozen=True)
class Changes:
    """Reads the feed; any thread may call."""

    reads: Reads

    def page(self, after: str | None, limit: int, types: Sequence[str] = ()) -> Page:
        """Up to `limit` changes after a cursor, without waiting. Raises BadRequest for an invalid cursor or type."""
        place = feed_place(after)
        for type_ in types:
            if type_ not in TYPES:
                raise BadRequest("not a type of change", [Problem("type", f"must be one of {', '.join(TYPES)}")])
        rows, top = self.reads.changes(place.seq, place.idx, limit, types)
        # Only committed batches are numbered, so a page that is not full has seen everything up to `top`.
        end = FeedPlace(rows[-1].seq, rows[-1].idx) if len(rows) == limit else FeedPlace(top, END_OF_BATCH)
        return Page([change(row) for row in rows], feed_cursor(max(place, end)))

    def follow(
        self, notifier: FeedGrowth, after: str | None, types: Sequence[str] = (), limit: int = 1_000
    ) -> Iterator[Page]:
        """Endless pages, each as soon as there is something new. Blocks its thread while waiting."""
        while True:
            seen = notifier.count
            page = self.page(after, limit, types)
            after = page.next
            if page.items:
                yield page
            if len(page.items) < limit:
                notifier.wait(seen, 5.0)


def change(row: ChangeRow) -> Answer:
    """A change in the form the contract defines: the same as on the topics, with the place to continue from."""
    answer = change_body(row)
    cause = answer.pop("cause")
    return answer | {"cursor": feed_cursor(FeedPlace(row.seq, row.idx)), "cause": cause}
