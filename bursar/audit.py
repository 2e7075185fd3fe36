"""`bursar audit`: the invariants of the books, checked on the live database."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from bursar.desk import progress
from ledger import db
from ledger.audit import BREACHES_MAX, INVARIANTS, Finding, parts
from ledger.audit import audit as check
from ledger.audit.chain import CHAIN
from ledger.audit.invariant import Invariant
from ledger.audit.parts import Progress
from ledger.operators import Audit, AuditFinding, keep_audit
from runtime.settings import settings


def audit(
    as_json: Annotated[bool, typer.Option("--json", help="For machines: one JSON object on standard output.")] = False,
    chain: Annotated[bool, typer.Option("--chain", help="The hash chain over transfers, and nothing else.")] = False,
    resume: Annotated[
        Path | None, typer.Option(help="In parts, which this file keeps: it is made, and gone when all are done.")
    ] = None,
) -> None:
    """Verify the books: every invariant, the hash chain among them, on one snapshot, while the service runs.

    A large ledger wants --resume FILE: parts of a second each instead of one snapshot, which holds back vacuum. Ctrl-C
    stops it; the same command goes on. Each part is right at its own moment (docs/cli.md). Reads only, and repairs
    nothing; what it found is kept for the dashboard. Exits with 1 and the rows where one is broken, with 2 where it
    could not look.
    """
    engine = db.engine(settings().database_url.get_secret_value(), application="bursar-audit", statement_timeout_ms=0)
    began, began_at = time.monotonic(), datetime.now(UTC)
    invariants = CHAIN if chain else INVARIANTS
    try:
        findings = _on_one_snapshot(engine, invariants) if resume is None else _in_parts(engine, invariants, resume)
        if not chain:
            _keep(engine, findings, at=began_at, took_ms=int(1_000 * (time.monotonic() - began)))
    except (OperationalError, InterfaceError) as error:
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


def _on_one_snapshot(engine: Engine, invariants: Sequence[Invariant]) -> list[Finding]:
    with progress(len(invariants), "invariants") as bar:
        done = iter(range(len(invariants)))
        return check(engine, invariants, told=lambda _: bar(next(done)))


def _in_parts(engine: Engine, invariants: Sequence[Invariant], file: Path) -> list[Finding]:
    """From the file on, if it is there; it is written anew after each part."""
    try:
        audited = msgspec.json.decode(file.read_bytes(), type=Progress) if file.exists() else None
        if audited is None:
            audited = parts.begin(engine, [invariant.number for invariant in invariants])
        with progress(len(audited.parts), "parts") as bar:
            bar(audited.done)
            parts.go_on(engine, audited, done=lambda now: (_write(file, now), bar(now.done)))
        file.unlink(missing_ok=True)
        return audited.findings
    except parts.Another as another:
        typer.echo(f"{file} is of another audit ({another}): name another file, or remove this one.", err=True)
    except msgspec.MsgspecError:
        typer.echo(f"{file} is not what an audit keeps: name another file.", err=True)
    except OSError as error:
        typer.echo(f"Cannot keep the parts in {file}: {error.strerror}.", err=True)
    raise typer.Exit(2)


def _write(file: Path, audited: Progress) -> None:
    """Whole or not at all, whenever it is killed."""
    new = file.with_name(f"{file.name}.new")
    new.write_bytes(msgspec.json.encode(audited))
    new.replace(file)


def _keep(engine: Engine, findings: list[Finding], *, at: datetime, took_ms: int) -> None:
    """For the dashboard. An audit that cannot be kept was one all the same."""
    found = [AuditFinding(each.number, each.name, each.checked, len(each.breaches)) for each in findings]
    try:
        keep_audit(engine, Audit(at, took_ms, found))
    except DBAPIError as error:
        typer.echo(f"What was found is not kept for the dashboard: {str(error.orig).strip()}", err=True)


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
