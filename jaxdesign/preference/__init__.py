"""The preference side: labels, annotators, losses, policies and rounds, from a design to a better policy and back.

This file names what the package offers and nothing else; every file loads on first use, so that the parts that need
flax, optax or orbax (the extra `preference`) cost nothing to those who do not touch them.
"""

import importlib

from jaxdesign.preference._extras import needed_for

_HOMES = {
    "BradleyTerryFit": "bradley_terry",
    "Checkpoint": "checkpoints",
    "Corpus": "corpus",
    "DeploymentTarget": "policy_targets",
    "Examples": "fine_tuning",
    "HiddenReward": "hidden_reward",
    "LOSSES": "losses",
    "LabelRecord": "label_tasks",
    "LabelStore": "label_store",
    "Labels": "labels",
    "LanguageModel": "language_model",
    "LanguageModelConfig": "language_model",
    "PolicyValue": "sampled_value",
    "PositionBias": "position_bias",
    "Posterior": "posterior",
    "Prediction": "language_model",
    "PreferredPairs": "dpo_training",
    "ProgressBar": "training",
    "ReferenceFit": "reference_fit",
    "Reliability": "reliability",
    "RoundPlan": "rounds",
    "RoundsResult": "rounds",
    "SampledTarget": "policy_targets",
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
    "deployment_target": "policy_targets",
    "dpo_loss": "losses",
    "effective_sample_size": "policy_targets",
    "estimate_position_bias": "position_bias",
    "estimate_reliability": "reliability",
    "exo_loss": "losses",
    "fine_tune": "fine_tuning",
    "fine_tuning_optimiser": "fine_tuning",
    "fit_bradley_terry": "bradley_terry",
    "fit_posterior": "posterior",
    "fit_reference": "reference_fit",
    "flip_of": "reliability",
    "gradient_pool": "model_features",
    "gradient_rows": "gradient_features",
    "grammar_corpus": "corpus",
    "hidden_pool": "model_features",
    "hinge_loss": "losses",
    "implicit_reward": "losses",
    "implicit_rewards": "policy_targets",
    "importance_weighted_dpo_loss": "losses",
    "ipo_loss": "losses",
    "kl_divergence": "log_linear",
    "last_hidden_states": "hidden_features",
    "log_policy": "log_linear",
    "log_ratio_gap": "losses",
    "make_annotators": "simulated_annotators",
    "make_tasks": "label_tasks",
    "mapped": "reference_fit",
    "margin_dpo_loss": "losses",
    "next_batch": "rounds",
    "optimal_policy": "log_linear",
    "parameter_paths": "gradient_features",
    "policy_gap": "log_linear",
    "policy_value": "log_linear",
    "posterior_draws": "posterior",
    "posterior_targets": "posterior",
    "predicted_gap": "posterior",
    "preferred_pairs": "dpo_training",
    "project": "projection",
    "projected_gradients": "gradient_features",
    "ramp_loss": "losses",
    "random_reward": "hidden_reward",
    "read_answers": "label_files",
    "reference_target": "reference_fit",
    "reliable_annotators": "reliability",
    "restore_checkpoint": "checkpoints",
    "robust_dpo_loss": "losses",
    "rpo_loss": "losses",
    "run_rounds": "rounds",
    "sample_completions": "sampling",
    "sampled_policy_value": "sampled_value",
    "sampled_target": "policy_targets",
    "save_checkpoint": "checkpoints",
    "scored_pool": "posterior",
    "sequence_divergence": "sampled_value",
    "sequence_log_probability": "language_model",
    "sigmoid_loss": "losses",
    "simulate_labels": "simulated_annotators",
    "slic_hf_loss": "losses",
    "split_model": "nnx_policy",
    "tabular_pool": "log_linear",
    "task_id": "label_tasks",
    "token_log_probabilities": "language_model",
    "train": "training",
    "train_on_pairs": "dpo_training",
    "unhinged_loss": "losses",
    "weighted_mean": "losses",
    "with_estimated_flip": "reliability",
    "write_preferences": "preference_files",
    "write_tasks": "label_files",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxdesign.preference' has no attribute {name!r}")
    with needed_for(f"jaxdesign.preference.{name}"):
        value = getattr(importlib.import_module(f"jaxdesign.preference.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
