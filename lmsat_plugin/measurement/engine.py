"""The engine: all probes of a checkpoint on one corpus, in one forward pass."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import or_
from typing import TYPE_CHECKING, Any

import torch

from lmsat_plugin.errors import LmsatError, first_sentence
from lmsat_plugin.measurement.beside import BesideReference
from lmsat_plugin.measurement.execution import Execution, Processes
from lmsat_plugin.measurement.foreign_probes import Foreign
from lmsat_plugin.measurement.forward import ForwardPass, PassCallbacks
from lmsat_plugin.measurement.outcome import Outcome, describe_run
from lmsat_plugin.measurement.references import References
from lmsat_plugin.measurement.returned_values import checked
from lmsat_plugin.measurement.training_stream import FinalStateStream, MeasuredText, training_text
from lmsat_plugin.model.anatomy import Anatomy, dissect, position_limit, unwrap
from lmsat_plugin.model.float32 import exact_float32
from lmsat_plugin.model.loading import check_decoder
from lmsat_plugin.model.memory import is_out_of_memory
from lmsat_plugin.plugin_code import contained
from lmsat_plugin.probe import (
    CORPUS,
    FORWARD,
    Measurement,
    Need,
    Probe,
    ProbeContext,
    StateMoments,
    Sums,
    TokenBatch,
    TrainingStream,
)
from lmsat_plugin.probe_files import is_own, source_sha256
from lmsat_plugin.text.corpora import Corpus, CorpusSettings, load_corpus
from lmsat_plugin.text.tokenization import TokenizedCorpus, check_tokenizer, check_tokens, tokenize
from lmsat_plugin.text.windows import DEFAULT_WINDOW, Window

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str = "model"
    """What the checkpoint is called, its revision included."""
    adapter: Mapping[str, Any] | None = None
    """What is noted of the adapter that was put on it."""


@exact_float32()
def measure_probes(
    loaded: LoadedModel,
    probes: Mapping[str, Probe],
    corpus_settings: CorpusSettings,
    execution: Execution,
    *,
    limit: int | None = None,
    documents: Corpus | None = None,
) -> Outcome:
    """Run probes on one model and one corpus, sharing one forward pass. All processes return the same.

    ``documents`` take the place of the corpus that the settings name; ``limit`` is a number of documents.

    Raises `LmsatError` for bad input, for lack of memory, and for results that are not finite; `AlteredError` for a
    probe of a plugin that changes what is measured.
    """
    model, tokenizer = unwrap(loaded.model), loaded.tokenizer
    check_decoder(model.config, type(model).__name__)
    needs = reduce(or_, (probe.needs for probe in probes.values()), Need(0))
    embedding_rows = model.get_input_embeddings().weight.shape[0]
    execution.cached(
        ("tokenizer", embedding_rows),
        lambda: check_tokenizer(tokenizer, embedding_rows, tokenizer.name_or_path or "the model"),
    )
    corpus = anatomy = None

    def read_corpus() -> Corpus:
        return documents or load_corpus(corpus_settings, execution.corpora)

    if needs & CORPUS:
        prefix = _prefix_token(tokenizer, execution.prefix_token_id)
        window = window_length(model, tokenizer, execution.max_length)
        corpus = execution.cached(
            (corpus_settings, prefix, window, limit),
            lambda: tokenize(read_corpus(), corpus_settings, tokenizer, prefix=prefix, window=window, limit=limit),
        )
        check_tokens(corpus, embedding_rows)
        if needs & (FORWARD | Need.TRAINING_STREAM | Need.LOSSES_AGAIN | Need.PASS_AGAIN):
            anatomy = _dissect(model, corpus, probes)
    context = _context(loaded, corpus, anatomy, execution)
    if corpus and anatomy and Need.TRAINING_STREAM in needs:
        text = MeasuredText(
            tokenized=corpus, read=read_corpus, settings=corpus_settings, tokenizer=tokenizer, sources=execution.corpora
        )
        context = replace(context, open_training=_training_opener(anatomy, text, execution))
    if Need.REFERENCE in needs:
        opener = partial(_open_reference, corpus=corpus, takes_apart=anatomy is not None, execution=execution)
        context = replace(context, beside=_beside(context, opener, execution, partial(_code_of, probes=probes)))
    foreign = Foreign.among(probes, context)
    for name, probe in probes.items():
        with _contained(name), _memory_named(probe), foreign.watched(name):
            probe.prepare(context)
    if corpus and anatomy and needs & FORWARD:
        passing = {name: probe for name, probe in probes.items() if probe.needs & FORWARD}
        windows = max((probe.pass_windows(corpus) for probe in passing.values()), key=len)
        forward = ForwardPass(anatomy, windows, corpus.window, execution)
        with foreign.watched(*passing):
            forward.run(_callbacks(context, passing, foreign))
    measurements = {}
    for name, probe in probes.items():
        with _contained(name), _memory_named(probe), foreign.watched(name):
            if not probe.needs & FORWARD:
                probe.start(context)
            measurements[name] = checked(name, probe.finish())
        if execution.processes.rank == 0:
            _say_what_is_null(loaded.name, probe, measurements[name], alone=execution.cache is None)
    provenance = describe_run(context, probes, anatomy, execution)
    if adapter := loaded.adapter or _adapter_of(loaded.model):
        provenance["adapter"] = dict(adapter)
    for name, measurement in measurements.items():
        provenance["probes"][name].update(measurement.details)
    return Outcome(measurements, provenance)


def _say_what_is_null(model: str, probe: Probe, measurement: Measurement, *, alone: bool) -> None:
    """Log why metrics are null; of a checkpoint of a series only if all are, since the results have the reasons."""
    of_reasons: dict[str, list[str]] = {}
    for metric, reason in (measurement.details.get("reasons") or {}).items():
        of_reasons.setdefault(reason, []).append(metric)
    empty = all(value is None for value in measurement.metrics.values())
    for reason, metrics in of_reasons.items() if alone or empty else ():
        what = "no value" if empty else f"no {', '.join(metrics)}"
        logger.warning("%s has %s: %s", f"{probe.task()} of {model}", what, reason)


def _context(
    loaded: LoadedModel, corpus: TokenizedCorpus | None, anatomy: Anatomy | None, execution: Execution
) -> ProbeContext:
    """Return what probes are given of a model, but for other text and other checkpoints."""
    model = unwrap(loaded.model)
    rows = model.get_input_embeddings().weight.shape[0]
    tokens = execution.cached("vocabulary", lambda: max(loaded.tokenizer.get_vocab().values()) + 1)
    vocab_rows = min(tokens, rows)
    context = ProbeContext(
        model=model,
        tokenizer=loaded.tokenizer,
        vocab_rows=vocab_rows,
        device=execution.device,
        synchronise=execution.processes.size > 1,
        layer_widths=anatomy.layer_widths if anatomy else (),
        corpus=corpus,
        head=replace(anatomy.head, vocab_rows=vocab_rows) if anatomy and anatomy.head else None,
        name=loaded.name,
        cached=execution.cached,
    )
    if corpus is None or anatomy is None:
        return context
    return replace(
        context,
        losses_again=_losses_again(context, anatomy, execution),
        pass_again=_pass_again(anatomy, corpus, execution),
    )


def _open_reference(
    loaded: LoadedModel, *, corpus: TokenizedCorpus | None, takes_apart: bool, execution: Execution
) -> ProbeContext:
    """Return the context of another model on the same tokens."""
    model = unwrap(loaded.model)
    check_decoder(model.config, type(model).__name__)
    if corpus is not None:
        check_tokens(corpus, model.get_input_embeddings().weight.shape[0])
    anatomy = dissect(model, torch.from_numpy(corpus.windows[0].tokens[:-1])) if corpus and takes_apart else None
    return _context(loaded, corpus, anatomy, execution)


def _beside(
    context: ProbeContext,
    opener: Callable[[LoadedModel], ProbeContext],
    execution: Execution,
    code_of: Callable[[Any], Any],
) -> Callable[[str], BesideReference]:
    """Return what gives the checkpoints beside which this one is seen, each once."""
    references = execution.references or References()
    made: dict[str, BesideReference] = {}

    def beside(setting: str) -> BesideReference:
        if setting not in made:
            made[setting] = BesideReference(
                context=context,
                reference=references.find(setting),
                references=references,
                open=opener,
                processes=execution.processes,
                code_of=code_of,
            )
        return made[setting]

    return beside


def _code_of(compute: Any, *, probes: Mapping[str, Probe]) -> Any:
    """Return what identifies a plugin's code that computes tensors: its file's, and the versions of its probes.

    None for lmsat's own.
    """
    if is_own(compute):
        return None
    kinds = [type(probe) for probe in probes.values() if not is_own(type(probe))]
    return [source_sha256(compute), sorted([kind.name, str(kind.version), str(source_sha256(kind))] for kind in kinds)]


def _pass_again(anatomy: Anatomy, corpus: TokenizedCorpus, execution: Execution) -> Callable[..., None]:
    """Return what runs all of some windows in this process."""
    alone = replace(execution, processes=Processes())

    def pass_again(windows: Sequence[Window], **callbacks: Any) -> None:
        ForwardPass(anatomy, windows, corpus.window, alone, show_progress=False).run(PassCallbacks(**callbacks))

    return pass_again


def _adapter_of(model: Any) -> dict[str, Any]:
    """Return what is known of the adapter in a model that somebody else has loaded; empty where there is none."""
    config = next(iter(getattr(model, "peft_config", {}).values()), None)
    if config is None:
        return {}
    noted = {"kind": str(config.peft_type.value), "base": config.base_model_name_or_path}
    return {key: value for key, value in noted.items() if value is not None}


@contextmanager
def _contained(probe: str) -> Iterator[None]:
    # Whoever interrupts a measurement from within, as a debugger or a test does, means it.
    with contained(f"the probe '{probe}'", passing=(KeyboardInterrupt,)):
        try:
            yield
        except Exception as error:
            error.add_note(f"in the probe '{probe}'")
            raise


@contextmanager
def _memory_named(probe: Probe) -> Iterator[None]:
    """Raise `LmsatError` where a probe runs out of memory outside of the pass: smaller batches would not help it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise LmsatError(
            f"memory does not suffice for what the probe '{probe.name}' computes beside the pass "
            f"({first_sentence(error)}): leave out {probe.task()}, or use a larger device"
        ) from error


def _dissect(model: PreTrainedModel, corpus: TokenizedCorpus, probes: Mapping[str, Probe]) -> Anatomy:
    """Take the model apart. Raises `LmsatError` if a probe needs a part that was not found."""
    anatomy = dissect(model, torch.from_numpy(corpus.windows[0].tokens[:-1]))
    asking = [probe.task() for probe in probes.values() if Need.FINAL_STATES in probe.needs]
    if asking and anatomy.head is None:
        raise LmsatError(
            f"the logits of {type(model).__name__} are not a known function of its last hidden states: "
            f"leave out {', '.join(asking)}"
        )
    of_layers = Need.HIDDEN_STATES | Need.LAST_MOMENTS
    if not anatomy.layer_widths and any(probe.needs & of_layers for probe in probes.values()):
        raise LmsatError(
            f"{type(model).__name__} does not give its hidden states: ask for probes that do not need them"
        )
    return anatomy


def _training_opener(
    anatomy: Anatomy, measured: MeasuredText, execution: Execution
) -> Callable[[int, str | None, int], TrainingStream]:
    corpus = measured.tokenized

    def forward(windows: Sequence[Window]) -> ForwardPass:
        return ForwardPass(anatomy, windows, corpus.window, execution, show_progress=False)

    def open_training(tokens: int, name: str | None, least: int) -> TrainingStream:
        of_text = (measured.settings, corpus.provenance["sha256"], corpus.prefix, corpus.window)
        text = execution.cached(
            ("training", *of_text, tokens, name), lambda: training_text(measured, tokens, name, least)
        )
        # Without a head known, the final states are the model's own logits.
        width = anatomy.head.weight_VD.shape[1] if anatomy.head else anatomy.model.get_input_embeddings().num_embeddings
        return FinalStateStream(corpus=text, forward=forward, width=width, device=execution.device)

    return open_training


def _losses_again(
    context: ProbeContext, anatomy: Anatomy, execution: Execution
) -> Callable[[Sequence[Window]], torch.Tensor]:
    """Return what runs the model as it is then over windows, and adds up the losses of each document."""
    assert context.corpus is not None
    length = context.corpus.window

    def losses_again(windows: Sequence[Window]) -> torch.Tensor:
        documents = 1 + max(window.document for window in windows)
        sums: list[Sums] = []

        def start() -> None:
            sums[:] = [Sums(context, losses=(documents,))]

        def add(losses_N: torch.Tensor, batch: TokenBatch) -> None:
            zeros_M = losses_N.new_zeros(documents)
            sums[0].update(losses=zeros_M.index_add(0, batch.documents_N.to(losses_N.device), losses_N))

        forward = ForwardPass(anatomy, windows, length, execution, show_progress=False)
        forward.run(PassCallbacks(start=start, on_losses=add))
        return sums[0].totals()["losses"]

    return losses_again


def _callbacks(context: ProbeContext, probes: Mapping[str, Probe], foreign: Foreign) -> PassCallbacks:
    """Return what the forward pass calls: the updates that each probe needs."""

    def calls(need: Need, method: str) -> Callable[..., None] | None:
        updates = {name: getattr(probe, method) for name, probe in probes.items() if probe.needs & need}

        def call_all(*arguments: Any) -> None:
            for name, update in updates.items():
                with _contained(name):
                    update(*(foreign.copied(arguments) if name in foreign.names else arguments))

        return call_all if updates else None

    start, see_layer = calls(FORWARD, "start"), calls(Need.HIDDEN_STATES, "update_hidden")
    assert start is not None
    if any(probe.needs & Need.LAST_MOMENTS for probe in probes.values()):
        start, see_layer = _with_last_moments(context, start, see_layer)
    return PassCallbacks(
        start=partial(start, context),
        on_layer=see_layer,
        on_final=calls(Need.FINAL_STATES, "update_final"),
        on_losses=calls(Need.TOKEN_LOSSES, "update_losses"),
        on_predictions=calls(Need.PREDICTIONS, "update_predictions"),
    )


def _with_last_moments(
    context: ProbeContext, start: Callable[..., None], see_layer: Callable[..., None] | None
) -> tuple[Callable[..., None], Callable[..., None]]:
    """Return what starts a pass and what sees its layers, such that the last layer's moments are added up, too."""
    last, moments = len(context.layer_widths) - 1, None

    def start_anew(context: ProbeContext) -> None:
        nonlocal moments
        moments = StateMoments(context, context.layer_widths[last])
        start(replace(context, last_moments=moments))

    def add_and_see(layer: int, states_ND: torch.Tensor, batch: TokenBatch) -> None:
        if layer == last and moments is not None:
            moments.add(states_ND)
        if see_layer is not None:
            see_layer(layer, states_ND, batch)

    return start_anew, add_and_see


def window_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> int:
    """Return the window in tokens: ``max_length``, else 2,048 or the model's limit if that is less."""
    if max_length is not None:
        if max_length < 1:
            raise LmsatError(f"max_length={max_length} is not a number of tokens: give at least 1")
        return max_length
    # A tokenizer without a limit says 10^30.
    return int(min(DEFAULT_WINDOW, position_limit(model) or tokenizer.model_max_length))


def _prefix_token(tokenizer: PreTrainedTokenizerBase, given: int | None) -> int:
    for token in (given, tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return token
    raise LmsatError("the tokenizer has neither a BOS nor an EOS token: name one with prefix_token_id=ID")
