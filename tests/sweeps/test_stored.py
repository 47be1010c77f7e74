"""Damaged results and arrays of a sweep: readers show nothing of them, and a sweep measures just that again."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from faults import EXHAUSTIVE
from safetensors.numpy import load_file, save_file
from sweep_outputs import files_of

from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results import Results, load_results
from lmsat_plugin.sweeps.stored import read_stored

FLIPS = 2000 if EXHAUSTIVE else 100


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def fill_with_ones(path: Path) -> None:
    save_file({name: np.ones_like(array) for name, array in load_file(path).items()}, path)


def shorten(path: Path) -> None:
    save_file({name: array[:1] for name, array in load_file(path).items()}, path)


DAMAGES = {"step0": cut, "step10": Path.unlink, "step100": fill_with_ones, "step200": shorten}


def arrays_by_checkpoint(output: Path) -> dict[str, dict[str, list]]:
    """Return the arrays of the results that stand, as readers find them."""
    results = Results.read(output)
    rows = results.table[results.table.task == "lmsat_loss"].drop_duplicates("path")
    return {
        row.revision: {name: array.tolist() for name, array in results.arrays(row.path, "lmsat_loss", "").items()}
        for row in rows.itertuples()
    }


def test_lost_arrays_are_refused_by_name_and_measured_again_with_nothing_else(
    configure, quiz, save, run_folder, tmp_path, capsys, caplog
):
    save(run_folder / "step200", 7)
    output = tmp_path / "out"
    config = str(configure(tasks=["lmsat_loss", "lmsat_head", "quiz"], include_path=str(quiz())))
    assert main(["sweep", config]) == 0
    first, arrays, table = files_of(output), arrays_by_checkpoint(output), load_results(output)
    damaged = {step: next((output / "run" / step).glob("arrays_*")) for step in DAMAGES}
    for step, damage in DAMAGES.items():
        damage(damaged[step])

    results = Results.read(output)
    for path in set(results.table.path):
        with pytest.raises(LmsatError, match=damaged[Path(path).parent.name].name):
            results.arrays(path, "lmsat_head", "head/")
    caplog.clear()
    assert main(["saturation", str(output)]) == 0
    assert {path.name for path in damaged.values() for r in caplog.records if path.name in r.getMessage()} == {
        path.name for path in damaged.values()
    }

    assert main(["sweep", config]) == 0
    assert "4 measured, 0 done before" in capsys.readouterr().out
    second = files_of(output)
    assert all(second[path] == document for path, document in first.items())
    new = [second[path] for path in second.keys() - first.keys()]
    assert [sorted(document["results"]) for document in new] == [["lmsat_head", "lmsat_loss"]] * 4
    assert all(document["config"]["lmsat"]["supersedes"] for document in new)
    assert arrays_by_checkpoint(output) == arrays
    assert load_results(output).value.tolist() == table.value.tolist()
    assert {path.name for path in output.rglob("*.quarantined")} == {
        f"{damaged[step].name}.quarantined" for step in DAMAGES if step != "step10"
    }
    assert main(["sweep", config]) == 0
    assert "0 measured, 4 done before" in capsys.readouterr().out


def test_arrays_without_a_digest_have_to_have_the_loss_as_their_mean(configure, tmp_path):
    """As those of older sweeps, which noted nothing of their arrays but their name."""
    assert main(["sweep", str(configure()), "--only", "run@step10"]) == 0
    [path] = (tmp_path / "out/run/step10").glob("results_*")
    document = json.loads(path.read_bytes())
    notes = document["config"]["lmsat"]
    for key in ("file_sha256", "arrays_sha256", "arrays_content", "identities"):
        del notes[key]
    plain = tmp_path / "plain" / path.name
    plain.parent.mkdir()
    plain.write_text(json.dumps(document))
    arrays = load_file(path.with_name(notes["arrays"]))
    save_file(arrays, plain.with_name(notes["arrays"]))
    assert Results.read(plain).arrays(path.name, "lmsat_loss", "loss/by_document").keys() == {
        name for name in arrays if name.startswith("loss/by_document")
    }
    fill_with_ones(plain.with_name(notes["arrays"]))
    with pytest.raises(LmsatError, match="the mean loss over the documents is 1 and the result's is"):
        Results.read(plain).arrays(path.name, "lmsat_loss", "loss/by_document")


def test_no_flipped_bit_changes_what_is_shown(configure, tmp_path, caplog):
    """Each is noticed by a sweep, and by the reader that would show it."""
    caplog.set_level("CRITICAL")
    assert main(["sweep", str(configure()), "--only", "run@step10"]) == 0
    folder = tmp_path / "out/run/step10"
    [path] = folder.glob("results_*")
    [arrays] = folder.glob("arrays_*")
    draw = random.Random(0)
    for number in range(FLIPS):
        file = (path, arrays)[number % 2]
        whole = file.read_bytes()
        bit = draw.randrange(8 * len(whole))
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        stored = read_stored(folder)
        assert not stored.done, bit
        assert list(stored.damaged) == [file], bit
        with pytest.raises(LmsatError):
            Results.read(path).arrays(path.name, "lmsat_loss", "")
        if file is path:
            with pytest.raises(LmsatError, match="holds no lm-eval results"):
                load_results(path)
        file.write_bytes(whole)
    assert len(read_stored(folder).done) == 2
