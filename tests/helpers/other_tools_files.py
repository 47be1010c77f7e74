"""Small files in the layouts of other tools, as their own code writes them. Most figures are made up."""

from __future__ import annotations

from typing import Any

NEOX_NAME = "pythia-70m-0shot-global_step63000_eval_results_11-25-2022-07-29-28.json"


def lighteval(
    results: dict[str, Any] | None = None, model: str = "HuggingFaceTB/SmolLM2-135M", **general: Any
) -> dict[str, Any]:
    """Return a file of lighteval's ``EvaluationTracker``."""
    results = results or {
        "leaderboard|arc:challenge|25": {
            "acc": 0.25,
            "acc_stderr": 0.0125,
            "acc_norm": 0.375,
            "acc_norm_stderr": 0.013,
        },
        "leaderboard|hellaswag|10|0": {"acc": 0.5, "acc_stderr": 0.005, "acc_norm": 0.625, "acc_norm_stderr": 0.006},
        "all": {"acc": 0.375, "acc_stderr": 0.00875, "acc_norm": 0.5, "acc_norm_stderr": 0.0095},
    }
    metric = {"metric_name": "acc", "higher_is_better": True, "category": "8", "corpus_level_fn": "mean"}
    return {
        "config_general": {
            "lighteval_sha": "203045a8431bc9b77245c9998e05fc54509ea07f",
            "num_fewshot_seeds": 1,
            "max_samples": None,
            "job_id": "",
            # These are of a clock that counts from when the machine was started.
            "start_time": 620979.879320166,
            "end_time": 621004.632108041,
            "model_name": model,
            "model_sha": "c" * 40,
            "model_dtype": "torch.bfloat16",
            "model_size": "476.2 MB",
            **general,
        },
        "results": results,
        "versions": dict.fromkeys(results, 0),
        "config_tasks": {
            "leaderboard|arc:challenge": {"name": "arc:challenge", "metric": [metric], "effective_num_docs": 1172},
            "leaderboard|hellaswag": "LightevalTaskConfig(name='hellaswag', prompt_function=<function hellaswag>)",
        },
        "summary_tasks": {task: {"hashes": {}, "padded": 0, "effective_few_shots": 25.0} for task in results},
        "summary_general": {"hashes": {}, "padded": 0},
    }


def olmes_task(
    task: str = "arc_challenge",
    metrics: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    date: str = "2024-12-19 12:16:07 UTC",
    **config: Any,
) -> dict[str, Any]:
    """Return a file of one task of OLMES, or a line of its ``metrics-all.jsonl``."""
    metrics = metrics or {"acc_raw": 0.1875, "acc_per_char": 0.21875, "acc_uncond": 0.25, "primary_score": 0.25}
    return {
        "task_name": task,
        "task_hash": "d" * 32,
        "model_hash": "e" * 32,
        "model_config": {
            **{"model": "olmo-150m", "revision": "step1250-unsharded-hf", "trust_remote_code": None},
            **{"max_length": 2048, "model_type": "hf", "model_path": "allenai/OLMo-150M"},
            **(model or {}),
        },
        "task_config": {
            **{"task_name": task, "task_core": task, "limit": 10**19, "split": "test", "num_shots": 5},
            **{"primary_metric": "acc_uncond", "metadata": {"alias": f"{task}:rc::olmes"}},
            **config,
        },
        "compute_config": {"batch_size": "4", "output_dir": "/results"},
        "processing_time": 41.97,
        "current_date": date,
        "num_instances": 1172,
        "beaker_info": {},
        "metrics": metrics,
        "task_idx": 0,
    }


def olmes_short(*tasks: dict[str, Any]) -> dict[str, Any]:
    """Return the ``metrics.json`` that OLMES writes of tasks."""
    return {
        "all_primary_scores": [f"{task['task_name']}: {task['metrics']['primary_score']:.6}" for task in tasks],
        "metrics": [
            {
                "task": task["task_name"],
                **task["metrics"],
                "num_instances": task["num_instances"],
                "task_config": task["task_config"],
            }
            for task in tasks
        ],
        "model_config": tasks[0]["model_config"],
    }


def neox(step: int = 63000, results: dict[str, Any] | None = None, shots: int = 0, **args: Any) -> dict[str, Any]:
    """Return a file of GPT-NeoX's evaluation, with some of its 190 settings."""
    return {
        "results": results or {"piqa": {"acc": 0.625, "acc_stderr": 0.01, "acc_norm": 0.5, "acc_norm_stderr": 0.01}},
        "versions": {"piqa": 0},
        "config": {
            "model": "neox",
            "model_args": {
                **{"distributed_backend": "nccl", "local_rank": 0, "user_script": "/fsx/evaluate.py", "seed": 1234},
                **{"iteration": step, "eval_results_prefix": f"../evals/19M/19M-{shots}shot-global_step{step}"},
                **{"wandb_group": f"Pythia 19M new_{step:x}", "wandb_team": "eleutherai", "git_hash": "dfc018a"},
                **{"save": "/fsx/ckpts/19M", "load": "/fsx/ckpts/19M", "train_data_paths": ["/fsx/pile"]},
                **{"config_files": {"19M.yml": "{}"}, "train_iters": 143000, "precision": "fp16", "seq_length": 2048},
                **{"num_layers": 6, "pos_emb": "rotary", "optimizer": {"type": "Adam"}, "world_size": 8},
                **args,
            },
            **{"num_fewshot": shots, "batch_size": 32, "device": "cuda:0", "no_cache": True, "limit": None},
            **{"bootstrap_iters": 10000, "description_dict": None},
        },
    }


def record(**about: Any) -> dict[str, Any]:
    """Return a record of Every Eval Ever that another tool made."""
    return {
        "schema_version": "0.2.0",
        "evaluation_id": "hfopenllm_v2/TencentARC_LLaMA-Pro-8B-Instruct/1770682486.623709",
        "evaluation_timestamp": "2025-02-10T00:14:46Z",
        "retrieved_timestamp": "1770682486.623709",
        "source_metadata": {"source_name": "HF Open LLM v2", "source_type": "documentation"},
        "model_info": {
            "name": "LLaMA-Pro-8B-Instruct",
            "id": "TencentARC/LLaMA-Pro-8B-Instruct",
            "developer": "TencentARC",
            "additional_details": {"precision": "bfloat16", "params_billions": 8.357},
            **about,
        },
        "evaluation_results": [
            {
                "evaluation_name": "GPQA",
                "source_data": {"dataset_name": "GPQA", "source_type": "hf_dataset", "hf_repo": "Idavidrein/gpqa"},
                "metric_config": {
                    **{"evaluation_description": "Accuracy on GPQA", "metric_id": "accuracy", "lower_is_better": False},
                    **{"score_type": "continuous", "min_score": 0.0, "max_score": 1.0},
                },
                "score_details": {"score": 0.2743, "uncertainty": {"standard_error": {"value": 0.0129}}},
            }
        ],
    }


def datadecide() -> list[dict[str, Any]]:
    """Return rows of ``allenai/DataDecide-eval-results``; the metrics are the text of a Python dict, or of JSON."""
    place = {"params": "150M", "data": "Dolma1.7 (no code)", "seed": "small aux 2", "chinchilla": "5xC"}
    early, late = (
        {**place, "step": step, "tokens": 491520.0 * step, "compute": 4.4e14 * step} for step in (1250, 2500)
    )
    metrics = (
        "{'predicted_index_raw': 1.4, 'acc_raw': 0.25, 'acc_per_char': 0.3125, 'no_answer': 0.0, 'acc_uncond': nan}"
    )
    return [
        {**early, "task": "arc_challenge", "metrics": metrics},
        {**early, "task": "boolq", "metrics": "{'acc_raw': 0.5, 'bits_per_byte_corr': 1.25, 'acc_uncond': None}"},
        {**late, "task": "arc_challenge", "metrics": '{"acc_raw": 0.375}'},
        {**late, "task": "olmes_10_macro_avg", "metrics": '{"primary_metric": 0.4, "acc_raw": 0.4}'},
    ]


def ladder_log() -> list[dict[str, Any]]:
    """Return rows of ``190M-10xC.csv`` of OLMo-ladder, with some of its 97 columns."""
    names = {
        "eval/c4_en-validation/CrossEntropyLoss": (4.25, 3.5),
        "eval/downstream_bpb/arc_easy_val_rc_5shot_bpb": (1.5, 1.25),
        "eval/downstream/arc_easy_val_rc_5shot_len_norm": (0.25, 0.375),
        "eval/downstream/boolq_val_rc_5shot_acc": (0.5, 0.625),
        "eval/downstream_soft/arc_easy_val_rc_5shot_soft": (0.25, None),
        "eval/downstream_soft_log/arc_easy_val_rc_5shot_soft_log": (-1.5, -1.25),
        "throughput/total_tokens": (524288000, 1048576000),
        "optim/learning_rate_group0": (0.001, 0.0005),
    }
    return [{"_step": step, **{name: own[i] for name, own in names.items()}} for i, step in enumerate((1000, 2000))]


def ladder_table() -> list[dict[str, Any]]:
    """Return rows of the table for two-step fits of OLMo's ladder."""
    place = {"model": "190M-10xC", "size": "190M", "step": 8000, "c4_loss": 3.625, "metric": "acc", "n_samples": 2376}
    return [
        {**place, "task": "arc_easy_test", "loss": 1.25, "score": 0.375, "chance": 0.25},
        {**place, "task": "boolq_val", "loss": 0.5, "score": 0.625, "chance": 0.5},
    ]


def contents_v2() -> list[dict[str, Any]]:
    """Return rows of ``open-llm-leaderboard/contents``; the raw scores are those published for EleutherAI/pythia-1b."""
    raw = {
        **{"IFEval Raw": 0.22, "BBH Raw": 0.29699704912341607, "MATH Lvl 5 Raw": 0.0030211480362537764},
        **{"GPQA Raw": 0.25671140939597314, "MUSR Raw": 0.3544973544973545, "MMLU-PRO Raw": 0.11361369680851063},
    }
    about = {"eval_name": "EleutherAI_pythia-1b_float16", "Precision": "float16", "Architecture": "GPTNeoXForCausalLM"}
    model = {"fullname": "EleutherAI/pythia-1b", "Model sha": "f" * 40, "Average ⬆️": 5.0, "#Params (B)": 1.01}
    scaled = {name.removesuffix(" Raw"): 100 * value for name, value in raw.items()}
    return [{**about, **model, **raw, **scaled, "Chat Template": False, "Submission Date": "2025-01-27"}]


def contents_v1() -> list[dict[str, Any]]:
    """Return rows of ``open-llm-leaderboard-old/contents``, whose scores are in percent."""
    scores = {"ARC": 31.25, "HellaSwag": 50.0, "MMLU": 26.5, "TruthfulQA": 38.5, "Winogrande": 53.125, "GSM8K": 0.5}
    model = {"fullname": "EleutherAI/pythia-1.3b", "Model sha": "a" * 40, "Precision": "float16", "#Params (B)": 1}
    return [{**model, **scores, "date": "2023-09-15T09:53:02Z", "Merged": False}]
