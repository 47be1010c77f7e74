"""The output folder: names from outside, damaged files, clocks, full disks, claims."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors.numpy import load_file
from sweep_outputs import files_of, strays, values_of

from lmsat_plugin import load_results
from lmsat_plugin.cli.main import main
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.series.finding import Checkpoint
from lmsat_plugin.sweeps import store as store_module
from lmsat_plugin.sweeps.store import Store


@pytest.mark.parametrize("damage", ["cut", "edited", "empty", "list"])
def test_a_damaged_result_is_put_aside_and_measured_again(configure, tmp_path, damage):
    assert main(["sweep", str(configure())]) == 0
    first = values_of(tmp_path / "out")
    [path] = (tmp_path / "out/run/step10").glob("results_*.json")
    text = path.read_text()
    value = json.loads(text)["results"]["lmsat_loss"]["loss,none"]
    damaged = {"cut": text[:900], "edited": text.replace(str(value), "0.5"), "empty": "", "list": "[]"}[damage]
    path.write_text(damaged)
    assert main(["sweep", str(configure())]) == 0
    assert path.with_name(path.name + ".quarantined").read_text() == damaged
    assert values_of(tmp_path / "out") == first


def test_arrays_are_beside_the_results(configure, tmp_path):
    assert main(["sweep", str(configure())]) == 0
    for path, document in files_of(tmp_path / "out").items():
        arrays = load_file((tmp_path / "out" / path).parent / document["config"]["lmsat"]["arrays"])
        loss = document["results"]["lmsat_loss"]
        assert arrays["loss/by_document"].sum() / loss["tokens,none"] == pytest.approx(loss["loss,none"])


def test_names_from_outside_are_safe(configure, save, tmp_path, capsys):
    hostile = ["a'b", '"><script>alert(1)</script>', "..", "sp ace", "x; rm -rf y"]
    folder = tmp_path / 'run "<b>..'
    folder.mkdir()
    names = [name.replace("/", "∕") for name in hostile if name != ".."]
    for index, name in enumerate(names):
        save(folder / name, index)
    config = configure(models=[{"pretrained": str(folder), "name": "../../<i>x"}], tasks=["lmsat_head"])
    assert main(["sweep", str(config)]) == 0
    written = [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("results_*.json")]
    assert len(written) == len(names)
    assert all(len(path.parts) == 3 and not set(str(path)) & set("<>'\" ;") for path in written)
    capsys.readouterr()
    assert main(["results", str(tmp_path / "out"), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["revision"] for row in rows} == set(names)
    assert {row["model"] for row in rows} == {"../../<i>x"}


def test_clocks_that_go_back_lose_nothing(configure, tmp_path, monkeypatch):
    class Stopped(store_module.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(1999, 12, 31)

    monkeypatch.setattr(store_module, "datetime", Stopped)
    assert main(["sweep", str(configure())]) == 0
    for _ in range(2):
        assert main(["sweep", str(configure()), "--force"]) == 0
    found = files_of(tmp_path / "out")
    assert len(found) == 9
    table = load_results(tmp_path / "out")
    last = max(path for path in found if "/step0/" in path)
    assert set(table[table.revision == "step0"].path) == {last}


def test_a_full_disk_ends_the_sweep_with_one_sentence(configure, tmp_path, monkeypatch, capsys):
    write = store_module.write_atomically

    def full(path, data):
        if "step10" in str(path):
            raise LmsatError(f"cannot write {path} (No space left on device): free space")
        write(path, data)

    monkeypatch.setattr(store_module, "write_atomically", full)
    assert main(["sweep", str(configure())]) == 2
    assert capsys.readouterr().err.count("lmsat: error: cannot write") == 1
    assert len(files_of(tmp_path / "out")) == 1
    assert not strays(tmp_path / "out")
    monkeypatch.undo()
    assert main(["sweep", str(configure())]) == 0
    assert len(files_of(tmp_path / "out")) == 3


def test_an_output_that_cannot_be_written(configure, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["sweep", str(configure(output=str(tmp_path / "file" / "out")))]) == 2
    error = capsys.readouterr().err
    assert "cannot write to" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_an_output_folder_that_vanishes_is_an_error(configure, tmp_path, monkeypatch, capsys, how):
    """What was measured is gone with it, so that no number of measured checkpoints would be true."""
    write, out = Store.write, tmp_path / "out"

    def vanish(store, files):
        write(store, files)
        if any(path.parent.name == "step10" for path in files):
            shutil.move(out, tmp_path / "away")
            if how == "replaced":
                out.mkdir()

    monkeypatch.setattr(Store, "write", vanish)
    assert main(["sweep", str(configure())]) == 2
    printed = capsys.readouterr()
    assert "was removed or replaced while the sweep ran" in printed.err
    assert "measured," not in printed.out
    monkeypatch.undo()
    assert main(["sweep", str(configure())]) == 0
    assert len(files_of(out)) == 3


def test_claims_are_exclusive_and_freed(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    one, other = (Checkpoint(model="m", pretrained="m", revision=name) for name in ("r", "other"))
    claim = store.claim(one)
    assert claim is not None
    assert store.claim(one) is None
    assert store.claim(other) is not None
    claim.release()
    again = store.claim(one)
    assert again is not None
    again.release()


def test_a_step_that_was_read_wrongly_is_put_right_without_measuring(configure, tmp_path, capsys):
    """What names say is read anew by a sweep, and by a reader's own pattern before what the sweep noted."""
    wrong = {"pretrained": str(tmp_path / "run"), "step_pattern": r"step(?P<tokens>\d+)"}
    assert main(["sweep", str(configure(models=[wrong]))]) == 0
    first = values_of(tmp_path / "out")
    assert set(load_results(tmp_path / "out").tokens) == {0, 10, 100}
    assert set(load_results(tmp_path / "out", step_pattern=r"step(?P<step>\d)").step) == {0, 1}
    capsys.readouterr()
    right = {"pretrained": str(tmp_path / "run"), "tokens_per_step": 7}
    assert main(["sweep", str(configure(models=[right]))]) == 0
    assert "0 measured, 3 done before" in capsys.readouterr().out
    table = load_results(tmp_path / "out")
    found = set(zip(table.step, table.tokens, table.total_tokens, strict=True))
    assert found == {(0, 0, 0), (10, 70, 70), (100, 700, 700)}
    assert values_of(tmp_path / "out") == first
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert not strays(tmp_path / "out")


def test_two_series_of_one_name_do_not_become_one(configure, save, tmp_path, capsys):
    save(tmp_path / "other" / "run" / "step10", 7)
    assert main(["sweep", str(configure())]) == 0
    first = values_of(tmp_path / "out")
    other = configure(models=[str(tmp_path / "other" / "run")])
    capsys.readouterr()
    assert main(["sweep", str(other)]) == 2
    assert "is called the same: give one of the two series another `name`" in capsys.readouterr().err
    assert values_of(tmp_path / "out") == first
    assert not list((tmp_path / "out").rglob("failures.json"))
    # A series that was moved, and other weights in the same folder, are measured.
    shutil.rmtree(tmp_path / "run")
    assert main(["sweep", str(other)]) == 0
