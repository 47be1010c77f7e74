"""The model of lm-eval that the tests evaluate, and small data in the place of the network."""

from __future__ import annotations

import csv
import json

import datasets
import pytest
from downstream_data import CLOZET, KBQA, LOGIQA, hub, write_ceval

from lmsat_plugin.harness import releases
from lmsat_plugin.harness.model import SaturationLM


@pytest.fixture
def model_args(checkpoint):
    return {"pretrained": str(checkpoint("gpt_neox")), "dtype": "float32", "device": "cpu"}


@pytest.fixture
def lm(model_args):
    return SaturationLM(**model_args, batch_size=2)


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Serve `hub`, LogiQA's text and C-Eval's archive in place of the network; return what was asked for."""
    asked: list[tuple[str, str | None]] = []
    data = hub()

    def load_dataset(path, name=None):
        asked.append((path, name))
        return data[path, name]

    def download(manager, urls):
        assert not manager.download_config.use_etag
        asked.append((urls["test"].removesuffix("/Test.txt"), None))
        assert [url.rsplit("/", 1)[1] for url in urls.values()] == ["Train.txt", "Eval.txt", "Test.txt"]
        assert list(urls) == ["train", "validation", "test"]
        (tmp_path / "logiqa.txt").write_text(LOGIQA, "utf-8")
        return dict.fromkeys(urls, str(tmp_path / "logiqa.txt"))

    def hf_hub_download(path, name, repo_type):
        asked.append((path, name))
        assert repo_type == "dataset"
        return write_ceval(tmp_path / "ceval.zip")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets.DownloadManager, "download", download)
    monkeypatch.setattr(releases, "hf_hub_download", hf_hub_download)
    return asked


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    """Return the metadata that names the files of the tasks that have any."""
    (tmp_path / "kbqa.txt").write_text("".join(KBQA.format(i) for i in range(1, 8)), "utf-8")
    (tmp_path / "clozet.jsonl").write_text(f"{json.dumps(CLOZET)}\n\n{json.dumps({**CLOZET, 'label': 0})}\n")
    with (tmp_path / "stories.csv").open("w", newline="", encoding="utf-8-sig") as file:
        names = ["InputStoryid", *(f"InputSentence{i}" for i in range(1, 5))]
        names += ["RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2", "AnswerRightEnding"]
        csv.writer(file).writerows([names, ["a", "One, two.", "B.", "C.", "D.", "Good.", "Bad.", 2]])
    paths = {"nlpcc_kbqa": "kbqa.txt", "clozet": "clozet.jsonl", "storycloze": "stories.csv"}
    return {key: str(tmp_path / name) for key, name in paths.items()}
