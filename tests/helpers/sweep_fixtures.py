"""Series of tiny checkpoints, and configurations of sweeps over them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import yaml
from fake_hub import FakeHub, hub_environment
from quiz import write_quiz
from tiny_models import make_model
from warm_lmsat import WarmLmsat, shared

from lmsat_plugin.harness.command import quiet

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session", autouse=True)
def _quiet():
    quiet()


@pytest.fixture(scope="session")
def random_checkpoint(tokenizer, tmp_path_factory):
    """Return a function that returns the folder of a random checkpoint; another seed, other weights."""
    folders: dict[tuple[str, int], Path] = {}

    def random_checkpoint(seed: int, name: str) -> Path:
        if (name, seed) not in folders:
            folders[name, seed] = folder = tmp_path_factory.mktemp("random")
            make_model(name, seed).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        return folders[name, seed]

    return random_checkpoint


@pytest.fixture(scope="session")
def save(random_checkpoint):
    """Return a function that saves a random checkpoint."""

    def save(folder: Path, seed: int, name: str = "gpt_neox") -> Path:
        # Written beside and moved, so that a folder is there only when it is whole.
        hidden = folder.with_name(f".{folder.name}")
        shutil.copytree(random_checkpoint(seed, name), hidden, copy_function=shutil.copyfile)
        return hidden.rename(folder)

    return save


@pytest.fixture
def run_folder(tmp_path, save) -> Path:
    """Return a folder with three checkpoints."""
    folder = tmp_path / "run"
    folder.mkdir()
    for index, step in enumerate((0, 10, 100)):
        save(folder / f"step{step}", index)
    return folder


@pytest.fixture
def quiz(tmp_path):
    """Return a function that writes the files of a multiple-choice task, and returns their folder."""

    return lambda version=1: write_quiz(tmp_path / "quiz", version=version)


@pytest.fixture
def configure(tmp_path, run_folder, corpus_file):
    """Return a function that writes a sweep's configuration; a None leaves a key out."""

    def write(**changes) -> Path:
        values = {
            "models": [str(run_folder)],
            "tasks": ["lmsat_loss", "lmsat_head"],
            "corpus": str(corpus_file),
            "max_tokens": 600,
            "output": str(tmp_path / "out"),
            "device": "cpu",
            **changes,
        }
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in values.items() if v is not None}), "utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def empty_hub():
    """Return a stand-in for the Hub to which tests add repositories."""
    hub = FakeHub({})
    yield hub
    hub.close()


@pytest.fixture(scope="session")
def warm_with_hub(empty_hub, tmp_path_factory):
    """Return what runs commands in processes of their own that take the fake for the Hub."""
    folder = tmp_path_factory.mktemp("commands")
    warm = WarmLmsat(folder, hub_environment(empty_hub, folder / "home"))
    yield warm
    warm.close()


@pytest.fixture
def start():
    """Return a function that starts a sweep, or a script that runs one, in a process that does not outlive the test."""
    started = []

    def start(config: Path, *arguments: str, script: Path | None = None):
        started.append(shared().start(*([str(script)] if script else []), "sweep", str(config), *arguments))
        return started[-1]

    yield start
    for running in started:
        running.send(9)
        running.wait()
