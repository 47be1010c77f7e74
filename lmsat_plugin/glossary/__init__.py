"""What the words of verdicts, tables and charts mean, in a sentence or two each."""

from __future__ import annotations

import re

from lmsat_plugin.glossary.measures import MEASURES
from lmsat_plugin.glossary.word import Word

WORDS = (
    Word(
        "saturates",
        "The loss rises near the end of training, by more than checkpoint-to-checkpoint noise and the sample of text "
        "explain (p below 0.05). Scores saturate when they fall.",
        ("saturates?", "saturation", "verdict"),
    ),
    Word(
        "plateaus",
        "The last fifth of training and the fifth before it differ by less than the tolerance, by two one-sided tests: "
        "the run neither improves nor gets worse.",
    ),
    Word("improving", "The last fifth of training is better than what came before, and surely so."),
    Word("unclear", "Too few checkpoints, or too much noise, to tell a rise from a plateau or an improvement."),
    Word("diverged", "The last values of the run are not finite. What came before is not judged.", ("not finite",)),
    Word(
        "p",
        "How often a run whose loss does not rise would show a rise as large as this one. Below 0.05 the verdict is "
        "saturates.",
        ("p_value", "p-value"),
    ),
    Word(
        "corrected p",
        "p, made larger for the number of scores that a model is judged by (Holm), so that many scores do not make one "
        "of them significant by luck.",
        ("corrected_p_value",),
    ),
    Word("onset", "The first checkpoint whose loss has risen, of a run that saturates.", ("onset_at", "onset_step")),
    Word(
        "interval of the onset",
        "From the earliest to the latest onset that the noise allows: the true one lies there in 90 % of such runs.",
        ("earliest onset", "latest onset", "onset_low", "onset_high"),
    ),
    Word(
        "event",
        "A turn or a jump of a metric during training, beyond checkpoint-to-checkpoint noise, with its place and the "
        "90 % interval of that. A turn is a change of direction; in a jump the metric changes more than twice as much "
        "as just before and just after.",
        ("turns up", "turns down", "jumps up", "jumps down", "turn", "jump"),
    ),
    Word(
        "beside the onset",
        "Whether an event lies before or after the onset of the loss, or at the same time: their intervals overlap. "
        "What comes first need not be the cause.",
        ("beside_onset", "before", "same time", "after"),
    ),
    Word("best", "The best value of the run, and the checkpoint that has it.", ("at step", "best loss", "best_at")),
    Word("final", "The value at the last checkpoint.", ("final step", "final_at")),
    Word(
        "tolerance",
        "A plateau is a difference below this, in the metric's unit: by default twice the noise of one checkpoint.",
    ),
    Word(
        "power",
        "The share of runs like this one in which a rise of three times the noise of a checkpoint would be found. It "
        "is low where a run has too few checkpoints.",
    ),
    Word(
        "left out",
        "Checkpoints that a verdict does not count: those before a hundredth of the run, where losses fall steeply and "
        "scores are at chance, and single ones far from their neighbours. Charts show them in grey.",
        ("set aside", "set_aside"),
    ),
    Word(
        "±",
        "One standard error of the value: how much it would change from one sample of text or questions to another.",
        ("stderr", "standard error"),
    ),
    *MEASURES,
    Word(
        "shared rank",
        "Models that cannot be told apart, by tests of all pairs at 5 % with Holm's correction, have one rank in the "
        "leaderboard: 1 + the number of models that are significantly better.",
        ("rank",),
    ),
    Word(
        "emergent",
        "A score that stays at chance until the loss falls below a threshold, and rises then, more suddenly than any "
        "smooth curve through the points.",
        ("emergence",),
    ),
    Word(
        "threshold",
        "The loss below which a score leaves chance, with the ends of its 90 % interval.",
        ("lowest threshold", "highest threshold"),
    ),
    Word("Spearman", "The rank correlation of the score with the loss: −1 if each lower loss has a higher score."),
    Word("chance", "What guessing scores: one over the number of options, for a question with options."),
    Word(
        "score above chance",
        "(score − chance) / (1 − chance), the mean over tasks: 0 for guessing, 1 for no error.",
        ("downstream average", "downstream"),
    ),
    Word(
        "gap to the law",
        "The loss above what the scaling law of the larger models predicts for that size and data, in per cent.",
        ("law_gap",),
    ),
    Word("n-shot", "How many solved examples stand before each question.", ("num_fewshot", "shots")),
    Word("acc", "The share of questions whose right option is the most probable one."),
    Word("accuracy", "The share of the text's tokens that the model holds to be the most probable next ones."),
    Word(
        "acc_norm", "acc with each option's log-probability divided by its length, so that long options can win, too."
    ),
    Word("correct_choice_prob", "The probability of the right option among the options, the mean over questions."),
    Word(
        "brier_score",
        "The squared distance between the options' probabilities and the right answer, the mean over questions. Lower "
        "is better, 0 the best.",
        ("Brier score",),
    ),
    Word("checkpoints", "How many checkpoints a verdict has seen.", ("checkpoint",)),
    Word("tokens", "How many tokens the model had been trained on at that checkpoint, where it is known."),
    Word("compute", "6 · parameters · tokens: the operations of training, without the embeddings.", ("flops", "6ND")),
    Word(
        "variant",
        "In what settings these results differ from others of the model, such as head_rank=32 or max_tokens=10000.",
    ),
)


def word_of(text: str) -> Word | None:
    """Return the word that a text is, or the words within a metric's name; None where nothing is known.

    Letter case, spaces, hyphens and underscores make no difference.
    """
    return _BY_NAME.get(_plain(text))


def similar_to(text: str) -> list[Word]:
    """Return the words whose names or meanings hold the text."""
    wanted = _plain(text)
    named = [word for word in WORDS if any(wanted in _plain(name) for name in (word.name, *word.also))]
    return named or [word for word in WORDS if wanted and wanted in _plain(word.meaning)]


def _plain(text: str) -> str:
    return re.sub(r"[\s_-]+", " ", text.strip()).casefold()


_BY_NAME = {_plain(name): word for word in reversed(WORDS) for name in (*reversed(word.also), word.name)}
