"""Series of the Hub as they are published: each kind of name is swept without an option, and is read right."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import time
from typing import TYPE_CHECKING

import pytest
import yaml
from huggingface_hub import HfApi, constants
from sweep_outputs import content_of, files_of

import lmsat_plugin
from lmsat_plugin import hub as hub_module
from lmsat_plugin.errors import LmsatError, PassingError
from lmsat_plugin.results.origins import Naming
from lmsat_plugin.series.finding import find_series
from lmsat_plugin.series.on_hub import find_on_hub
from lmsat_plugin.series.selection import select
from lmsat_plugin.sweeps import summary
from lmsat_plugin.sweeps.config import SweepConfig
from lmsat_plugin.sweeps.downloads import make_downloads
from lmsat_plugin.sweeps.plan import Plan
from lmsat_plugin.sweeps.store import Store
from lmsat_plugin.sweeps.verification import verify

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from fake_hub import FakeHub

# From each repository to its branches with the seed of the weights, and what is to be read: run, stage, step, tokens
# and words.
BRANCHES = {
    "stages": {
        "stage1-step1000-tokens3B": (0, None, "stage1", 1000, 3e9, None),
        "stage1-step20000-tokens42B": (1, None, "stage1", 20_000, 42e9, None),
        "stage2-ingredient1-step1000-tokens5B": (2, "ingredient1", "stage2", 1000, 5e9, None),
        "stage2-ingredient2-step1000-tokens5B": (3, "ingredient2", "stage2", 1000, 5e9, None),
    },
    "seeds": {
        "step1250-seed-default": (0, "default", None, 1250, None, None),
        "step1250-seed-small-aux-2": (1, "small-aux-2", None, 1250, None, None),
        "step5000-seed-default": (2, "default", None, 5000, None, None),
    },
    "words": {"chck_9M": (0, None, None, None, None, 9e6), "chck_10M": (1, None, None, None, None, 10e6)},
    "tokens": {"train_00220B": (0, None, None, None, 220e9, None), "train_02400B": (1, None, None, None, 24e11, None)},
}
TAGS = {"global_step1000": (0, None, None, 1000, None, None), "global_step20000": (1, None, None, 20_000, None, None)}
FOLDERS = {
    "folders": {"step-0020": (0, None, None, 20, None, None), "step-0100": (1, None, None, 100, None, None)},
    "nested": {
        "seed1/step20/hf": (0, "seed1", None, 20, None, None),
        "seed2/step20/hf": (1, "seed2", None, 20, None, None),
    },
}
COMMITS = {"Saving HF Model -- Step 0": 2, "Saving HF Model -- Step 1000": 0}
NO_CHECKPOINTS = ("main", "fp16", "gguf", "4bit")
COLUMNS = ["run", "stage", "step", "tokens", "words"]


@pytest.fixture
def hub(empty_hub, random_checkpoint, tmp_path):
    """Return a Hub with a repository of each kind."""
    folders = [random_checkpoint(seed, "gpt_neox") for seed in range(4)]
    for name, branches in BRANCHES.items():
        others = dict.fromkeys(NO_CHECKPOINTS, folders[3])
        empty_hub.branches[f"org/{name}"] = {**{b: folders[seed] for b, (seed, *_) in branches.items()}, **others}
    empty_hub.branches["org/tags"] = {"main": folders[3]}
    empty_hub.tags["org/tags"] = {tag: folders[seed] for tag, (seed, *_) in TAGS.items()}
    for name, paths in FOLDERS.items():
        root = tmp_path / "hub" / name
        for path, (seed, *_) in paths.items():
            shutil.copytree(folders[seed], root / path)
            if name == "folders":
                # The tokenizer lies in the root alone.
                for file in (root / path).glob("*token*"):
                    file.rename(root / file.name)
        (root / "README.md").write_text("A series.")
        empty_hub.branches[f"org/{name}"] = {"main": root}
    titles = [("initial commit", folders[3]), *((title, folders[seed]) for title, seed in COMMITS.items())]
    empty_hub.history["org/commits"] = [*titles, ("Saving Evaluation Results -- Step 1000", folders[0])]
    empty_hub.branches["org/commits"] = {"main": folders[1]}
    empty_hub.titles["org/commits"] = "Update README.md"
    empty_hub.forget()
    return empty_hub


@pytest.fixture
def sweep(tmp_path, warm_with_hub):
    """Return a function that sweeps repositories in a process of its own, by default for their heads."""

    def run(*models: object, arguments: tuple[str, ...] = (), **changes: object) -> subprocess.CompletedProcess:
        values = {"models": list(models), "tasks": ["lmsat_head"], "output": str(tmp_path / "out"), **changes}
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(values), "utf-8")
        return warm_with_hub.run("sweep", str(path), *arguments)

    return run


def table_of(output: Path) -> dict[tuple[str, str], tuple]:
    """Return run, stage, step, tokens and words of each checkpoint, by model and revision."""
    table = lmsat_plugin.load_results(str(output))
    rows = table.drop_duplicates(["model", "run", "revision"])
    values = rows[COLUMNS].astype(object).where(rows[COLUMNS].notna(), None)
    return {
        (model, revision, row[0]): row
        for model, revision, row in zip(
            rows.model, rows.revision, values.itertuples(index=False, name=None), strict=True
        )
    }


def weights_sent(hub: FakeHub) -> int:
    return sum(size for path, size in hub.sent.items() if path.endswith(".safetensors"))


def test_every_kind_of_series_is_swept_by_its_name(sweep, hub, tmp_path, random_checkpoint):
    done = sweep(
        *(f"org/{name}" for name in (*BRANCHES, "tags", *FOLDERS)),
        {"pretrained": "org/commits", "revisions": "commits"},
    )
    assert done.returncode == 0, done.stderr
    expected = {
        (f"org/{name}", revision, stated[0]): stated
        for name, branches in {**BRANCHES, "tags": TAGS}.items()
        for revision, (_, *stated) in branches.items()
    }
    for name, paths in FOLDERS.items():
        for path, (_, *stated) in paths.items():
            step = next(part for part in path.split("/") if part.startswith("step"))
            expected[f"org/{name}", step, stated[0]] = stated
    commits = {title: commit for commit, title, _ in hub.commits("org/commits")}
    for title in COMMITS:
        step = int(title.rpartition(" ")[2])
        expected["org/commits", commits[title], None] = [None, None, step, None, None]
    found = table_of(tmp_path / "out")
    assert found == {key: tuple(stated) for key, stated in expected.items()}

    # Four weights under all these names: each is fetched and measured once, and the numbers are those of the names.
    folders = [random_checkpoint(seed, "gpt_neox") for seed in range(4)]
    assert weights_sent(hub) == sum((folder / "model.safetensors").stat().st_size for folder in folders)
    documents = files_of(tmp_path / "out")
    seeds = {revision: seed for branches in (*BRANCHES.values(), TAGS) for revision, (seed, *_) in branches.items()}
    seeds |= {path: seed for paths in FOLDERS.values() for path, (seed, *_) in paths.items()}
    seeds |= {commits[title]: seed for title, seed in COMMITS.items()}
    values: dict[int, set[str]] = {}
    for document in documents.values():
        noted = document["config"]["lmsat"]["checkpoint"]
        seed = seeds[noted.get("subfolder", noted["revision"])]
        values.setdefault(seed, set()).add(json.dumps(document["results"]))
    assert [len(each) for each in values.values()] == [1] * 4
    assert len(set.union(*values.values())) == 4
    copied = [
        document for document in documents.values() if "same_files_as" in document["config"]["lmsat"]["checkpoint"]
    ]
    assert len(copied) == len(documents) - 4
    assert verify(tmp_path / "out").problems == []
    planned = sweep("org/stages", "org/words", arguments=("--dry-run",), output=str(tmp_path / "none"))
    assert "Checkpoints with the files of others, which are measured with these: 2." in planned.stdout
    assert "fp16" in planned.stdout
    assert not (tmp_path / "none").exists()


def test_equal_files_are_measured_once_and_recorded_as_if_they_had_been_measured(
    sweep, empty_hub, random_checkpoint, corpus_file, quiz, tmp_path
):
    first, second = (random_checkpoint(seed, "gpt_neox") for seed in (0, 1))
    empty_hub.branches["org/twins"] = {"step0": first, "step10": second, "step20": first, "main": second}
    empty_hub.forget()
    tasks = {
        "tasks": ["lmsat_loss", "lmsat_head", "quiz"],
        "include_path": str(quiz()),
        "corpus": str(corpus_file),
        "max_tokens": 300,
        "log_samples": True,
    }
    done = sweep("org/twins", **tasks)
    assert done.returncode == 0, done.stderr
    assert "3 measured" in done.stdout
    assert "Identical weights: org/twins step0, org/twins step20" in done.stdout
    assert weights_sent(empty_hub) == 2 * (first / "model.safetensors").stat().st_size
    alone = tmp_path / "alone"
    assert sweep({"pretrained": "org/twins", "revisions": "step20"}, **tasks, output=str(alone)).returncode == 0
    measured = content_of(alone)
    taken_over = {
        key: value for key, value in content_of(tmp_path / "out").items() if "/step20 " in key or key in measured
    }
    noted = [value["checkpoint"].pop("same_files_as", None) for value in taken_over.values() if isinstance(value, dict)]
    commit = empty_hub.commit("org/twins", "step0")
    assert noted[0] == {"model": "org/twins", "revision": "step0", "commit": commit}
    assert taken_over == measured
    documents = [
        next(
            document
            for path, document in files_of(root).items()
            if "/step20/" in path and "quiz" in document["results"]
        )
        for root in (tmp_path / "out", alone)
    ]
    for document in documents:
        document["config"]["lmsat"]["checkpoint"].pop("same_files_as", None)
        for key in ("run", "arrays", "samples_sha256", "file_sha256"):
            document["config"]["lmsat"].pop(key, None)
        document["config"].pop("batch_sizes")
        for key in ("date", "total_evaluation_time_seconds"):
            document.pop(key)
    assert documents[0] == documents[1]
    assert verify(tmp_path / "out").problems == []
    # What is measured again is measured, not taken from before.
    empty_hub.forget()
    forced = sweep("org/twins", **tasks, arguments=("--force",), keep=0)
    assert forced.returncode == 0, forced.stderr
    assert "3 measured" in forced.stdout
    assert weights_sent(empty_hub) >= (first / "model.safetensors").stat().st_size
    assert verify(tmp_path / "out").problems == []


def test_folders_of_other_programs_fail_by_themselves(sweep, empty_hub, random_checkpoint, tmp_path):
    root = tmp_path / "repository"
    shutil.copytree(random_checkpoint(0, "gpt_neox"), root / "step100")
    for path in ("global_step200/layer_01-model_00-model_states.pt", "iter_0000300/mp_rank_00/model_optim_rng.pt"):
        (root / path).parent.mkdir(parents=True)
        (root / path).write_bytes(b"shard")
    empty_hub.branches["org/shards"] = {"main": root}
    done = sweep("org/shards")
    assert done.returncode == 1
    assert "1 measured, 0 done before, 2 failed" in done.stdout
    for folder in ("global_step200", "iter_0000300"):
        assert f"org/shards at {folder}: its folder {folder} has no weights of transformers" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def in_process(monkeypatch, empty_hub):
    """Let this process take the fake for the Hub, for listings."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_module, "HfApi", lambda: HfApi(endpoint=empty_hub.url, token=False))
    empty_hub.forget()
    return empty_hub


def test_the_names_of_many_revisions_take_few_requests_and_little_time(in_process, tmp_path, monkeypatch):
    names = [f"stage1-step{1000 * n}-tokens{2 * n}B" for n in range(1, 1446)]
    in_process.branches["org/many"] = dict.fromkeys([*names, "main"], tmp_path)
    monkeypatch.setattr(in_process, "commit", lambda repository, name: hashlib.sha1(name.encode()).hexdigest())
    began = time.thread_time()
    series = find_series("org/many", wait=True)
    chosen = select(series.checkpoints, "log:20")
    assert time.thread_time() - began < 2
    assert [each.revision for each in select(series.checkpoints, "all")] == names
    assert (chosen[0].revision, chosen[-1].revision, len(chosen)) == (names[0], names[-1], 20)
    assert [(each.name, each.reason) for each in series.left_out] == [("main", "no checkpoint of the run")]
    assert sum(in_process.requests.values()) <= 3

    # Folders and commits are listed in pages.
    for number in range(30):
        (tmp_path / f"step{number}").mkdir()
        (tmp_path / f"step{number}" / "config.json").write_text("{}")
    in_process.branches["org/many"] = {"main": tmp_path}
    in_process.history["org/many"] = [(f"Training in progress, step {number}", tmp_path) for number in range(1, 30)]
    monkeypatch.setattr(in_process, "page_size", 12)
    assert [each.step for each in find_series("org/many").checkpoints if each.aside is None] == list(range(30))
    commits = find_series("org/many", commits=True)
    assert [each.step for each in commits.checkpoints] == list(range(1, 30))
    assert [each.reason for each in commits.left_out] == ["its title, 'Upload model', states no step, tokens or words"]


def test_a_dry_run_asks_for_the_sizes_of_some(in_process, tmp_path, monkeypatch):
    folders = [tmp_path / str(number) for number in range(4)]
    for number, folder in enumerate(folders):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"x" * (100 * number + 98))
    in_process.branches["org/sized"] = {f"step{number}": folder for number, folder in enumerate(folders)}
    in_process.branches["org/sized"]["step9"] = folders[0]
    monkeypatch.setattr(summary, "ASKED", 2)
    config = SweepConfig(models=["org/sized"], tasks=["lmsat_head"], output=tmp_path / "out")
    plan, store = Plan(config), Store(config.output)
    work = summary.count_work(plan, store, make_downloads(config, store.private), plan.jobs)
    # The mean of 100 and 200 bytes for the two that are not asked about; step9 has the files of step0.
    assert work["org/sized"].download_bytes == 300 + 2 * 150
    assert summary.describe_downloads(work) == [
        "The Hub was asked for the sizes of 2 checkpoints; 2 others are taken to be as large.",
        "Checkpoints with the files of others, which are measured with these: 1.",
    ]
    assert sum(count for path, count in in_process.requests.items() if "/revision/" in path) == 2
    assert not (tmp_path / "out").exists()


PCT = dict.fromkeys(("checkpoint_pct010", "checkpoint_pct100"))
LAYOUTS = {
    "per cent": ("checkpoint_pct010 checkpoint_pct100 tokenizer.json", PCT),
    "a model": (". checkpoint-500 checkpoint-1000 onnx", {"checkpoint-500": 500, "checkpoint-1000": 1000}),
    "one model": (". onnx checkpoint-500", {"main": None}),
    "two forms": ("run/step10/hf run/step10/fp16 run/step20/hf", {"step10": 10, "step20": 20}),
    "parts of one": ("unet vae model_index.json", {"main": None}),
    "bare numbers": ("1000 2000", {"1000": 1000, "2000": 2000}),
}


@pytest.mark.parametrize(("entries", "expected"), LAYOUTS.values(), ids=LAYOUTS)
def test_which_folders_are_checkpoints(in_process, tmp_path, entries, expected):
    for entry in entries.split():
        path = tmp_path / entry if entry.endswith(".json") else tmp_path / entry / "config.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    in_process.branches[f"org/{tmp_path.name}"] = {"main": tmp_path}
    found = select(find_series(f"org/{tmp_path.name}").checkpoints, "all")
    assert {each.revision: each.step for each in found} == expected


def test_titles_of_commits(in_process, tmp_path):
    """Of several that state one step, the one that holds the model is taken; a pattern reads others."""
    (tmp_path / "config.json").touch()
    titles = ("Saving Fabric Checkpoint -- Step 0", "Saving HF Model -- Step 0", "Saving Evaluation Results -- Step 0")
    in_process.branches["org/titles"] = {"main": tmp_path}
    in_process.history["org/titles"] = [(title, tmp_path) for title in titles]
    in_process.titles["org/titles"] = "at 7 of 9"
    commits = {title: commit for commit, title, _ in in_process.commits("org/titles")}
    [found] = find_on_hub("org/titles", Naming(), commits=True).checkpoints
    assert (found.step, found.commit) == (0, commits[titles[1]])
    [found] = find_series("org/titles", step_pattern=r"at (?P<step>\d+)", commits=True).checkpoints
    assert (found.step, found.commit) == (7, commits["at 7 of 9"])
    with pytest.raises(LmsatError, match="of its 4 commits none states a step in its title: set step_pattern"):
        find_series("org/titles", step_pattern=r"version (?P<step>\d+)", commits=True)
    with pytest.raises(LmsatError, match="is a folder, which has no commits"):
        find_series(str(tmp_path), commits=True)


def test_without_a_network_a_wrong_name_is_said_soon(monkeypatch, capsys):
    asked, slept = [], []

    def find(pretrained, *arguments, **named):
        asked.append(pretrained)
        raise PassingError("no answer", source="the server") from socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("lmsat_plugin.series.finding.find_on_hub", find)
    monkeypatch.setattr("time.sleep", slept.append)
    with pytest.raises(LmsatError, match="there is no folder my-modle, and the Hub cannot be reached"):
        find_series("my-modle", wait=True)
    assert asked == ["my-modle"] * 2
    assert sum(slept) < 3
