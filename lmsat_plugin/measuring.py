"""The public function `measure`: measure one checkpoint from Python."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.measurement.engine import LoadedModel, measure_probes
from lmsat_plugin.measurement.execution import Execution, Processes
from lmsat_plugin.measurement.outcome import Outcome
from lmsat_plugin.measurement.references import References
from lmsat_plugin.model.adapters import find_adapter
from lmsat_plugin.model.anatomy import input_device, unwrap
from lmsat_plugin.model.checkpoint_files import check_checkpoint_folder
from lmsat_plugin.model.computing_type import widen
from lmsat_plugin.model.divergence import naming_weights
from lmsat_plugin.model.loading import load_whole
from lmsat_plugin.model.peft_models import put_on
from lmsat_plugin.plugins import plugins
from lmsat_plugin.probe import Probe
from lmsat_plugin.settings import parse_settings
from lmsat_plugin.text.corpora import Corpus, CorpusSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def measure(
    model: PreTrainedModel | str | Path,
    probes: str | Probe | Sequence[str | Probe] = ("loss", "anisotropy", "head"),
    *,
    corpus: str | Iterable[str] = "sample",
    tokenizer: PreTrainedTokenizerBase | str | None = None,
    max_tokens: int | None = 50_000,
    seed: int = 0,
    text_field: str | None = None,
    prefix: str = "auto",
    max_length: int | None = None,
    batch_size: int | str = "auto",
    prefix_token_id: int | None = None,
    revision: str = "main",
    dtype: str | torch.dtype = "auto",
    device: str | None = None,
    trust_remote_code: bool = False,
    merge: bool = False,
    **settings: Any,
) -> Outcome:
    """Measure a causal language model; return the measurements and their provenance.

    Args:
        model: A loaded transformers model, a folder, or a Hub name (with ``revision`` and ``dtype``). An adapter is put
            on the base model that it names.
        probes: Names of probes, or instances; or one.
        corpus: ``sample``, a path, a named corpus, or the documents themselves.
        tokenizer: A tokenizer, its folder or its name; by default the one beside the model.
        max_tokens: Tokens to measure; None takes the whole corpus.
        seed: Which documents come first.
        text_field: The column of the text in .jsonl and .parquet files.
        prefix: Where the prefix token stands: before every ``window``, or before each ``document`` alone; ``auto`` is
            ``window`` where the tokenizer prepends BOS.
        max_length: Window in tokens, a prefix token included; by default 2,048, or the model's limit if that is less.
        batch_size: Windows a batch, or ``auto``.
        prefix_token_id: The prefix token; BOS, else EOS, by default.
        revision: The Hub revision.
        dtype: The type to load weights in, and to compute in; ``auto`` is the type of the files, or float32 on a CPU
            without units for a half type. A loaded model stays as it is.
        device: The device for a model that is not loaded yet; by default a GPU if there is one.
        trust_remote_code: Whether to run the code that a checkpoint brings along.
        merge: Merge an adapter into the weights, instead of computing it beside them.
        settings: Settings of the probes.

    Raises `LmsatError` for bad input; the message is one sentence that says what to do.

    Example:
        >>> outcome = lmsat_plugin.measure("run/step1", ["loss", "head"], max_tokens=300)
        >>> outcome.to_frame().task.unique().tolist()
        ['lmsat_loss', 'lmsat_head']
    """
    if isinstance(model, str | Path):
        load = partial(load_checkpoint, dtype=dtype, device=device, trust_remote_code=trust_remote_code)
        loaded = load(str(model), revision=revision, merge=merge, tokenizer=tokenizer)
    else:
        if merge:
            raise LmsatError("merge=True is for the folder, or the Hub's name, of an adapter: leave it out")
        source = model.config._name_or_path
        if tokenizer is None or isinstance(tokenizer, str):
            tokenizer = _load_tokenizer(tokenizer or source, revision=revision, trust_remote_code=trust_remote_code)
        loaded = LoadedModel(model=model, tokenizer=tokenizer, name=f"{source or 'model'} {revision}")
        load = partial(load_checkpoint, dtype=model.dtype, device=str(input_device(unwrap(model))))
    text = {"max_tokens": max_tokens, "seed": seed, "text_field": text_field, "prefix": prefix}
    documents = None
    if not isinstance(corpus, str):
        corpus, documents = "documents", Corpus("documents", tuple(corpus))
    corpus_settings = parse_settings(CorpusSettings, {"corpus": corpus, **text})
    probes_by_name = make_probes([probes] if isinstance(probes, str | Probe) else probes, settings)
    execution = Execution(
        device=input_device(unwrap(loaded.model)),
        batch_size=batch_size,
        max_length=max_length,
        prefix_token_id=prefix_token_id,
        processes=Processes.current(),
        corpora=plugins().corpora,
        origins=plugins().origins,
        references=References(load=lambda reference: load(str(reference.source), revision=reference.revision)),
    )
    training = loaded.model.training
    loaded.model.eval()
    try:
        with naming_weights(loaded.model):
            return measure_probes(loaded, probes_by_name, corpus_settings, execution, documents=documents)
    finally:
        loaded.model.train(training)


def load_checkpoint(
    source: str,
    *,
    revision: str = "main",
    dtype: str | torch.dtype = "auto",
    device: str | None = None,
    trust_remote_code: bool = False,
    merge: bool = False,
    tokenizer: PreTrainedTokenizerBase | str | None = None,
) -> LoadedModel:
    """Load a model, or an adapter on its base, with its tokenizer; the arguments are those of `measure`.

    Raises `LmsatError` for what cannot be loaded.
    """
    name, beside = f"{source} {revision}", {"revision": revision, "trust_remote_code": trust_remote_code}
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    adapter = find_adapter(source, revision=revision)
    if merge and adapter is None:
        raise LmsatError("merge=True is for the folder, or the Hub's name, of an adapter: leave it out")
    if adapter is not None:
        adapter.check()
        tokenizer = tokenizer or str(adapter.tokenizer_folder)
        beside["revision"], source = "main", str(adapter.base_folder)
    model = _load_model(source, place, dtype=dtype, **beside)
    if adapter is not None:
        put_on(model, adapter, merge=merge)
        model.config._commit_hash = adapter.commit
    if tokenizer is None or isinstance(tokenizer, str):
        tokenizer = _load_tokenizer(tokenizer or source, **beside)
    model.eval()
    described = adapter.describe(merged=merge) if adapter else None
    return LoadedModel(model=model, tokenizer=tokenizer, name=name, adapter=described)


def _load_model(source: str, device: str, **arguments: Any) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    check_checkpoint_folder(source)
    try:
        model = load_whole(AutoModelForCausalLM).from_pretrained(source, **arguments)
        if arguments["dtype"] == "auto":
            widen(model, torch.device(device))
        return model.to(device)
    except (OSError, ValueError, RuntimeError) as error:
        has_code = "trust_remote_code" in str(error)
        advice = "pass trust_remote_code=True if you trust it" if has_code else "correct the name"
        raise LmsatError(f"cannot load the model {source} ({first_sentence(error)}): {advice}") from error


def _load_tokenizer(source: str, **arguments: Any) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source, **arguments)
    except (OSError, ValueError) as error:
        raise LmsatError(
            f"no tokenizer at {source or 'the model'} ({first_sentence(error)}): pass tokenizer="
        ) from error


def make_probes(probes: Sequence[str | Probe], settings: dict[str, Any]) -> dict[str, Probe]:
    """Return probes by name, each with those of ``settings`` that it has.

    Raises `LmsatError` for an unknown probe, an unknown setting, or a wrong value.
    """
    by_name: dict[str, Probe] = {}
    used: set[str] = set()
    for probe in probes:
        if isinstance(probe, str):
            kind = plugins().probe(probe)
            own = {key: value for key, value in settings.items() if key in kind.settings_type.model_fields}
            used.update(own)
            by_name[probe] = kind(parse_settings(kind.settings_type, own))
        else:
            by_name[probe.name] = probe
    if unknown := settings.keys() - used:
        raise LmsatError(f"no probe of {', '.join(by_name)} has a setting '{min(unknown)}': correct or remove it")
    return by_name
