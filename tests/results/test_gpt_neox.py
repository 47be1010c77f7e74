"""GPT-NeoX's evaluations: what names state, which settings tell results apart, and EleutherAI's whole folder."""

from __future__ import annotations

import pytest
from other_tools_files import NEOX_NAME, neox
from places import PYTHIA_EVALS
from result_files import OLD, old, write

from lmsat_plugin import Results, load_results


def names_of(path) -> set[tuple]:
    table = load_results(path)
    return set(zip(table.model, table.step, table.num_fewshot, strict=True))


@pytest.mark.parametrize(
    ("path", "model", "step"),
    [
        (f"pythia-v0/pythia-70m/zero-shot/{NEOX_NAME}", "pythia-70m-v0", 63000),
        (f"pythia-70m/zero-shot/{NEOX_NAME}", "pythia-70m", 63000),
        ("long-intervention-1.3b-deduped-step61500_eval_results_01-23-2023-14-09-15.json", None, 61500),
        # The folder has the name that the file lacks, and the settings the step.
        ("evals/pythia-v0/pythia-19m/five-shot/eval_results_01-21-2023-03-19-40.json", "pythia-19m-v0", 7),
        ("my-run/global_step5000/eval_results_01-21-2023-03-19-40.json", "my-run", 5000),
        # A version in the path that is another project's is none of the model's.
        ("project-v2/pythia-70m/eval_results_01-21-2023-03-19-40.json", "pythia-70m", 7),
    ],
)
def test_names(tmp_path, path, model, step):
    write(tmp_path / path, neox(step=7))
    assert names_of(tmp_path) == {(model or "long-intervention-1.3b-deduped", step, 0)}


def test_settings_that_change_with_every_checkpoint_are_no_variants(tmp_path):
    for step in (1000, 2000, 3000):
        for shots in (0, 5):
            name = f"pythia-70m-{shots}shot-global_step{step}_eval_results_11-25-2022-07-29-28.json"
            other = {"world_size": step, "deepspeed_slurm": step == 2000, "launcher": f"l{step}", "lr": step / 1e6}
            write(tmp_path / f"{shots}-shot" / name, neox(step, shots=shots, **other))
    assert names_of(tmp_path) == {("pythia-70m", step, shots) for step in (1000, 2000, 3000) for shots in (0, 5)}
    assert load_results(tmp_path).variant.isna().all()


def test_what_may_matter_tells_results_of_one_checkpoint_apart(tmp_path):
    for index, args in enumerate(({}, {"seq_length": 1024}, {"precision": "fp32"}, {"pos_emb": "alibi"})):
        write(tmp_path / str(index) / NEOX_NAME, neox(**args))
    assert set(load_results(tmp_path).variant) == {
        "dtype=fp16, neox.pos_emb=alibi, seq_length=2048",
        "dtype=fp16, neox.pos_emb=rotary, seq_length=1024",
        "dtype=fp16, neox.pos_emb=rotary, seq_length=2048",
        "dtype=fp32, neox.pos_emb=rotary, seq_length=2048",
    }


def test_two_dates_are_one_result_the_newest(tmp_path):
    """The dates are in the files' names, month first."""
    for date, value in (("12-30-2022-22-46-27", 0.5), ("01-02-2023-00-00-00", 0.75), ("11-30-2022-22-46-27", 0.25)):
        results = {"piqa": {"acc": value}, "wsc": {"acc": 0.5}}
        write(tmp_path / NEOX_NAME.replace("11-25-2022-07-29-28", date), neox(results=results))
    read = Results.read(tmp_path)
    assert dict(zip(read.table.task, read.table.value, strict=True)) == {"piqa": 0.75, "wsc": 0.5}
    assert read.note == (
        "4 of 6 values were measured again with the same settings, 2 of them with another outcome: "
        "the newest of each is taken; --all of lmsat results shows the others"
    )
    assert len(load_results(tmp_path, all_results=True)) == 6


def test_versions_of_pythia_stay_two_models(tmp_path):
    write(tmp_path / "pythia-v0/pythia-160m/zero-shot" / NEOX_NAME.replace("70m", "160m"), neox())
    write(tmp_path / "pythia-v1/pythia-160m/zero-shot/160m_step1000.json", old(OLD, piqa={"acc": 0.5}))
    assert {name for name, _, _ in names_of(tmp_path)} == {"pythia-160m-v0", "EleutherAI/pythia-v1.1-160m"}


@pytest.mark.skipif(not PYTHIA_EVALS.is_dir(), reason="the published evaluations are not here")
def test_published_files_keep_their_names():
    models = set(load_results(PYTHIA_EVALS).model)
    assert models == {f"EleutherAI/pythia-v1.1-{size}" for size in ("70m", "160m", "410m")}
