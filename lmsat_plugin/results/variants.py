"""The column ``variant``: the settings in which results of one model, task and corpus differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from lmsat_plugin.results.reading import TaskResult

if TYPE_CHECKING:
    import pandas as pd

# Checkpoints of one model may be saved in several types, or measured from several folders: this tells results apart
# only if they are of the same checkpoint.
_BY_REVISION = {"dtype", "folder"}
_HASH_DIGITS = 8


@dataclass(frozen=True)
class Variant:
    """The settings in which one result differs from others of its model, task and corpus, as text by key."""

    of_model: Mapping[str, str]
    of_text: Mapping[str, str]

    def __str__(self) -> str:
        """Return ``key=value, ...``, the model's settings first; empty where nothing differs."""
        return ", ".join((*key_values(self.of_model), *key_values(self.of_text)))

    @property
    def model(self) -> str:
        """The model's settings."""
        return ", ".join(key_values(self.of_model))

    @property
    def text(self) -> str:
        """The text's settings."""
        return ", ".join(key_values(self.of_text))


def find_variants(results: Sequence[TaskResult]) -> list[Variant]:
    """Return the variant of each result.

    All results of one model show the same keys of the model's settings, so that its tasks stay together. All results on
    one corpus show the same keys of the text's settings.
    """
    of_model = _differing(results, "model", "model_settings")
    of_text = _differing([result for result in results if result.corpus is not None], "corpus", "corpus_settings")
    return [
        Variant(
            _shown(result.model_settings, of_model[result.origin.model]),
            _shown(result.corpus_settings, of_text[result.corpus]) if result.corpus is not None else {},
        )
        for result in results
    ]


def _differing(results: Iterable[TaskResult], owner: str, settings: str) -> defaultdict[str | None, set[str]]:
    """Return the settings that tell some results apart, by the name of their model or their corpus."""
    groups: dict[tuple[Any, ...], list[TaskResult]] = defaultdict(list)
    for result in results:
        groups[result.origin.model, result.task, result.corpus].append(result)
    keys: defaultdict[str | None, set[str]] = defaultdict(set)
    for (model, _, corpus), group in groups.items():
        keys[model if owner == "model" else corpus] |= _differing_keys(group, settings)
    return keys


def _differing_keys(group: Iterable[TaskResult], settings: str) -> set[str]:
    """Return the settings that have more than one value, or a value in some results only."""
    seen = {(tuple(sorted(getattr(result, settings).items())), result.origin.revision) for result in group}
    if len({items for items, _ in seen}) == 1:
        return set()
    differing = set()
    for key in {key for items, _ in seen for key, _ in items}:
        values: dict[Any, set[str | None]] = defaultdict(set)
        for items, revision in seen:
            others = tuple(item for item in items if item[0] != key)
            # Less of a corpus has another hash, which says nothing new.
            scope = revision if key in _BY_REVISION else others if key == "sha256" else None
            values[scope].add(dict(items).get(key))
        # Some results do not state the folder.
        silent = {None} if key == "folder" else set()
        if any(len(several - silent) > 1 for several in values.values()):
            differing.add(key)
    return differing


def _shown(settings: Mapping[str, str], keys: set[str]) -> dict[str, str]:
    return {key: settings[key] for key in sorted(keys) if key in settings}


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


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table in which each model's name includes its variant, for what shows or compares models.

    Different variants are then different models. A table without a column ``variant``, or with an empty one, is
    returned as it is.
    """
    if "variant" not in table.columns or table.variant.isna().all():
        return table
    names = [label(str(name), variant) for name, variant in zip(table.model, table.variant, strict=True)]
    return table.assign(model=names)
