"""Checkpoints as training code writes them: torch.distributed.checkpoint, torch.save, Lightning; and pickles with code.

``python tests/helpers/training_formats.py FOLDER``, on several processes, writes one of the first kind, sharded.
"""

from __future__ import annotations

import os
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torch.distributed.checkpoint
from tiny_models import make_model


def training_state(seed: int, architecture: str = "llama") -> dict[str, Any]:
    """Return the state of a model, and of an optimiser that has taken no step but has its moments."""
    model = make_model(architecture, seed)
    moments = {name: {"exp_avg": torch.zeros_like(each)} for name, each in model.named_parameters()}
    return {"model": model.state_dict(), "optimizer": {"state": moments, "param_groups": [{"lr": 0.1}]}, "step": 7}


def save_distributed(folder: Path, seed: int = 0, architecture: str = "llama") -> Path:
    """Write a folder of torch.distributed.checkpoint, from one process."""
    with warnings.catch_warnings():
        # It says that there is one process.
        warnings.simplefilter("ignore")
        torch.distributed.checkpoint.save(training_state(seed, architecture), checkpoint_id=folder)
    return folder


def save_lightning(file: Path, seed: int = 0, architecture: str = "llama", **hyperparameters: Any) -> Path:
    """Write what Lightning 2.6 writes of a module that has the model as its attribute ``model``."""
    state = training_state(seed, architecture)
    monitored = {"monitor": None, "best_model_score": None, "kth_value": torch.tensor(torch.inf), "best_k_models": {}}
    content = {
        "epoch": 0,
        "global_step": 4,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": {f"model.{name}": tensor for name, tensor in state["model"].items()}
        | {"loss_fn.weight": torch.ones(5)},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"current": {"processed": 0}}}},
        "callbacks": {"ModelCheckpoint{'monitor': None, 'mode': 'min'}": monitored},
        "optimizer_states": [state["optimizer"]],
        "lr_schedulers": [{"step_size": 1, "base_lrs": [0.001], "_last_lr": [0.001]}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.001, **hyperparameters},
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, file)
    return file


def save_wrapped(file: Path, seed: int = 0, architecture: str = "llama", prefix: str = "_orig_mod.") -> Path:
    """Write a state dict of a model in a wrapper, beside the step."""
    state = make_model(architecture, seed).state_dict()
    torch.save({"model": {f"{prefix}{name}": tensor for name, tensor in state.items()}, "step": 3}, file)
    return file


class MakesAFile:
    """What makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def pickled(path: Path) -> bytes:
    """Return a pickle that makes ``path`` when it is read."""
    return pickle.dumps({"state_dict_metadata": MakesAFile(path)})


def _save_sharded(folder: Path) -> None:
    """Have each process write its shards: of some dimension 0, of others 1, and of the rest all the same."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    torch.distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    state = training_state(0)
    for names, placement in (
        (("q_proj", "embed_tokens"), Shard(0)),
        (("down_proj",), Shard(1)),
        (("norm",), Replicate()),
    ):
        for name, tensor in state["model"].items():
            if any(each in name for each in names):
                state["model"][name] = distribute_tensor(tensor, mesh, [placement])
    torch.distributed.checkpoint.save(state, checkpoint_id=folder)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    _save_sharded(Path(sys.argv[1]))
