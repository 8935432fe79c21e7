"""The preference side: labels, annotators, losses, policies and rounds, from a design to a better policy and back.

This file names what the package offers and nothing else; every file loads on first use, so that the parts that need
flax, optax or orbax (the extra `preference`) cost nothing to those who do not touch them.
"""

import importlib

_HOMES = {
    "LOSSES": "losses",
    "LabelRecord": "label_tasks",
    "LabelStore": "label_store",
    "Labels": "labels",
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
    "dpo_loss": "losses",
    "exo_loss": "losses",
    "hinge_loss": "losses",
    "implicit_reward": "losses",
    "importance_weighted_dpo_loss": "losses",
    "ipo_loss": "losses",
    "log_ratio_gap": "losses",
    "make_annotators": "simulated_annotators",
    "make_tasks": "label_tasks",
    "margin_dpo_loss": "losses",
    "ramp_loss": "losses",
    "read_answers": "label_files",
    "robust_dpo_loss": "losses",
    "rpo_loss": "losses",
    "sigmoid_loss": "losses",
    "simulate_labels": "simulated_annotators",
    "slic_hf_loss": "losses",
    "task_id": "label_tasks",
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
