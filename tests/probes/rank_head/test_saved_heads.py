"""Heads in files: as models, and with a rank and a kind that results record."""

from __future__ import annotations

import pytest
from evaluation import evaluate, numbers
from rank_head_runs import train
from tiny_models import WINDOW, make_model

from lmsat_plugin import measure
from lmsat_plugin.harness.model import SaturationLM
from lmsat_plugin.model.head_files import RestrictedHead, describe_head


@pytest.mark.parametrize("architecture", ["gpt_neox", "gpt2", "gemma2"])
def test_saved_heads_load_as_models(architecture, checkpoint, tokenizer, texts, tmp_path):
    """The loss of a trained head is that of lm-eval's task with ``head=FILE``."""
    heads = tmp_path / "heads"
    outcome = train(make_model(architecture), tokenizer, texts, heads=str(heads))
    for rank in (4, 48):
        for stem, metric in ((f"rank_{rank}", "loss"), (f"truncated_rank_{rank}", "weighted_truncated_loss")):
            [path] = heads.glob(f"*__{stem}.safetensors")
            lm = SaturationLM(str(checkpoint(architecture)), head=str(path), dtype="float32", device="cpu")
            loss = measure(
                lm.model, ["loss"], corpus=texts, tokenizer=tokenizer, max_tokens=1500, max_length=WINDOW
            ).metrics["lmsat_loss/loss"]
            assert loss == pytest.approx(outcome.metrics[f"lmsat_rank_head/{metric}_rank_{rank}"], rel=1e-5)
    assert len(list(heads.iterdir())) == 4
    assert lm.get_model_info()["model_num_parameters"] > 0


def test_truncated_heads_are_saved_without_any_training(tokenizer, texts, tmp_path):
    outcome = train(make_model("gpt_neox"), tokenizer, texts, train_tokens=None, heads=str(tmp_path / "heads"))
    names = {path.name.split("__")[-1] for path in (tmp_path / "heads").iterdir()}
    assert names == {"truncated_rank_4.safetensors", "truncated_rank_48.safetensors"}
    assert "lmsat_rank_head/loss_rank_4" not in outcome.metrics


@pytest.mark.parametrize(("name", "head"), [("__rank_4", ("trained", 4)), ("__truncated_rank_48", ("weighted", 48))])
def test_results_record_the_rank_and_the_kind_of_a_head(name, head, trained, checkpoint, corpus_file, tmp_path):
    """Whatever its file is called, and with or without probes."""
    [file] = trained[1].glob(f"*{name}.safetensors")
    renamed = tmp_path / "mine.safetensors"
    renamed.write_bytes(file.read_bytes())
    kind, rank = head
    assert describe_head(renamed) == RestrictedHead(rank=rank, kind=kind)
    model_args = {"pretrained": str(checkpoint("gpt_neox")), "device": "cpu"}
    results = evaluate(
        "lmsat", ["lmsat_loss"], model_args={**model_args, "head": str(renamed)}, corpus=str(corpus_file)
    )
    assert results["config"]["lmsat_head"] == {"rank": rank, "kind": kind}
    assert numbers(results)["lmsat_loss", "loss,none"] > 0
    lm = SaturationLM(**model_args, head=str(renamed))
    assert lm.get_model_info()["lmsat_head"] == {"rank": rank, "kind": kind}
    # A head that is truncated after it was loaded is another.
    assert "lmsat_head" not in SaturationLM(**model_args, head=str(renamed), head_rank=2).get_model_info()
    assert "lmsat_head" not in SaturationLM(**model_args).get_model_info()
