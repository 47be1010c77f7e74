"""What the words of verdicts, tables and charts mean, in a sentence or two each."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    """One word, and what it means."""

    name: str
    meaning: str
    also: tuple[str, ...] = ()
    """What else it is called: columns of tables, and metrics."""


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
    Word(
        "loss",
        "The mean surprise of the model at the next token of held-out text, −ln of the probability that it gave it, in "
        "nats per token. Lower is better.",
        ("nats per token", "nats/token"),
    ),
    Word("perplexity", "exp of the loss: the number of tokens among which the model hesitates.", ("word_perplexity",)),
    Word(
        "bits per byte",
        "The loss in bits for each byte of text. Unlike the loss it compares models with different tokenizers.",
        ("bits_per_byte",),
    ),
    Word(
        "anisotropy",
        "The mean cosine between the hidden states of different tokens: 0 if they point in all directions, 1 if all "
        "point in one. Small models that saturate have states that point in few directions.",
        ("anisotropy_last", "anisotropy_mean", "anisotropy_max"),
    ),
    Word(
        "massive activation",
        "An entry of a hidden state that is hundreds of times as large as the others. The ratio is the greatest "
        "max|h|/median|h| of a token's state h.",
        ("massive_ratio_max", "massive_layer", "massive ratio"),
    ),
    Word(
        "kurtosis",
        "How far single entries of a hidden state stand out: 0 for Gaussian entries, larger the fewer entries hold "
        "most of its length.",
        ("kurtosis_max",),
    ),
    Word("norm of the states", "The mean length of the hidden states.", ("norm_mean",)),
    Word(
        "sink rate",
        "The share of attention heads that give more than 0.3 of their attention to the first token of a text, "
        "whatever it is.",
        ("sink_rate", "attention sink"),
    ),
    Word(
        "attention entropy",
        "How widely attention heads spread over the tokens that they see: 0 for one token, 1 for all alike.",
        ("attention_entropy",),
    ),
    Word(
        "previous token share",
        "The share of attention heads that give more than 0.3 of their attention to the token just before.",
        ("previous_token_share",),
    ),
    Word(
        "induction score",
        "On random tokens that are repeated: how much of its attention the best head gives to what followed a token "
        "the first time. Heads that do so copy, and in-context learning rests on them.",
        ("induction_score", "induction_share"),
    ),
    Word(
        "divergence from n-grams",
        "KL(q‖p) in nats of the model's predictions p from the frequencies q of single tokens, or of what follows one. "
        "It falls while a model learns them, and rises as it learns more.",
        ("unigram_kl", "bigram_kl"),
    ),
    Word(
        "bigram coverage",
        "The share of the measured tokens whose token before was seen often enough to say what follows it.",
        ("bigram_coverage",),
    ),
    Word(
        "RankMe",
        "The number of directions in which the hidden states of the last layer lie, their mean among them: exp of the "
        "entropy of their singular values.",
        ("rankme",),
    ),
    Word(
        "α-ReQ",
        "How fast the variance of the hidden states falls from one direction to the next: the exponent of a power law. "
        "Larger means that fewer directions hold most of it.",
        ("alpha_req",),
    ),
    Word(
        "participation ratio",
        "Another number of directions in which hidden states vary: the squared sum of their variances over the sum of "
        "the squares.",
        ("participation_ratio",),
    ),
    Word(
        "IsoScore",
        "How evenly hidden states vary in all directions: 1 if equally in each, 0 if along a single line.",
        ("isoscore",),
    ),
    Word(
        "top direction share",
        "The share of the hidden states' variance along the direction in which they vary most.",
        ("top_direction_share",),
    ),
    Word(
        "entropy of the predictions",
        "How uncertain the model is of the next token: −Σ p ln p of its probabilities in nats, averaged over tokens.",
        ("entropy",),
    ),
    Word(
        "calibration error",
        "How far the probability of the most probable next token is from how often it comes, over 15 groups of tokens "
        "of like probability. 0 is the best.",
        ("calibration_error",),
    ),
    Word(
        "loss by frequency",
        "The loss of the text's tokens in three equal parts: the most frequent ones, the middle, and the rare ones.",
        ("loss_frequent", "loss_medium", "loss_rare"),
    ),
    Word(
        "zero-sum learning",
        "From one checkpoint to the next, the loss of some tokens falls and that of others rises, so that the changes "
        "cancel: D = 1 − |sum of changes| / sum of |changes| over tokens, 0 if all change in one direction, 1 if "
        "nothing is left of the changes.",
        ("interference", "destructive interference"),
    ),
    Word(
        "deceleration",
        "The step, or tokens, at which the loss begins to fall more slowly: the break of a power law of the loss.",
        ("slows down at",),
    ),
    Word(
        "singular entropy",
        "How far the LM head's squared singular values are from equal, KL(p‖u) in nats: 0 for a flat spectrum, larger "
        "as few directions take over. It rises when a small model saturates.",
        ("singular_entropy", "singular_entropy_linear"),
    ),
    Word(
        "effective rank",
        "The number of directions that a matrix uses: exp of the entropy of its singular values. It is the full rank "
        "for a flat spectrum, 1 for a single direction.",
        ("effective_rank", "effective_rank_last", "eff. rank"),
    ),
    Word(
        "head capacity",
        "The effective rank of the LM head as a share of the model's hidden size: 1 if the head uses all directions "
        "that it has.",
        ("head_capacity",),
    ),
    Word(
        "stable rank",
        "The sum of the squared singular values over the square of the largest: another number of used directions.",
        ("stable_rank",),
    ),
    Word("condition number", "The largest singular value over the smallest.", ("condition_number",)),
    Word("top singular ratio", "The largest singular value over the mean of all.", ("top_singular_ratio",)),
    Word(
        "rank needed",
        "The least rank of the LM head with which the loss stays within 1 % of that of the full head.",
        ("rank_needed",),
    ),
    Word(
        "shared rank",
        "Models that cannot be told apart, by tests of all pairs at 5 % with Holm's correction, have one rank in the "
        "leaderboard: 1 + the number of models that are significantly better.",
        ("rank",),
    ),
    Word(
        "gradient noise scale",
        "How much gradients differ from batch to batch. Batches beyond it speed up training little: it is the critical "
        "batch.",
        ("critical batch", "critical_batch_tokens"),
    ),
    Word(
        "W-error",
        "How badly a matrix of a given rank can give the statistics of the text's n-grams: the rank that the text asks "
        "of a head.",
        ("w_error",),
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
