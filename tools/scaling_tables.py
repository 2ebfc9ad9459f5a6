"""Recompute the tables of docs/scaling.md: `python tools/scaling_tables.py`, after changing the figures."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "scaling.md"


def main() -> None:
    """Update the page if its tables differ from the model's."""
    sys.path.insert(0, str(ROOT))
    from infra.cli.capacity_model import read_figures  # noqa: PLC0415  # after the path
    from infra.cli.capacity_tables import with_tables  # noqa: PLC0415

    page = PAGE.read_text(encoding="utf-8")
    made = with_tables(page, read_figures())
    if made != page:
        PAGE.write_text(made, encoding="utf-8")
        print(f"{PAGE.name} has new tables")


if __name__ == "__main__":
    main()
