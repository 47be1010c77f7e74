"""Series of the Hub as they are published: each kind of name is swept without an option, and is read right."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import yaml

import lmsat_plugin

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

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


def test_every_kind_of_series_is_swept_by_its_name(sweep, hub, tmp_path):
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
