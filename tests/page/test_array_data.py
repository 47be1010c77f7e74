"""The arrays of a page: their values are those of the files, thinned as is said, and of the model that is named."""

from __future__ import annotations

import numpy as np
import pytest
from report_trees import read_analyses
from result_trees import save_arrays, write_result

from lmsat_plugin.page import array_data as module
from lmsat_plugin.page.array_data import points_of
from lmsat_plugin.page.chart_data import chart_data

RNG = np.random.default_rng(0)
LAYERS = RNG.random((3, 5))
HEADS = RNG.random((3, 2, 4))
POSITIONS = RNG.random((3, 300))
COUNTS = RNG.integers(1, 9, 300)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """What the page has of two models, the smaller of which comes last by name."""
    root = tmp_path_factory.mktemp("arrays")
    for index, step in enumerate((1, 10, 100)):
        for model, n_params, factor in (("small", 10**6, 1), ("large", 10**9, 2)):
            nats = np.arange(1.0, 13.0) * (1 + index * np.linspace(-0.1, 0.1, 12)) * 10
            losses = {"loss/by_document": nats, "loss/by_document_tokens": np.full(12, 10)}
            loss = float(nats.sum() / 120)
            file = write_result(root, model, step, {"lmsat_loss": {"loss": loss}, "lmsat_mine": {"a": 1.0}}, n_params)
            positions = POSITIONS[index].copy()
            positions[200] = np.nan
            save_arrays(
                file,
                {
                    **losses,
                    "mine/by_layer": factor * LAYERS[index],
                    "mine/by_head": HEADS[index],
                    "mine/singular_values": np.geomspace(9, 1, 150 * factor),
                    "mine/by_position": positions,
                    "mine/by_position_tokens": COUNTS,
                    "mine/by_token": np.zeros(7),
                    "mine/cube": np.zeros((2, 2, 2)),
                },
            )
    return chart_data(read_analyses(root)).content


def array(content, name, model):
    number = [one["name"] for one in content["models"]].index(model)
    (found,) = [one for one in content["arrays"] if one["name"] == name]
    return found["axes"], next(one for one in found["models"] if one["model"] == number)


def test_values_are_those_of_the_model(content):
    assert [one["name"] for one in content["models"]] == ["small", "large"]
    for model, factor in (("small", 1), ("large", 2)):
        axes, own = array(content, "mine/by_layer", model)
        assert axes == ["layer"]
        assert own["k"] == [0, 1, 2]
        assert np.allclose(own["values"], factor * LAYERS, rtol=1e-3)
        axes, own = array(content, "mine/by_head", model)
        assert axes == ["layer", "head"]
        assert np.allclose(np.reshape(own["values"], (3, 2, 4)), HEADS, rtol=1e-3)
    # Samples of text have no order; what has three axes is named.
    names = {one["name"] for one in content["arrays"]}
    assert names == {"mine/by_layer", "mine/by_head", "mine/singular_values", "mine/by_position"}
    assert content["not_drawn"] == ["mine/cube: it has 3 axes"]


def test_long_arrays_are_thinned(content):
    axes, own = array(content, "mine/singular_values", "small")
    assert axes == ["singular value"]
    (firsts, length, is_mean), *_ = own["places"]
    assert (length, is_mean) == (150, False)
    assert (firsts[0], firsts[-1], len(firsts)) == (0, 149, 48)
    assert np.allclose(own["values"][0], np.geomspace(9, 1, 150)[firsts], rtol=1e-3)
    _, own = array(content, "mine/by_position", "small")
    (firsts, length, is_mean), *_ = own["places"]
    assert (length, is_mean) == (300, True)
    assert len(firsts) <= 48
    for place, value in enumerate(own["values"][1]):
        stretch = slice(firsts[place], firsts[place + 1] if place + 1 < len(firsts) else 300)
        finite = np.arange(300)[stretch] != 200
        weights = COUNTS[stretch][finite]
        assert value == pytest.approx(np.average(POSITIONS[1, stretch][finite], weights=weights), rel=1e-3)


@pytest.mark.parametrize("length", [1, 47, 48, 49, 192, 193, 2048, 131_072])
def test_points_cover_an_axis(length):
    firsts, is_mean = points_of(length)
    assert len(firsts) <= 48
    assert firsts[0] == 0
    assert (np.diff(firsts) > 0).all()
    assert is_mean == (length > 192)
    assert firsts[-1] <= length - 1
    assert is_mean or firsts[-1] == length - 1


def test_documents_that_changed_most(content):
    by_checkpoint = {(model, k): (before, changed) for model, k, before, changed in content["changes"]}
    before, changed = by_checkpoint[0, 2]
    assert before == 1
    # Losses are 1, 2, ... times 1 + index * (-0.1 to 0.1).
    share = np.linspace(-0.1, 0.1, 12)
    rises = np.arange(1.0, 13.0) * share
    order = np.argsort(rises)
    assert [document for document, *_ in changed] == [*order[:4], *order[::-1][:4]]
    for document, earlier, now in changed:
        assert now - earlier == pytest.approx(rises[document], abs=1e-2)


def test_more_arrays_than_have_room(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "VALUES", 100)
    for step in range(1, 31):
        file = write_result(tmp_path, "m", step, {"lmsat_loss": {"loss": step}})
        save_arrays(file, {"mine/by_layer": np.full(20, float(step))})
    content = chart_data(read_analyses(tmp_path)).content
    _, own = array(content, "mine/by_layer", "m")
    assert len(own["k"]) == 5
    assert (own["k"][0], own["k"][-1]) == (0, 29)
    assert [row[0] for row in own["values"]] == [k + 1 for k in own["k"]]
