"""What distinguishes results of one model, task and corpus: the column ``variant``, and names for people."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

    from lmsat_plugin.results.reading import TaskResult

# Checkpoints of one model may have been saved in several types, or measured from several places.
_BY_REVISION = {"dtype", "folder"}
_HASH_DIGITS = 8


@dataclass(frozen=True)
class Variant:
    """The settings in which one result differs from others of its model, task and corpus, as text by key."""

    of_model: Mapping[str, str]
    of_text: Mapping[str, str]

    def __str__(self) -> str:
        """Return ``key=value, ...``, the model's settings first; empty where nothing differs."""
        return ", ".join(
            f"{key}={value}" for part in (self.of_model, self.of_text) for key, value in part.items()
        )

    @property
    def model(self) -> str:
        """The part that belongs to the model."""
        return str(Variant(self.of_model, {}))

    @property
    def text(self) -> str:
        """The part that belongs to the text."""
        return str(Variant({}, self.of_text))


def find_variants(results: Sequence[TaskResult]) -> list[Variant]:
    """Return the variant of each result.

    All results of one model show the same settings of the model's, so that its tasks stay together; all results on one
    corpus show the same settings of the text's.
    """
    of_model = _differing(results, "model", "model_settings")
    of_text = _differing(
        [result for result in results if result.corpus is not None], "corpus", "corpus_settings"
    )
    return [
        Variant(
            _shown(result.model_settings, of_model[result.origin.model]),
            _shown(result.corpus_settings, of_text[result.corpus]) if result.corpus is not None else {},
        )
        for result in results
    ]


def _differing(results: Iterable[TaskResult], owner: str, settings: str) -> defaultdict[str | None, set[str]]:
    """Return, by the model's or the corpus' name, the settings that tell some of its results apart."""
    groups: dict[tuple[Any, ...], list[TaskResult]] = defaultdict(list)
    for result in results:
        groups[result.origin.model, result.task, result.corpus].append(result)
    found: defaultdict[str | None, set[str]] = defaultdict(set)
    for (model, _, corpus), group in groups.items():
        found[model if owner == "model" else corpus] |= _differing_keys(group, settings)
    return found


def _differing_keys(group: Iterable[TaskResult], settings: str) -> set[str]:
    """Return the settings that have more than one value, or a value in some results only."""
    seen = {(tuple(sorted(getattr(result, settings).items())), result.origin.revision) for result in group}
    if len({items for items, _ in seen}) == 1:
        return set()
    found = set()
    for key in {key for items, _ in seen for key, _ in items}:
        values: dict[Any, set[str | None]] = defaultdict(set)
        for items, revision in seen:
            others = tuple(item for item in items if item[0] != key)
            # The text differs, of course, where less of it was taken.
            scope = revision if key in _BY_REVISION else others if key == "sha256" else None
            values[scope].add(dict(items).get(key))
        # Some results say nothing of the folder.
        silent = {None} if key == "folder" else set()
        if any(len(several - silent) > 1 for several in values.values()):
            found.add(key)
    return found


def _shown(settings: Mapping[str, str], keys: set[str]) -> dict[str, str]:
    return {key: _short(key, settings[key]) for key in sorted(keys) if key in settings}


def _short(key: str, value: str) -> str:
    return value[:_HASH_DIGITS] if key == "sha256" or key.endswith("_sha") else value


def label(name: str, variant: Any) -> str:
    """Return a name for people: with the variant in brackets, where there is one."""
    return f"{name} ({variant})" if isinstance(variant, str) and variant else name


def labelled(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose models bear their variants' names, so that different variants are different models.

    For what shows or compares models. A table without a column ``variant``, or with an empty one, stays as it is.
    """
    if "variant" not in table.columns or table.variant.isna().all():
        return table
    names = [label(str(name), variant) for name, variant in zip(table.model, table.variant, strict=True)]
    return table.assign(model=names)
