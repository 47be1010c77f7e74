"""The Trainer's states are believed where they grow as the names do, and names count where they do not."""

from __future__ import annotations

from checkpoint_folders import make_checkpoint

from lmsat_plugin.series.finding import find_checkpoints


def test_trainer_states_are_believed_where_they_grow(tmp_path, caplog):
    def steps(run: str) -> dict[str, tuple[int | None, int | None]]:
        return {
            each.name: (each.step, each.tokens) for each in find_checkpoints(str(tmp_path / run), tokens_per_step=2)
        }

    states = {
        # The count of tokens began anew when the training was resumed.
        "resumed": {"checkpoint-5": (5, 100), "checkpoint-10": (10, 50), "checkpoint-20": (20, 150)},
        # The steps did.
        "renamed": {"checkpoint-5": (5, 10), "checkpoint-10": (5, 20), "checkpoint-20": (10, 30)},
        "epochs": {"epoch_1": (50, 100), "epoch_2": (100, 200)},
        "inside": {"step5": (5, 100), "step10": (10, 200)},
        "numbers": {"ckpt_001": (50, 0), "ckpt_002": (40, 0), "ckpt_003": (60, 0)},
        "stages": {"stage1/step5": (5, 10), "stage2/step5": (5, 10), "stage2/step10": (10, 20)},
    }
    for run, folders in states.items():
        for name, (step, tokens) in folders.items():
            make_checkpoint(tmp_path / run / name, global_step=step, num_input_tokens_seen=tokens)
    assert steps("resumed") == {"checkpoint-5": (5, 10), "checkpoint-10": (10, 20), "checkpoint-20": (20, 40)}
    assert steps("renamed") == {"checkpoint-5": (5, 10), "checkpoint-10": (10, 20), "checkpoint-20": (20, 30)}
    assert steps("epochs") == {"epoch_1": (50, 100), "epoch_2": (100, 200)}
    for name in states["inside"]:
        make_checkpoint(tmp_path / "inside" / name / "hf")
        (tmp_path / "inside" / name / "config.json").unlink()
    assert steps("inside") == states["inside"]
    assert steps("numbers") == {"ckpt_001": (None, None), "ckpt_002": (None, None), "ckpt_003": (None, None)}
    assert steps("stages") == {"stage1/step5": (5, 10), "stage2/step5": (5, 10), "stage2/step10": (10, 20)}
    told = [record.message for record in caplog.records]
    assert [text.partition("trainer_state.json")[0] for text in told] == [
        f"{tmp_path}/{folder}/" for folder in ("resumed/checkpoint-10", "renamed/checkpoint-10", "numbers/ckpt_002")
    ]
    assert "num_input_tokens_seen, 50, does not grow" in told[0]
    assert "global_step, 5, does not grow" in told[1]
