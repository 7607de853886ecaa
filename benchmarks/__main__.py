# SPDX-License-Identifier: Apache-2.0
"""The command line: ``python -m benchmarks``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from benchmarks import machine, measure, report, run
from benchmarks.cases import GROUPS


def _names(known: list[str], what: str) -> object:
    def check(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
        if value is None:
            return None
        names = [name.strip() for name in value.split(",")]
        for name in names:
            if name not in known:
                raise click.BadParameter(f"{name!r} is no {what}; there are {', '.join(known)}")
        return names

    return check


@click.command()
@click.option("--quick", is_flag=True, help="A few minutes: shorter and fewer rounds, marked as preliminary.")
@click.option("--only", metavar="GROUP,...", callback=_names(list(GROUPS), "group"), help=f"Of: {', '.join(GROUPS)}.")
@click.option("--peers", metavar="NAME,...", callback=_names(run.PEERS, "peer"), help=f"Of: {', '.join(run.PEERS)}.")
@click.option("--cpu", type=int, help="The processor to measure on; by default the last one.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to write the JSON.")
@click.option(
    "--report", "only_report", is_flag=True, help="Measure nothing: make the documents from the newest results."
)
def main(
    quick: bool, only: list[str] | None, peers: list[str] | None, cpu: int | None, out: Path | None, only_report: bool
) -> None:
    """Measure, write benchmarks/results/DATE-CPU.json, make docs/PERFORMANCE.md, its plots and the README's table from it.

    With --only or --peers the results are incomplete: they go to --out, or nowhere, and no document is made.
    """
    if not only_report:
        cpu = measure.usable_cpus()[-1] if cpu is None else cpu
        groups = set(only or GROUPS)
        names = [run.OURS, *(name for name in peers or run.PEERS if name != run.OURS)]
        results = run.Runner(run.Plan.make(quick), groups, names, cpu).run()
        complete = only is None and peers is None
        if out is None and complete:
            suffix = "-quick" if quick else ""
            out = report.RESULTS / f"{results['date'][:10]}-{machine.label(results['machine'])}{suffix}.json"
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            click.echo(f"wrote {out.name}")
        click.echo(report.losses_text(results))
        if not complete:
            return
    for path in report.write():
        click.echo(f"wrote {path.relative_to(run.ROOT)}")


if __name__ == "__main__":
    main()
