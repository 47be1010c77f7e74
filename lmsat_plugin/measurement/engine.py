"""The engine: all probes of a checkpoint on one corpus, in one forward pass."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from lmsat_plugin.errors import LmsatError
from lmsat_plugin.measurement.forward import ForwardPass, Processes, batch_token_budget
from lmsat_plugin.measurement.training_stream import FinalStateStream, MeasuredText, training_text
from lmsat_plugin.model.anatomy import Anatomy, dissect, position_limit, unwrap
from lmsat_plugin.model.lm_head import is_tied
from lmsat_plugin.model.size import size_of
from lmsat_plugin.probe import CORPUS, FORWARD, Measurement, Need, Probe, ProbeContext, TrainingStream
from lmsat_plugin.text.corpora import Corpus, CorpusSettings, load_corpus
from lmsat_plugin.text.tokenization import TokenizedCorpus, check_tokenizer, check_tokens, tokenize
from lmsat_plugin.text.windows import DEFAULT_WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lmsat_plugin.text.corpora import CorpusSource
    from lmsat_plugin.text.windows import Window


@dataclass(frozen=True)
class Execution:
    """How to run: nothing in here changes a result beyond rounding, except the window and the prefix token."""

    device: torch.device
    batch_size: int | str = 1
    max_batch_size: int = 64
    max_length: int | None = None
    prefix_token_id: int | None = None
    autocast: torch.dtype | None = None
    processes: Processes = field(default_factory=Processes)
    name: str = "model"
    """What the checkpoint is called, its revision included."""
    corpora: Mapping[str, CorpusSource] = field(default_factory=dict)
    """The registered named corpora."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """From ``probe:NAME`` to the distribution that the probe comes from."""
    cache: dict[Any, Any] | None = None
    """What the checkpoints of one tokenizer share; a series keeps it, a single measurement needs none."""

    def cached(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what ``make`` makes; in a series it is made once."""
        return cached(self.cache, key, make)


def cached(cache: dict[Any, Any] | None, key: Any, make: Callable[[], Any]) -> Any:
    """Return what ``make`` makes, made only once where there is a cache."""
    if cache is None:
        return make()
    if key not in cache:
        cache[key] = make()
    return cache[key]


@dataclass(frozen=True)
class Outcome:
    """The measurements of one checkpoint by probe, and what they were made of and with."""

    measurements: dict[str, Measurement]
    provenance: dict[str, Any]

    @property
    def metrics(self) -> dict[str, float]:
        """All scalars, named ``probe/metric``."""
        return {
            f"{name}/{key}": value
            for name, m in self.measurements.items()
            for key, value in m.metrics.items()
        }

    @property
    def arrays(self) -> dict[str, Any]:
        """All arrays, named ``probe/array``."""
        return {
            f"{name}/{key}": value for name, m in self.measurements.items() for key, value in m.arrays.items()
        }

    def to_frame(self) -> pd.DataFrame:
        """Return the scalars as a table with the columns probe, metric, value."""
        import pandas as pd

        rows = [(*name.split("/", 1), value) for name, value in self.metrics.items()]
        return pd.DataFrame(rows, columns=["probe", "metric", "value"])


def measure_probes(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    probes: dict[str, Probe],
    corpus_settings: CorpusSettings,
    execution: Execution,
    *,
    limit: int | None = None,
    documents: Corpus | None = None,
) -> Outcome:
    """Run probes on one model and one corpus, sharing one forward pass. All processes return the same.

    Raises `LmsatError` for bad input, for want of memory, and for results that are not finite.
    """
    model = unwrap(model)
    needs = Need(0)
    for probe in probes.values():
        needs |= probe.needs
    embedding_rows = model.get_input_embeddings().weight.shape[0]
    execution.cached(
        ("tokenizer", embedding_rows),
        lambda: check_tokenizer(tokenizer, embedding_rows, tokenizer.name_or_path or "the model"),
    )
    corpus = anatomy = None

    def source() -> Corpus:
        return documents or load_corpus(corpus_settings, execution.corpora)

    if needs & CORPUS:
        prefix = _prefix_token(tokenizer, execution.prefix_token_id)
        window = window_length(model, tokenizer, execution.max_length)
        corpus = execution.cached(
            (corpus_settings, prefix, window, limit),
            lambda: tokenize(
                source(),
                corpus_settings,
                tokenizer,
                prefix=prefix,
                window=window,
                limit=limit,
            ),
        )
        check_tokens(corpus, embedding_rows)
    if needs & (FORWARD | Need.TRAINING_STREAM):
        assert corpus is not None
        anatomy = dissect(model, torch.from_numpy(corpus.windows[0].tokens[:-1]))
        if Need.FINAL_STATES in needs and anatomy.head is None:
            apart = [name for name, probe in probes.items() if Need.FINAL_STATES in probe.needs]
            raise LmsatError(
                f"the logits of {type(model).__name__} are no known function of its last hidden states: "
                f"leave out {', '.join(f'lmsat_{name}' for name in apart)}"
            )
        if Need.HIDDEN_STATES in needs and not anatomy.layer_widths:
            raise LmsatError(
                f"{type(model).__name__} does not give its hidden states: ask for probes that do not need them"
            )
    context = ProbeContext(
        model=model,
        tokenizer=tokenizer,
        vocab_rows=min(execution.cached("vocabulary", lambda: _vocabulary(tokenizer)), embedding_rows),
        device=execution.device,
        synchronise=execution.processes.size > 1,
        layer_widths=anatomy.layer_widths if anatomy else (),
        corpus=corpus,
        head=anatomy.head if anatomy else None,
        name=execution.name,
    )
    if Need.TRAINING_STREAM in needs:
        assert corpus is not None
        assert anatomy is not None
        text = MeasuredText(
            tokenized=corpus,
            read=source,
            settings=corpus_settings,
            tokenizer=tokenizer,
            sources=execution.corpora,
        )
        opener = _training_opener(anatomy, text, execution)
        context = replace(context, open_training=opener)
    for probe in probes.values():
        probe.prepare(context)
    if needs & FORWARD:
        assert corpus is not None
        assert anatomy is not None
        _run_pass(anatomy, corpus, context, probes, needs, execution)
    for probe in probes.values():
        if not probe.needs & FORWARD:
            probe.start(context)
    measurements = {name: probe.finish() for name, probe in probes.items()}
    provenance = _provenance(context, probes, anatomy, execution)
    for name, measurement in measurements.items():
        provenance["probes"][name].update(measurement.details)
    return Outcome(measurements, provenance)


def _training_opener(
    anatomy: Anatomy, measured: MeasuredText, execution: Execution
) -> Callable[[int, str | None, int], TrainingStream]:
    corpus = measured.tokenized

    def forward(windows: Sequence[Window]) -> ForwardPass:
        budget = batch_token_budget(
            execution.batch_size, execution.max_batch_size, windows, corpus.window, execution.device
        )
        return ForwardPass.over(
            anatomy, windows, budget, execution.processes, execution.device, execution.autocast, False
        )

    def open_training(tokens: int, name: str | None, least: int) -> TrainingStream:
        text = execution.cached(
            (
                "training",
                measured.settings,
                corpus.provenance["sha256"],
                corpus.prefix,
                corpus.window,
                tokens,
                name,
            ),
            lambda: training_text(measured, tokens, name, least),
        )
        return FinalStateStream(text, execution.processes, forward)

    return open_training


def _run_pass(
    anatomy: Anatomy,
    corpus: TokenizedCorpus,
    context: ProbeContext,
    probes: dict[str, Probe],
    needs: Need,
    execution: Execution,
) -> None:
    watching_layers = [probe for probe in probes.values() if Need.HIDDEN_STATES in probe.needs]
    watching_final = [probe for probe in probes.values() if Need.FINAL_STATES in probe.needs]
    watching_losses = [probe for probe in probes.values() if Need.TOKEN_LOSSES in probe.needs]

    def start() -> None:
        for probe in probes.values():
            if probe.needs & FORWARD:
                probe.start(context)

    def on_layer(layer: int, states_ND: torch.Tensor, batch: Any) -> None:
        for probe in watching_layers:
            probe.update_hidden(layer, states_ND, batch)

    def on_final(states_ND: torch.Tensor, batch: Any) -> None:
        for probe in watching_final:
            probe.update_final(states_ND, batch)

    def on_losses(losses_N: torch.Tensor, batch: Any) -> None:
        for probe in watching_losses:
            probe.update_losses(losses_N, batch)

    windows = corpus.windows
    budget = batch_token_budget(
        execution.batch_size, execution.max_batch_size, windows, corpus.window, execution.device
    )
    forward = ForwardPass.over(
        anatomy, windows, budget, execution.processes, execution.device, execution.autocast
    )
    forward.run(
        start,
        on_layer if Need.HIDDEN_STATES in needs else None,
        on_final if Need.FINAL_STATES in needs else None,
        on_losses if Need.TOKEN_LOSSES in needs else None,
    )


def window_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> int:
    """Return the window in tokens: ``max_length``, else 2,048 or what the model takes if that is less."""
    if max_length is not None:
        if max_length < 1:
            raise LmsatError(f"max_length={max_length} is not a number of tokens: give at least 1")
        return max_length
    # A tokenizer without a limit says 10^30.
    return int(min(DEFAULT_WINDOW, position_limit(model) or tokenizer.model_max_length))


def _vocabulary(tokenizer: PreTrainedTokenizerBase) -> int:
    return max(tokenizer.get_vocab().values()) + 1


def _prefix_token(tokenizer: PreTrainedTokenizerBase, given: int | None) -> int:
    for token in (given, tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return token
    raise LmsatError("the tokenizer has neither a BOS nor an EOS token: name one with prefix_token_id=ID")


def _provenance(
    context: ProbeContext, probes: dict[str, Probe], anatomy: Anatomy | None, execution: Execution
) -> dict[str, Any]:
    from lmsat_plugin.version import __version__

    model = context.model
    found: dict[str, Any] = {
        "lmsat_version": __version__,
        "commit": getattr(model.config, "_commit_hash", None),
        "dtype": str(model.dtype).removeprefix("torch."),
        "tied_head": is_tied(model),
        "vocab_rows": context.vocab_rows,
        "vocab_rows_padded": model.get_input_embeddings().weight.shape[0],
        "probes": {
            name: {
                "version": probe.version,
                "settings": probe.settings.model_dump(),
                "reads_corpus": bool(probe.needs & CORPUS),
                "origin": execution.origins.get(f"probe:{name}", type(probe).__module__),
            }
            for name, probe in probes.items()
        },
        "processes": execution.processes.size,
        "model": size_of(model),
    }
    if context.corpus is not None:
        found["corpus"] = context.corpus.provenance
    if anatomy is not None:
        found["head_form"] = (
            "verified against the model's logits" if anatomy.head else "unknown: the model's own logits"
        )
        found["layer_states"] = "inputs of the blocks" if anatomy.blocks else "output_hidden_states"
        found["loss_dtype"] = "float64" if model.dtype == torch.float64 else "float32"
    return found
