"""The column ``variant``: the settings in which results of one model, task and corpus differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from lmsat_plugin.results.checkpoint_names import averaging_of
from lmsat_plugin.results.other_tools.gpt_neox import PREFIX
from lmsat_plugin.results.reading import TaskResult

# Checkpoints of one model may be saved in several types, or measured from several folders: this tells results apart
# only if they are of the same checkpoint.
_BY_REVISION = {"dtype", "folder"}
_HASH_DIGITS = 8


@dataclass(frozen=True)
class Variant:
    """The settings of model and text, as ``key=value, ...``, in which one result differs from others like it."""

    model: str
    text: str

    def __str__(self) -> str:
        """Return the model's settings, then the text's; empty where nothing differs."""
        return ", ".join(filter(None, (self.model, self.text)))


def find_variants(results: Sequence[TaskResult]) -> list[Variant]:
    """Return the variant of each result.

    All results of one model show the same keys of the model's settings, so that its tasks stay together. All results on
    one corpus show the same keys of the text's settings.
    """
    of_model, of_text = _differing(results, "model"), _differing(results, "corpus")
    return [
        Variant(
            model=_shown(result.model_settings, of_model[result.origin.model]),
            text=_shown(result.corpus_settings, of_text[result.corpus]),
        )
        for result in results
    ]


def mixed_types(results: Sequence[TaskResult]) -> list[str]:
    """Return a sentence for each model whose checkpoints were computed in several types.

    Models that have one checkpoint in several types are left out: their variants say so.
    """
    told_apart = {model for model, keys in _differing(results, "model").items() if "dtype" in keys}
    types: defaultdict[tuple[Any, ...], set[str]] = defaultdict(set)
    for result in results:
        # Averages are in float32, whatever their parts are in, and a series of their own.
        is_own = averaging_of(result.origin.revision) is None and result.origin.model not in told_apart
        if is_own and (dtype := result.model_settings.get("dtype")):
            types[result.origin.model, result.task, result.corpus].add(dtype)
    mixed = {model: found for (model, _, _), found in types.items() if len(found) > 1}
    return [
        f"the checkpoints of {model} were computed in {' and in '.join(sorted(found))}, whose numbers differ by "
        "rounding: measure all with the same dtype"
        for model, found in mixed.items()
    ]


def _differing(results: Sequence[TaskResult], owner: str) -> defaultdict[str | None, set[str]]:
    """Return the settings of the ``model`` or of the ``corpus`` that tell some results apart, by its name."""
    groups: dict[tuple[Any, ...], list[TaskResult]] = defaultdict(list)
    for result in results:
        groups[result.origin.model, result.task, result.corpus].append(result)
    keys: defaultdict[str | None, set[str]] = defaultdict(set)
    for (model, _, corpus), group in groups.items():
        keys[model if owner == "model" else corpus] |= _differing_keys(group, f"{owner}_settings")
    return keys


def _differing_keys(group: Iterable[TaskResult], settings: str) -> set[str]:
    """Return the settings that have more than one value, or a value in some results only."""
    seen: dict[tuple[Any, ...], tuple[dict[str, str], str]] = {}
    for result in group:
        own = getattr(result, settings)
        seen[tuple(sorted(own.items())), result.origin.revision] = own, result.origin.revision
    if len({items for items, _ in seen}) == 1:
        return set()
    differing = set()
    for key in {key for own, _ in seen.values() for key in own}:
        values: dict[Any, set[str | None]] = defaultdict(set)
        for own, revision in seen.values():
            scope: Any = None
            if key in _BY_REVISION or key.startswith(PREFIX):
                scope = revision
            elif key == "sha256":
                # Less of a corpus has another hash, which says nothing new.
                scope = frozenset(item for item in own.items() if item[0] != key)
            values[scope].add(own.get(key))
        # Some results do not state these.
        silent = {None} if key in _BY_REVISION else set()
        if any(len(several - silent) > 1 for several in values.values()):
            differing.add(key)
    return differing


def _shown(settings: Mapping[str, str], keys: set[str]) -> str:
    return ", ".join(key_values({key: settings[key] for key in sorted(keys) if key in settings}))


def key_values(settings: Mapping[str, str]) -> list[str]:
    """Return settings as ``key=value``; of a hash only the first digits."""
    return [
        f"{key}={value[:_HASH_DIGITS] if key == 'sha256' or key.endswith('_sha') else value}"
        for key, value in settings.items()
    ]


def choose_variant(results: Sequence[TaskResult], variant: str) -> list[TaskResult]:
    """Return the results with the settings that ``key=value, ...`` names.

    Results that read no text need only the settings that some model has. Empty if there is no such result.
    """
    of_models = [key_values(result.model_settings) for result in results]
    of_texts = [key_values(result.corpus_settings) for result in results]
    for_all, for_texts = (set(chain(*several)) for several in (of_models, of_texts))
    wanted: set[str] = set()
    rest = variant.strip(", ")
    # A value may hold a comma: what is named is sought among what there is, the longest first.
    for item in sorted(for_all | for_texts, key=len, reverse=True):
        if f", {item}, " in f", {rest}, ":
            wanted.add(item)
            rest = f", {rest}, ".replace(f", {item}, ", ", ").strip(", ")
    if rest or not wanted:
        return []
    return [
        result
        for result, of_model, of_text in zip(results, of_models, of_texts, strict=True)
        if wanted & (for_all if result.corpus is None else for_all | for_texts) <= {*of_model, *of_text}
    ]


def label(name: str, variant: Any) -> str:
    """Return a name for people: with the variant in brackets, where there is one."""
    return f"{name} ({variant})" if isinstance(variant, str) and variant else name
