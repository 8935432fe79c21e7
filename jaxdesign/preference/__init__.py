"""The preference side: labels, annotators, losses, policies and rounds, from a design to a better policy and back.

This file names what the package offers and nothing else; every file loads on first use, so that the parts that need
flax, optax or orbax (the extra `preference`) cost nothing to those who do not touch them.
"""

import importlib

from jaxdesign.preference._extras import needed_for

_HOMES = {
    "BradleyTerryFit": "fit.bradley_terry",
    "Checkpoint": "small_model.checkpoints",
    "Corpus": "small_model.corpus",
    "DeploymentTarget": "targets",
    "Examples": "small_model.fine_tuning",
    "HiddenReward": "simulation.hidden_reward",
    "LOSSES": "losses",
    "LabelRecord": "labels.tasks",
    "LabelStore": "labels.store",
    "Labels": "labels.labels",
    "LanguageModel": "small_model.language_model",
    "LanguageModelConfig": "small_model.language_model",
    "PolicyValue": "small_model.sampled_value",
    "PositionBias": "fit.position_bias",
    "Posterior": "fit.posterior",
    "Prediction": "small_model.language_model",
    "PreferredPairs": "small_model.dpo_training",
    "ProgressBar": "small_model.training",
    "ReferenceFit": "fit.reference",
    "Reliability": "fit.reliability",
    "RoundPlan": "rounds",
    "RoundsResult": "rounds",
    "SampledTarget": "targets",
    "Samples": "small_model.sampling",
    "SimulatedAnnotators": "simulation.annotators",
    "Task": "labels.tasks",
    "Tokeniser": "small_model.tokens",
    "Trained": "small_model.training",
    "answered": "labels.tasks",
    "as_labels": "labels.labels",
    "check_labels": "labels.labels",
    "check_tasks": "labels.tasks",
    "choice_probabilities": "simulation.annotators",
    "compiled_log_probability": "small_model.dpo_training",
    "concatenated": "labels.labels",
    "conservative_dpo_loss": "losses",
    "counted": "labels.labels",
    "counted_by_annotator": "labels.labels",
    "deployment_target": "targets",
    "dpo_loss": "losses",
    "effective_sample_size": "targets",
    "estimate_position_bias": "fit.position_bias",
    "estimate_reliability": "fit.reliability",
    "exo_loss": "losses",
    "fine_tune": "small_model.fine_tuning",
    "fine_tuning_optimiser": "small_model.fine_tuning",
    "fit_bradley_terry": "fit.bradley_terry",
    "fit_posterior": "fit.posterior",
    "fit_reference": "fit.reference",
    "flip_of": "fit.reliability",
    "gradient_pool": "features.pools",
    "gradient_rows": "features.gradients",
    "grammar_corpus": "small_model.corpus",
    "hidden_pool": "features.pools",
    "hinge_loss": "losses",
    "implicit_reward": "losses",
    "implicit_rewards": "targets",
    "importance_weighted_dpo_loss": "losses",
    "ipo_loss": "losses",
    "kl_divergence": "log_linear",
    "last_hidden_states": "features.hidden_states",
    "log_policy": "log_linear",
    "log_ratio_gap": "losses",
    "make_annotators": "simulation.annotators",
    "make_tasks": "labels.tasks",
    "mapped": "fit.reference",
    "margin_dpo_loss": "losses",
    "next_batch": "rounds",
    "optimal_policy": "log_linear",
    "parameter_paths": "features.gradients",
    "policy_gap": "log_linear",
    "policy_value": "log_linear",
    "posterior_draws": "fit.posterior",
    "posterior_targets": "fit.posterior",
    "predicted_gap": "fit.posterior",
    "preferred_pairs": "small_model.dpo_training",
    "project": "features.projection",
    "projected_gradients": "features.gradients",
    "ramp_loss": "losses",
    "random_reward": "simulation.hidden_reward",
    "read_answers": "labels.task_files",
    "reference_target": "fit.reference",
    "reliable_annotators": "fit.reliability",
    "restore_checkpoint": "small_model.checkpoints",
    "robust_dpo_loss": "losses",
    "rpo_loss": "losses",
    "run_rounds": "rounds",
    "sample_completions": "small_model.sampling",
    "sampled_policy_value": "small_model.sampled_value",
    "sampled_target": "targets",
    "save_checkpoint": "small_model.checkpoints",
    "scored_pool": "fit.posterior",
    "sequence_divergence": "small_model.sampled_value",
    "sequence_log_probability": "small_model.language_model",
    "sigmoid_loss": "losses",
    "simulate_labels": "simulation.annotators",
    "slic_hf_loss": "losses",
    "split_model": "features.nnx_policy",
    "tabular_pool": "log_linear",
    "task_id": "labels.tasks",
    "token_log_probabilities": "small_model.language_model",
    "train": "small_model.training",
    "train_on_pairs": "small_model.dpo_training",
    "unhinged_loss": "losses",
    "weighted_mean": "losses",
    "with_estimated_flip": "fit.reliability",
    "write_preferences": "labels.preference_files",
    "write_tasks": "labels.task_files",
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
