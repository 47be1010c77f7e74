"""One model for a series of checkpoints: each is what it would be alone."""

from __future__ import annotations

import json
import weakref
from types import SimpleNamespace

from tiny_models import make_model

from lmsat_plugin.harness import model as model_of_harness
from lmsat_plugin.harness.checkpoint_evaluator import CheckpointEvaluator
from lmsat_plugin.model.loading import load_whole


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


def test_a_model_is_gone_before_another_is_loaded(tokenizer, tmp_path, monkeypatch):
    """Of another architecture, and where arguments forbid that weights alone are loaded."""
    folders = {}
    for name in ("gpt_neox", "llama"):
        folders[name] = tmp_path / name
        make_model(name).save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    models: list[weakref.ref] = []

    def watched(loader):
        def from_pretrained(*arguments, **keywords):
            assert all(ref() is None for ref in models)
            model = load_whole(loader).from_pretrained(*arguments, **keywords)
            models.append(weakref.ref(model))
            return model

        return SimpleNamespace(from_pretrained=from_pretrained)

    monkeypatch.setattr(model_of_harness, "load_whole", watched)
    evaluator = CheckpointEvaluator({"use_safetensors": True}, {"device": "cpu", "batch_size": 1})
    for name in ("gpt_neox", "gpt_neox", "llama"):
        evaluator.load(folders[name], name="run", revision=name)
    assert len(models) == 3
