"""`bursar audit`: the invariants of the books, checked on the live database."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import OperationalError

from ledger import db
from ledger.audit import BREACHES_MAX, INVARIANTS, Finding
from ledger.audit import audit as check
from ledger.audit.chain import CHAIN
from runtime.settings import settings


def audit(
    as_json: Annotated[bool, typer.Option("--json", help="For machines: one JSON object on standard output.")] = False,
    chain: Annotated[bool, typer.Option("--chain", help="The hash chain over transfers, and nothing else.")] = False,
) -> None:
    """Verify the books: every invariant, the hash chain among them, on one snapshot, while the service runs.

    Reads only, and repairs nothing. Exits with 1 and the rows where one is broken, with 2 where it could not look.
    """
    engine = db.engine(settings().database_url.get_secret_value(), application="bursar-audit", statement_timeout_ms=0)
    try:
        findings = check(engine, CHAIN if chain else INVARIANTS)
    except OperationalError as error:
        typer.echo(f"The database does not answer: {str(error.orig).strip()}", err=True)
        raise typer.Exit(2) from error
    finally:
        engine.dispose()
    if as_json:
        typer.echo(json.dumps(_report(findings), default=str))
    else:
        _print(findings)
    if not all(finding.holds for finding in findings):
        raise typer.Exit(1)


def _report(findings: list[Finding]) -> dict[str, Any]:
    return {
        "holds": all(finding.holds for finding in findings),
        "invariants": [
            {
                "number": finding.number,
                "name": finding.name,
                "holds": finding.holds,
                "checked": finding.checked,
                "breaches": finding.breaches,
                "truncated": finding.truncated,
                "note": finding.note,
            }
            for finding in findings
        ],
    }


def _print(findings: list[Finding]) -> None:
    out = Console()
    table = Table("", "invariant", "checked", "broken by")
    for finding in findings:
        broken = f"{'more than ' if finding.truncated else ''}{len(finding.breaches)}"
        verdict = "[green]holds[/]" if finding.holds else f"[red bold]{broken}[/]"
        table.add_row(str(finding.number), finding.name, f"{finding.checked:,}", verdict)
    out.print(table)
    for finding in findings:
        if finding.note:
            out.print(f"{finding.number}: {finding.note}.")
        if finding.holds:
            continue
        rows = Table(*finding.breaches[0], title=f"{finding.number}: {finding.name}", title_style="red")
        for breach in finding.breaches:
            rows.add_row(*(str(value) for value in breach.values()))
        out.print(rows)
        if finding.truncated:
            out.print(f"… and more than these {BREACHES_MAX}.")
