"""The keys of ``--metadata``: settings of probes, of corpora and of tasks' files, and what is said of any other."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection
from typing import Any

from lmsat_plugin.plugins import plugins
from lmsat_plugin.settings import closest, unknown_setting
from lmsat_plugin.text.corpora import CorpusSettings

logger = logging.getLogger(__name__)

FILES = ("nlpcc_kbqa", "clozet", "storycloze")
"""Keys of ``--metadata`` that name a file with a task's data; its content identifies the task's results."""
# What lm-eval itself puts into a task's metadata.
_LM_EVAL_METADATA = {"version", "config_source"}


def check_metadata(metadata: dict[str, Any], known_arguments: Collection[str] | None) -> None:
    """Raise `LmsatError` for a key that neither lm-eval nor the model nor a probe knows."""
    settings = {*CorpusSettings.model_fields, *FILES}
    for probe in plugins().probes.values():
        settings |= probe.settings_type.model_fields.keys()
    others = metadata.keys() - settings - set(known_arguments or ()) - _LM_EVAL_METADATA
    if others:
        # Only now, since it takes seconds to import.
        from lm_eval.models.huggingface import HFLM

        others -= inspect.signature(HFLM.__init__).parameters.keys()
    for key in sorted(others):
        # A plain HFLM hands what it does not know to transformers: only a likely misspelling is an error.
        if known_arguments is not None or closest(key, settings):
            raise unknown_setting(key, settings)
        logger.warning("'%s' is no setting of lmsat; taken for a model argument", key)
