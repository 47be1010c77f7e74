"""One model for a series of checkpoints: each is what it would be alone."""

from __future__ import annotations

import json

from tiny_models import make_model

from lmsat_plugin.harness.checkpoint_evaluator import CheckpointEvaluator


def test_a_checkpoint_has_its_own_generation_config_and_code(tokenizer, tmp_path):
    """Though weights alone are loaded into the model of the one before where they fit."""
    folders = [tmp_path / name for name in ("step1", "step2")]
    for seed, folder in enumerate(folders):
        make_model("gpt_neox", seed).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    for folder, penalty in zip(folders, (1.5, 2.5), strict=True):
        path = folder / "generation_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "repetition_penalty": penalty}))
    evaluator = CheckpointEvaluator({}, {"device": "cpu", "batch_size": 1})
    models, penalties = [], []
    for folder in (*folders, folders[0]):
        evaluator.load(folder, name="run", revision=folder.name)
        models.append(evaluator.lm)
        penalties.append(evaluator.lm.model.generation_config.repetition_penalty)
    assert penalties == [1.5, 2.5, 1.5]
    assert models[0] is models[1] is models[2]
    for folder in folders:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": {"AutoModel": "modeling.Model"}}))
    assert not models[0].load_weights(str(folders[1]))
