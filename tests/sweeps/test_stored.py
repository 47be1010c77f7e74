"""Damaged results and arrays of a sweep: readers show nothing of them, and a sweep measures just that again."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from exhaustive import EXHAUSTIVE
from safetensors.numpy import load_file, save_file
from sweep_outputs import files_of

from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results import Results, load_results
from lmsat_plugin.sweeps.stored import read_stored
from lmsat_plugin.sweeps.verification import verify

FLIPS = 2000 if EXHAUSTIVE else 100
KINDS = ("results", "arrays", "samples", "failures")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def fill_with_ones(path: Path) -> None:
    save_file({name: np.ones_like(array) for name, array in load_file(path).items()}, path)


def shorten(path: Path) -> None:
    save_file({name: array[:1] for name, array in load_file(path).items()}, path)


def break_weights(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[name][3] = np.nan
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


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


def test_lost_samples_are_measured_again_with_nothing_else(configure, quiz, run_folder, tmp_path, capsys):
    """Also those of a task in a group, which is measured whole."""
    folder = quiz()
    (folder / "group.yaml").write_text("{group: quizzes, task: [quiz], aggregate_metric_list: [{metric: acc}]}")
    config = str(configure(tasks=["lmsat_head", "quizzes"], include_path=str(folder), log_samples=True))
    assert main(["sweep", config, "--only", "run@step10"]) == 0
    output = tmp_path / "out"
    before = load_results(output)
    for task in ("quiz", "lmsat_head"):
        [samples] = output.rglob(f"samples_{task}_*.jsonl")
        samples.write_bytes(samples.read_bytes().replace(b"0", b"1"))
        assert [(problem.kind, problem.path) for problem in verify(output).problems] == [("samples", samples)]
        assert main(["sweep", config, "--only", "run@step10"]) == 0
        assert "1 measured, 0 done before" in capsys.readouterr().out
        newest = max(output.rglob("results_*.json"))
        assert task in json.loads(newest.read_bytes())["results"]
        assert ("lmsat_head" in newest.read_text()) is (task == "lmsat_head")
        assert samples.with_name(f"{samples.name}.quarantined").exists()
        assert not verify(output).problems
    assert load_results(output).value.tolist() == before.value.tolist()
    assert main(["sweep", config, "--only", "run@step10"]) == 0
    assert "0 measured, 1 done before" in capsys.readouterr().out


def test_changes_that_a_reader_might_not_see(configure, run_folder, tmp_path, caplog):
    """A key that hides all notes, one that hides a digest, a word that hides a divergence, and spaces."""
    break_weights(run_folder / "step10", "gpt_neox.layers.1.mlp.dense_4h_to_h.weight")
    assert main(["sweep", str(configure()), "--only", "run@step10"]) == 1
    folder = tmp_path / "out/run/step10"
    record, [result] = folder / "failures.json", folder.glob("results_*")
    whole = record.read_bytes()
    for old, new in (
        (b'"sha256": "', b'"sha257": "'),
        (b"diverged: ", b"diverged8 "),
        (b'"step": 10', b'"step": 11'),
        (b"\n", b" "),
    ):
        assert old in whole
        record.write_bytes(whole.replace(old, new, 1))
        assert list(read_stored(folder).damaged) == [record], old
        caplog.clear()
        load_results(folder)
        assert "failures.json" in caplog.text, old
    # In a copy, no folder tells that a sweep wrote it.
    copy = tmp_path / "copy" / result.name
    copy.parent.mkdir()
    for key in (b'"lmsat": {', b'"config": {'):
        content = result.read_bytes()
        assert content.count(key) == 1
        copy.write_bytes(content.replace(key, key.replace(b'"', b'"x', 1)))
        with pytest.raises(LmsatError, match="holds no lm-eval results"):
            load_results(copy.parent)
        assert "its digest does not hold" in caplog.text


def test_no_flipped_bit_changes_what_is_shown(configure, quiz, run_folder, tmp_path, caplog):
    """Each, in any file that a sweep has written, is noticed by a sweep, by verify, and by whoever would show it."""
    break_weights(run_folder / "step100", "gpt_neox.layers.1.mlp.dense_4h_to_h.weight")
    tasks = ["lmsat_loss", "lmsat_head", "quiz"]
    config = configure(tasks=tasks, include_path=str(quiz()), log_samples=True, max_tokens=300)
    assert main(["sweep", str(config)]) == 1
    output = tmp_path / "out"
    files = [path for path in output.rglob("*") if path.is_file() and ".lmsat" not in path.parts]
    kinds = {kind: [path for path in files if path.name.startswith(kind)] for kind in KINDS}
    assert all(kinds.values())
    assert sum(map(len, kinds.values())) == len(files)
    results = {path.parent: path for path in kinds["results"]}
    # Samples say nothing of other checkpoints that the same process has measured.
    assert not [path for path in kinds["samples"] if path.parent.name != "step0" and b"/step0" in path.read_bytes()]
    shown = load_results(output)
    draw = random.Random(0)
    for number in range(FLIPS):
        file = draw.choice(kinds[KINDS[number % len(KINDS)]])
        whole = file.read_bytes()
        bit = draw.randrange(8 * len(whole))
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        what = f"bit {bit} of {file}"
        caplog.clear()
        stored = read_stored(file.parent)
        assert list(stored.damaged) == [file], what
        assert [problem.path for problem in verify(output).problems] == [file], what
        if file.name.startswith("arrays"):
            path = results[file.parent]
            with pytest.raises(LmsatError):
                Results.read(path).arrays(path.name, "lmsat_head", "")
        table = load_results(output)
        if not table.equals(shown):
            gone = shown.merge(table, how="left", indicator=True)._merge == "left_only"
            assert set(shown[gone].path) == {str(file.relative_to(output))}, what
            assert len(table) + gone.sum() == len(shown), what
            assert file.name in caplog.text, what
        file.write_bytes(whole)
    assert load_results(output).equals(shown)
