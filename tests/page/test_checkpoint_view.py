"""Arrays over training, and all that is known of a checkpoint, in Chromium with real mouse and keys."""

from __future__ import annotations

import csv
import io
import json
from urllib.parse import parse_qs

import numpy as np
import pytest
from chromium import BROWSER, Tab
from report_trees import HOSTILE, read_analyses
from result_trees import save_arrays, write_result

from lmsat_plugin.page.report import write_report

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
STEPS = (0, 10, 100, 1000)
LAYERS = np.arange(1, 13).reshape(4, 3) / 20
HEADS = np.arange(24.0).reshape(4, 2, 3)
# Where a cell of an array's panel is in the window: the panel, the checkpoint and the entry.
CELL = """((number, column, row) => {
    const panel = charts.arrays.panels[number];
    panel.canvas.scrollIntoView({ block: "center" });
    const box = panel.canvas.getBoundingClientRect();
    const [x, y] = panel.middle({ column, row });
    return [box.left + x, box.top + y];
})"""
TIP = "document.querySelector('.chart-tip').textContent"
CHECKPOINT = "document.querySelector('#checkpoint').innerText"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    for model, n_params, factor in (("large", 10**9, 2), (HOSTILE, 10**6, 1)):
        for place, step in enumerate(STEPS):
            losses = {"lmsat_loss": {"loss": (5.0 - place, 0.1)}, "quiz": {"acc": place / 4}}
            file = write_result(root, model, step, losses, n_params)
            stamped = file.with_name(f"results_2026-01-01T00-00-0{place}.json")
            file.rename(stamped)
            layers = {"mine/by_layer": factor * LAYERS[place], "mine/by_head": factor * HEADS[place]}
            save_arrays(stamped, layers | {"mine/gaps": np.array([1.0, np.nan, 3.0])})
            options = [{"arg_0": "which?", "arg_1": option} for option in (" <i>one</i>", " two")]
            sample = {
                **{"doc_id": 0, "arguments": options, "filtered_resps": [["-1", "False"], ["-2", "False"]]},
                **{"target": 1, "acc": 0.0, "filter": "none"},
            }
            lines = json.dumps(sample) + "\n"
            stamped.with_name(f"samples_quiz_2026-01-01T00-00-0{place}.jsonl").write_text(lines, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lmsat_plugin.page.report.write_figures", lambda *_: [])
        return write_report(read_analyses(root, tokens_per_step=None), root / "report")


@pytest.fixture(scope="module")
def shared(page):
    with Tab(page) as tab:
        yield tab
        assert tab.console == []


@pytest.fixture
def tab(shared, page):
    shared.open("about:blank")
    shared.open(page.as_uri())
    shared.ask("document.querySelector('#arrays').scrollIntoView()")
    shared.wait("charts.arrays.panels.length && charts.arrays.panels.every((panel) => panel.surface)")
    return shared


def test_a_heat_map_tells_each_models_own_values(tab):
    assert tab.ask("charts.arrays.select.value") == "mine/by_head"
    tab.ask("charts.view.change({ array: 'mine/by_layer' })")
    titles = tab.ask("charts.arrays.panels.map((panel) => panel.title.textContent)")
    assert titles == [HOSTILE, "large"]
    for number, factor in enumerate((1, 2)):
        tab.mouse("mouseMoved", *tab.ask(f"{CELL}({number}, 2, 1)"))
        tab.wait("!document.querySelector('.chart-tip').hidden")
        assert tab.ask(TIP) == f"step 100step100layer 1{factor * LAYERS[2, 1]:.5g}"
    # A cell has the colour of its value, the same one in both panels.
    least, most = tab.ask("[charts.arrays.panels[0].scale.low, charts.arrays.panels[1].scale.high]")
    assert (least, most) == (LAYERS.min(), 2 * LAYERS.max())
    colour = """((number, column, row) => {
        const { canvas, surface } = charts.arrays.panels[number];
        const [x, y] = charts.arrays.panels[number].middle({ column, row });
        return [...surface.ctx.getImageData(x * uPlot.pxRatio, y * uPlot.pxRatio, 1, 1).data].slice(0, 3);
    })"""
    share = (0.5 - least) / (most - least)
    stated = tab.ask(f"charts.arrays.colours.at({share}).match(/\\d+/g).map(Number)")
    assert tab.ask(f"{colour}(0, 3, 0)") == tab.ask(f"{colour}(1, 1, 1)") == stated
    tab.click(tuple(tab.ask(f"{CELL}(1, 2, 1)")))
    assert parse_qs(tab.ask("location.hash.slice(1)"))["point"] == ["large~step100"]


def test_lines_gaps_hidden_models_and_two_axes(tab):
    tab.ask("charts.view.change({ array: 'mine/gaps', as: 'lines', hidden: new Set(['large']) })")
    assert tab.ask("charts.arrays.panels.length") == 1
    assert "4 values are not finite: left blank." in tab.ask("charts.arrays.panels[0].note.textContent")
    assert tab.ask("charts.arrays.isLines")
    tab.ask("charts.view.change({ array: 'mine/by_head', hidden: new Set() })")
    # An array of two axes has no lines.
    assert not tab.ask("charts.arrays.isLines")
    tab.mouse("mouseMoved", *tab.ask(f"{CELL}(0, 3, 5)"))
    tab.wait("!document.querySelector('.chart-tip').hidden")
    assert tab.ask(TIP) == f"step 1,000step1000layer, head 1, 2{HEADS[3, 1, 2]:g}"


def test_keys_read_arrays_and_the_view_can_be_taken_away(tab):
    tab.ask("charts.view.change({ array: 'mine/by_layer' })")
    tab.wait("charts.arrays.panels.every((panel) => panel.surface && panel.array.name === 'mine/by_layer')")
    tab.ask("document.querySelector('#arrays .charts').focus()")
    for key in ("End", "ArrowUp", "ArrowUp"):
        tab.press(key)
    said = tab.ask("document.querySelector('.aside').textContent")
    assert said == f"{HOSTILE}, step 1,000, layer 2, {LAYERS[3, 2]:g}"
    tab.press("PageDown")
    assert tab.ask("document.querySelector('.aside').textContent").startswith("large, step 1,000, layer 2, 1.2")
    tab.ask("void (window.save = (blob, name) => { window.saved = [blob, name]; })")
    tab.click("#figure-arrays .menu summary")
    tab.click("#figure-arrays .menu li:nth-child(2) button")
    rows = list(csv.DictReader(io.StringIO(tab.ask("saved[0].text()"))))
    own = [float(row["value"]) for row in rows if row["model"] == "large"]
    assert own == pytest.approx(2 * LAYERS.ravel())
    assert rows[-1] | {"value": ""} == {
        **{"array": "mine/by_layer", "model": "large", "checkpoint": "step1000", "training step": "1000"},
        **{"entry": "2", "value": ""},
    }
    tab.press("Enter")


def test_a_checkpoint_with_its_arrays_questions_and_command(tab, page):
    tab.open("about:blank")
    tab.open(page.as_uri() + "#point=large~step1000")
    tab.wait("!document.querySelector('#checkpoint').hidden")
    said = tab.ask(CHECKPOINT)
    assert "2 ± 0.1" in said
    labels = tab.ask("[...document.querySelectorAll('#checkpoint canvas')].map((one) => one.ariaLabel)")
    assert labels == [
        "mine/by_head: 6 entries, from 36 to 46",
        "mine/by_layer: 3 entries, from 1 to 1.2",
        "mine/gaps: 3 entries, from 1 to 3",
    ]
    # e^-1 to e^-2, and the name of an option is text.
    assert "0.731 <i>one</i>" in said
    assert "0.269 two (the right one)" in said
    assert "wrong" in said
    assert "lm_eval --model lmsat --model_args pretrained=large,revision=step1000 --tasks" in said
    links = tab.ask("[...document.querySelectorAll('#checkpoint a')].map((one) => decodeURIComponent(one.href))")
    names = [link.rpartition("/")[2] for link in links]
    assert names == ["results_2026-01-01T00-00-03.json", "samples_quiz_2026-01-01T00-00-03.jsonl"]
    tab.click("#checkpoint button")
    assert parse_qs(tab.ask("location.hash.slice(1)"))["point"] == ["large~step100"]
    # The page has questions of the first, the best and the last.
    said = tab.ask(CHECKPOINT)
    assert "The page has questions of these checkpoints" in said
    assert "step1000 (" in said
    assert tab.ask("document.querySelectorAll('#checkpoint i').length") == 0
