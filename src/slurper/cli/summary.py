"""The summary of a copy that has ended or was stopped."""

from __future__ import annotations

from dataclasses import asdict

from slurper.cli import console
from slurper.cli.copy_result import SKIPPED, CopyResult
from slurper.printable import printable


def as_json(result: CopyResult) -> dict[str, object]:
    """Return the summary for other programs."""
    counts = result.counts
    return {
        "job": result.job_id,
        "status": result.status,
        "resumed": result.resumed,
        "objects": counts.objects,
        "transferred": counts.transferred,
        "skipped": counts.skipped,
        "skipped_by": result.left.skipped,
        "failed": counts.failed,
        "bytes": counts.transferred_bytes,
        "seconds": round(result.seconds, 3),
        "halt": result.halt,
        "capabilities": asdict(result.capabilities),
        "failures": [
            {"key": entry.object_key, "message": entry.message}
            for entry in result.left.failed_entries
        ],
    }


def print_text(result: CopyResult, prefix: str) -> None:
    """Print the summary for people. `prefix` is that of the source."""
    from rich import filesize

    counts, now, left = result.counts, result.copied_now, result.left
    seconds = max(result.seconds, 1e-3)
    table = console.table("", ":", "")
    table.show_header = False
    table.add_row(
        "transferred", f"{counts.transferred:,}", filesize.decimal(counts.transferred_bytes)
    )
    reasons = ", ".join(f"{SKIPPED[reason]} {count:,}" for reason, count in left.skipped.items())
    table.add_row("skipped", f"{counts.skipped:,}", reasons)
    table.add_row("failed", f"{counts.failed:,}", "")
    table.add_row(
        "rate",
        f"{now.objects / seconds:,.0f} objects/s",
        f"{now.transferred_bytes / seconds / 1e6:,.1f} MB/s",
    )
    out = console.out()
    again = " (went on with an earlier run)" if result.resumed else ""
    out.print(f"{result.status} in {result.seconds:.1f} s{again}", soft_wrap=True)
    console.print_table(table)
    if lost := result.capabilities.target.unkept_headers:
        out.print(f"the target does not keep {', '.join(lost)}: no copy has them", soft_wrap=True)
    if result.status == "completed" and not counts.objects:
        begun = f"begins with {console.shown(prefix)}" if prefix else "is in the source"
        out.print(f"no object {begun}", soft_wrap=True)
    for entry in left.failed_entries:
        key = console.shown(entry.object_key or "")
        out.print(f"failed: {key}: {printable(entry.message or '')}", soft_wrap=True)
    if counts.failed > len(left.failed_entries):
        out.print(f"... and {counts.failed - len(left.failed_entries):,} more")
    if result.halt is not None:
        console.err().print(
            f"error: the copy could not go on: {printable(result.halt)}\n"
            "       put that right and run the same command again; it goes on where it stopped",
            soft_wrap=True,
        )
