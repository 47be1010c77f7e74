"""Tokenizers that need no training."""

from __future__ import annotations

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing


def byte_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Return a tokenizer with a token for each byte, and no other."""
    alphabet = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(alphabet, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core)


def prepending_bos(tokenizer: transformers.PreTrainedTokenizerFast) -> transformers.PreTrainedTokenizerFast:
    """Return a tokenizer like another, which begins what it encodes with BOS."""
    core = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    bos = tokenizer.bos_token
    core.post_processor = TemplateProcessing(single=f"{bos} $0", special_tokens=[(bos, tokenizer.bos_token_id)])
    names = {"bos_token": bos, "eos_token": tokenizer.eos_token, "pad_token": tokenizer.pad_token}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, **names)
