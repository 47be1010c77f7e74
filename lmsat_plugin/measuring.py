"""Measure one checkpoint from Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.measurement.engine import Execution, Outcome, measure_probes
from lmsat_plugin.measurement.forward import Processes
from lmsat_plugin.model.checkpoint_files import check_checkpoint_folder
from lmsat_plugin.model.loading import load_whole
from lmsat_plugin.plugins import plugins
from lmsat_plugin.settings import parse_settings
from lmsat_plugin.text.corpora import Corpus, CorpusSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lmsat_plugin.probe import Probe


def measure(
    model: PreTrainedModel | str | Path,
    probes: Sequence[str | Probe] = ("loss", "anisotropy", "head"),
    *,
    corpus: str | Iterable[str] = "sample",
    tokenizer: PreTrainedTokenizerBase | str | None = None,
    max_tokens: int | None = 50_000,
    seed: int = 0,
    text_field: str | None = None,
    max_length: int | None = None,
    batch_size: int | str = "auto",
    prefix_token_id: int | None = None,
    revision: str = "main",
    dtype: str | torch.dtype = "auto",
    device: str | None = None,
    **settings: Any,
) -> Outcome:
    """Measure a causal language model from Python.

    Args:
        model: A loaded transformers model, a folder, or a Hub name (with ``revision`` and ``dtype``).
        probes: Names of probes, or instances.
        corpus: ``sample``, a path, a named corpus, or the documents themselves.
        tokenizer: A tokenizer or where it is; by default beside the model.
        max_tokens: Tokens to measure; None takes the whole corpus.
        seed: Which documents come first.
        text_field: The column of the text in .jsonl and .parquet files.
        max_length: Window in tokens; 2,048 or the model's limit by default.
        batch_size: Windows a batch, or ``auto``.
        prefix_token_id: Token before each document; BOS, else EOS, by default.
        revision: The Hub revision.
        dtype: The type to load weights in.
        device: Where to load a model that is not loaded; a GPU if there is one.
        settings: Settings of the probes.

    Returns:
        The measurements and their provenance.

    Raises:
        LmsatError: For bad input; the message is one sentence that says what to do.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded: Any = model
    source = str(model) if isinstance(model, str | Path) else loaded.config._name_or_path
    if isinstance(model, str | Path):
        place = device or ("cuda" if torch.cuda.is_available() else "cpu")
        check_checkpoint_folder(source)
        try:
            loaded = (
                load_whole(AutoModelForCausalLM)
                .from_pretrained(source, revision=revision, dtype=dtype)
                .to(place)
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise LmsatError(
                f"cannot load the model {source} ({first_sentence(error)}): correct the name"
            ) from error
    if tokenizer is None or isinstance(tokenizer, str):
        try:
            tokenizer = AutoTokenizer.from_pretrained(tokenizer or source, revision=revision)
        except (OSError, ValueError) as error:
            raise LmsatError(
                f"no tokenizer at {tokenizer or source or 'the model'} ({first_sentence(error)}): pass tokenizer="
            ) from error
    given = {"max_tokens": max_tokens, "seed": seed, "text_field": text_field}
    if isinstance(corpus, str):
        corpus_settings = parse_settings(CorpusSettings, {"corpus": corpus, **given})
        documents = None
    else:
        corpus_settings = parse_settings(CorpusSettings, {"corpus": "documents", **given})
        documents = Corpus("documents", tuple(corpus))
    made = make_probes(probes, settings)
    training = loaded.training
    loaded.eval()
    try:
        return measure_probes(
            loaded,
            tokenizer,
            made,
            corpus_settings,
            Execution(
                device=loaded.device,
                batch_size=batch_size,
                max_length=max_length,
                prefix_token_id=prefix_token_id,
                processes=Processes.current(),
                corpora=plugins().corpora,
                origins=plugins().origins,
                name=f"{source or 'model'} {revision}",
            ),
            documents=documents,
        )
    finally:
        loaded.train(training)


def make_probes(probes: Sequence[str | Probe], settings: dict[str, Any]) -> dict[str, Probe]:
    """Return probes by name, each with those of ``settings`` that are its own.

    Raises `LmsatError` for an unknown probe, an unknown setting, or a wrong value.
    """
    made: dict[str, Probe] = {}
    used: set[str] = set()
    for probe in probes:
        if isinstance(probe, str):
            kind = plugins().probe(probe)
            own = {key: value for key, value in settings.items() if key in kind.settings_type.model_fields}
            used.update(own)
            made[probe] = kind(parse_settings(kind.settings_type, own))
        else:
            made[probe.name] = probe
    if unknown := settings.keys() - used:
        raise LmsatError(
            f"no probe of {', '.join(made)} has a setting '{min(unknown)}': correct or remove it"
        )
    return made
