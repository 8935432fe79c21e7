"""The preference side: labels, annotators, losses, policies and rounds, from a design to a better policy and back.

This file names what the package offers and nothing else; every file loads on first use, so that the parts that need
flax, optax or orbax (the extra `preference`) cost nothing to those who do not touch them.
"""

import importlib

_HOMES = {
    "BradleyTerryFit": "bradley_terry",
    "DeploymentTarget": "policy_targets",
    "LOSSES": "losses",
    "LabelRecord": "label_tasks",
    "LabelStore": "label_store",
    "Labels": "labels",
    "ReferenceFit": "reference_fit",
    "Reliability": "reliability",
    "SampledTarget": "policy_targets",
    "SimulatedAnnotators": "simulated_annotators",
    "Task": "label_tasks",
    "answered": "label_tasks",
    "as_labels": "labels",
    "check_labels": "labels",
    "check_tasks": "label_tasks",
    "choice_probabilities": "simulated_annotators",
    "concatenated": "labels",
    "conservative_dpo_loss": "losses",
    "counted": "labels",
    "counted_by_annotator": "labels",
    "deployment_target": "policy_targets",
    "dpo_loss": "losses",
    "effective_sample_size": "policy_targets",
    "estimate_reliability": "reliability",
    "exo_loss": "losses",
    "fit_bradley_terry": "bradley_terry",
    "fit_reference": "reference_fit",
    "flip_of": "reliability",
    "gradient_pool": "model_features",
    "gradient_rows": "gradient_features",
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
    "optimal_policy": "log_linear",
    "parameter_paths": "gradient_features",
    "policy_gap": "log_linear",
    "policy_value": "log_linear",
    "project": "projection",
    "projected_gradients": "gradient_features",
    "ramp_loss": "losses",
    "read_answers": "label_files",
    "reference_target": "reference_fit",
    "reliable_annotators": "reliability",
    "robust_dpo_loss": "losses",
    "rpo_loss": "losses",
    "sampled_target": "policy_targets",
    "sigmoid_loss": "losses",
    "simulate_labels": "simulated_annotators",
    "slic_hf_loss": "losses",
    "split_model": "nnx_policy",
    "tabular_pool": "log_linear",
    "task_id": "label_tasks",
    "unhinged_loss": "losses",
    "weighted_mean": "losses",
    "with_estimated_flip": "reliability",
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
