"""The preference side: labels, annotators, losses, policies and rounds, from a design to a better policy and back.

This file names what the package offers and nothing else; every file loads on first use, so that the parts that need
flax, optax or orbax (the extra `preference`) cost nothing to those who do not touch them.
"""

import importlib

_HOMES = {
    "DeploymentTarget": "policy_targets",
    "Labels": "labels",
    "ReferenceFit": "reference_fit",
    "SampledTarget": "policy_targets",
    "as_labels": "labels",
    "check_labels": "labels",
    "concatenated": "labels",
    "counted": "labels",
    "counted_by_annotator": "labels",
    "deployment_target": "policy_targets",
    "effective_sample_size": "policy_targets",
    "fit_reference": "reference_fit",
    "gradient_pool": "model_features",
    "gradient_rows": "gradient_features",
    "hidden_pool": "model_features",
    "implicit_rewards": "policy_targets",
    "last_hidden_states": "hidden_features",
    "mapped": "reference_fit",
    "parameter_paths": "gradient_features",
    "project": "projection",
    "projected_gradients": "gradient_features",
    "reference_target": "reference_fit",
    "sampled_target": "policy_targets",
    "split_model": "nnx_policy",
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
