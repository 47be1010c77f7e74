"""``lmsat size``: the number of a model's parameters, and of the operations for a token, by part."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.command import Answer, AnsweringCommand
from lmsat_plugin.cli.tables import TextTable
from lmsat_plugin.errors import LmsatError, first_sentence

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from transformers import PreTrainedModel


class SizeCommand(AnsweringCommand):
    """Count a model's parameters, and the floating-point operations for a token, by part.

    The model is built from its configuration, without weights: for a name on the Hub, only config.json is downloaded.
    Operations are those of Kaplan et al. 2020 (Table 1, eq. 2.2), for the shapes of the model's own matrices. Training
    costs three times a forward pass.
    """

    name = "size"
    has_figure = False
    help = "parameters and operations of a model, by part"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the model, the context and the tokens of a training."""
        parser.add_argument(
            "model", metavar="MODEL", help="a folder with a config.json, or a name of the Hub"
        )
        parser.add_argument(
            "--context",
            type=int,
            metavar="N_CTX",
            help="tokens of context (default: 2,048, or the model's limit if that is less)",
        )
        parser.add_argument(
            "--tokens",
            type=float,
            metavar="D",
            help="tokens of a training run, such as 3e11, whose cost is shown, too",
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
    from lmsat_plugin.model.size import count_parameters, forward_flops, has_tied_head, shape_of
    from lmsat_plugin.text.windows import DEFAULT_WINDOW

    counts = count_parameters(model)
    size: dict[str, Any] = {
        "parameters": {**asdict(counts), "total": counts.total},
        "tied_head": has_tied_head(model),
        "non_embedding": counts.non_embedding,
        "non_embedding_pythia": counts.non_embedding_pythia,
    }
    try:
        shape = shape_of(model)
    except LmsatError as error:
        return {**size, "no_formula": str(error)}
    n_ctx = context or min(DEFAULT_WINDOW, position_limit(model) or DEFAULT_WINDOW)
    flops = forward_flops(model, n_ctx)
    size |= {
        "shape": asdict(shape),
        "kaplan_parameters": shape.kaplan_parameters,
        "kaplan_parameters_error": shape.kaplan_parameters / counts.non_embedding - 1,
        "n_ctx": n_ctx,
        "forward_flops": {**asdict(flops), "total": flops.total},
        "kaplan_forward_flops": 2 * counts.non_embedding + flops.attention_mask,
        "training_flops": 3 * flops.total,
        "kaplan_training_flops": 6 * counts.non_embedding,
    }
    if tokens is not None:
        run = {
            "flops": tokens * size["training_flops"],
            "kaplan_flops": tokens * size["kaplan_training_flops"],
        }
        pf_days = {f"{key.removesuffix('flops')}pf_days": value / PF_DAY for key, value in run.items()}
        size["training_run"] = {"tokens": tokens, **run, **pf_days}
    return size


def _parts(size: dict[str, Any]) -> Iterator[TextTable | str]:
    def table(title: str, what: str, parts: dict[str, int]) -> TextTable:
        rows = [
            (name.replace("_", " "), n, f"{n / parts['total']:.2%}")
            for name, n in parts.items()
            if n or name == "head"
        ]
        return TextTable(title, ("part", what, "share"), rows)

    tied = "the head is the embedding" if size["tied_head"] else "the head is its own matrix"
    yield table(f"{size['model']}: {tied}", "parameters", size["parameters"])
    rows = [
        ("without embeddings and head (Kaplan et al.)", size["non_embedding"]),
        ("the same with learned positions (Pythia's table)", size["non_embedding_pythia"]),
    ]
    if "no_formula" in size:
        yield TextTable("Without embeddings", ("convention", "parameters"), rows)
        yield f"No operations: {size['no_formula']}."
        return
    matrices = size["shape"]["mlp_matrices"]
    formula = (
        "2 d_model n_layer (2 d_attn + d_ff)"
        if matrices == 2
        else "d_model n_layer (4 d_attn + 3 d_ff), gated"
    )
    error = f"{size['kaplan_parameters_error']:+.2%}"
    rows.append((f"Kaplan's N ≈ {formula}: {error}", round(size["kaplan_parameters"])))
    yield TextTable("Without embeddings", ("convention", "parameters"), rows)
    yield table(
        f"A token, forward, n_ctx = {size['n_ctx']:,}",
        "FLOP",
        size["forward_flops"],
    )
    rows = [
        ("forward, 2N + 2 n_layer n_ctx d_attn (eq. 2.2)", size["kaplan_forward_flops"]),
        ("training, three times all parts", size["training_flops"]),
        ("training, 6N", size["kaplan_training_flops"]),
    ]
    yield TextTable("A token", ("what", "FLOP"), rows)
    if run := size.get("training_run"):
        costs = [
            ("all parts", run["flops"], run["pf_days"]),
            ("6ND", run["kaplan_flops"], run["kaplan_pf_days"]),
        ]
        yield TextTable(f"Training on {run['tokens']:.4g} tokens", ("what", "FLOP", "PF-days"), costs)
