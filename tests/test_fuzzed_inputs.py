"""A fuzzer: whatever stands in files, names and settings, the answer is right or one sentence, never a traceback.

CI tries a few inputs, always the same; ``LMSAT_FUZZ=1000`` tries so many random ones in each test.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hostile_inputs import TEXTS, changed, cut, fuzzed, run, scalars, values
from hypothesis import given
from hypothesis import strategies as st
from law_tables import chinchilla_table
from result_files import new, old, ours

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.files import folder_name, safe_name
from lmsat_plugin.plugins import plugins
from lmsat_plugin.results.checkpoint_names import compile_pattern, parse_progress
from lmsat_plugin.settings import parse_own
from lmsat_plugin.sweeps.checkpoints import Checkpoint, find_checkpoints
from lmsat_plugin.sweeps.config import load_config
from lmsat_plugin.sweeps.selection import select
from lmsat_plugin.text.corpora import CorpusSettings

DOCUMENTS = [
    ours(2.5, checkpoint={"model": "m", "revision": "step8", "commit": "c" * 40, "step": 8, "identity": "i"}),
    new({"piqa": {"alias": "piqa", "acc,none": 0.5, "acc_stderr,none": 0.01}, "arc": {"acc,none": 0.25}}),
    old(),
]
GOOD = {"model": "good", "step": 4, "value": 3.25}


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


@contextlib.contextmanager
def sentences():
    """Take an error of lmsat's that is one sentence."""
    caught = None
    try:
        yield
    except LmsatError as error:
        caught = str(error)
    assert caught is None or len(caught) < 2000


def fresh(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=folder))


def rows_beside(folder: Path, content: bytes) -> list[dict[str, Any]]:
    """Return the table of a folder with a good result and a file of this content."""
    good = ours(GOOD["value"], checkpoint={"model": "good", "revision": "step4", "commit": "g" * 40, "step": 4})
    (folder / "results_good.json").write_text(json.dumps(good), "utf-8")
    (folder / "results_other.json").write_bytes(content)
    code, out = run(["results", str(folder), "--format", "json"])
    assert code == 0
    return json.loads(out)


@fuzzed(60)
@given(document=st.sampled_from(DOCUMENTS).flatmap(changed))
def test_result_files(folder, document):
    """A result beside is shown as it is, and no value is shown that is not in the file."""
    folder = fresh(folder)
    content = json.dumps(document).encode("utf-8", "surrogatepass")
    rows = rows_beside(folder, content)
    kept = [row for row in rows if row["path"] == "results_good.json"]
    assert [{key: row[key] for key in GOOD} for row in kept] in ([GOOD], [])
    if not kept:
        assert b"supersedes" in content or b"good" in content
    held = {float(number) for number in numbers_in(document) if abs(number) < 1e300}
    shown = {row["value"] for row in rows if row["path"] != "results_good.json"} - {None}
    assert {value for value in shown if abs(value) < 1e300} <= held


def numbers_in(value: Any) -> list[float]:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return [number for part in inner for number in numbers_in(part)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


@fuzzed(40)
@given(content=st.sampled_from(DOCUMENTS).flatmap(lambda document: cut(json.dumps(document).encode())))
def test_cut_result_files(folder, content):
    rows_beside(fresh(folder), content)


@fuzzed(6)
@given(documents=st.lists(st.sampled_from(DOCUMENTS[:2]).flatmap(changed), min_size=1, max_size=4))
def test_analyses_of_results(folder, documents):
    folder = fresh(folder)
    for index, document in enumerate([*DOCUMENTS, *documents]):
        (folder / f"results_{index}.json").write_text(json.dumps(document), "utf-8")
    for command in ("saturation", "emergence", "leaderboard", "efficiency", "context", "bottleneck"):
        run([command, str(folder)])


NAMES = st.one_of(
    st.sampled_from(TEXTS),
    st.text(max_size=12),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["step", "stage1-step", "checkpoint-", "tokens", "iter_", "epoch_", "ckpt", ""]),
        st.integers(0, 10**25) | st.sampled_from(["9" * 5000, "٣", "1.5", "1k", "²"]),
        st.sampled_from(["", "-tokens21B", "-tokens" + "9" * 400 + "T", "k", "\n", "-seed-default", "\ud800"]),
    ),
)


@fuzzed(200)
@given(
    names=st.lists(NAMES, min_size=1, max_size=6), chosen=NAMES | st.sampled_from(["log:3", "every:2", "..", "1..2"])
)
def test_names_of_revisions(names, chosen):
    checkpoints = []
    for name in names:
        progress = parse_progress(name, tokens_per_step=2_097_152)
        for count in (progress.step, progress.tokens):
            assert count is None or 0 <= count < 2**63
        assert len(folder_name(name)) < 200
        assert not {"/", "\0"} & {*folder_name(name), *safe_name(name)}
        checkpoints.append(
            Checkpoint(model="m", pretrained="m", revision=name, step=progress.step, tokens=progress.tokens)
        )
    for selection in (chosen, names[0], [names[-1], chosen]):
        with contextlib.suppress(LmsatError):
            assert select(checkpoints, selection)
    with contextlib.suppress(LmsatError):
        parse_progress(names[0], compile_pattern(chosen))


CONFIG = {
    "models": [{"pretrained": "EleutherAI/pythia-14m", "revisions": ["log:3"], "tokens_per_step": 5}, "runs/mine"],
    "tasks": ["lmsat_*", {"task": "arc_easy", "num_fewshot": 5}],
    "corpora": ["sample", {"corpus": "pile", "max_tokens": 7}],
    "metadata": {"ranks": [8, 16]},
    "output": "results",
    "slurm": {"time": 60, "additional": {"mail-type": "END"}},
    "limit": 0.5,
    "batch_size": "auto:2",
}


@fuzzed(100)
@given(
    text=st.one_of(
        changed(CONFIG).map(lambda values: yaml.safe_dump(values, allow_unicode=True).encode("utf-8", "replace")),
        changed(CONFIG).map(lambda values: json.dumps(values).encode()),
        cut(yaml.safe_dump(CONFIG).encode()),
        st.text(alphabet="&*[]{}:,-?|>!%@`'\"#ab1\n ", max_size=60).map(str.encode),
    )
)
def test_configurations(folder, text):
    path = folder / "sweep.yaml"
    path.write_bytes(text)
    with sentences():
        assert load_config(path).models


@fuzzed(60)
@given(data=st.data())
def test_metadata(data):
    """As lm-eval hands it on: a wrong value is named, and what is taken can be written down."""
    kinds = [CorpusSettings, *(probe.settings_type for probe in plugins().probes.values())]
    kind = data.draw(st.sampled_from(kinds))
    given = data.draw(st.dictionaries(st.sampled_from([*kind.model_fields, "x"]), values(), max_size=3))
    with sentences():
        parse_own(kind, given).model_dump_json()


@fuzzed(40)
@given(state=changed({"global_step": 8, "num_input_tokens_seen": 100, "log_history": []}) | values(), name=NAMES)
def test_trainer_states(folder, state, name):
    folder = fresh(folder) / (safe_name(name)[:100] or "x")
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}", "utf-8")
    (folder / "trainer_state.json").write_bytes(json.dumps(state).encode("utf-8", "surrogatepass"))
    [checkpoint] = find_checkpoints(str(folder.parent if folder.name not in (".", "..") else folder))
    for count in (checkpoint.step, checkpoint.tokens):
        assert count is None or -(2**63) <= count < 2**63


COLUMNS = ["model", "n_params", "n_params_non_embedding", "tokens", "step", "steps", "loss", "task", "metric", "value"]
COLUMNS += [
    "flops",
    "corpus",
    "variant",
    "layers",
    "width",
    "heads",
    "batch_tokens",
    "position",
    "other_loss",
    "stderr",
]


@st.composite
def tables(draw: Any) -> str:
    """Return a CSV with the columns of a law, or any, in which some cells and perhaps a name are replaced."""
    if draw(st.booleans()):
        frame = chinchilla_table(draw(st.integers(1, 12)), seed=draw(st.integers(0, 9)))
        head, rows = list(frame.columns), frame.to_numpy().tolist()
    else:
        head = draw(st.lists(st.sampled_from(COLUMNS), min_size=1, unique=True))
        texts = {
            name: draw(st.sampled_from(["m", "lmsat_loss", "loss", "acc"])) for name in ("model", "task", "metric")
        }
        rows = [[texts.get(name, float(row)) for name in head] for row in range(1, draw(st.integers(2, 9)))]
    for _ in range(draw(st.integers(0, 4))):
        rows[draw(st.integers(0, len(rows) - 1))][draw(st.integers(0, len(head) - 1))] = draw(scalars())
    if draw(st.booleans()):
        head[0] = draw(st.sampled_from([*COLUMNS, *TEXTS]))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()


LAWS = ("chinchilla", "kaplan-n", "kaplan-d", "kaplan-c", "kaplan-nd", "kaplan-ns", "context", "transfer")
ANALYSES = [
    *(["fit", law, "--repetitions=5"] for law in LAWS),
    ["saturation"],
    ["emergence"],
    ["efficiency"],
    ["shape"],
]


@fuzzed(25)
@given(table=tables(), command=st.sampled_from(ANALYSES))
def test_tables_of_analyses(folder, table, command):
    path = folder / "table.csv"
    path.write_bytes(table.encode("utf-8", "replace"))
    code, out = run([*command, str(path), "--json"])
    if code == 0:
        json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@fuzzed(40)
@given(content=cut(chinchilla_table(6).to_csv(index=False).encode()) | st.binary(max_size=60))
def test_cut_tables(folder, content):
    path = folder / "cut.csv"
    path.write_bytes(content)
    run(["shape", str(path)])
