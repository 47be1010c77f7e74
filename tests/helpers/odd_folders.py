"""Folders of checkpoints whose files contradict each other or are unusual: what transformers loads is not obvious."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
import transformers
from peft_adapters import save_adapter
from safetensors.torch import save_file
from tiny_models import GROUPED

from lmsat_plugin.conversion.folder import convert

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def _save(folder: Path, seed: int = 0, shard: str = "1GB", **settings) -> dict[str, torch.Tensor]:
    """Save a random model of Llama's kind; return its tensors."""
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**GROUPED, "num_hidden_layers": 2, **settings}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(5)
    model.save_pretrained(folder, max_shard_size=shard)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _other(folder: Path) -> dict[str, torch.Tensor]:
    return _save(folder.with_name(f"{folder.name}-other"), seed=1)


def _set_config(folder: Path, **values) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def plain(folder: Path) -> None:
    _save(folder)


def stale_index(folder: Path) -> None:
    _save(folder, shard="50kB")
    save_file(_other(folder), folder / "model.safetensors", {"format": "pt"})


def second_file(folder: Path) -> None:
    _save(folder)
    save_file(_other(folder), folder / "a.safetensors", {"format": "pt"})


def tied_with_another_head(folder: Path) -> None:
    tensors = _save(folder, tie_word_embeddings=True)
    save_file({**tensors, HEAD: _other(folder)[HEAD]}, folder / "model.safetensors", {"format": "pt"})


def tied_with_another_head_in_a_pickle(folder: Path) -> None:
    tensors = _save(folder, tie_word_embeddings=True)
    (folder / "model.safetensors").unlink()
    torch.save({**tensors, HEAD: _other(folder)[HEAD]}, folder / "pytorch_model.bin")


def tied_without_an_embedding(folder: Path) -> None:
    tensors = _save(folder, tie_word_embeddings=True)
    tensors.pop(EMBEDDING)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def untied_without_a_head(folder: Path) -> None:
    tensors = _save(folder)
    tensors.pop(HEAD)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def consolidated_beside_shards(folder: Path) -> None:
    _save(folder, shard="50kB")
    save_file(_other(folder), folder / "consolidated.safetensors", {"format": "pt"})


def pickled(folder: Path) -> None:
    tensors = _save(folder)
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    save_file(_other(folder), folder / "old.safetensors", {"format": "pt"})


def sharded(folder: Path) -> None:
    """With a shard of an earlier sharding, which nothing names."""
    _save(folder, shard="50kB")
    save_file(_other(folder), folder / "model-00001-of-00009.safetensors", {"format": "pt"})


def unused_broken_files(folder: Path) -> None:
    _save(folder)
    data = (folder / "model.safetensors").read_bytes()
    for name in ("model-00001-of-00002.safetensors", "optimizer.safetensors", "pytorch_model.bin"):
        (folder / name).write_bytes(data[:1000])


def zero_row_for_padding(folder: Path) -> None:
    """As a run from scratch whose one special token also begins and ends texts: torch keeps its row at zero."""
    _save(folder, pad_token_id=0)


def averaged_by_hand(folder: Path) -> None:
    """Of tied models, in another type than the configuration's, with both names and without metadata."""
    first = _save(folder, tie_word_embeddings=True)
    second = _save(folder.with_name(f"{folder.name}-other"), seed=1, tie_word_embeddings=True)
    _set_config(folder, dtype="bfloat16")
    save_file({name: (first[name] + second[name]) / 2 for name in first}, folder / "model.safetensors")


def without_a_dtype(folder: Path) -> None:
    """Of several types: transformers takes that of the first tensor in the file for all."""
    tensors = _save(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in config.items() if "dtype" not in key}))
    tensors[HEAD] = tensors[HEAD].bfloat16()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def of_a_name_in_the_configuration(folder: Path) -> None:
    _save(folder)
    save_file(_other(folder), folder / "chosen.safetensors", {"format": "pt"})
    _set_config(folder, transformers_weights="chosen.safetensors")


def multimodal(folder: Path) -> None:
    """Gemma 3's, whose padding token also begins texts here."""
    torch.manual_seed(0)
    text = transformers.Gemma3TextConfig(**{**GROUPED, "pad_token_id": 0}, sliding_window=16)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.Gemma3Config(
        text_config=text, vision_config={**sizes, "image_size": 32, "patch_size": 8}, mm_tokens_per_image=4
    )
    transformers.Gemma3ForConditionalGeneration(config).save_pretrained(folder)


def converted(folder: Path) -> None:
    """By `lmsat convert`, from a state dict with a wrapper's prefix."""
    tensors = _save(folder)
    source = folder.with_name(f"{folder.name}.pt")
    torch.save({f"module.{name}": tensor for name, tensor in tensors.items()}, source)
    config = folder.rename(folder.with_name(f"{folder.name}-config"))
    convert(source, folder, config=config)


def adapter(folder: Path) -> None:
    save_adapter(folder, _base(folder))


def adapter_with_its_own_head(folder: Path) -> None:
    save_adapter(folder, _base(folder), modules_to_save=["lm_head"])


def adapter_beside_its_base(folder: Path) -> None:
    """As the Trainer leaves it that saves both; the configuration names another model, which is not there."""
    _save(folder)
    save_adapter(folder, folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": "/nowhere"}))


def _base(folder: Path) -> Path:
    base = folder.with_name(f"{folder.name}-base")
    _save(base)
    return base


FOLDERS: dict[str, Callable[[Path], None]] = {
    make.__name__: make
    for make in (
        *(plain, stale_index, second_file, tied_with_another_head, tied_with_another_head_in_a_pickle),
        *(tied_without_an_embedding, consolidated_beside_shards, pickled, sharded, unused_broken_files),
        *(zero_row_for_padding, averaged_by_hand, without_a_dtype, of_a_name_in_the_configuration, multimodal),
        *(converted, adapter, adapter_with_its_own_head, adapter_beside_its_base),
    )
}
