"""`touchfold sql`: query the whole log, in a sandboxed process."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from infra.cli.options import DATA, JSON

if TYPE_CHECKING:
    from query.sql.results import SqlResult

FORMAT = Annotated[Literal["table", "json", "csv", "parquet"], typer.Option("--format", help="how to print the rows")]
LIMIT = Annotated[int | None, typer.Option("--limit", min=1, help="print at most this many rows", show_default=False)]

_HELP = """Run one read-only statement (DuckDB SQL) over the log and the tables folded from it.

Examples:

  touchfold sql "select type, count(*) from events group by type order by 2 desc"

  touchfold sql "select date_trunc('month', occurred_at) as month, sum(base_revenue) from orders group by 1 order by 1"

  touchfold sql "select m.segment, avg(p.revenue_90d) from memberships m join profiles p using (profile_id) group by 1"

`touchfold sql --tables` lists the tables and their columns. Times are UTC; no table holds personal data.
"""


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("sql", help=_HELP)(sql)


def sql(
    statement: Annotated[str | None, typer.Argument(help="the statement", show_default=False)] = None,
    form: FORMAT = "table",
    limit: LIMIT = None,
    tables: Annotated[bool, typer.Option("--tables", help="list the tables and their columns")] = False,
    data: DATA = None,
    as_json: JSON = False,
) -> None:
    from infra.app.archive import archive_of
    from infra.app.auditing import note_command
    from infra.app.bootstrap import session
    from infra.drivers.sql.process import run_sql

    if (statement is None) == (not tables):
        raise typer.BadParameter('give one statement, such as "select count(*) from events", or --tables')
    with session(data) as here:

        def run(text: str) -> "SqlResult":
            most = None if tables else limit
            return run_sql(
                text,
                dsn=here.dsn,
                archive=archive_of(here),
                kafka=here.adapters.kafka,
                limit=most,
                now=here.clock.now(),
            )

        if statement is None:
            _print_tables(
                [(name, type_) for name, type_, *_ in run("describe profiles").rows()], as_json or form == "json"
            )
            return
        result = run(statement)
        note_command(here, "sql.run", rows=result.table.num_rows)
    _print(result, "json" if as_json else form)
    for wait in result.left_out:
        typer.echo(f"left out: everything from {wait.place} on: {wait.reason}: upgrade this build", err=True)
    for warning in result.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if result.truncated:
        typer.echo(f"only the first {limit} rows are shown", err=True)


def _print_tables(profile_columns: list[tuple[str, str]], as_json: bool) -> None:
    """The tables; `profiles` with the computed traits of this deployment."""
    import json

    from query.sql.statements import TABLES, Column

    known = {column.name for column in TABLES["profiles"]}
    computed = [Column(name, type_, "computed trait") for name, type_ in profile_columns if name not in known]
    listed = {name: [*columns, *(computed if name == "profiles" else ())] for name, columns in TABLES.items()}
    if as_json:
        rows = [{"table": table, **column._asdict()} for table, columns in listed.items() for column in columns]
        typer.echo(json.dumps(rows, ensure_ascii=False))
        return
    for table, columns in listed.items():
        typer.echo(table)
        width = max(len(column.name) for column in columns)
        for column in columns:
            typer.echo(f"  {column.name:{width}}  {column.type:25} {column.meaning}".rstrip())
        typer.echo("")


def _print(result: "SqlResult", form: str) -> None:
    """Write the rows, and nothing else, to stdout."""
    import csv
    import sys

    from query.sql.results import csv_cell, text_table

    if form == "json":
        import msgspec

        encode = msgspec.json.Encoder().encode
        sys.stdout.write("[")
        for number, row in enumerate(result.objects()):
            sys.stdout.write((",\n" if number else "") + encode(row).decode())
        sys.stdout.write("]\n")
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(result.names)
        types = [type_ for _, type_ in result.columns]
        for values in result.rows():
            writer.writerow([csv_cell(value, type_) for value, type_ in zip(values, types, strict=True)])
    elif form == "parquet":
        _print_parquet(result)
    else:
        typer.echo(text_table(result.names, list(result.rows())))
        typer.echo(f"({result.table.num_rows} row{'' if result.table.num_rows == 1 else 's'})")


def _print_parquet(result: "SqlResult") -> None:
    import sys

    import pyarrow.parquet as pq

    from schemas.errors import BadRequest

    if sys.stdout.isatty():
        raise BadRequest("Parquet is binary: redirect it to a file, … --format parquet > rows.parquet")
    pq.write_table(result.table, sys.stdout.buffer, compression="zstd")
    sys.stdout.buffer.flush()
