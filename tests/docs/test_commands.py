"""Every command, snippet and configuration of the documentation runs, in a folder with small things of their names."""

from __future__ import annotations

import functools
import os
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import matplotlib as mpl
import pytest
import yaml
from documentation import PAGES, Command, commands_of, snippets_of
from lm_eval._cli.harness import HarnessCLI
from lm_eval.tasks.manager import TaskIndex
from places import ROOT
from reader_folder import lay_out

import lmsat_autoload
from lmsat_plugin import probe_checks
from lmsat_plugin.cli.guide import GROUPS
from lmsat_plugin.cli.main import main
from lmsat_plugin.cli.parser import build_parser
from lmsat_plugin.harness.lm_eval_index import LM_EVAL_TASKS, lm_eval_index
from lmsat_plugin.harness.result_document import cached_environment
from lmsat_plugin.plugins import plugins
from lmsat_plugin.sweeps.config import SweepConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lm_eval.tasks._index import Entry

lmsat_autoload.install()
_BUILD = TaskIndex.build

NOT_RUN = {
    r"(\.venv/bin/)?lmsat demo": "trains for minutes; tests/cli/test_demo.py runs it",
    r"lmsat (report|sweep) .*--watch": "goes on until it is ended; tests/cli/test_report_watch.py ends one",
    r"lm_eval .*--tasks (lmsat-pythia|lmsat-emergence|lmsat-emergence-hub|arc_easy)\b": "its data are on the Hub",
    r"lmsat report (demo/results|all)": "is the report of another page, which takes seconds",
    r"lmsat eval .*--tasks lambada_openai": "its data are on the Hub",
    r"lmsat sweep .*--tasks lmsat_loss,arc_easy": "its data are on the Hub",
    r"lmsat ngram --config configs/godey-fig7.yaml": "its data are on the Hub",
    r"lmsat sweep run.yaml .*--executor processes": "starts four processes; tests/sweeps/test_processes.py does so",
    r"lmsat sweep .*--tasks lmsat_surprise": "needs the package that the command before it installs",
    r"lm_eval .*--tasks lmsat_principal_component": "needs the example installed; tests/test_plugins.py does so",
    r"pip ": "installs",
    r"make ": "installs, or needs a GPU",
}
"""Commands that no test of the documentation runs, with the reason; their arguments are checked."""
PLANNED = {
    r"lmsat sweep configs/pythia.yaml$": "measures terabytes",
    r"lmsat sweep 'EleutherAI/pythia-410m-seed\{1..9\}'": "measures nine models",
    r"lmsat sweep .*metadata.reference=other": "needs two runs with equal steps; tests/sweeps/test_references.py has",
}
"""Sweeps that run with --dry-run."""
SMALLER = {
    "train_tokens=5000000": "train_tokens=1100 max_tokens=500",
    "ranks=[32,64,128,256,512]": "ranks=[8,16]",
    "--corpus pile --output results/pythia": "--corpus text.jsonl --output pythia-results",
    "--corpus pile max_tokens=20000": "--corpus text.jsonl max_tokens=500",
    "report results": "report demo/results",
    "--probe mine.py --report": "--probe mine.py",
    "demo-long/checkpoints/*": "demo-long/checkpoints/fresh-w8",
    "saturation all --events": "saturation results/ --events",
    "convert runs/my-model/step-1000": "convert runs/other/step-1000",
}
"""What is given another value, so that a tiny model and a short text do."""
SNIPPETS_NOT_RUN = {"from megatron.bridge": "needs Megatron Bridge"}
COMPLETED = {
    "revisions": {"pretrained": "runs/named"},
    "rename": {"pretrained": "runs/other", "config": "runs/my-model-config"},
    "convert": {"pretrained": "runs/other"},
}
"""What keys of a model alone are completed with, by the first of them."""
READS = {command.name for group in ("Read", "Analyse", "Publish") for command in GROUPS[group]}
HERE = [page for page in PAGES if page.name != "tour.md"]
"""docs/tour.py runs the commands of the tour on both demonstrations, and stops where one fails."""


def reason_of(reasons: dict[str, str], text: str) -> str | None:
    return next((reason for pattern, reason in reasons.items() if re.match(pattern, text)), None)


def plain(text: str) -> str:
    """Return a command's text without what makes no difference to it."""
    return re.sub(r"/(?= |$)|\s+$", "", re.sub(r"  +", " ", text))


@functools.cache
def to_run() -> dict[str, list[Command]]:
    """Return by page the commands that run: of those that only read, each once."""
    seen: set[str] = set()
    pages: dict[str, list[Command]] = {}
    for page in HERE:
        pages[page.name] = []
        for command in commands_of(page):
            again = plain(command.text) in seen and command.arguments[0] in READS
            if not again and reason_of(NOT_RUN, command.text) is None:
                pages[page.name].append(command)
            seen.add(plain(command.text))
    return pages


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory, checkpoint, documents) -> Path:
    folder = tmp_path_factory.mktemp("reader")
    lay_out(folder, checkpoint("gpt_neox"), documents)
    return folder


@pytest.fixture
def place(laid_out, tmp_path, documents, monkeypatch) -> Iterator[Path]:
    """Change to a folder of the reader's own; the sample is short, and what lm-eval looks up is looked up once."""
    folder = tmp_path / "reader"
    shutil.copytree(laid_out, folder, copy_function=os.link)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("lmsat_plugin.text.corpora.sample_documents", lambda: iter(documents[:8]))
    # tests/test_probe_checks.py starts the other process.
    monkeypatch.setattr(probe_checks, "_on_two_processes", lambda probe: [probe_checks._measure(probe, 4)] * 2)
    monkeypatch.setattr(TaskIndex, "build", staticmethod(index_of))
    with cached_environment(), mpl.rc_context({"backend": "agg"}):
        yield folder
    plugins.cache_clear()


def index_of(paths: Sequence[Path]) -> dict[str, Entry]:
    """Return what ``TaskIndex.build`` does, without reading again the 14,000 files of lm-eval's own tasks."""
    first, *others = paths
    if first != LM_EVAL_TASKS:
        return _BUILD(paths)
    return {**lm_eval_index(), **_BUILD([Path(os.devnull), *lmsat_autoload.task_folders(), *others])}


@functools.cache
def known_tasks() -> set[str]:
    """Return the names of lm-eval's tasks, of lmsat's and of the example's."""
    return {*index_of([LM_EVAL_TASKS]), *_BUILD([Path(os.devnull), ROOT / "examples"])}


def run(command: Command, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command in this process, and return its exit code."""
    # Between tabs the words need no quotes.
    text = "\t".join(command.arguments)
    for written, small in SMALLER.items():
        text = text.replace(written.replace(" ", "\t"), small.replace(" ", "\t"))
    arguments = text.split("\t")
    if command.program == "lm_eval":
        arguments = ["eval", *arguments]
    if reason_of(PLANNED, command.text):
        arguments.append("--dry-run")
    with monkeypatch.context() as patch:
        for name, value in {"LMSAT_PROBES": "", **command.environment}.items():
            patch.setenv(name, value)
        plugins.cache_clear()
        return main(arguments)


@pytest.mark.parametrize("page", [name for name, commands in to_run().items() if commands])
def test_commands_run(page, place, monkeypatch, capsys):
    failed = []
    for command in to_run()[page]:
        assert command.program in ("lmsat", "lm_eval"), f"{command.text} is for NOT_RUN"
        code = run(command, monkeypatch)
        said = capsys.readouterr().err.strip().splitlines()
        if code:
            failed.append(f"{command.text}\n{said[-1] if said else ''}")
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_arguments_of_commands_that_do_not_run_are_known(page, monkeypatch):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for command in commands_of(page):
        if command.program == "lmsat":
            args, rest = build_parser().parse_known_args(command.arguments)
            # As `main` does: what is no option may be a word of a sweep's.
            rest = [word for word in rest if word.startswith("-") or not hasattr(args, "words")]
            assert args.passes_on or not rest, command.text
        if command.program == "lm_eval" or command.arguments[0] == "eval":
            words = [word for word in command.arguments if word not in ("...", "eval")]
            monkeypatch.setattr("sys.argv", ["lm_eval", "run", *words])
            for task in HarnessCLI().parse_args().tasks:
                assert task in known_tasks() or "*" in task or reason_of(NOT_RUN, command.text) is None, task
        if command.program == "make":
            assert command.arguments[0] in targets, command.text
        for word in command.arguments:
            if word.startswith(("configs/", "benchmarks/", "constraints")) and "NAME" not in word:
                assert (ROOT / word).exists(), word


def test_every_reason_is_for_a_command():
    texts = [command.text for page in PAGES for command in commands_of(page)]
    for pattern in (*NOT_RUN, *PLANNED):
        assert any(re.match(pattern, text) for text in texts), pattern
    for written in SMALLER:
        assert any(written in text for text in texts), written
    assert len(texts) > 150


def configurations() -> dict[str, str]:
    """Return the YAML of pages, and the configurations of the checkout."""
    written = {f"{page.name}-{n}": text for page in HERE for n, text in enumerate(snippets_of(page, "yaml"))}
    return {**written, **{path.name: path.read_text("utf-8") for path in sorted((ROOT / "configs").glob("*.yaml"))}}


@pytest.mark.parametrize("name", configurations())
def test_configurations_are_planned(name, place, capsys, monkeypatch):
    """What a page shows of a configuration is completed: with a model, or as a model of one."""
    text = configurations()[name].replace("!function ", "")
    values = yaml.safe_load(text)
    if "average:" in text:
        values = {"pretrained": "runs/my-model", **values}
    if "model" in values:
        monkeypatch.setattr("sys.argv", ["lm_eval", "run", "--config", str(ROOT / "configs" / name)])
        assert HarnessCLI().parse_args().config
        return
    if "tokenizers" in values or "class" in values:
        pytest.skip("needs the Hub" if "tokenizers" in values else "tests/test_plugins.py measures with it")
    if not values.keys() & SweepConfig.model_fields.keys():
        values = {"models": [{**COMPLETED.get(next(iter(values)), {}), **values}]}
    values = {"models": ["runs/my-model"], "tasks": ["lmsat_head"], "output": "planned", **values}
    (place / "planned.yaml").write_text(yaml.safe_dump(values), "utf-8")
    assert main(["sweep", "planned.yaml", "--dry-run"]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.startswith("Tasks")


def python_snippets() -> dict[str, str]:
    """Return the Python of pages, but for the hooks that tests/test_plugins.py registers."""
    pages = [page for page in HERE if page.name != "plugins.md"]
    return {f"{page.name}-{n}": code for page in pages for n, code in enumerate(snippets_of(page, "python"))}


@pytest.mark.parametrize("name", python_snippets())
def test_python_runs(name, place):
    code = compile(python_snippets()[name], name, "exec")
    if any(part in python_snippets()[name] for part in SNIPPETS_NOT_RUN):
        return
    module = ModuleType(name)
    module.Trainer = lambda *arguments, **named: named
    exec(code, vars(module))
