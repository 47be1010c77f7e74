"""Adapters on their base: as PEFT loads them, exchanged as loaded anew, merged, and refused where they do not fit."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
import transformers
from peft_adapters import IA3_OF_LLAMA, load_with_peft, save_adapter
from safetensors.torch import load_file, save_file
from tiny_models import ROWS, make_model

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.model.adapters import find_adapter, read_adapter
from lmsat_plugin.model.anatomy import dissect, unwrap
from lmsat_plugin.model.lm_head import head_weight, is_tied
from lmsat_plugin.model.loading import load_whole
from lmsat_plugin.model.peft_models import AdaptedModel, put_on
from lmsat_plugin.model.size import size_of

TOKENS = torch.arange(40).repeat(2, 1) * 7 % ROWS


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Return a function from a name to the folder of a saved model without a tokenizer."""
    parent = tmp_path_factory.mktemp("bases")

    def base(name: str):
        if not (parent / name).exists():
            make_model(name).save_pretrained(parent / name)
        return parent / name

    return base


def load(folder, merge: bool = False, **arguments) -> transformers.PreTrainedModel:
    return adapt(folder, merge, **arguments)[0]


def adapt(folder, merge: bool = False, **arguments) -> tuple[transformers.PreTrainedModel, AdaptedModel | None]:
    adapter = read_adapter(folder)
    assert adapter is not None
    loader = load_whole(transformers.AutoModelForCausalLM)
    model = loader.from_pretrained(str(adapter.base_folder), **arguments)
    return model, put_on(model, adapter, merge=merge)


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(TOKENS).logits


KINDS = {
    "lora": ("Lora", {}),
    "dora": ("Lora", {"use_dora": True}),
    "stabilised": ("Lora", {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}}),
    "of_the_head": ("Lora", {"target_modules": ["q_proj", "lm_head"]}),
    "of_the_embeddings": ("Lora", {"target_modules": ["q_proj", "embed_tokens"]}),
    "with_its_own_head": ("Lora", {"modules_to_save": ["lm_head"]}),
    "with_new_tokens": ("Lora", {"trainable_token_indices": [3, 7]}),
    "with_more_rows": ("Lora", {"rows": ROWS + 5, "target_modules": ["q_proj", "embed_tokens", "lm_head"]}),
    "with_fewer_rows": ("Lora", {"rows": ROWS - 9, "modules_to_save": ["embed_tokens", "lm_head"]}),
    "ia3": ("IA3", IA3_OF_LLAMA),
    "loha": ("LoHa", {"r": 4, "target_modules": ["q_proj", "down_proj"], "init_weights": False}),
    "of_norms": ("LNTuning", {"target_modules": ["input_layernorm", "norm"]}),
}


@pytest.mark.parametrize("name", KINDS)
def test_numbers_are_those_of_peft_and_those_of_the_merged_model(name, bases, tmp_path):
    kind, settings = KINDS[name]
    base = bases("llama")
    save_adapter(tmp_path / "a", base, kind=kind, **settings)
    model = load(tmp_path / "a")
    rows = settings.get("rows", ROWS)
    expected = logits(load_with_peft(base, tmp_path / "a", rows=rows))
    assert torch.equal(logits(model), expected)
    assert expected.shape[-1] == rows
    assert rows != ROWS or not torch.allclose(expected, logits(make_model("llama")), atol=1e-3)
    merged = load(tmp_path / "a", merge=True)
    assert not any("lora" in parameter or "base_layer" in parameter for parameter, _ in merged.named_parameters())
    torch.testing.assert_close(logits(merged), expected, atol=2e-5 * float(expected.abs().max()), rtol=0)
    # What probes of the head see is what the model computes with, and the head is verified against its logits.
    torch.testing.assert_close(head_weight(model), merged.lm_head.weight.detach(), atol=1e-6, rtol=1e-5)
    assert head_weight(model).shape == (rows, 48)
    assert dissect(model, TOKENS[0]).head is not None
    assert size_of(model) == size_of(merged)
    assert not is_tied(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "gpt_neox", "gpt2"])
def test_exchanged_adapter_is_as_one_loaded_anew(name, dtype, bases, tmp_path):
    for seed in (1, 2):
        save_adapter(tmp_path / f"{seed}", bases(name), seed)
    model, adapted = adapt(tmp_path / "1", dtype=dtype)
    first = logits(model)
    assert adapted is not None
    for number in ("2", "1"):
        adapter = read_adapter(tmp_path / number)
        assert adapter is not None
        state = torch.get_rng_state()
        adapted = adapted.exchange(adapter)
        assert adapted is not None
        assert adapted.adapter is adapter
        assert torch.equal(torch.get_rng_state(), state)
        fresh = load(tmp_path / number, dtype=dtype)
        for (path, ours), (_, theirs) in zip(model.state_dict().items(), fresh.state_dict().items(), strict=True):
            assert torch.equal(ours, theirs), path
            assert ours.dtype == theirs.dtype
        assert torch.equal(logits(model), logits(fresh))
        assert torch.equal(logits(model), logits(load_with_peft(bases(name), tmp_path / number, dtype=dtype)))
        assert torch.equal(logits(model), first) == (number == "1")


@pytest.mark.parametrize(
    "settings",
    [
        {"r": 8},
        {"lora_alpha": 16},
        {"use_rslora": True},
        {"target_modules": ["q_proj"]},
        {"modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"layers_to_transform": [0], "target_modules": ["q_proj"]},
        {"rank_pattern": {"q_proj": 2}},
    ],
)
def test_adapter_of_other_settings_is_not_exchanged(settings, bases, tmp_path):
    save_adapter(tmp_path / "1", bases("llama"))
    save_adapter(tmp_path / "2", bases("llama"), **settings)
    model, adapted = adapt(tmp_path / "1")
    before, other = logits(model), read_adapter(tmp_path / "2")
    assert adapted is not None
    assert other is not None
    assert adapted.exchange(other) is None
    assert torch.equal(logits(model), before)


def test_adapter_that_begins_by_changing_the_base_is_not_exchanged(bases, tmp_path):
    """Such as PiSSA, which takes the largest singular values out of the weights."""
    for seed in (1, 2):
        save_adapter(tmp_path / f"{seed}", bases("llama"), seed, init_lora_weights="pissa")
    model, adapted = adapt(tmp_path / "1")
    assert torch.equal(logits(model), logits(load_with_peft(bases("llama"), tmp_path / "1")))
    other = read_adapter(tmp_path / "2")
    assert adapted is not None
    assert other is not None
    assert adapted.exchange(other) is None


OUTSIDE = {
    "PROMPT_TUNING": ("PromptTuning", {"num_virtual_tokens": 3}),
    "PREFIX_TUNING": ("PrefixTuning", {"num_virtual_tokens": 3}),
    "P_TUNING": ("PromptEncoder", {"num_virtual_tokens": 3}),
    "aLoRA": ("Lora", {"alora_invocation_tokens": [5, 6]}),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_kind_that_is_more_than_layers_is_refused(name, bases, tmp_path):
    kind, settings = OUTSIDE[name]
    save_adapter(tmp_path / "a", bases("llama"), kind=kind, **settings)
    with pytest.raises(LmsatError, match=rf"a is of the kind {name}, which works outside .*leave it out"):
        load(tmp_path / "a")
    with pytest.raises(LmsatError, match=rf"is of the kind {name}, which works outside"):
        unwrap(load_with_peft(bases("llama"), tmp_path / "a"))


def test_adapter_of_tied_embeddings_is_not_merged(bases, tmp_path):
    """Merged into the one tensor, it would change what the head multiplies with, too."""
    save_adapter(tmp_path / "a", bases("gpt2"), target_modules=["wte", "c_attn"])
    model = load(tmp_path / "a")
    assert torch.equal(logits(model), logits(load_with_peft(bases("gpt2"), tmp_path / "a")))
    assert torch.equal(head_weight(model), make_model("gpt2").lm_head.weight)
    with pytest.raises(LmsatError, match=r"which are one tensor in .*: merged into it, it would change both; leave"):
        load(tmp_path / "a", merge=True)


def test_adapter_that_does_not_fit_is_refused(bases, tmp_path):
    save_adapter(tmp_path / "a", bases("llama"))
    file = tmp_path / "a" / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "lora_B" in name)
    save_file({key: value for key, value in tensors.items() if key != name}, file)
    with pytest.raises(LmsatError, match=r"lacks \S+lora_B\S+ \(1 in all\), of layers that its base model has"):
        load(tmp_path / "a")
    save_file({**tensors, name.replace("layers.0", "layers.9"): tensors[name].clone()}, file)
    with pytest.raises(LmsatError, match=r"holds \S+layers\.9\S+ \(1 in all\), of no layer of its base model"):
        load(tmp_path / "a")
    save_file({**tensors, name: tensors[name][:-1].clone()}, file)
    with pytest.raises(LmsatError, match=r"does not load on .*size mismatch"):
        load(tmp_path / "a")
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(LmsatError, match="is cut short or not a safetensors file"):
        load(tmp_path / "a")
    file.unlink()
    with pytest.raises(LmsatError, match=r"has an adapter_config.json and no adapter_model.safetensors"):
        load(tmp_path / "a")


def test_pickled_adapter_is_loaded_only_if_it_is_tensors_alone(bases, tmp_path):
    save_adapter(tmp_path / "a", bases("llama"))
    expected = logits(load(tmp_path / "a"))
    file = tmp_path / "a" / "adapter_model.safetensors"
    tensors = load_file(file)
    file.unlink()
    torch.save(tensors, file.with_suffix(".bin"))
    assert torch.equal(logits(load(tmp_path / "a")), expected)
    torch.save({**tensors, "code": shutil.rmtree}, file.with_suffix(".bin"))
    with pytest.raises(LmsatError, match=r"adapter_model.bin are a pickle that holds more than tensors.*not loaded"):
        load(tmp_path / "a")


def test_new_rows_without_a_head_for_them_are_refused(bases, tmp_path):
    save_adapter(tmp_path / "a", bases("llama"), rows=600, target_modules=["q_proj", "embed_tokens"])
    with pytest.raises(LmsatError, match="holds embeddings of 600 rows, and its base model has 576: the new rows"):
        load(tmp_path / "a")


def test_base_that_is_missing_is_named(bases, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(bases("llama"), base)
    save_adapter(tmp_path / "a", base)
    base.rename(tmp_path / "moved")
    advice = r"correct base_model_name_or_path there, or give pretrained=BASE,peft=\S+/a"
    with pytest.raises(LmsatError, match=rf"the base model \S+/base, which \S+adapter_config.json names, is.*{advice}"):
        load(tmp_path / "a")
    adapter = find_adapter(str(tmp_path / "moved"), peft=str(tmp_path / "a"))
    assert adapter is not None
    assert adapter.base_folder == tmp_path / "moved"
    path = tmp_path / "a" / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "base_model_name_or_path": None}))
    with pytest.raises(LmsatError, match="names no base model: write it there as base_model_name_or_path"):
        load(tmp_path / "a")
    save_adapter(tmp_path / "b", bases("llama"))
    path.write_text(json.dumps({**config, "base_model_name_or_path": str(tmp_path / "b")}))
    with pytest.raises(LmsatError, match=r"a is on \S+b, which has an adapter_config.json of its own: merge that"):
        load(tmp_path / "a")
    path.write_text("{")
    with pytest.raises(LmsatError, match="is no configuration of an adapter"):
        load(tmp_path / "a")


def test_missing_peft_is_said(bases, tmp_path, monkeypatch):
    save_adapter(tmp_path / "a", bases("llama"))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(LmsatError, match=r"is an adapter, which needs the package peft: pip install peft"):
        load(tmp_path / "a")
