"""What a size, a shape and a longer context buy: against closed forms, least squares by other means, simulations."""

from __future__ import annotations

import itertools
import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from lmsat_plugin.analysis.scaling_laws.context_of_results import as_table, find_context
from places import PYTHIA_LOSSES
from safetensors.numpy import save_file
from scipy.optimize import brentq, curve_fit

from lmsat_plugin import load_results
from lmsat_plugin.analysis.scaling_laws.allocation import HOFFMANN
from lmsat_plugin.analysis.scaling_laws.context_gain import context_gain
from lmsat_plugin.analysis.scaling_laws.efficiency import sample_efficiency
from lmsat_plugin.analysis.scaling_laws.shape import shape_dependence
from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError

if TYPE_CHECKING:
    from pathlib import Path

PYTHIA = PYTHIA_LOSSES
SIZES = (1e7, 3e7, 1e8, 3e8, 1e9)


def table_of(rows, columns=("model", "n_params", "tokens", "loss")) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns)


@pytest.fixture
def chinchilla() -> pd.DataFrame:
    """Return checkpoints on a law, dense enough that a straight line between two of them is the curve."""
    return table_of(
        [(f"m{n:.0e}", n, t, HOFFMANN.loss(n, t)) for n in SIZES for t in np.geomspace(1e8, 3e12, 2000)]
    )


def test_tokens_to_a_loss_are_those_of_the_law(chinchilla):
    found = sample_efficiency(chinchilla, [3.5, 3.0])
    for one in found.reached:
        left = one.loss - HOFFMANN.E - HOFFMANN.A / one.n_params**HOFFMANN.alpha
        tokens = (HOFFMANN.B / left) ** (1 / HOFFMANN.beta) if left > 0 else math.inf
        if tokens > 3e12:
            assert (one.tokens, one.low) == (None, pytest.approx(3e12))
            continue
        assert one.tokens == pytest.approx(tokens, rel=1e-4)
        assert one.low <= one.tokens <= one.high
        assert one.flops == pytest.approx(6 * one.n_params * one.tokens)
    by_loss = [[one for one in found.reached if one.loss == best.loss] for best in found.best]
    for best, there in zip(found.best, by_loss, strict=True):
        least = min((one for one in there if one.flops), key=lambda one: one.flops)
        assert best.compute_optimal == least.model
        for one, after in itertools.pairwise(there):
            if one.tokens:
                doublings = math.log2(after.n_params / one.n_params)
                assert one.ratio == pytest.approx(after.tokens / one.tokens)
                assert (1 - one.saved) ** doublings == pytest.approx(one.ratio)
    assert found.best[0].compute_optimal == "m1e+08"
    assert not found.best[0].at_edge


def test_diminishing_returns(chinchilla):
    found = sample_efficiency(chinchilla, [3.5], fewest_saved=0.3)
    saved = {one.model: one.saved for one in found.reached if one.saved is not None}
    # From there on all save less, and the one before saves more.
    names = list(saved)
    start = names.index(found.best[0].diminishing_from)
    assert all(saved[name] < 0.3 for name in names[start:])
    assert saved[names[start - 1]] >= 0.3
    assert sample_efficiency(chinchilla, [3.5], fewest_saved=0.01).best[0].diminishing_from is None


def test_a_loss_that_rises_again_changes_nothing():
    rows = [("a", 1e6, 1e6, 5.0), ("a", 1e6, 1e7, 4.0), ("a", 1e6, 1e8, 4.5), ("a", 1e6, 1e9, 3.0)]
    first, second, third = sample_efficiency(table_of(rows[::-1]), [4.5, 3.5, 4.0]).reached
    assert first.tokens == pytest.approx(10**6.5)
    # The least so far is 4.0 at 1e8, too.
    assert second.tokens == pytest.approx(10**8.5)
    assert (second.low, second.high) == (1e8, 1e9)
    assert third.tokens == pytest.approx(1e7)


def test_upper_bounds_and_flops_of_ones_own():
    rows = [("a", 1e6, 0, 9.0, 0), ("a", 1e6, 1e6, 5.0, 2e13), ("a", 1e6, 1e8, 3.0, 2e15)]
    rows += [("b", 4e6, 1e6, 4.0, 3e13), ("b", 4e6, 1e8, 3.5, 3e15)]
    found = sample_efficiency(table_of(rows, ("model", "n_params", "tokens", "loss", "flops")), [4.0])
    a, b = found.reached
    assert (a.tokens, a.flops) == (pytest.approx(1e7), pytest.approx(2e14))
    assert b.at_most
    assert (b.tokens, b.low, b.flops) == (1e6, None, 3e13)
    # Nothing is said of a saving or an optimum where one is an upper bound.
    assert (a.ratio, found.best[0].compute_optimal) == (None, None)


@pytest.mark.skipif(not PYTHIA.exists(), reason="needs the digitised losses of Pythia")
def test_pythia(capsys, tmp_path):
    figure = tmp_path / "figure.png"
    assert (
        main(["efficiency", str(PYTHIA), "--loss", "3.2", "--loss", "3.0", "--json", "--figure", str(figure)])
        == 0
    )
    out, _ = capsys.readouterr()
    found = {(one["model"], one["loss"]): one for one in json.loads(out)["reached"]}
    # 160M: 3.204 at step 60k, 3.208 at 65k, 3.182 at 70k; 410M: 3.286 at 5k, 3.121 at 10k.
    small, large = found["pythia-160m", 3.2], found["pythia-410m", 3.2]
    assert (small["low"], small["high"]) == (65_000 * 2_097_152, 70_000 * 2_097_152)
    assert (large["low"], large["high"]) == (5_000 * 2_097_152, 10_000 * 2_097_152)
    assert found["pythia-160m", 3.0]["tokens"] is None
    assert figure.stat().st_size > 10_000
    assert main(["efficiency", str(PYTHIA), "--loss", "3.2"]) == 0
    assert "Least compute: pythia-410m" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "losses", "what"),
    [
        ({}, [2.0], "no model reaches"),
        ({}, [math.nan], "no losses"),
        ({}, [], "no losses"),
        ({"tokens": 1e6}, [4.0], "several checkpoints"),
        ({"tokens": -1.0}, [4.0], "tokens=-1"),
        ({"n_params": [1.0, 2.0]}, [4.0], "2 values of n_params"),
        ({"loss": [400.0, 300.0]}, [4.0], "perplexities"),
        ({"model": None}, [4.0], "no column 'model'"),
    ],
)
def test_bad_tables(change, losses, what):
    table = table_of([("a", 1e6, 1e6, 5.0), ("a", 1e6, 1e7, 3.0)]).assign(**change)
    if change == {"model": None}:
        table = table.drop(columns="model")
    with pytest.raises(LmsatError, match=what):
        sample_efficiency(table, losses)


def shapes(rng, models=30, noise=0.004, sizes=None) -> pd.DataFrame:
    sizes = 10 ** rng.uniform(6, 9, models) if sizes is None else sizes
    aspect = np.exp(rng.uniform(np.log(5), np.log(200), len(sizes)))
    x = np.log(aspect / 40)
    ln_loss = np.log((8.8e13 / sizes) ** 0.076) + 0.01 * x + 0.008 * x**2
    loss = np.exp(ln_loss + noise * rng.standard_normal(len(sizes)))
    names = [f"m{i}" for i in range(len(sizes))]
    return pd.DataFrame(
        {"model": names, "n_params": sizes, "loss": loss, "hidden_size": aspect * 8, "n_layers": 8}
    )


def test_shape_recovers_the_law_it_was_made_with():
    found = shape_dependence(shapes(np.random.default_rng(0), noise=0))
    x_mean = math.log(found.aspect_mean / 40)
    assert found.alpha_n.value == pytest.approx(0.076)
    assert found.curvature.value == pytest.approx(0.008)
    assert found.slope.value == pytest.approx(0.01 + 2 * 0.008 * x_mean)
    assert found.best_aspect == pytest.approx(40 * math.exp(-0.01 / 0.016), rel=0.01)
    assert found.residual == pytest.approx(0, abs=1e-9)


def test_shape_intervals_hold_the_truth():
    rng, hits = np.random.default_rng(1), 0
    for seed in range(60):
        found = shape_dependence(shapes(rng, 16), repetitions=300, seed=seed)
        hits += found.curvature.low <= 0.008 <= found.curvature.high
    assert 46 <= hits <= 60


def test_groups_of_one_size():
    sizes = np.array([1e7, 1.05e7, 1.1e7, 1e8, 1.05e8, 1e9, 3e9, 9e9])
    table = shapes(np.random.default_rng(2), sizes=sizes, noise=0).sample(frac=1, random_state=0)
    found = shape_dependence(table)
    assert [one.models for one in found.groups] == [("m0", "m1", "m2"), ("m3", "m4")]
    first = table[table.model.isin(["m0", "m1", "m2"])]
    assert found.groups[0].loss_spread == pytest.approx(first.loss.max() / first.loss.min() - 1)
    aspect = first.hidden_size / first.n_layers
    assert found.groups[0].aspect_span == pytest.approx(aspect.max() / aspect.min())
    at_n = first.loss * first.n_params**0.076
    assert found.groups[0].loss_spread_at_n == pytest.approx(at_n.max() / at_n.min() - 1)
    json.dumps(found.to_dict(), allow_nan=False)
    labels = [text.get_text() for text in found.plot().axes[0].get_legend().get_texts()]
    assert labels == ["about 1e7 parameters", "about 1e8 parameters", "alone of its size", "regression"]


def test_the_shape_command(tmp_path, capsys):
    rng = np.random.default_rng(12)
    layers = rng.integers(2, 40, 24)
    width = 64 * rng.integers(2, 40, 24)
    n = 12.0 * layers * width**2
    loss = (8.8e13 / n) ** 0.076 * np.exp(0.004 * np.log(width / layers / 60) ** 2)
    columns = {"n_layers": layers, "hidden_size": width, "n_params_non_embedding": n, "loss": loss}
    pd.DataFrame({"model": [f"m{i}" for i in range(24)], **columns}).to_csv(tmp_path / "t.csv", index=False)
    assert main(["shape", str(tmp_path / "t.csv"), "--json", "--figure", str(tmp_path / "f.png")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["alpha_n"]["value"] == pytest.approx(0.076)
    assert found["curvature"]["value"] == pytest.approx(0.004)
    assert found["best_aspect"] == pytest.approx(60, rel=0.01)
    assert main(["shape", str(tmp_path / "t.csv")]) == 0
    assert "least at width/depth = " in capsys.readouterr().out


def test_too_few_shapes_are_refused():
    table = shapes(np.random.default_rng(3), 10)
    with pytest.raises(LmsatError, match="do not tell shape from size"):
        shape_dependence(table[:7])
    with pytest.raises(LmsatError, match="do not tell shape from size"):
        shape_dependence(table.assign(hidden_size=64))
    with pytest.raises(LmsatError, match="do not vary apart"):
        shape_dependence(table.assign(hidden_size=8 * np.sqrt(table.n_params)))
    with pytest.raises(LmsatError, match="several rows"):
        shape_dependence(pd.concat([table, table]))
    last = pd.concat([table.assign(step=1, loss=9.0), table.assign(step=2)])
    assert shape_dependence(last).alpha_n == shape_dependence(table).alpha_n


def positions(a, b, c, tokens_P, rng=None, spread=3.0) -> dict[str, np.ndarray]:
    loss_P = a + b * np.arange(1.0, len(tokens_P) + 1) ** -c
    if rng is not None:
        loss_P = loss_P + spread / np.sqrt(tokens_P) * rng.standard_normal(len(tokens_P))
    return {"loss/by_position": loss_P, "loss/by_position_tokens": tokens_P}


TOKENS = np.maximum(1, 300 - 0.3 * np.arange(512))


@pytest.mark.parametrize(("a", "b", "c"), [(4.0, 3.2, 0.47), (2.3, 5.4, 0.62), (0.0, 6.0, 0.1)])
def test_context_recovers_the_law_it_was_made_with(a, b, c):
    found = context_gain(positions(a, b, c, TOKENS), share=0.03)
    assert (found.a, found.b, found.exponent) == pytest.approx((a, b, c), rel=0.02, abs=0.03)

    def gain(t: float) -> float:
        return b * t**-c * (1 - 2**-c) / (a + b * t**-c) - 0.03

    stop = brentq(gain, 1, 1e6) if gain(1e6) < 0 else math.inf
    if stop > 256:
        assert found.stops_at is None
    else:
        assert found.stops_at == pytest.approx(stop, rel=0.02)


def test_context_is_the_weighted_least_squares_of_scipy():
    arrays = positions(2.3, 5.4, 0.62, TOKENS, np.random.default_rng(4))
    found = context_gain(arrays)
    law = [found.positions_K, found.losses_K]
    by_scipy, _ = curve_fit(lambda t, a, b, c: a + b * t**-c, *law, p0=(2, 4, 0.5), sigma=found.stderrs_K)
    assert (found.a, found.b, found.exponent) == pytest.approx(tuple(by_scipy), rel=1e-3)
    tokens = arrays["loss/by_position_tokens"]
    mean = (arrays["loss/by_position"] * tokens).sum() / tokens.sum()
    assert np.average(found.losses_K, weights=found.stderrs_K**-2.0) == pytest.approx(mean)


def test_context_intervals_hold_the_truth_and_noise_is_no_gain():
    rng, exponents, stops, false = np.random.default_rng(5), 0, 0, 0
    stop = (0.05 * 2.3 / (5.4 * (1 - 2**-0.62 - 0.05))) ** (-1 / 0.62)
    for seed in range(60):
        found = context_gain(positions(2.3, 5.4, 0.62, TOKENS, rng), 0.05, repetitions=200, seed=seed)
        exponents += found.exponent_low <= 0.62 <= found.exponent_high
        stops += found.stops_low <= stop <= found.stops_high
        flat = context_gain(positions(3.0, 0.0, 1.0, TOKENS, rng), repetitions=200, seed=seed)
        false += flat.improves
        assert flat.improves == (flat.exponent is not None)
    assert 46 <= exponents <= 60
    assert 46 <= stops <= 60
    assert false <= 15


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({}, "lack loss/by_position"),
        (positions(2, 1, 1, np.ones(8)), "do not show a power law"),
        ({**positions(2, 1, 1, np.ones(64)), "loss/by_position": np.ones(3)}, "do not belong together"),
        (positions(np.nan, 1, 1, np.ones(64)), "not finite"),
    ],
)
def test_bad_arrays(arrays, what):
    with pytest.raises(LmsatError, match=what):
        context_gain(arrays)


def results(folder: Path, step: int, arrays: dict[str, np.ndarray] | None, named: str | None = None) -> None:
    """Write a result file of lmsat_loss and its arrays, whose name may be that of another place."""
    place = folder / f"step{step}"
    place.mkdir(parents=True)
    if arrays is not None:
        save_file(arrays, place / "arrays.safetensors")
    noted = {"probes": {"loss": {"version": 1, "settings": {}}}, "corpus": {"corpus": "text", "documents": 2}}
    config = {
        "model": "lmsat",
        "model_args": {"pretrained": "tiny", "revision": f"step{step}"},
        "lmsat": {**noted, "arrays": named or "arrays.safetensors"},
    }
    result = {"results": {"lmsat_loss": {"loss,none": 4.0, "loss_stderr,none": 0.1}}, "config": config}
    (place / "results_1.json").write_text(json.dumps(result), "utf-8")


def test_the_command_reads_a_tree_that_was_moved(tmp_path, capsys, caplog):
    results(tmp_path, 1, positions(4.0, 0.0, 1.0, TOKENS, np.random.default_rng(6)))
    results(
        tmp_path,
        2,
        positions(2.3, 5.4, 0.62, TOKENS, np.random.default_rng(7)),
        "/nowhere/arrays.safetensors",
    )
    results(tmp_path, 3, None)
    figure = tmp_path / "context.svg"
    assert main(["context", str(tmp_path), "--json", "--figure", str(figure)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["step"] for one in found] == [1, 2]
    assert [one["improves"] for one in found] == [False, True]
    assert found[1]["exponent"] == pytest.approx(0.62, abs=0.1)
    assert "step3" in caplog.text
    assert "cannot be read" in caplog.text
    assert figure.read_text("utf-8").count("<svg") == 1
    table = as_table(find_context(load_results(tmp_path), tmp_path))
    assert list(table.step) == [1, 2]
    assert {"exponent", "stops_at", "first_loss"} <= set(table.columns)
    assert main(["context", str(tmp_path)]) == 0
    assert "never" in capsys.readouterr().out


def test_the_commands_say_what_is_missing(tmp_path, capsys):
    results(tmp_path, 1, None)
    assert main(["context", str(tmp_path)]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main(["efficiency", str(tmp_path), "--loss", "3"]) == 2
    assert "--tokens-per-step" in capsys.readouterr().err
    assert main(["efficiency", str(tmp_path), "--loss", "3", "--figure", "x.gif"]) == 2
    assert "x.gif" in capsys.readouterr().err
