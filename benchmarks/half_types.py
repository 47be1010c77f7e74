"""A forward pass in half types and in float32, on the processor at hand and on ones without units for half types.

Of Gemma-3-270m's shape with random weights, 512 tokens. oneDNN, which PyTorch computes products with on x86, can be
told to use no more than an older processor has (``ONEDNN_MAX_CPU_ISA``): each such processor is tried in a process of
its own. For each type the time is compared with float32's, and ``chosen`` is the type that lmsat computes in there.

To reach: where the chosen type is float32, it is at least as fast as the stored one, and otherwise the stored one is.
"""

from __future__ import annotations

import os
from typing import Any

import common
import torch
import transformers

from lmsat_plugin.model.computing_type import has_units

TOKENS = 512
PROCESSORS = {"this one": None, "AVX-512 without bfloat16": "AVX512_CORE", "AVX2": "AVX2"}


def shape(quick: bool) -> transformers.PretrainedConfig:
    """Return Gemma-3-270m's configuration, with fewer layers if quick."""
    return transformers.Gemma3TextConfig(
        vocab_size=262_144,
        hidden_size=640,
        intermediate_size=2048,
        num_hidden_layers=4 if quick else 18,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        sliding_window=512,
    )


def times(instructions: str | None, quick: bool) -> dict[str, Any]:
    """Return the seconds of passes through the layers by type, and which half types this processor has units for."""
    if instructions is not None:
        os.environ["ONEDNN_MAX_CPU_ISA"] = instructions
    common.silence()
    torch.manual_seed(0)
    with torch.device("cpu"):
        base = transformers.Gemma3TextModel(shape(quick)).eval()
    inputs_BT = torch.randint(200_000, (1, TOKENS))
    models = {"float32": base, "bfloat16": None, "float16": None}
    found: dict[str, Any] = {"units": {name: has_units(getattr(torch, name)) for name in ("bfloat16", "float16")}}
    with torch.no_grad():
        for name in models:
            # One model at a time: each conversion is of the same weights.
            model = base.to(getattr(torch, name))
            model(inputs_BT, use_cache=False)
            found[name] = min(common.seconds(lambda model=model: model(inputs_BT, use_cache=False)) for _ in range(3))
    return found


def main() -> int:
    quick = common.parse_arguments(__doc__).quick
    rows = []
    for processor, instructions in PROCESSORS.items():
        found = common.in_child(times, instructions, quick)
        for name in ("bfloat16", "float16"):
            # An older processor is one whose units oneDNN is not to use.
            has = found["units"][name] and instructions is None
            ratio = found[name] / found["float32"]
            limit = {"at_most": 1.0} if has else {"at_least": 1.0}
            rows.append(
                common.Row(
                    f"{name}, {processor} (computed in {name if has else 'float32'})",
                    f"{found[name]:.2f} s",
                    f"float32 {found['float32']:.2f} s",
                    ratio,
                    **limit,
                )
            )
    return common.report(f"{TOKENS} tokens through the layers of Gemma-3-270m's shape; ratio = half / float32", rows)


if __name__ == "__main__":
    raise SystemExit(main())
