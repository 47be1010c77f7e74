"""Tokenizers that need no training."""

from __future__ import annotations

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers


def byte_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Return a tokenizer with a token for each byte, and no other."""
    alphabet = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(alphabet, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core)
