"""A real pretrained model: SmolLM2-135M reads English, agrees with hf, and notices when words are shuffled."""

from __future__ import annotations

import random

import pytest
from evaluation import rolling_requests
from lm_eval.models.huggingface import HFLM

from lmsat_plugin import measure
from lmsat_plugin.harness.model import SaturationLM

PROSE = (
    "Every morning the old lighthouse keeper climbed the stairs to trim the lamp. From the gallery he could see "
    "the fishing boats leave the harbour, one after another, and he counted them as his father had done before "
    "him. When a storm came up in the afternoon he stayed awake until the last of them was home again."
)


def test_real_model(smollm2):
    options = {"dtype": "float32", "device": "cpu"}
    requests = rolling_requests([PROSE])
    ours = SaturationLM(pretrained=str(smollm2), **options)
    theirs = HFLM(pretrained=str(smollm2), softmax_dtype="float32", **options)
    expected = theirs.loglikelihood_rolling(requests, disable_tqdm=True)
    assert ours.loglikelihood_rolling(requests, disable_tqdm=True) == pytest.approx(expected, rel=1e-5)

    words = PROSE.split()
    random.Random(0).shuffle(words)
    prose, shuffled = (
        measure(ours.model, ["loss"], corpus=[text], tokenizer=ours.tokenizer) for text in (PROSE, " ".join(words))
    )
    assert 2 < prose.metrics["lmsat_loss/loss"] < 4 < shuffled.metrics["lmsat_loss/loss"]
