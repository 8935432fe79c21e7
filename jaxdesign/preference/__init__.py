"""The preference side: labels, annotators, losses, policies and rounds, from a design to a better policy and back.

This file names what the package offers and nothing else; every file loads on first use, so that the parts that need
flax, optax or orbax (the extra `preference`) cost nothing to those who do not touch them.
"""

import importlib

_HOMES = {
    "Checkpoint": "checkpoints",
    "Corpus": "corpus",
    "Examples": "fine_tuning",
    "HiddenReward": "hidden_reward",
    "LOSSES": "losses",
    "LabelRecord": "label_tasks",
    "LabelStore": "label_store",
    "Labels": "labels",
    "LanguageModel": "language_model",
    "LanguageModelConfig": "language_model",
    "PolicyValue": "sampled_value",
    "Prediction": "language_model",
    "PreferredPairs": "dpo_training",
    "ProgressBar": "training",
    "Samples": "sampling",
    "SimulatedAnnotators": "simulated_annotators",
    "Task": "label_tasks",
    "Tokeniser": "tokens",
    "Trained": "training",
    "answered": "label_tasks",
    "as_labels": "labels",
    "check_labels": "labels",
    "check_tasks": "label_tasks",
    "choice_probabilities": "simulated_annotators",
    "compiled_log_probability": "dpo_training",
    "concatenated": "labels",
    "conservative_dpo_loss": "losses",
    "counted": "labels",
    "counted_by_annotator": "labels",
    "dpo_loss": "losses",
    "exo_loss": "losses",
    "fine_tune": "fine_tuning",
    "fine_tuning_optimiser": "fine_tuning",
    "grammar_corpus": "corpus",
    "hinge_loss": "losses",
    "implicit_reward": "losses",
    "importance_weighted_dpo_loss": "losses",
    "ipo_loss": "losses",
    "log_ratio_gap": "losses",
    "make_annotators": "simulated_annotators",
    "make_tasks": "label_tasks",
    "margin_dpo_loss": "losses",
    "preferred_pairs": "dpo_training",
    "ramp_loss": "losses",
    "random_reward": "hidden_reward",
    "read_answers": "label_files",
    "restore_checkpoint": "checkpoints",
    "robust_dpo_loss": "losses",
    "rpo_loss": "losses",
    "sample_completions": "sampling",
    "sampled_policy_value": "sampled_value",
    "save_checkpoint": "checkpoints",
    "sequence_divergence": "sampled_value",
    "sequence_log_probability": "language_model",
    "sigmoid_loss": "losses",
    "simulate_labels": "simulated_annotators",
    "slic_hf_loss": "losses",
    "task_id": "label_tasks",
    "token_log_probabilities": "language_model",
    "train": "training",
    "train_on_pairs": "dpo_training",
    "unhinged_loss": "losses",
    "weighted_mean": "losses",
    "write_tasks": "label_files",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxdesign.preference' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"jaxdesign.preference.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
