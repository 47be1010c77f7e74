"""``lmsat sweep``: measure every checkpoint on every task, and go on after an interruption."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.arguments import add_steps, add_watch, check_watch
from lmsat_plugin.cli.command import Command
from lmsat_plugin.cli.sweep_end import live_page, show_end, wants_page
from lmsat_plugin.cli.tables import print_table
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.outside_text import show

if TYPE_CHECKING:
    from lmsat_plugin.sweeps.config import Options, SweepConfig
    from lmsat_plugin.sweeps.summary import Summary

_EXECUTORS = ("local", "processes", "slurm")


class SweepCommand(Command):
    """Measure series of checkpoints, by their names or as a YAML file says. What is measured is not measured again.

    A name alone stands for the tasks lmsat_loss, lmsat_anisotropy and lmsat_head on 20 checkpoints, evenly spaced on a
    log axis, with `--watch` on all. The results of a folder go beside it, into runs/my-model-results, those of a
    repository into results/pythia-160m, and those of several models together into results. The YAML file that the names
    stand for is printed first.

    At its end it prints a verdict on each model and the path of a page with the figures, which `lmsat report` explains.

    The exit code is 0 if everything is measured, 1 if a checkpoint failed or is left, 2 for bad input,
    130 after Ctrl-C.
    """

    name = "sweep"
    help = "measure a series of checkpoints; go on after an interruption"
    examples = (
        "lmsat sweep runs/my-model",
        "lmsat sweep EleutherAI/pythia-160m EleutherAI/pythia-410m --corpus pile --output results/pythia",
        "lmsat sweep configs/pythia.yaml --dry-run",
        "lmsat sweep run.yaml max_tokens=20000 --executor processes --workers 4",
    )
    repeats_warnings = True

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the configuration and how to run it."""
        parser.add_argument(
            "words",
            nargs="*",
            metavar="NAME|CONFIG.yaml|KEY=VALUE",
            help="folders and repositories of the Hub, or one configuration (see configs/), and keys of it to replace; "
            "metadata.SETTING is a single setting of a probe or a task",
        )
        parser.add_argument(
            "--tasks", nargs="+", action="extend", metavar="TASK", help="what to measure, as words or with commas"
        )
        parser.add_argument(
            "--probe",
            action="append",
            metavar="FILE.py",
            help="a file with a probe of your own, to measure too; may be given several times",
        )
        parser.add_argument(
            "--corpus", action="append", metavar="NAME", help="the text to measure on; may be given several times"
        )
        parser.add_argument(
            "--revisions",
            nargs="+",
            action="extend",
            metavar="SELECTION",
            help="which checkpoints, as a configuration's `revisions`: log:20, all, 'stage:1 log:20', step1000, ...",
        )
        parser.add_argument("--output", metavar="DIR", help="where the results go")
        parser.add_argument("--name", metavar="NAME", help="what the model is called in the results")
        add_steps(parser)
        parser.add_argument("--save", type=Path, metavar="FILE", help="keep the configuration as a YAML file")
        parser.add_argument("--dry-run", action="store_true", help="only show what would be done")
        parser.add_argument("--executor", choices=_EXECUTORS, help="where to run (default: the file's, or local)")
        parser.add_argument("--workers", type=int, metavar="N", help="processes, for --executor processes")
        parser.add_argument("--shard", type=_fraction, metavar="I/N", help="only part I of N of the checkpoints")
        parser.add_argument("--only", type=_checkpoint, metavar="MODEL@REVISION", help="only this checkpoint")
        parser.add_argument("--force", action="store_true", help="measure again what is measured already")
        parser.add_argument("--retry-failed", action="store_true", help="measure again what has failed")
        add_watch(parser, "measure checkpoints as they appear")
        parser.add_argument(
            "--report",
            action=argparse.BooleanOptionalAction,
            help="write the page with the results' figures, with --watch whenever results have come (default: written, "
            "unless LMSAT_REPORT=0)",
        )
        parser.add_argument("--wait", action="store_true", help="with slurm: wait until the jobs have ended")
        parser.add_argument("--worker", help=argparse.SUPPRESS)
        parser.add_argument("--run", dest="run_name", help=argparse.SUPPRESS)

    def run(self, args: argparse.Namespace) -> int:
        """Run the sweep, or one worker's part of it."""
        import lmsat_autoload

        lmsat_autoload.install()
        if args.worker is not None:
            from lmsat_plugin.sweeps.interrupts import end_with_parent

            end_with_parent()
        from lmsat_plugin.cli.sweep_arguments import read_arguments, save_config
        from lmsat_plugin.sweeps.config import Options, config_to_yaml

        config, is_of_names = read_arguments(args)
        chosen = {name: getattr(args, name) for name in ("shard", "only", "force", "retry_failed", "watch")}
        options = Options(**chosen, **({"run": args.run_name} if args.run_name else {}))
        if args.watch is not None:
            check_watch(args.watch)
        if args.watch is not None and config.executor != "local":
            raise LmsatError(f"--watch does not go with the executor {config.executor}: leave one of them out")
        # Only the first of several processes reports.
        silent = args.worker is not None or os.environ.get("RANK", "0") != "0"
        if args.save is not None and not silent:
            save_config(config, args.save)
        if is_of_names and not silent:
            show(config_to_yaml(config))
        if args.dry_run:
            _show_plan(config, options)
            return 0
        page = wants_page(args.report) and not silent
        if not silent and sys.stderr.isatty():
            show("loading tasks", file=sys.stderr)
        try:
            with nullcontext() if args.watch is None or not page else live_page(config, args.watch):
                summary = _execute(config, options, args)
        except KeyboardInterrupt:
            if args.worker is None:
                again = shlex.join(["lmsat", *sys.argv[1:]])
                kept = f"what is measured is kept in {config.output}. Go on with: {again}"
                show(f"lmsat: interrupted; {kept}", file=sys.stderr)
            return 130
        if silent:
            return 0
        code = _report(config, summary)
        if summary.measured or summary.done_before:
            show_end(config, page=page)
        return code


def _execute(config: SweepConfig, options: Options, args: argparse.Namespace) -> Summary:
    """Run the sweep here, in several processes, or on Slurm."""
    if args.worker is not None or config.executor == "local":
        from lmsat_plugin.sweeps.local import run_sweep

        if args.worker is not None:
            options = replace(options, wait=False, prefix=f"worker {args.worker} ")
        return run_sweep(config, options)
    worker = _worker_options(options)
    if config.executor == "processes":
        from lmsat_plugin.sweeps.processes import run_processes

        return run_processes(config, options, worker)
    from lmsat_plugin.sweeps.slurm import run_slurm

    return run_slurm(config, options, worker, wait=args.wait)


def _fraction(text: str) -> tuple[int, int]:
    first, _, second = text.partition("/")
    if not (first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second)):
        raise argparse.ArgumentTypeError(f"{text} is not a part I/N: give for example 1/4 to 4/4")
    return int(first), int(second)


def _checkpoint(text: str) -> str:
    if "@" not in text:
        raise argparse.ArgumentTypeError(f"{text} is not MODEL@REVISION: see `lmsat sweep --dry-run`")
    return text


def _worker_options(options: Options) -> list[str]:
    """Return the options with which a worker runs its part of this sweep."""
    return [
        *("--executor", "local", "--run", options.run),
        *(("--force",) if options.force else ()),
        *(("--retry-failed",) if options.retry_failed else ()),
        *(("--shard", "/".join(map(str, options.shard))) if options.shard else ()),
        *(("--only", options.only) if options.only else ()),
    ]


def _show_plan(config: SweepConfig, options: Options) -> None:
    from lmsat_plugin.series.checkpoint import describe_left_out
    from lmsat_plugin.sweeps.downloads import make_downloads
    from lmsat_plugin.sweeps.jobs import choose_jobs
    from lmsat_plugin.sweeps.plan import Plan
    from lmsat_plugin.sweeps.store import Store
    from lmsat_plugin.sweeps.summary import count_work, describe_downloads

    plan = Plan(config)
    store = Store(config.output)
    jobs = choose_jobs(plan.jobs, options)
    work = count_work(plan, store, make_downloads(config, store.private), jobs)
    tasks: list[tuple[Any, ...]] = []
    for batch in plan.batches:
        read = batch.corpus.corpus, batch.corpus.max_tokens or "all"
        tasks += [(unit.task, *(read if unit.reads_corpus else ("", "")), unit.num_fewshot) for unit in batch.units]
    print_table("Tasks", ("task", "corpus", "tokens", "shots"), tasks)
    rows = [
        (model, n.checkpoints, n.results, n.done, n.failed, n.todo, round(n.download_bytes / 1e9, 2))
        for model, n in work.items()
    ]
    columns = "model", "checkpoints", "results", "done", "failed", "to do", "GB to download"
    print_table(f"Results in {config.output}", columns, rows)
    for line in describe_downloads(work):
        show(line)
    for series in plan.series:
        if left_out := describe_left_out(series.left_out):
            show(left_out if len(plan.series) == 1 else f"{series.checkpoints[0].model}: {left_out}")


def _report(config: SweepConfig, summary: Summary) -> int:
    """Print how many checkpoints are measured, left and failed. Return the exit code."""
    from lmsat_plugin.results.failures import is_diverged

    parts = [f"{summary.measured} measured", f"{summary.done_before} done before"]
    if left := summary.elsewhere + len(summary.left):
        parts.append(f"{left} left")
    if summary.failed:
        parts.append(f"{len(summary.failed)} failed")
    for same in summary.identical:
        show(f"Identical weights: {', '.join(same)}")
    for label, reason in list(summary.failed.items())[:20]:
        show(f"Failed: {label}: {reason}", file=sys.stderr)
    for label, reason in list(summary.left.items())[:20]:
        show(f"Left: {label}: {reason}", file=sys.stderr)
    show(f"Checkpoints: {', '.join(parts)}. Results: {config.output}")
    if not all(map(is_diverged, summary.failed.values())):
        print("Try the failed ones again with --retry-failed.", file=sys.stderr)
    return 1 if summary.failed or left else 0
