"""A converted checkpoint is the model that was trained, whatever wrote it, or it is refused in a sentence."""

from __future__ import annotations

import argparse
import collections
import json
import re

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tiny_models import GROUPED, configs, make_model
from training_formats import MakesAFile, save_distributed, save_lightning, save_wrapped

from lmsat_plugin.conversion.folder import convert
from lmsat_plugin.conversion.recipe import Recipe
from lmsat_plugin.errors import LmsatError
from lmsat_plugin.model.loading import load_whole


def loaded(folder):
    return load_whole(transformers.AutoModelForCausalLM).from_pretrained(str(folder))


def assert_same(model, other) -> None:
    """Check that two models have the same weights and the same logits, to the last bit."""
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)
    tokens = torch.arange(2, 40)[None]
    with torch.no_grad():
        assert torch.equal(model.eval()(tokens).logits, other.eval()(tokens).logits)


WAYS = {
    "distributed": lambda folder: save_distributed(folder / "step-1"),
    "distributed in a folder": lambda folder: save_distributed(folder / "step-1" / "model").parent,
    "lightning": lambda folder: save_lightning(folder / "epoch=0-step=4.ckpt"),
    "lightning in a folder": lambda folder: save_lightning(folder / "step=4" / "a.ckpt").parent,
    "wrapped": lambda folder: save_wrapped(folder / "ckpt_3.pt"),
    "wrapped twice": lambda folder: save_wrapped(folder / "ckpt_3.pt", prefix="module._orig_mod."),
    "wrapped within": lambda folder: save_wrapped(folder / "ckpt_3.pt", prefix="model._orig_mod.model."),
}
STRIPPED = {
    **dict.fromkeys(("distributed", "distributed in a folder", "lightning", "lightning in a folder"), "model."),
    **{"wrapped": "_orig_mod.", "wrapped twice": "module.", "wrapped within": "model.model."},
}


@pytest.mark.parametrize("way", WAYS)
def test_all_formats_give_the_model_that_was_saved(way, config, tmp_path):
    notes = convert(WAYS[way](tmp_path), tmp_path / "out", config=config)
    assert_same(loaded(tmp_path / "out"), make_model("llama"))
    assert (notes["stripped"], notes["tensors"]) == (STRIPPED[way], 30)
    assert notes.get("unread", 0) == (0 if "wrapped" in way else 1 if "lightning" in way else 30)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").encode("a b")
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neox", "opt", "mamba", "gemma2", "gptj"])
@pytest.mark.parametrize("names", ["memory", "file"])
def test_architectures(architecture, names, config_of, tmp_path):
    """Under the names in memory, and under those in files, which transformers 5 changes for some."""
    model = make_model(architecture)
    model.save_pretrained(tmp_path / "saved")
    tensors = model.state_dict() if names == "memory" else load_file(tmp_path / "saved" / "model.safetensors")
    torch.save(tensors, tmp_path / "ckpt_1.pt")
    convert(tmp_path / "ckpt_1.pt", tmp_path / "out", config=config_of(architecture))
    assert_same(loaded(tmp_path / "out"), loaded(tmp_path / "saved"))


@pytest.mark.parametrize("names", ["memory", "file"])
def test_experts(names, tokenizer, tmp_path):
    torch.manual_seed(0)
    config = transformers.MixtralConfig(**{**GROUPED, "num_hidden_layers": 2}, num_local_experts=3)
    model = transformers.MixtralForCausalLM(config)
    model.save_pretrained(tmp_path / "saved")
    tensors = model.state_dict() if names == "memory" else load_file(tmp_path / "saved" / "model.safetensors")
    torch.save({"module": {f"module.{name}": tensor for name, tensor in tensors.items()}}, tmp_path / "ckpt_1.pt")
    convert(tmp_path / "ckpt_1.pt", tmp_path / "out", config=tmp_path / "saved")
    assert_same(loaded(tmp_path / "out"), model)


def test_tied_heads_may_be_missing(config_of, tmp_path):
    tied = config_of(tie_word_embeddings=True)
    config = transformers.AutoConfig.from_pretrained(tied)
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    # As a model without its head.
    torch.save({name.removeprefix("model."): tensor for name, tensor in tensors.items()}, tmp_path / "ckpt_1.pt")
    convert(tmp_path / "ckpt_1.pt", tmp_path / "out", config=tied)
    assert_same(loaded(tmp_path / "out"), model)
    with pytest.raises(LmsatError, match=r"1 of its weights are in none, lm_head.weight among them"):
        convert(tmp_path / "ckpt_1.pt", tmp_path / "untied", config=config_of())


def test_types_are_kept_and_nothing_is_rounded(config_of, tmp_path):
    """The configuration says bfloat16; what is computed with is the widest type that is stored."""
    config = config_of(dtype=torch.bfloat16)
    model = make_model("llama").bfloat16()
    for wide, dtype in ((False, torch.bfloat16), (True, torch.float32)):
        state = model.state_dict()
        if wide:
            state["lm_head.weight"] = state["lm_head.weight"].float() * 1.001
        torch.save(state, tmp_path / f"{wide}.pt")
        convert(tmp_path / f"{wide}.pt", tmp_path / f"out-{wide}", config=config)
        stored = load_file(tmp_path / f"out-{wide}" / "model.safetensors")
        assert {name: tensor.dtype for name, tensor in stored.items()} == {n: t.dtype for n, t in state.items()}
        again = loaded(tmp_path / f"out-{wide}")
        assert again.dtype == dtype
        assert torch.equal(again.lm_head.weight, state["lm_head.weight"])


def test_rename_comes_first(config, tmp_path):
    model = make_model("llama")
    strange = {name.replace("self_attn.", "attn/"): tensor for name, tensor in model.state_dict().items()}
    strange = {name.replace("model.layers.", "blocks."): tensor for name, tensor in strange.items()}
    torch.save({"state_dict": {f"net.{name}": tensor for name, tensor in strange.items()}}, tmp_path / "ckpt_1.pt")
    rename = ((r"^net\.", ""), (r"attn/", "self_attn."), (r"^blocks\.(\d+)", r"model.layers.\1"))
    notes = convert(tmp_path / "ckpt_1.pt", tmp_path / "out", config=config, rename=rename)
    assert_same(loaded(tmp_path / "out"), model)
    assert "stripped" not in notes
    with pytest.raises(LmsatError, match=r"`rename` makes both .*\.weight: correct it"):
        convert(tmp_path / "ckpt_1.pt", tmp_path / "other", config=config, rename=[(r"\d+", "0")])


def test_names_of_metas_are_warned_of(config, tmp_path, caplog):
    """Weights of another order of rows fit, and are wrong."""
    state = {
        name.replace("self_attn.q_proj", "wq"): tensor for name, tensor in make_model("llama").state_dict().items()
    }
    torch.save(state, tmp_path / "ckpt_1.pt")
    convert(tmp_path / "ckpt_1.pt", tmp_path / "out", config=config, rename=[("wq", "self_attn.q_proj")])
    [message] = [record.getMessage() for record in caplog.records if "wq" in record.getMessage()]
    assert "Meta's and torchtitan's Llama order the rows of wq and wk otherwise" in message


def refusal(state, config, tmp_path, **keywords) -> str:
    torch.save(state, tmp_path / "refused.pt")
    with pytest.raises(LmsatError) as caught:
        convert(tmp_path / "refused.pt", tmp_path / "refused", config=config, **keywords)
    assert not (tmp_path / "refused").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_names_that_fit_nothing(config, tmp_path):
    state = make_model("llama").state_dict()
    prefixed = {f"student.net.{name}": tensor for name, tensor in state.items()}
    sentence = refusal(prefixed, config, tmp_path)
    assert "0 of the 30 tensors of" in sentence
    assert r"names begin with 'student.net.'; write `rename: [['^student\.net\.', '']]`" in sentence
    # The advice helps.
    [pair] = re.findall(r"\[\['(.*)', ''\]\]", sentence)
    convert(tmp_path / "refused.pt", tmp_path / "out", config=config, rename=[(pair, "")])
    sentence = refusal({f"a.b.{number}.w": torch.ones(1) for number in range(3)}, config, tmp_path)
    assert "the others begin with 'a.b.'; give pairs of regular expressions with `rename`" in sentence
    state.pop("model.layers.1.mlp.up_proj.weight")
    assert "1 of its weights are in none, model.layers.1.mlp.up_proj.weight among them" in refusal(
        state, config, tmp_path
    )


def test_another_architecture_is_no_silent_wrong_number(config_of, tmp_path):
    """More layers, biases, or a norm than the configuration says would be left out without a word."""
    state = make_model("llama").state_dict()
    assert "for which" in refusal(state, config_of(num_hidden_layers=2), tmp_path)
    for more in ("model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.q_norm.weight"):
        sentence = refusal({**state, more: torch.ones(12)}, config_of(), tmp_path)
        assert f"has {more}, for which" in sentence
    sentence = refusal(state, config_of(vocab_size=500), tmp_path)
    assert re.search(
        r"has (model.embed_tokens|lm_head).weight of shape \(576, 48\) where .* says \(500, 48\)", sentence
    )
    # Buffers that earlier versions stored are no weights.
    torch.save({**state, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6)}, tmp_path / "old.pt")
    assert convert(tmp_path / "old.pt", tmp_path / "out", config=config_of())["unread"] == 1


def test_pickles_with_code_are_not_run(config, tmp_path):
    marker = tmp_path / "made"
    for how in ({"hyper": MakesAFile(marker)}, {"hyper": argparse.Namespace(lr=1)}, {"hyper": collections.Counter()}):
        file = save_lightning(tmp_path / "a.ckpt", **how)
        if how == {"hyper": collections.Counter()}:
            convert(file, tmp_path / "out", config=config)
            continue
        with pytest.raises(LmsatError, match=r"holds more than tensors, such as .*, and is not loaded.*`convert`"):
            convert(file, tmp_path / "out", config=config)
        assert not marker.exists()
    torch.save(MakesAFile(marker), tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(LmsatError, match="holds more than tensors"):
        convert(tmp_path / "a.pt", tmp_path / "other", config=config)
    assert not marker.exists()


def test_files_that_are_no_state_dict(config, tmp_path):
    for content, says in (
        ({"epoch": 3, "model": None}, r"holds no state dict, neither .* \(it has epoch, model\)"),
        ([torch.ones(2)], "holds a list and no state dict"),
        (torch.ones(2), "holds a Tensor and no state dict"),
    ):
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(LmsatError, match=says):
            convert(tmp_path / "a.pt", tmp_path / "out", config=config)
    data = save_wrapped(tmp_path / "b.pt").read_bytes()
    for cut in (0, 100, len(data) // 2, len(data) - 10):
        (tmp_path / "b.pt").write_bytes(data[:cut])
        with pytest.raises(LmsatError, match=r"b.pt (is cut short or broken|holds more)"):
            convert(tmp_path / "b.pt", tmp_path / "out", config=config)
    assert not (tmp_path / "out").exists()


def test_which_file_of_a_folder(config, tmp_path):
    folder = tmp_path / "step-1"
    folder.mkdir()
    for name in ("optimizer.pt", "rng_state.pth", "scheduler.pt", "mp.pt"):
        save_wrapped(folder / name)
    # As the Trainer writes with FSDP.
    for number, name in enumerate(("pytorch_model_fsdp_0", "optimizer_0")):
        save_distributed(tmp_path / "checkpoint-5" / name, number)
    convert(tmp_path / "checkpoint-5", tmp_path / "out-fsdp", config=config)
    assert_same(loaded(tmp_path / "out-fsdp"), make_model("llama"))
    convert(folder, tmp_path / "out", config=config)
    save_wrapped(folder / "other.pt", seed=1)
    with pytest.raises(LmsatError, match=r"holds mp.pt, other.pt and so on, .* give one of them"):
        convert(folder, tmp_path / "out-2", config=config)
    save_wrapped(folder / "model.pth", seed=2)
    convert(folder, tmp_path / "out-2", config=config)
    assert_same(loaded(tmp_path / "out-2"), make_model("llama", 2))
    for name in ("consolidated.00.pth", "consolidated.01.pth"):
        (tmp_path / "meta").mkdir(exist_ok=True)
        save_wrapped(tmp_path / "meta" / name)
    with pytest.raises(LmsatError, match="a command with `convert` that joins the parts of one model"):
        convert(tmp_path / "meta", tmp_path / "out-3", config=config)
    with pytest.raises(LmsatError, match=r"neither a folder of torch.distributed.checkpoint nor a state dict"):
        convert(config, tmp_path / "out-3", config=config)


def test_configurations(config_of, tmp_path):
    file = save_wrapped(tmp_path / "ckpt_1.pt")
    empty = tmp_path / "empty"
    empty.mkdir()
    t5 = transformers.T5Config(vocab_size=576)
    t5.save_pretrained(tmp_path / "t5")
    quantised = config_of()
    values = json.loads((quantised / "config.json").read_text())
    values["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (quantised / "config.json").write_text(json.dumps(values))
    for given, says in (
        (str(empty), r"config=.*empty has no config.json: give a folder or a repository"),
        ("./nothing", r"config=./nothing: there is no such folder"),
        (str(tmp_path / "t5"), "is an encoder-decoder model"),
        (str(quantised), "is of a quantised model"),
    ):
        with pytest.raises(LmsatError, match=says):
            Recipe(config=given).convert(file, tmp_path / "out")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    with pytest.raises(LmsatError, match="is there already: remove it"):
        convert(file, tmp_path / "there", config=config_of())
    assert configs()["llama"].vocab_size == 576
