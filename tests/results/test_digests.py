"""Result files of sweeps that were edited, lost their digest, or never had one: which are read, and which left out."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
from result_files import new, ours, write

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.results import load_results
from lmsat_plugin.results.digests import fault_of, with_digest

IDENTITY = {"task": "lmsat_loss", "weights": "c0ffee"}


def of_sweep(value: float) -> dict:
    return ours(value, checkpoint={"model": "run", "revision": "step1"}, identities=[IDENTITY])


def with_older_digest(document: dict) -> bytes:
    """Return a file as sweeps wrote it at first: with the digest of its content."""
    text = json.dumps(document, sort_keys=True, ensure_ascii=False)
    document["config"]["lmsat"]["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps(document, indent=2, ensure_ascii=False).encode()


@pytest.fixture(params=[with_digest, with_older_digest])
def written(tmp_path, request):
    """Return the folder of a checkpoint with two results of a sweep, of the losses 3.5 and 4.5."""
    folder = tmp_path / "out" / "run" / "step1"
    folder.mkdir(parents=True)
    (tmp_path / "out" / ".lmsat").mkdir()
    for loss in (3.5, 4.5):
        (folder / f"results_{loss}.json").write_bytes(request.param(of_sweep(loss)))
    return folder


def read(folder) -> list[float]:
    return sorted(load_results(folder, all_results=True).value)


def test_an_edited_result_is_left_out_by_name(written, caplog):
    path = written / "results_3.5.json"
    assert read(written.parents[1]) == [3.5, 4.5]
    assert not caplog.records
    path.write_text(path.read_text().replace('"loss,none": 3.5', '"loss,none": 0.5'))
    assert read(written.parents[1]) == [4.5]
    [record] = caplog.records
    assert record.getMessage() == (
        f"{path} is left out (its digest does not hold: it was changed after it was written): "
        "restore it, or measure again what `lmsat verify` names"
    )
    (written / "results_4.5.json").unlink()
    with pytest.raises(LmsatError, match="holds no lm-eval results"):
        load_results(written)


@pytest.mark.parametrize("lost", ["digest", "notes", "digest and .lmsat"])
def test_a_result_of_a_sweep_that_has_no_digest_is_left_out(written, caplog, lost):
    path = written / "results_3.5.json"
    document = json.loads(path.read_bytes())
    if lost == "notes":
        del document["config"]["lmsat"]
    else:
        for key in ("file_sha256", "sha256"):
            document["config"]["lmsat"].pop(key, None)
    if lost == "digest and .lmsat":
        (written.parents[1] / ".lmsat").rmdir()
    write(path, document)
    assert read(written.parents[1]) == [4.5]
    [record] = caplog.records
    assert f"{path} is left out (it lies in a sweep's folder and has no digest)" in record.getMessage()


def test_results_of_others_need_no_digest(written, tmp_path, caplog):
    """Neither those of plain lm-eval with ``--model lmsat``, nor of any other model, beside a sweep's."""
    write(tmp_path / "out" / "plain" / "results_1.json", ours(5.5))
    write(tmp_path / "other" / "m" / "step1" / "results_1.json", new({"piqa": {"acc,none": 0.5}}))
    assert read(tmp_path) == [0.5, 3.5, 4.5, 5.5]
    assert not caplog.records


def test_a_moved_result_holds_its_digest(written, tmp_path):
    shutil.copy(written / "results_3.5.json", tmp_path / "renamed.json")
    assert read(tmp_path / "renamed.json") == [3.5]


def test_the_digest_is_that_of_the_bytes(tmp_path):
    """Documented, so that others can check it: zeros stand in the digest's own place. Text of any kind may be there."""
    document = of_sweep(3.5)
    document["config"]["lmsat"]["note"] = "\ud800 é 0" + "0" * 70
    data = with_digest(document)
    stated = json.loads(data)["config"]["lmsat"]["file_sha256"]
    assert hashlib.sha256(data.replace(stated.encode(), b"0" * 64)).hexdigest() == stated
    assert fault_of(tmp_path / "results_1.json", data, json.loads(data)) is None
    for bad in (5, None, "", stated.upper(), "0" * 64, stated[:-1], [stated]):
        document["config"]["lmsat"]["file_sha256"] = bad
        changed = json.dumps(document, indent=2).encode()
        assert fault_of(tmp_path / "results_1.json", changed, json.loads(changed)), bad
    twice = data.replace(b'"note": "', b'"note": "' + stated.encode())
    assert fault_of(tmp_path / "results_1.json", twice, json.loads(twice))
