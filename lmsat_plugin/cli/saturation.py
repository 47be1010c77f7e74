"""``lmsat saturation``: whether a model gets worse late in training, since when, and how sure that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmsat_plugin.cli.arguments import add_data, read_data
from lmsat_plugin.cli.command import Answer, AnsweringCommand
from lmsat_plugin.cli.tables import TextTable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lmsat_plugin.analysis.saturation import Saturation


class SaturationCommand(AnsweringCommand):
    """Say of each model whether it saturates, plateaus or is still improving, or that this is unclear, and why.

    The last checkpoints are compared with the best stretch before them. The difference has to exceed
    checkpoint-to-checkpoint noise and what another sample of documents or questions might give, corrected for choosing
    the best of many. The onset is a change point with its 90 % interval. Anisotropy and singular entropy stand beside
    the verdict where results hold them: they have no part in it.
    """

    name = "saturation"
    help = "does a model get worse late in training, and since when"

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add the data and the metric."""
        add_data(
            parser,
            "a folder with results of any lm-eval, or a CSV with the columns model, step, loss and optionally "
            "tokens, stderr",
        )
        parser.add_argument("--task", metavar="T", help="by default lmsat_loss, or the only task there is")
        parser.add_argument("--metric", metavar="M", help="by default loss, or the only metric there is")
        parser.add_argument(
            "--min-step",
            type=int,
            metavar="N",
            help="leave out checkpoints before this step (default: a hundredth of the last step)",
        )

    def answer(self, args: argparse.Namespace) -> Answer:
        """Return the verdicts."""
        from lmsat_plugin.analysis.saturation import find_saturation

        verdicts = find_saturation(read_data(args), args.task, args.metric, min_step=args.min_step)
        sentences = [f"{one.label}: {one.verdict}: {one.reason}.{_geometry(one)}" for one in verdicts]

        def draw() -> Any:
            from lmsat_plugin.figures.plot import plot

            return plot(verdicts)

        return Answer([one.to_dict() for one in verdicts], [_table(verdicts), *sentences], draw)


def _table(verdicts: Sequence[Saturation]) -> TextTable:
    first = verdicts[0]
    columns: dict[str, list[Any]] = {
        "model": [one.model for one in verdicts],
        "variant": [one.variant for one in verdicts],
        "corpus": [one.corpus for one in verdicts],
        "n-shot": [one.num_fewshot for one in verdicts],
        "filter": [one.filter for one in verdicts],
        "verdict": [one.verdict for one in verdicts],
        "best": [one.best for one in verdicts],
        "at step": [one.best_step for one in verdicts],
        "final": [one.final for one in verdicts],
        "onset": [one.onset_step for one in verdicts],
        "90 % interval": [
            None if one.onset_step is None else f"{one.onset_low:,} to {one.onset_high:,}" for one in verdicts
        ],
        "p": [one.p_value for one in verdicts],
    }
    for name in ("variant", "corpus", "n-shot", "filter"):
        if len(set(columns[name])) == 1:
            del columns[name]
    rows = [["" if cell is None else cell for cell in row] for row in zip(*columns.values(), strict=True)]
    return TextTable(" ".join(filter(None, (first.task, first.metric))), list(columns), rows)


def _geometry(one: Saturation) -> str:
    geometry = one.geometry
    if geometry is None:
        return ""
    events = (
        ("the last layer's anisotropy jumps", geometry.anisotropy_jump_step),
        ("stays above 0.5 from its checkpoint", geometry.anisotropy_above_half_step),
        ("the head's singular entropy turns", geometry.entropy_turn_step),
        ("and spikes", geometry.entropy_spike_step),
    )
    said = [f"{words} at step {step:,}" for words, step in events if step is not None]
    return f" Meanwhile {', '.join(said)}." if said else ""
