"""Simulated annotators and rewards."""

from typing import TYPE_CHECKING

from jaxdesign._lazy import lazily
from jaxdesign.preference._extras import needed_for

_HOMES = {
    "HiddenReward": "hidden_reward",
    "SimulatedAnnotators": "annotators",
    "choice_probabilities": "annotators",
    "make_annotators": "annotators",
    "random_reward": "hidden_reward",
    "simulate_labels": "annotators",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from jaxdesign.preference.simulation.annotators import SimulatedAnnotators as SimulatedAnnotators
    from jaxdesign.preference.simulation.annotators import choice_probabilities as choice_probabilities
    from jaxdesign.preference.simulation.annotators import make_annotators as make_annotators
    from jaxdesign.preference.simulation.annotators import simulate_labels as simulate_labels
    from jaxdesign.preference.simulation.hidden_reward import HiddenReward as HiddenReward
    from jaxdesign.preference.simulation.hidden_reward import random_reward as random_reward
else:  # or any misspelt name would have a type
    __getattr__, __dir__ = lazily(__name__, _HOMES, during=needed_for)
