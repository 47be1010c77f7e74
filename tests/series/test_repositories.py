"""Series made of several repositories or folders: braces, lists and globs of names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from checkpoint_folders import make_checkpoint, places
from huggingface_hub import constants

from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results.checkpoint_names import without_place
from lmsat_plugin.series.finding import find_series
from lmsat_plugin.series.repositories import expand
from lmsat_plugin.sweeps.config import load_config

if TYPE_CHECKING:
    from pathlib import Path

TINY = "TinyLlama-1.1B-intermediate-step"


@pytest.fixture
def lists(empty_hub, warm_with_hub):
    """Return a function that lists a series of the Hub as the command does: model, revision, run, step, tokens."""

    def lists(*arguments: str) -> list[tuple]:
        done = warm_with_hub.run("checkpoints", *arguments, "--json")
        assert done.returncode == 0, done.stderr
        keys = ("model", "pretrained", "revision", "run", "step", "tokens")
        return [tuple(row[key] for key in keys) for row in json.loads(done.stdout)]

    empty_hub.forget()
    return lists


def hold(hub, tmp_path: Path, **repositories: list[str]) -> None:
    """Let the Hub hold repositories with these branches, each with a content of its own."""
    for name, branches in repositories.items():
        hub.branches[name] = {each: make_checkpoint(tmp_path / "hub" / name / each) for each in branches}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("org/m-seed{1..3}", ["org/m-seed1", "org/m-seed2", "org/m-seed3"]),
        ("org/m-{08..10}", ["org/m-08", "org/m-09", "org/m-10"]),
        ("org/{a,b}-{1..2}", ["org/a-1", "org/a-2", "org/b-1", "org/b-2"]),
        (["org/b", "org/a", "org/b"], ["org/b", "org/a"]),
        (["org/m", "org/m-seed{1..2}"], ["org/m", "org/m-seed1", "org/m-seed2"]),
        ("org/m", ["org/m"]),
    ],
)
def test_names_of_several(given, names):
    assert expand(given) == names


@pytest.mark.parametrize(
    "given",
    [
        *("org/m{}", "org/m{9..1}", "org/m{a}", "org/m{,}", "org/m{1..999999999999}", "org/{1..9999}{1..9999}"),
        *("./m-*", "m*", "*/m", []),
    ],
)
def test_patterns_of_nothing_are_one_sentence(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LmsatError, match="pretrained=") as error:
        expand(given)
    assert "\n" not in str(error.value)
    assert ": " in str(error.value)


def test_a_folder_of_that_very_name_is_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("[red] {1..2}", "r*"):
        make_checkpoint(tmp_path / name / "step1")
        assert expand(name) == [name]
        assert places(find_series(name)) == ["step1 - - 1"]


def test_names_without_their_places():
    for name, bare in {
        "pythia-410m-seed3": "pythia-410m",
        "pythia-160m-data-seed1": "pythia-160m",
        f"{TINY}-1431k-3T": "TinyLlama-1.1B",
        f"{TINY}-955k-token-2T": "TinyLlama-1.1B",
        "TinyLlama-1.1B-step-50K-105b": "TinyLlama-1.1B",
        "OLMo-1B-0724-hf": "OLMo-1B-0724-hf",
        "run_seed_2_wide": "run-wide",
        "seed1": "",
        "1000": "",
    }.items():
        assert without_place(name) == bare


def test_folders_of_several_runs(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2, 10):
        for step in (5, 20):
            make_checkpoint(tmp_path / f"m-seed{seed}" / f"step{step}")
    expected = [f"m-seed{seed}/step{step} seed{seed} - {step}" for seed in (1, 2, 10) for step in (5, 20)]
    for given in ("m-seed*", "m-seed{1,2,10}", ["m-seed10", "m-seed1", "m-seed2"], str(tmp_path / "m-*")):
        found = find_series(given)
        assert places(found) == expected
        assert {each.model for each in found.checkpoints} == {"m"}
    # One that is not there is said, and the others are taken.
    found = find_series("m-seed{1..3}", name="mine")
    assert places(found) == expected[:4]
    assert found.checkpoints[0].model == "mine"
    assert found.left_out == [("m-seed3", "it cannot be had")]
    [warning] = [record.message for record in caplog.records]
    assert warning.startswith("pretrained=m-seed3: there is no such folder")
    # Where the names do not tell the runs apart, the whole names do.
    for name in ("wide", "deep"):
        make_checkpoint(tmp_path / "both" / name / "step5")
    found = find_series("both/*")
    assert places(found) == ["deep/step5 deep - 5", "wide/step5 wide - 5"]
    assert found.checkpoints[0].model == "both"
    with pytest.raises(LmsatError, match="no name in common: give one with `name`"):
        find_series(["both/wide", "m-seed1"])
    # Checkpoints of one folder.
    found = find_series("m-seed1/step*")
    assert places(found) == ["step5 - - 5", "step20 - - 20"]
    assert found.checkpoints[0].model == "m-seed1"


def test_a_repository_for_each_seed(empty_hub, tmp_path, lists):
    names = [f"org/small-seed{seed}" for seed in (1, 2, 3)]
    hold(empty_hub, tmp_path, **{name: ["main", "step5", "step10"] for name in [*names, "org/small"]})
    rows = lists("org/small-seed{1..3}", "--revisions", "all", "--tokens-per-step", "2")
    assert rows == [
        ("org/small", f"org/small-seed{seed}", f"step{step}", f"seed{seed}", step, 2 * step)
        for seed in (1, 2, 3)
        for step in (5, 10)
    ]
    # A glob asks the Hub once which there are.
    empty_hub.forget()
    assert lists("org/small-seed*", "--revisions", "all", "--tokens-per-step", "2") == rows
    assert empty_hub.requests["GET /api/models"] == 1
    assert sum(empty_hub.requests.values()) == 4
    [only] = {row[3] for row in lists("org/small-seed2")}
    assert only == "seed2"


def test_a_repository_for_each_checkpoint(empty_hub, tmp_path, lists):
    names = [f"org/{TINY}-{place}" for place in ("1431k-3T", "955k-token-2T", "50k-105b")]
    hold(empty_hub, tmp_path, **{name: ["main"] for name in [*names, "org/TinyLlama-1.1B-Chat"]})
    model = "org/TinyLlama-1.1B"
    assert lists(f"org/{TINY}-*") == [
        (model, name, name.removeprefix("org/"), None, step, tokens)
        for name, step, tokens in zip(
            reversed(names), (50_000, 955_000, 1_431_000), (105 * 10**9, 2 * 10**12, 3 * 10**12), strict=True
        )
    ]


def test_offline_a_glob_takes_what_is_cached(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for number, name in enumerate(("m-seed1", "m-seed2", "other")):
        cache, commit = tmp_path / f"models--org--{name}", str(number) * 40
        (cache / "refs").mkdir(parents=True)
        (cache / "refs" / "step5").write_text(commit)
        (cache / "snapshots" / commit).mkdir(parents=True)
    assert places(find_series("org/m-*")) == ["m-seed1/step5 seed1 - 5", "m-seed2/step5 seed2 - 5"]


def test_what_is_not_on_the_hub(empty_hub, tmp_path, warm_with_hub):
    hold(empty_hub, tmp_path, **{"org/one-seed1": ["step5"]})
    done = warm_with_hub.run("checkpoints", "org/one-seed{1..2}")
    assert done.returncode == 0
    assert "the Hub has no org/one-seed2, or it is private" in done.stderr
    assert "the others are taken without it" in done.stderr
    assert "Left out: org/one-seed2 (it cannot be had)" in done.stdout
    for given, says in (
        ("org/nothing-{1..2}", "none of the 2 models can be had"),
        ("org/nothing-*", "the Hub has no repository of such a name"),
        ("org/one-seed{}", "stands for no name"),
    ):
        done = warm_with_hub.run("checkpoints", given)
        assert done.returncode == 2
        assert says in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr


def test_a_sweep_of_seeds_on_the_hub(empty_hub, save, tmp_path, configure, warm_with_hub, capsys):
    for seed in (1, 2):
        (tmp_path / f"seed{seed}").mkdir()
        folders = {f"step{step}": save(tmp_path / f"seed{seed}" / f"step{step}", seed * step) for step in (1, 3)}
        empty_hub.branches[f"org/tiny-seed{seed}"] = folders
    model = {"pretrained": "org/tiny-seed{1..2}", "tokens_per_step": 10}
    config = configure(models=[model], tasks=["lmsat_head"])
    assert load_config(config).models[0].pretrained == "org/tiny-seed{1..2}"
    done = warm_with_hub.run("sweep", str(config))
    assert done.returncode == 0, done.stderr
    assert "4 measured" in done.stdout
    assert main(["results", str(tmp_path / "out"), "--format", "json", "--metric", "stable_rank"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["model"], row["run"], row["step"], row["tokens"]) for row in rows] == [
        ("org/tiny", run, step, 10 * step) for run in ("seed1", "seed2") for step in (1, 3)
    ]
    assert len({row["value"] for row in rows}) == 4
    assert main(["verify", str(tmp_path / "out")]) == 0
    again = warm_with_hub.run("sweep", str(config))
    assert "0 measured, 4 done before" in again.stdout
