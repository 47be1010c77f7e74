"""The leaderboard as a data set of the Hub."""

from __future__ import annotations

import pandas as pd
import pytest
import yaml
from report_trees import read_analyses
from result_trees import write_result

from lmsat_plugin import load_results
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import PART
from lmsat_plugin.ranking.hub_folder import push, write_hub_folder


def test_hub_folder(tree, board, tmp_path):
    write_result(tree, "org/m4", 12000, {"gsm8k": {"exact_match": (0.0123, 0.003)}}, 4**4 * 10**6)
    folder = tmp_path / "hub"
    write_hub_folder(board, read_analyses(tree), folder)
    _, matter, text = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    card = yaml.safe_load(matter)
    named = {one["config_name"]: one["data_files"][0]["path"] for one in card["configs"]}
    ranked = pd.read_parquet(folder / named["leaderboard"])
    assert ranked.model.tolist() == [row["model"] for row in board.rows]
    assert ranked.loss.tolist() == pd.read_csv(folder / "leaderboard.csv").loss.tolist()
    results = pd.read_parquet(folder / named["results"])
    assert set(results.revision) == {"step12000"}
    assert set(results.model) == set(ranked.model)
    assert "<script" not in text
    hub = pytest.importorskip("huggingface_hub")
    (path,) = folder.rglob("*.yaml")
    assert path.relative_to(folder).as_posix() == "eval_results/org/m4/.eval_results/gsm8k_none.yaml"
    (entry,) = hub.parse_eval_result_entries(yaml.safe_load(path.read_text("utf-8")))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("openai/gsm8k", "gsm8k", 1.23)
    assert load_results(folder / "results" / "org" / "m4").model.unique().tolist() == ["org/m4"]
    assert all(path.resolve().is_relative_to(folder.resolve()) for path in folder.rglob("*"))


class FakeApi:
    def __init__(self, error=None):
        self.calls, self.error = [], error

    def create_repo(self, repo_id, **more):
        self.calls.append(("create", repo_id, more))

    def upload_folder(self, **more):
        if self.error is not None:
            raise self.error
        self.calls.append(("upload", more["repo_id"], more))


def test_push(tmp_path):
    api = FakeApi()
    push(tmp_path, "org/board", api)
    assert [call[:2] for call in api.calls] == [("create", "org/board"), ("upload", "org/board")]
    assert all(call[2]["repo_type"] == "dataset" for call in api.calls)
    assert api.calls[1][2]["folder_path"] == tmp_path
    with pytest.raises(LmsatError, match="cannot be pushed to org/board \\(no token\\): `hf auth login`"):
        push(tmp_path, "org/board", FakeApi(ValueError("no token\nmore")))


def test_half_written_files_are_neither_kept_nor_uploaded(tree, board, tmp_path):
    from huggingface_hub.utils import filter_repo_objects

    strays = [tmp_path / "results/org/gone" / f".results_0.json.abc{PART}", tmp_path / f".README.md.abc{PART}"]
    for stray in strays:
        stray.parent.mkdir(parents=True, exist_ok=True)
        stray.write_text("{")
    api = FakeApi()
    push(tmp_path, "org/board", api)
    names = [str(stray.relative_to(tmp_path)) for stray in strays]
    assert not list(filter_repo_objects(names, ignore_patterns=api.calls[1][2]["ignore_patterns"]))
    write_hub_folder(board, read_analyses(tree), tmp_path)
    assert not any(stray.exists() for stray in strays)
