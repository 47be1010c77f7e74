"""The page's charts in Chromium, with real mouse and keys: what is drawn, what is said, what the address keeps."""

from __future__ import annotations

import csv
import io
import json
from base64 import b64decode
from urllib.parse import parse_qs

import numpy as np
import pytest
from chromium import BROWSER, Tab
from report_trees import HOSTILE, MODELS, read_analyses
from result_trees import STEPS, TOKENS_PER_STEP, write_result

from lmsat_plugin.analysis.checkpoint_values import over_runs, values_of
from lmsat_plugin.page.report import write_report

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
EXPLORER = "charts.explorer.figure"
DRAWN = f"{EXPLORER}.panels.every((panel) => panel.plot || panel.box.hidden)"
# Where a point of the explorer's first chart is in the window: the line's number, and the point's.
POINT = """((number, i) => {
    const panel = charts.explorer.figure.panels[0];
    panel.box.scrollIntoView({ block: "center" });
    const box = panel.plot.over.getBoundingClientRect();
    const line = panel.drawn[number];
    return [box.left + panel.plot.valToPos(line.x[i], "x"), box.top + panel.plot.valToPos(line.y[i], "y")];
})"""
ROWS = """[...document.querySelectorAll("#checkpoint tbody tr")].map((row) =>
    [...row.cells].map((cell) => cell.textContent))"""
SHOWN = f"{EXPLORER}.panels[0].drawn.map((line, i) => {EXPLORER}.panels[0].plot.series[i + 1].show)"


@pytest.fixture(scope="module")
def page(report):
    return report / "index.html"


@pytest.fixture
def tab(page):
    with Tab(page) as tab:
        tab.wait(DRAWN)
        yield tab
        assert tab.console == []


def address(tab: Tab) -> dict[str, list[str]]:
    return parse_qs(tab.ask("location.hash").removeprefix("#"))


def loss(tree, model: str, step: int) -> float:
    for file in tree.glob("*/*/results_*.json"):
        data = json.loads(file.read_text("utf-8"))
        checkpoint = data["config"]["lmsat"]["checkpoint"]
        if (checkpoint["model"], checkpoint["step"]) == (model, step):
            return data["results"]["lmsat_loss"]["loss,none"]
    raise KeyError(model)


def test_every_figure_over_training_is_a_chart(tab):
    """Each has a canvas, sooner or later, in the place of its image; the others keep theirs."""
    tab.wait("charts.figures.every((figure) => !figure.isStale && !figure.isBusy)")
    figures = tab.ask(
        """[...document.querySelectorAll("figure[data-panels]")].map((figure) => [
            figure.id, figure.querySelectorAll(".chart canvas").length, figure.querySelectorAll(".chart").length,
            getComputedStyle(figure.querySelector("img")).display,
        ])"""
    )
    assert len(figures) >= len(MODELS) + 4
    for name, canvases, charts, image in figures:
        assert canvases == charts > 0, name
        assert image == "none"
    cards = [name for name, *_ in figures if name.startswith("figure-card-")]
    assert len(cards) == len(MODELS)
    others = "document.querySelectorAll('.figures > figure:not([data-panels]) img')"
    assert tab.ask(f"[...{others}].every((image) => image.getBoundingClientRect().width > 100)")
    assert tab.ask(f"{others}.length") > 0
    # All checkpoints are drawn, the first hundredth of the run among them.
    assert tab.ask(f"{EXPLORER}.panels[0].drawn[0].x") == list(STEPS)


def test_hovering_tells_values_with_their_errors(tab, tree):
    point = tab.ask(f"{POINT}(0, 15)")
    tab.mouse("mouseMoved", *point)
    tab.wait("!document.querySelector('.chart-tip').hidden")
    said = tab.ask("document.querySelector('.chart-tip').textContent")
    step = STEPS[15]
    assert f"step {step:,}" in said
    for made in MODELS:
        assert f"{made.name} {loss(tree, made.name, step):.5g}".rstrip("0") in said
    assert said.count("± 0.006") == len(MODELS)
    # A checkpoint that the verdict leaves out says why.
    assert "left out" not in said
    tab.mouse("mouseMoved", *tab.ask(f"{POINT}(0, 2)"))
    tab.wait("document.querySelector('.chart-tip').textContent.includes('before a hundredth of the run')")


def test_a_card_has_one_cursor_and_one_zoom(tab):
    card = "charts.figures.find((figure) => figure.id.startsWith('card-'))"
    tab.ask(f"{card}.element.scrollIntoView({{ block: 'center' }})")
    tab.wait(f"{card}.panels.every((panel) => panel.plot)")
    left, top, width, height = tab.ask(
        f"(({{ left, top, width, height }}) => [left, top, width, height])"
        f"({card}.panels[1].plot.over.getBoundingClientRect())"
    )
    middle = top + height / 2
    tab.mouse("mouseMoved", left + width / 2, middle)
    tab.wait(f"{card}.panels.every((panel) => panel.readout.textContent)")
    tab.drag((left + 0.4 * width, middle), (left + 0.8 * width, middle))
    tab.wait("location.hash.includes('zoom=')")
    ranges = tab.ask(f"{card}.panels.map((panel) => [panel.plot.scales.x.min, panel.plot.scales.x.max])")
    assert all(each == ranges[0] for each in ranges)
    name, low, high = address(tab)["zoom"][0].split("~")
    assert name == tab.ask(f"{card}.id")
    assert [float(low), float(high)] == ranges[0]
    assert STEPS[0] < float(low) < float(high) < STEPS[-1]
    # The other figures are as they were.
    assert tab.ask(f"{EXPLORER}.frame.rangeX()[0]") < STEPS[0]
    tab.click((left + width / 2, middle), count=2)
    tab.wait("!location.hash.includes('zoom=')")
    assert tab.ask(f"{card}.panels[0].plot.scales.x.max") >= STEPS[-1]


def test_a_name_in_the_legend_hides_a_model_everywhere(tab, page):
    tab.click(".legend button:nth-child(1)")
    tab.wait("location.hash.includes('hide=')")
    assert address(tab) == {"hide": [HOSTILE]}
    assert tab.ask(SHOWN) == [False, True, True]
    assert tab.ask("charts.figures.filter((figure) => figure.element.hidden).map((figure) => figure.groups)") == [[0]]
    tab.click(".legend button:nth-child(1)")
    assert tab.ask("location.hash") == ""
    tab.click(".legend button:nth-child(3)", alt=True)
    assert address(tab) == {"only": ["plain"]}
    assert tab.ask(SHOWN) == [False, False, True]
    tab.click(".legend button:nth-child(1)", count=2)
    assert address(tab) == {"only": [HOSTILE]}
    # The address leads to the same view.
    tab.open("about:blank")
    tab.open(page.as_uri() + "#only=plain&only=nobody&x=tokens&y=log&zoom=explore~1e9~2e10&m=arc_easy+acc")
    tab.wait(DRAWN)
    assert tab.ask(SHOWN) == [False, False, True]
    assert tab.ask(f"[{EXPLORER}.frame.axis, {EXPLORER}.panels[0].kind.y, {EXPLORER}.panels[0].about.name]") == [
        "tokens", "log", "arc_easy acc",
    ]  # fmt: skip
    assert tab.ask(f"{EXPLORER}.frame.rangeX()") == [1e9, 2e10]
    # So does a link within the page, and the view stays.
    tab.ask("location.hash = '#values'")
    tab.wait("location.hash.includes('at=values')")
    assert address(tab)["only"] == ["plain"]


@pytest.mark.parametrize(
    ("axis", "last"),
    [
        ("tokens", STEPS[-1] * TOKENS_PER_STEP),
        ("flops", 6 * (MODELS[0].n_params * 9 // 10) * STEPS[-1] * TOKENS_PER_STEP),
        ("share", 1),
    ],
)
def test_axes(tab, axis, last):
    tab.ask(
        f"""(() => {{
            const select = document.querySelector("select[name=x]");
            select.value = "{axis}";
            select.dispatchEvent(new Event("change"));
        }})()"""
    )
    line = tab.ask(f"{EXPLORER}.panels[0].drawn[0].x")
    assert line[-1] == pytest.approx(last)
    assert np.allclose(np.array(line) / line[-1], np.array(STEPS) / STEPS[-1])
    low, high = tab.ask(f"(({{ min, max }}) => [min, max])({EXPLORER}.panels[0].plot.scales.x)")
    assert low <= line[0]
    assert high >= line[-1]


def test_a_figure_may_have_axes_of_its_own(tab):
    """The loss is drawn against tokens and against compute, whatever axis the page has; a zoom is of one of them."""
    figure = "charts.figures.find((figure) => figure.id === 'loss-by-tokens')"
    tab.ask(f"{figure}.element.scrollIntoView({{ block: 'center' }})")
    tab.wait(f"{figure}.panels.every((panel) => panel.plot)")
    assert tab.ask(f"{figure}.panels.map((panel) => [panel.frame.axis, panel.kind.x, panel.kind.y])") == [
        ["tokens", "log", "log"], ["flops", "log", "log"],
    ]  # fmt: skip
    tokens = tab.ask(f"{figure}.panels[0].drawn[0].x")
    assert tokens == [step * TOKENS_PER_STEP for step in STEPS]
    flops = tab.ask(f"{figure}.panels[1].drawn[0].x")
    assert np.array(flops) / np.array(tokens) == pytest.approx(6 * (MODELS[0].n_params * 9 // 10))
    tab.ask(f"{figure}.panels[1].frame.zoomTo([1e17, 1e18])")
    assert address(tab)["zoom"] == ["loss-by-tokens.flops~100000000000000000~1000000000000000000"]
    low, high = tab.ask(f"(({{ min, max }}) => [min, max])({figure}.panels[0].plot.scales.x)")
    assert low < tokens[0] < tokens[-1] < high
    # What stays an image is saved as PNG.
    tab.ask("void (window.save = (blob, name) => { window.saved = [blob, name]; })")
    tab.ask("document.querySelector('.figures > figure:not([data-panels]) .menu ul button').click()")
    tab.wait("window.saved")
    assert tab.ask("saved[0].type") == "image/png"
    assert tab.ask("saved[1].endsWith('.png')")


def test_any_metric_is_found_by_its_name(tab):
    tab.click("#metric-search")
    for letter in "brier":
        tab.press(letter)
    found = "[...document.querySelectorAll('#metric-list li')].map((option) => option.textContent)"
    assert tab.ask(found) == ["arc_easy brier_score"]
    tab.press("Enter")
    tab.wait("location.hash.includes('m=arc_easy+brier_score')")
    tab.wait(DRAWN)
    assert tab.ask(f"{EXPLORER}.panels.map((panel) => panel.about.name)") == ["arc_easy brier_score"]
    tab.click("#explore input[type=checkbox]")
    tab.click("#metric-search")
    for letter in "entropy":
        tab.press(letter)
    tab.press("Enter")
    tab.wait(f"{EXPLORER}.panels.length === 2")
    tab.wait(DRAWN)
    assert address(tab)["m"] == ["arc_easy brier_score", "lmsat_head singular_entropy"]
    assert tab.ask("document.querySelectorAll('#figure-explore .chart canvas').length") == 2
    tab.click("#figure-explore .panel-head button")
    tab.wait(f"{EXPLORER}.panels.length === 1")
    assert address(tab)["m"] == ["lmsat_head singular_entropy"]


def test_keys_alone_read_and_zoom(tab, tree):
    tab.ask("document.querySelector('#metric-search').focus()")
    for _ in range(3):
        tab.press("Tab")
    # After the checkbox and the menu comes the chart.
    assert tab.ask("document.activeElement.className") == "charts"
    said = "document.querySelector('.aside').textContent"
    tab.press("End")
    tab.press("ArrowLeft")
    tab.press("ArrowDown")
    first, last = (f"{loss(tree, MODELS[1].name, step):.5g}".rstrip("0") for step in (STEPS[0], STEPS[-2]))
    assert tab.ask(said) == f"../../evil, step {STEPS[-2]:,}, lmsat_loss loss, {last} ± 0.006"
    tab.press("+")
    low, high = tab.ask(f"{EXPLORER}.frame.rangeX()")
    assert low > STEPS[0]
    assert low < STEPS[-2] < high
    tab.press("Escape")
    assert tab.ask(f"{EXPLORER}.frame.rangeX()[0]") < STEPS[0]
    tab.press("Home")
    assert first in tab.ask(said)
    assert "before a hundredth" in tab.ask(said)
    label = tab.ask("document.querySelector('#figure-explore .chart').getAttribute('aria-label')")
    assert f"../../evil from {first} to " in label


def test_the_view_can_be_taken_away(tab, tree):
    tab.ask("void (window.save = (blob, name) => { window.saved = [blob, name]; })")
    tab.click(".legend button:nth-child(2)", alt=True)
    tab.click("#figure-explore .menu summary")
    tab.click("#figure-explore .menu li:nth-child(2) button")
    rows = list(csv.DictReader(io.StringIO(tab.ask("saved[0].text()"))))
    assert [int(row["training step"]) for row in rows] == list(STEPS)
    for row in rows:
        assert row["model"] == "../../evil"
        assert float(row["value"]) == pytest.approx(loss(tree, row["model"], int(row["training step"])), rel=1e-6)
        assert float(row["stderr"]) == 0.006
    assert [row["note"] != "" for row in rows] == [step < 120 for step in STEPS]
    tab.ask("void (window.saved = null)")
    tab.click("#figure-explore .menu summary")
    tab.click("#figure-explore .menu li:nth-child(1) button")
    tab.wait("saved !== null")
    text = tab.ask(
        "new Promise((done) => { const reader = new FileReader(); reader.onload = () => done(reader.result); "
        "reader.readAsDataURL(saved[0]); })"
    )
    assert b64decode(text.partition(",")[2]).startswith(b"\x89PNG")
    assert tab.ask("saved[1]") == "explore.png"
    tab.click("#figure-explore .menu summary")
    tab.click("#figure-explore .menu li:nth-child(3) button")
    cells = tab.ask("[...document.querySelectorAll('.view-table tbody tr')].map((row) => row.cells[4].textContent)")
    values = [float(row["value"]) for row in rows]
    assert [float(cell.split(" ")[0]) for cell in cells] == pytest.approx(values, rel=1e-4)
    assert all(cell.endswith("± 0.006") for cell in cells)


def test_a_click_on_a_point_shows_its_checkpoint(tab, tree):
    tab.click(tuple(tab.ask(f"{POINT}(1, 15)")))
    tab.wait("location.hash.includes('point=')")
    assert address(tab)["point"] == [f"../../evil~step{STEPS[15]}"]
    rows = {row[0]: row[1:] for row in tab.ask(ROWS)}
    now, before = (loss(tree, "../../evil", step) for step in (STEPS[15], STEPS[14]))
    assert rows["lmsat_loss loss"][0] == f"{now:.5g}".rstrip("0") + " ± 0.006"
    assert float(rows["lmsat_loss loss"][1].replace("−", "-")) == pytest.approx(now - before, rel=1e-3)
    assert len(rows) == tab.ask("charts.values.metrics.length")
    file = tab.ask("decodeURIComponent(document.querySelector('#checkpoint a').href)")
    assert f"/step{STEPS[15]}/results_" in file
    # The checkpoint before, which the verdict leaves out or not, and back to none.
    tab.click("#checkpoint button")
    assert address(tab)["point"] == [f"../../evil~step{STEPS[14]}"]
    tab.press("Escape")
    assert tab.ask("document.querySelector('#checkpoint').hidden")
    assert tab.ask("location.hash") == ""


def test_names_are_text_in_charts_tips_and_address(tab):
    assert tab.ask("document.querySelectorAll('b, i').length") == tab.ask(
        "document.querySelectorAll('.legend i').length"
    )
    tab.mouse("mouseMoved", *tab.ask(f"{POINT}(0, 15)"))
    tab.wait("!document.querySelector('.chart-tip').hidden")
    assert HOSTILE in tab.ask("document.querySelector('.chart-tip').textContent")
    tab.click(".legend button:nth-child(1)")
    assert "<" not in tab.ask("location.hash")
    assert (
        tab.ask("document.querySelectorAll('script').length")
        == tab.ask("document.querySelectorAll('script[type]').length") + 1
    )


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_widths_and_colours(page, width, dark):
    with Tab(page, size=(width, 900), dark=dark) as tab:
        tab.wait(DRAWN)
        assert tab.ask("document.documentElement.scrollWidth <= innerWidth")
        canvas = f"{EXPLORER}.panels[0].plot.ctx.canvas"
        assert tab.ask(f"{canvas}.clientWidth") > 280
        assert tab.ask(f"{canvas}.clientHeight") > 180
        colour = tab.ask("getComputedStyle(document.querySelector('figure')).backgroundColor")
        ground = sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(",")))
        colour = tab.ask(f"{EXPLORER}.panels[0].plot.series[1].stroke()")
        line = sum(int(colour[place : place + 2], 16) for place in (1, 3, 5))
        assert (line > ground + 200) if dark else (line < ground - 200)
        assert tab.console == []


def test_on_paper_and_without_canvas_there_are_images(page):
    images = "[...document.querySelectorAll('.figures img')].every((image) => image.clientWidth > 100)"
    with Tab(page) as tab:
        tab.wait(DRAWN)
        assert not tab.ask(images)
        tab.call("Emulation.setEmulatedMedia", media="print")
        assert tab.ask(images)
        assert not tab.ask("document.querySelector('.chart').getBoundingClientRect().width > 0")
        tab.call("Emulation.setEmulatedMedia", media="")
        source = "HTMLCanvasElement.prototype.getContext = () => null;"
        tab.call("Page.addScriptToEvaluateOnNewDocument", source=source)
        tab.open("about:blank")
        tab.open(page.as_uri())
        assert tab.ask(images)
        assert tab.ask("[...document.querySelectorAll('.chart-bar, #explore')].every((place) => place.hidden)")
        assert tab.console == []


def test_odd_runs_are_shown_as_far_as_it_goes(tmp_path, monkeypatch):
    """Gaps, step 0, one checkpoint, no place, replicates: no chart is empty, and what is missing is said."""
    for step, value in ((0, 9.0), (10, 6.0), (20, float("nan")), (40, 4.0)):
        write_result(tmp_path / "tree", "gaps", step, {"lmsat_loss": {"loss": value}, "mine": {"none": float("nan")}})
    write_result(tmp_path / "tree", "single", 30, {"lmsat_loss": {"loss": 5.0}})
    path = write_result(tmp_path / "tree", "nowhere", 0, {"lmsat_loss": {"loss": 5.0}})
    text = path.read_text("utf-8").replace("step0", "main").replace('"step": 0', '"step": null')
    (tmp_path / "tree" / "main.json").write_text(text, "utf-8")
    path.unlink()
    for run, steps in (("seed1", (0, 10, 40)), ("seed2", (0, 20, 40)), ("seed3", (10, 20))):
        for step in steps:
            value = 8.0 - step / 10 + int(run[-1])
            path = write_result(tmp_path / "tree" / run, "runs", step, {"lmsat_loss": {"loss": value}})
            data = json.loads(path.read_text("utf-8"))
            data["config"]["lmsat"]["checkpoint"]["run"] = run
            path.write_text(json.dumps(data), "utf-8")
    analyses = read_analyses(tmp_path / "tree", tokens_per_step=None)
    monkeypatch.setattr("lmsat_plugin.page.report.write_figures", lambda *_: [])
    page = write_report(analyses, tmp_path / "report")
    means = over_runs(values_of(analyses.table, "lmsat_loss", "loss"))
    means = means[means.model == "runs"].sort_values("step")
    with Tab(page) as tab:
        tab.wait(DRAWN)
        lines = tab.ask(f"Object.fromEntries({EXPLORER}.panels[0].drawn.map(({{ name, x, y }}) => [name, [x, y]]))")
        assert lines["gaps"] == [[0, 10, 20, 40], [9, 6, None, 4]]
        assert lines["single"] == [[30], [5]]
        assert "nowhere" not in lines
        said = tab.ask(f"{EXPLORER}.panels[0].note.textContent")
        assert 'nowhere: 1 without a place on the axis "training step" (main)' in said
        assert "1 not finite" in said
        # The mean of runs, as the figures on paper have it.
        assert lines["runs"][0] == means.step.tolist()
        assert lines["runs"][1] == pytest.approx(means.value.tolist())
        mean = f"{EXPLORER}.panels[0].drawn.find(({{ name }}) => name === 'runs')"
        assert tab.ask(f"{mean}.low") == pytest.approx(means.low.tolist())
        assert tab.ask(f"{mean}.high") == pytest.approx(means.high.tolist())
        # Step 0 has a place on the axis that is logarithmic beyond it.
        assert tab.ask(f"{EXPLORER}.frame.scale") == "asinh"
        assert tab.ask(f"{EXPLORER}.panels[0].plot.scales.x.min") < 0
        tab.ask("charts.view.change({ scale: 'log', runs: 'each' })")
        assert tab.ask(f"{EXPLORER}.panels[0].drawn.length") == 5
        assert "3 at 0 or below, which a logarithmic axis has no room for" in tab.ask(
            f"{EXPLORER}.panels[0].note.textContent"
        )
        tab.ask("charts.view.change({ metrics: ['mine none'] })")
        assert tab.ask(f"{EXPLORER}.panels[0].box.hidden")
        assert "Nothing to draw" in tab.ask(f"{EXPLORER}.panels[0].note.textContent")
        assert tab.console == []
