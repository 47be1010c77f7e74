"""What the page's charts draw: the values of the result files, and no others."""

from __future__ import annotations

import hashlib
import json
import math
from importlib.resources import files

import pytest
from html_page import Page
from report_trees import HOSTILE, MODELS, read_analyses
from result_trees import STEPS, TOKENS_PER_STEP, write_result

from lmsat_plugin.page import chart_data as module
from lmsat_plugin.page.chart_data import chart_data
from lmsat_plugin.page.numbers import number
from lmsat_plugin.page.report import _SCRIPTS, _assets


def values_of(content: dict, name: str) -> dict[tuple[str, str], tuple[float | None, float | None]]:
    """Return a metric's values and errors by model and checkpoint, as a reader of the page takes them apart."""
    place = [metric["name"] for metric in content["metrics"]].index(name)
    found = {}
    for model, numbers, values, errors in content["values"][place]:
        names = content["models"][model]["names"]
        for i, value in enumerate(values):
            key = content["models"][model]["name"], names[numbers[i] if numbers else i]
            assert key not in found
            found[key] = value, errors[i] if errors else None
    return found


@pytest.fixture(scope="module")
def content(report):
    return Page((report / "index.html").read_text("utf-8")).charts


def test_every_value_is_that_of_its_file(tree, content):
    seen = 0
    by_metric = {metric["name"]: values_of(content, metric["name"]) for metric in content["metrics"]}
    for file in tree.glob("*/*/results_*.json"):
        data = json.loads(file.read_text("utf-8"))
        checkpoint = data["config"]["lmsat"]["checkpoint"]
        for task, entry in data["results"].items():
            for key, value in entry.items():
                if not key.endswith(",none") or "_stderr" in key:
                    continue
                metric = key.removesuffix(",none")
                shown, error = by_metric[f"{task} {metric}"][checkpoint["model"], checkpoint["revision"]]
                assert shown == pytest.approx(value, rel=1e-6)
                stderr = entry[f"{metric}_stderr,none"]
                assert (error is None and stderr == "N/A") or error == pytest.approx(stderr, rel=0.005)
                seen += 1
    derived = by_metric.pop("downstream score above chance")
    assert seen == sum(map(len, by_metric.values())) == len(MODELS) * len(STEPS) * 10
    # One task of chance 0.25 alone: its accuracy above chance.
    accuracies = values_of(content, "arc_easy acc")
    for key, (average, _) in derived.items():
        assert average == pytest.approx((accuracies[key][0] - 0.25) / 0.75, abs=1e-6)


def test_places_on_all_axes(content):
    for model in content["models"]:
        assert model["axis"] == "step"
        assert model["at"] == list(STEPS)
        assert model["tokens"] == [step * TOKENS_PER_STEP for step in STEPS]
        made = next(one for one in MODELS if one.name == model["name"])
        assert model["parameters"] == made.n_params * 9 // 10
    assert [name for name, *_ in content["groups"]] == [made.name for made in MODELS]


def test_verdicts_say_what_they_leave_out(tree, content):
    by_model = {content["models"][verdict["model"]]["name"]: verdict for verdict in content["verdicts"]}
    assert set(by_model) == {made.name for made in MODELS}
    found = by_model[HOSTILE]
    assert found["verdict"] == "saturates"
    assert content["metrics"][found["metric"]]["name"] == "lmsat_loss loss"
    # A hundredth of 12,000 steps is 120: the first checkpoint from there on is step 128.
    assert found["from"] == 128
    low, high = found["onset"][1:]
    assert low <= found["onset"][0] <= high
    at, best = found["best"]
    losses = {
        name: value for (model, name), (value, _) in values_of(content, "lmsat_loss loss").items() if model == HOSTILE
    }
    assert losses[f"step{at}"] == pytest.approx(best, rel=1e-6)
    assert best == min(value for name, value in losses.items() if int(name.removeprefix("step")) >= 128)


def test_gaps_places_that_are_unknown_and_control_characters(tmp_path):
    """Values that are not finite are null; names of people's files stay names."""
    strange = 'a\x1b[31m\u202eb<i>"'
    for step, loss in ((0, 9.0), (5, math.nan), (10, 4.0)):
        write_result(tmp_path, strange, step, {"lmsat_loss": {"loss": loss}, "mine": {"odd": math.inf}})
    write_result(tmp_path, "single", 3, {"lmsat_loss": {"loss": (2.0, 0.1)}})
    for name in ("main", "final"):
        path = write_result(tmp_path, "placeless", 0, {"lmsat_loss": {"loss": 5.0}})
        text = path.read_text("utf-8").replace("step0", name).replace('"step": 0', '"step": null')
        (tmp_path / f"{name}.json").write_text(text, "utf-8")
        path.unlink()
    found = chart_data(read_analyses(tmp_path, tokens_per_step=None)).content
    named = {model["name"]: model for model in found["models"]}
    shown = 'a\\x1b[31m\\u202eb<i>"'
    assert set(named) == {shown, "single", "placeless"}
    losses = values_of(found, "lmsat_loss loss")
    assert [losses[shown, f"step{step}"][0] for step in (0, 5, 10)] == [9, None, 4]
    assert losses["single", "step3"] == (2, 0.1)
    assert named["placeless"]["at"] == [None, None]
    assert [value for value, _ in values_of(found, "mine odd").values()] == [None] * 3
    assert named["single"]["tokens"] == 0
    json.dumps(found, allow_nan=False)


def test_other_corpora_are_metrics_too(tmp_path):
    """The verdicts are on one corpus; the charts have the others beside it."""
    for step in (1, 2, 3):
        for corpus, factor in (("prose", 1.0), ("code", 2.0), ("a<b>", 3.0)):
            write_result(tmp_path, "m", step, {"lmsat_loss": {"loss": (factor * step, 0.1)}}, 10**6, corpus=corpus)
    found = chart_data(read_analyses(tmp_path, "prose")).content
    assert values_of(found, "lmsat_loss loss") == {("m", f"step{step}"): (step, 0.1) for step in (1, 2, 3)}
    assert values_of(found, "lmsat_loss on code loss") == {("m", f"step{step}"): (2 * step, 0.1) for step in (1, 2, 3)}
    assert values_of(found, "lmsat_loss on a<b> loss")["m", "step3"] == (9, 0.1)
    assert [metric["unit"] for metric in found["metrics"]] == ["nats per token"] * 3


def test_more_metrics_than_have_room(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "VALUES", 40)
    for step in (1, 2):
        values = {f"task{i}": {"acc": 0.5, "other": 0.1 * i} for i in range(30)}
        write_result(tmp_path, "m", step, {"lmsat_loss": {"loss": 3.0 / step}, **values})
    found = chart_data(read_analyses(tmp_path)).content
    names = [metric["name"] for metric in found["metrics"]]
    assert len(names) + found["left_out"] == 61
    assert sum(len(values) for lines in found["values"] for _, _, values, _ in lines) <= 40
    assert "lmsat_loss loss" in names
    # Of each task the first metric has room before any task's second.
    assert sum(name.endswith(" acc") for name in names) > sum(name.endswith(" other") for name in names) == 0


@pytest.mark.parametrize(
    ("value", "digits", "written"),
    [(3.0, 7, "3"), (0.1234567891, 7, "0.1234568"), (math.nan, 7, "null"), (-math.inf, 7, "null"), (1e22, 15, "1e+22")],
)
def test_numbers_are_short(value, digits, written):
    assert json.dumps(number(value, digits)) == written


def test_uplot_is_the_published_one():
    """The digests are those of the files in the package uplot 1.6.32 of the npm registry."""
    folder = files("lmsat_plugin.page") / "assets" / "uplot"
    lines = (folder / "VERSION.txt").read_text("utf-8").splitlines()[2:]
    assert [line.split()[1] for line in lines] == ["LICENSE", "uPlot.iife.min.js", "uPlot.min.css"]
    for line in lines:
        digest, name = line.split()
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert lines[1].startswith("19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f")


def test_scripts_end_no_script():
    """They stand in the page as they are."""
    scripts = _assets("uplot/uPlot.iife.min.js", *(f"{name}.js" for name in _SCRIPTS))
    assert "</script" not in scripts
    assert "<!--" not in scripts
