"""Proposes a mapping for files: opens the first, reads its first rows, and shows what would become of them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from ingest.files.notes import Notes
from ingest.files.propose import propose
from ingest.files.rows import preview
from ingest.files.sample import SAMPLE_ROWS, Proposal, Sample, Setting
from ingest.files.table_files import open_tables
from ingest.files.tables import Layout
from schemas.mapping_reading import read_mapping

SHOWN: Final = 3  # events of a preview


class Proposed(NamedTuple):
    """A proposal with its YAML, the first events it makes (`preview`), and what was noticed in the file."""

    proposal: Proposal
    yaml: str
    preview: list[dict[str, Any]]
    warnings: list[dict[str, Any]]

    @property
    def usable(self) -> bool:
        return not self.proposal.missing

    def as_json(self) -> dict[str, Any]:
        """For pages: the mapping as data and as text, and everything a person needs to judge it."""
        return {
            "mapping": self.proposal.mapping,
            "yaml": self.yaml,
            "usable": self.usable,
            "missing": [problem._asdict() for problem in self.proposal.missing],
            "remarks": self.proposal.remarks,
            "columns": self.proposal.columns,
            "preview": self.preview,
            "warnings": self.warnings,
        }


def propose_for(files: Sequence[Path], setting: Setting) -> Proposed:
    """The mapping that fits the first of the files best. Raises BadRequest for a file that cannot be read."""
    notes = Notes()
    tables = open_tables(files[0], None, Layout(), notes)
    table, form = max(tables, key=lambda each: len(each[0].columns))
    rows = [line.values for line in islice(table.rows(table.columns), SAMPLE_ROWS) if line.refused is None]
    modified = datetime.fromtimestamp(files[0].stat().st_mtime, UTC)
    layout = table.layout if len(tables) > 1 else table.layout._replace(sheet=None)
    proposal = propose(Sample(_stem(files[0]), form, table.columns, rows, layout, modified), setting)
    text = as_yaml(proposal.mapping)
    shown = [] if proposal.missing else preview(files, read_mapping(text, "the proposal"), SHOWN, setting.now)
    told = [note.as_json() for each in (notes, table.notes) for note in each.all()]
    return Proposed(proposal, text, shown, told)


def as_yaml(mapping: dict[str, Any]) -> str:
    """A mapping as people write it: short parts in one line."""
    text: str = yaml.safe_dump(mapping, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    return text


def _stem(path: Path) -> str:
    """A file's name without its endings: sales.csv.gz is sales."""
    name = path.name
    for _ in range(3):
        head, dot, ending = name.rpartition(".")
        if not dot or not head or len(ending) > 7:
            break
        name = head
    return name
