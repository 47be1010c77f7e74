"""Whether two results were measured alike: on the same text, in the same windows, with the same settings."""

from __future__ import annotations

from lmsat_plugin.analysis.comparison.measured import Measured
from lmsat_plugin.metrics import probe_of_task
from lmsat_plugin.results.json_values import as_dict, as_text
from lmsat_plugin.results.other_tools.gpt_neox import PREFIX
from lmsat_plugin.results.variants import key_values

_OF_PLACE = {"folder", "subfolder"}
"""Settings that say where the weights lie."""
_OF_MODEL = {
    *("dtype", "mixed_precision_dtype", "softmax_dtype", "shared_prefixes", "tp_plan", "head_rank", "head", "peft"),
    *("delta", "merge", "load_in_8bit", "load_in_4bit", "quantization_config", "autogptq", "gptqmodel", "gguf_file"),
    *("add_bos_token", "prefix_token_id"),
}
"""Settings of a model and how it is computed: two models may differ in them, which is then said."""
_OF_TEXT = {"corpus", "sha256", "max_tokens", "seed", "text_field", "limit"}
"""Settings that choose a text, which has a digest."""
_MAY_BE_MISSING = {"version", "num_fewshot", "sha256"}
_TEMPLATE = "chat_template_sha"


def settings_of(measured: Measured) -> dict[str, str]:
    """Return all that has to be the same where two results are compared; what a file does not state is missing."""
    task, notes = measured.task, measured.notes
    name = as_text(as_dict(notes.get("tasks")).get(task.task)) or probe_of_task(task.task)
    probe = as_dict(as_dict(notes.get("probes")).get(name))
    versions = as_dict(measured.results.files[measured.path].header.get("versions"))
    stated = {
        "num_fewshot": task.num_fewshot,
        "version": probe.get("version", versions.get(task.task)),
        "corpus": task.corpus,
    }
    own = {key: value for key, value in task.model_settings.items() if not key.startswith(PREFIX)}
    return {
        **{key: str(value) for key, value in stated.items() if value is not None},
        **{key: value for key, value in own.items() if key not in _OF_PLACE | _OF_MODEL},
        **task.corpus_settings,
    }


def differing_settings(first: Measured, second: Measured) -> set[str]:
    """Return the settings in which two results of one task differ.

    Versions, shots and digests count where both results state them: older files and other tools do not.
    """
    one, other = settings_of(first), settings_of(second)
    keys = one.keys() | other.keys()
    if "sha256" in one and one["sha256"] == other.get("sha256"):
        # Equal digests are the same text, wherever it came from.
        keys -= _OF_TEXT
    stated_by_both = one.keys() & other.keys()
    return {
        key
        for key in keys
        if one.get(key) != other.get(key)
        and (key in stated_by_both or key not in _MAY_BE_MISSING)
        # Each chat model has a template of its own.
        and not (key == _TEMPLATE and key in stated_by_both)
    }


def in_words(keys: set[str], first: Measured, second: Measured, names: tuple[str, str]) -> str:
    """Return the values of settings in two results, such as ``window=64 in A, window=128 in B``."""
    said = []
    for measured, name in zip((first, second), names, strict=True):
        settings = {**measured.task.model_settings, **settings_of(measured)}
        texts = [key_values({key: settings[key]})[0] if key in settings else f"no {key}" for key in sorted(keys)]
        said.append(f"{' and '.join(texts)} in {name}")
    return ", ".join(said)


def differing_models(first: Measured, second: Measured) -> set[str]:
    """Return the settings of the models themselves in which two results differ."""
    one, other = first.task.model_settings, second.task.model_settings
    return {key for key in _OF_MODEL if one.get(key) != other.get(key)}
