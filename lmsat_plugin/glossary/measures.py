"""What measures are, in a sentence or two each."""

from __future__ import annotations

from lmsat_plugin.glossary.word import Word

MEASURES = (
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
        "unigram loss",
        "The loss of a model that knows nothing but how often each token occurs in the measured text.",
        ("unigram_loss",),
    ),
    Word(
        "unigram-normalised perplexity",
        "The perplexity over that of the tokens' frequencies, exp of the difference of the losses: 1 for a model that "
        "knows frequencies alone.",
        ("unigram_normalised_perplexity",),
    ),
    Word(
        "largest spectral norm",
        "The largest singular value of all weight matrices.",
        ("spectral_norm_max", "spectral norm"),
    ),
    Word(
        "outlier ratio",
        "How far the largest weights stand out: the greatest absolute entry of a matrix over the 99th percentile.",
        ("outlier_ratio_max",),
    ),
    Word(
        "mean stable rank",
        "The mean over all weight matrices of the squared singular values' sum over the square of the largest.",
        ("stable_rank_mean",),
    ),
    Word(
        "top-10 share",
        "The share of the ten greatest singular values in the sum of all, the mean over weight matrices.",
        ("top10_share_mean",),
    ),
    Word(
        "power-law exponent",
        "How fast the number of large eigenvalues of a weight matrix falls: α of the power law of their tail, as "
        "WeightWatcher has it, the mean over matrices.",
        ("alpha_mean", "alpha"),
    ),
    Word(
        "reference",
        "The checkpoint beside which another is seen: the one before it, the first, the last, or one that is named.",
    ),
    Word(
        "relative change",
        "How far the weights are from the reference's, as a share of the size of these: ‖ΔW‖/‖W‖.",
        ("relative_change",),
    ),
    Word(
        "cosine of changes",
        "Whether the weights move on as before: the cosine between their change and the change before it.",
        ("change_cosine",),
    ),
    Word(
        "rank of the change",
        "In how many directions the weight matrices have changed: the stable rank of ΔW, the mean over matrices.",
        ("change_stable_rank_mean",),
    ),
    Word(
        "CKA",
        "Centred kernel alignment: how alike the hidden states of two models are, whatever their rotation and scale. 1 "
        "for the same geometry, about 0 for unrelated states.",
        ("cka_last", "cka_mean", "similarity"),
    ),
    Word(
        "principal angle",
        "By how many degrees the ten directions in which states vary most differ between two models, on average: 0 for "
        "the same ones.",
        ("principal_angle_last",),
    ),
    Word("agreement", "The share of tokens for which two models predict the same next token."),
    Word(
        "Jensen-Shannon distance",
        "How far the predictions of two models are apart: 0 for equal ones, 1 for ones without a common token.",
        ("jensen_shannon",),
    ),
    Word(
        "loss after quantisation",
        "How many nats the loss rises when weights are rounded to 8, 4 or 3 bits.",
        ("loss_increase_8", "loss_increase_4", "loss_increase_3", "quantisation"),
    ),
    Word(
        "loss under weight noise",
        "How many nats the loss rises under Gaussian noise on the weights of 0.5, 1 or 2 per cent of their size.",
        ("loss_increase_0.5", "loss_increase_1", "loss_increase_2", "weight noise"),
    ),
    Word(
        "critical sharpness",
        "How curved the loss is along the gradient, or along the way to another checkpoint: 2 over the least step that "
        "raises the loss.",
        ("critical_sharpness", "critical_sharpness_low", "critical_sharpness_high", "sharpness"),
    ),
)
