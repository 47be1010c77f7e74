"""``lmsat size``: the number of a model's parameters, and of the operations for a token, by part."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.answers import Answer
from lmsat_plugin.cli.command import AnsweringCommand
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.errors import LmsatError, first_sentence

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SizeCommand(AnsweringCommand):
    """Count a model's parameters, and the floating-point operations for a token, by part.

    The model is built from its configuration, without weights: for a name on the Hub, only config.json is downloaded.
    Operations are counted by PyTorch, in the parts of Kaplan et al. 2020 (Table 1); of a mixture of experts, those of
    the experts that a token uses. Training costs three times a forward pass.
    """

    name = "size"
    has_figure = False
    help = "parameters and operations of a model, by part"
    examples = ("lmsat size EleutherAI/pythia-160m", "lmsat size runs/my-model/step1000 --context 2048 --tokens 300e9")

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the model, the context and the tokens of a training."""
        parser.add_argument("model", metavar="MODEL", help="a folder with a config.json, or a name of the Hub")
        parser.add_argument(
            "--context",
            type=int,
            metavar="N_CTX",
            help="tokens of context (default: 2,048, or the model's limit if that is less)",
        )
        parser.add_argument(
            "--tokens", type=float, metavar="D", help="tokens of a training run, such as 3e11, whose cost is shown, too"
        )

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the counts."""
        for option, value in (("context", args.context), ("tokens", args.tokens)):
            if value is not None and not 1 <= value < float("inf"):
                raise LmsatError(f"--{option}={value:g} is not a number of tokens: give 1 or more")
        data = {"model": args.model, **_describe(_build(args.model), args.context, args.tokens)}
        return Answer(data=data, parts=_parts(data))


def _build(pretrained: str) -> PreTrainedModel:
    """Return the model of a configuration, without weights, on the meta device."""
    import torch
    from huggingface_hub import hf_hub_download
    from transformers import AutoConfig, AutoModelForCausalLM

    from lmsat_plugin.hub import hub_errors
    from lmsat_plugin.model.checkpoint_files import local_folder

    folder = local_folder(pretrained)
    if folder is None:
        with hub_errors(pretrained):
            path = hf_hub_download(pretrained, "config.json")
    else:
        path = str(folder / "config.json")
        if not (folder / "config.json").is_file():
            raise LmsatError(f"{pretrained} has no config.json: give the folder of a saved checkpoint")
    try:
        config = AutoConfig.from_pretrained(path)
        if getattr(config, "is_encoder_decoder", False):
            raise LmsatError(f"{pretrained} is an encoder-decoder model: lmsat measures decoder-only models")
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except LmsatError:
        raise
    except Exception as error:
        raise LmsatError(
            f"{pretrained} is not a causal language model that transformers can build ({first_sentence(error)}): "
            "give another, or correct its config.json"
        ) from error
    model.tie_weights()
    return model


def _describe(model: PreTrainedModel, context: int | None, tokens: float | None) -> dict[str, Any]:
    from lmsat_plugin.analysis.scaling_laws.kaplan import PF_DAY
    from lmsat_plugin.model.anatomy import position_limit
    from lmsat_plugin.model.flops import forward_flops
    from lmsat_plugin.model.lm_head import is_tied
    from lmsat_plugin.model.size import count_parameters, shape_of
    from lmsat_plugin.text.windows import DEFAULT_WINDOW

    counts = count_parameters(model)
    size: dict[str, Any] = {
        "parameters": {**asdict(counts), "total": counts.total},
        "tied_head": is_tied(model),
        "non_embedding": counts.non_embedding,
        "non_embedding_pythia": counts.non_embedding_pythia,
    }
    n_ctx = size["n_ctx"] = context or min(DEFAULT_WINDOW, position_limit(model) or DEFAULT_WINDOW)
    try:
        shape = shape_of(model)
    except LmsatError as error:
        size["no_formula"] = str(error)
    else:
        products_of_tokens = round(2 * shape.n_layer * n_ctx * shape.d_attn)
        size |= {
            "shape": asdict(shape),
            "kaplan_parameters": shape.kaplan_parameters,
            "kaplan_parameters_error": shape.kaplan_parameters / counts.non_embedding - 1,
            "kaplan_forward_flops": 2 * counts.non_embedding + products_of_tokens,
            "kaplan_training_flops": 6 * counts.non_embedding,
        }
    try:
        flops = forward_flops(model, n_ctx)
    except LmsatError as error:
        size["no_operations"] = str(error)
    else:
        size |= {"forward_flops": {**asdict(flops), "total": flops.total}, "training_flops": 3 * flops.total}
    if tokens is not None:
        costs = {"flops": size.get("training_flops"), "kaplan_flops": size.get("kaplan_training_flops")}
        run = {key: tokens * cost for key, cost in costs.items() if cost is not None}
        pf_days = {f"{key.removesuffix('flops')}pf_days": value / PF_DAY for key, value in run.items()}
        size["training_run"] = {"tokens": tokens, **run, **pf_days}
    return size


def _parts(size: dict[str, Any]) -> Iterator[TextTable | str]:
    def table(title: str, what: str, parts: dict[str, int]) -> TextTable:
        rows = [
            (name.replace("_", " "), n, f"{n / parts['total']:.2%}") for name, n in parts.items() if n or name == "head"
        ]
        return TextTable(title, ("part", what, "share"), rows)

    tied = "the head is the embedding" if size["tied_head"] else "the head is its own matrix"
    yield table(f"{size['model']}: {tied}", "parameters", size["parameters"])
    rows = [
        ("without embeddings and head (Kaplan et al.)", size["non_embedding"]),
        ("the same with learned positions (Pythia's table)", size["non_embedding_pythia"]),
    ]
    if "shape" in size:
        gated = size["shape"]["mlp_matrices"] == 3
        formula = "d_model n_layer (4 d_attn + 3 d_ff), gated" if gated else "2 d_model n_layer (2 d_attn + d_ff)"
        error = f"{size['kaplan_parameters_error']:+.2%}"
        rows.append((f"Kaplan's N ≈ {formula}: {error}", round(size["kaplan_parameters"])))
    yield TextTable("Without embeddings", ("convention", "parameters"), rows)
    if "forward_flops" in size:
        yield table(f"A token, forward, n_ctx = {size['n_ctx']:,}", "FLOP", size["forward_flops"])
    names = {
        "kaplan_forward_flops": "forward, 2N + 2 n_layer n_ctx d_attn (eq. 2.2)",
        "training_flops": "training, three times all parts",
        "kaplan_training_flops": "training, 6N",
    }
    if costs := [(name, size[key]) for key, name in names.items() if key in size]:
        yield TextTable("A token", ("what", "FLOP"), costs)
    if run := size.get("training_run"):
        names = {"": "all parts", "kaplan_": "6ND"}
        training = [
            (name, run[f"{key}flops"], run[f"{key}pf_days"]) for key, name in names.items() if f"{key}flops" in run
        ]
        yield TextTable(f"Training on {run['tokens']:.4g} tokens", ("what", "FLOP", "PF-days"), training)
    for key, what in (("no_formula", "No numbers of Kaplan's"), ("no_operations", "No operations")):
        if key in size:
            yield f"{what}: {size[key]}."
