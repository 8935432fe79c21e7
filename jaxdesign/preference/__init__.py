"""The preference side: labels, annotators, losses, policies and rounds, from a design to a better policy and back.

`__all__` names what a label team needs. The rest is in the sub-packages `labels`, `fit`, `features`, `small_model`,
`llama` and `simulation` and in the modules beside them (losses, posteriors of labels, rejection sampling, metrics,
exact policies, targets, rounds); every name of theirs can be imported from here too. Files load on first use, so that
the parts that need flax, optax or orbax (the extra `preference`), or read models from files (the extra `llm`), cost
nothing to those who do not touch them.
"""

from typing import TYPE_CHECKING

from jaxdesign._lazy import lazily
from jaxdesign.preference._extras import needed_for

_HOMES = {
    "BradleyTerryFit": "fit.bradley_terry",
    "Checkpoint": "small_model.checkpoints",
    "ClippedRows": "features.clipping",
    "Components": "features.components",
    "Corpus": "small_model.corpus",
    "DeploymentTarget": "targets",
    "Drawn": "llama.sampling",
    "Examples": "small_model.fine_tuning",
    "Followed": "llama.sampling",
    "HeadCache": "llama.cached",
    "HeadEdit": "llama.policies",
    "HeldBackValue": "llama.held_back",
    "HiddenReward": "simulation.hidden_reward",
    "ImpliedPrior": "fit.implied_priors",
    "LOSSES": "losses",
    "LabelRecord": "labels.tasks",
    "LabelStore": "labels.store",
    "Labels": "labels.labels",
    "LanguageModel": "small_model.language_model",
    "LanguageModelConfig": "small_model.language_model",
    "LengthSlopes": "fit.slopes_by_length",
    "Llama": "llama.model",
    "LlamaConfig": "llama.config",
    "LlamaTokeniser": "llama.tokeniser",
    "PolicyCheckpoint": "llama.checkpoints",
    "PolicyValue": "small_model.sampled_value",
    "PositionBias": "fit.position_bias",
    "Posterior": "fit.posterior",
    "Prediction": "small_model.language_model",
    "PreferredPairs": "small_model.dpo_training",
    "ProgressBar": "small_model.training",
    "ProxyBelief": "fit.proxy",
    "ProxyPool": "fit.proxy",
    "ProxyWorth": "fit.proxy_worths",
    "RankingAccuracy": "ranking_metrics",
    "ReferenceFit": "fit.reference",
    "Reliability": "fit.reliability",
    "ResidualUsed": "round_residuals",
    "ResidualVariance": "fit.residual_variance",
    "RoundPlan": "round_plan",
    "RoundsResult": "rounds",
    "SampledTarget": "targets",
    "Samples": "small_model.sampling",
    "SimulatedAnnotators": "simulation.annotators",
    "SoftLabels": "posterior_labels",
    "StrengthCorrelation": "ranking_metrics",
    "Tail": "llama.policies",
    "TailCache": "llama.cached",
    "Task": "labels.tasks",
    "TokenLaw": "llama.law",
    "Tokeniser": "small_model.tokens",
    "Trained": "small_model.training",
    "acceptance_probabilities": "rejection_sampling",
    "accepted": "rejection_sampling",
    "answered": "labels.tasks",
    "as_labels": "labels.labels",
    "cached_log_probabilities": "llama.pair_training",
    "check_labels": "labels.labels",
    "check_tasks": "labels.tasks",
    "choice_probabilities": "simulation.annotators",
    "clip_rows": "features.clipping",
    "compiled_log_probability": "small_model.dpo_training",
    "concatenated": "labels.labels",
    "conservative_dpo_loss": "losses",
    "counted": "labels.labels",
    "counted_by_annotator": "labels.labels",
    "deployment_target": "targets",
    "dpo_loss": "losses",
    "draw_completions": "llama.sampling",
    "effective_sample_size": "targets",
    "estimate_position_bias": "fit.position_bias",
    "estimate_reliability": "fit.reliability",
    "estimate_residual": "fit.residual_variance",
    "example_log_probability": "llama.policies",
    "exo_loss": "losses",
    "find_smollm2": "llama.loading",
    "fine_tune": "small_model.fine_tuning",
    "fine_tuning_optimiser": "small_model.fine_tuning",
    "first_of_equals": "features.equals",
    "fit_bradley_terry": "fit.bradley_terry",
    "fit_posterior": "fit.posterior",
    "fit_reference": "fit.reference",
    "flip_of": "fit.reliability",
    "follow_completions": "llama.sampling",
    "gradient_pool": "features.pools",
    "gradient_rows": "features.gradients",
    "grammar_corpus": "small_model.corpus",
    "head_cache": "llama.cached",
    "held_back_value": "llama.held_back",
    "hidden_pool": "features.pools",
    "hinge_loss": "losses",
    "implicit_reward": "losses",
    "implicit_rewards": "targets",
    "implied_prior": "fit.implied_priors",
    "importance_weighted_dpo_loss": "losses",
    "ipo_loss": "losses",
    "kl_divergence": "log_linear",
    "label_log_odds": "label_posteriors",
    "label_posterior": "label_posteriors",
    "last_hidden_states": "features.hidden_states",
    "last_states": "llama.features",
    "length_slopes": "fit.slopes_by_length",
    "listwise_exo_loss": "list_losses",
    "load_llama": "llama.loading",
    "load_tokeniser": "llama.loading",
    "log_policy": "log_linear",
    "log_ratio_gap": "losses",
    "make_annotators": "simulation.annotators",
    "make_tasks": "labels.tasks",
    "mapped": "fit.reference",
    "margin_dpo_loss": "losses",
    "mean_hidden_pool": "features.pools",
    "mean_hidden_states": "features.hidden_states",
    "mean_states": "llama.features",
    "next_batch": "rounds",
    "optimal_policy": "log_linear",
    "parameter_paths": "features.gradients",
    "per_token": "losses",
    "policy_gap": "log_linear",
    "policy_value": "log_linear",
    "pool_with_proxy": "fit.proxy",
    "posterior_draws": "fit.posterior",
    "posterior_policy": "posterior_labels",
    "posterior_targets": "fit.posterior",
    "predicted_gap": "fit.posterior",
    "preferred_pairs": "small_model.dpo_training",
    "principal_components": "features.components",
    "project": "features.projection",
    "projected_gradients": "features.gradients",
    "proxy_belief": "fit.proxy",
    "proxy_worth": "fit.proxy_worths",
    "ramp_loss": "losses",
    "random_reward": "simulation.hidden_reward",
    "ranking_accuracy": "ranking_metrics",
    "read_answers": "labels.task_files",
    "reference_target": "fit.reference",
    "reliable_annotators": "fit.reliability",
    "restore_checkpoint": "small_model.checkpoints",
    "restore_policy": "llama.checkpoints",
    "robust_dpo_loss": "losses",
    "ropo_loss": "losses",
    "rpo_loss": "losses",
    "run_rounds": "rounds",
    "sample_completions": "small_model.sampling",
    "sampled_policy_value": "small_model.sampled_value",
    "sampled_target": "targets",
    "save_checkpoint": "small_model.checkpoints",
    "save_policy": "llama.checkpoints",
    "scored_pool": "fit.posterior",
    "sequence_divergence": "small_model.sampled_value",
    "sequence_log_probability": "small_model.language_model",
    "sigmoid_loss": "losses",
    "simulate_labels": "simulation.annotators",
    "slic_hf_loss": "losses",
    "soft_label_dpo_loss": "losses",
    "smooth_belief": "fit.smooth",
    "soft_labels": "posterior_labels",
    "split_model": "features.nnx_policy",
    "strength_correlation": "ranking_metrics",
    "tabular_pool": "log_linear",
    "tail_cache": "llama.cached",
    "task_id": "labels.tasks",
    "token_log_probabilities": "small_model.language_model",
    "train": "small_model.training",
    "train_on_cache": "llama.pair_training",
    "train_on_pairs": "small_model.dpo_training",
    "train_on_posterior": "small_model.posterior_training",
    "unhinged_loss": "losses",
    "updated_reliability": "label_posteriors",
    "weighted_mean": "losses",
    "with_adapters": "llama.policies",
    "with_estimated_flip": "fit.reliability",
    "write_preferences": "labels.preference_files",
    "write_tasks": "labels.task_files",
}

__all__ = [
    "LabelStore",
    "Labels",
    "RoundPlan",
    "as_labels",
    "counted",
    "estimate_reliability",
    "estimate_residual",
    "fit_bradley_terry",
    "fit_posterior",
    "make_tasks",
    "next_batch",
    "read_answers",
    "reliable_annotators",
    "run_rounds",
    "write_preferences",
    "write_tasks",
]

if TYPE_CHECKING:
    from jaxdesign.preference.features.clipping import ClippedRows as ClippedRows
    from jaxdesign.preference.features.clipping import clip_rows as clip_rows
    from jaxdesign.preference.features.components import Components as Components
    from jaxdesign.preference.features.components import principal_components as principal_components
    from jaxdesign.preference.features.equals import first_of_equals as first_of_equals
    from jaxdesign.preference.features.gradients import gradient_rows as gradient_rows
    from jaxdesign.preference.features.gradients import parameter_paths as parameter_paths
    from jaxdesign.preference.features.gradients import projected_gradients as projected_gradients
    from jaxdesign.preference.features.hidden_states import last_hidden_states as last_hidden_states
    from jaxdesign.preference.features.hidden_states import mean_hidden_states as mean_hidden_states
    from jaxdesign.preference.features.nnx_policy import split_model as split_model
    from jaxdesign.preference.features.pools import gradient_pool as gradient_pool
    from jaxdesign.preference.features.pools import hidden_pool as hidden_pool
    from jaxdesign.preference.features.pools import mean_hidden_pool as mean_hidden_pool
    from jaxdesign.preference.features.projection import project as project
    from jaxdesign.preference.fit.bradley_terry import BradleyTerryFit as BradleyTerryFit
    from jaxdesign.preference.fit.bradley_terry import fit_bradley_terry as fit_bradley_terry
    from jaxdesign.preference.fit.implied_priors import ImpliedPrior as ImpliedPrior
    from jaxdesign.preference.fit.implied_priors import implied_prior as implied_prior
    from jaxdesign.preference.fit.position_bias import PositionBias as PositionBias
    from jaxdesign.preference.fit.position_bias import estimate_position_bias as estimate_position_bias
    from jaxdesign.preference.fit.posterior import Posterior as Posterior
    from jaxdesign.preference.fit.posterior import fit_posterior as fit_posterior
    from jaxdesign.preference.fit.posterior import posterior_draws as posterior_draws
    from jaxdesign.preference.fit.posterior import posterior_targets as posterior_targets
    from jaxdesign.preference.fit.posterior import predicted_gap as predicted_gap
    from jaxdesign.preference.fit.posterior import scored_pool as scored_pool
    from jaxdesign.preference.fit.proxy import ProxyBelief as ProxyBelief
    from jaxdesign.preference.fit.proxy import ProxyPool as ProxyPool
    from jaxdesign.preference.fit.proxy import pool_with_proxy as pool_with_proxy
    from jaxdesign.preference.fit.proxy import proxy_belief as proxy_belief
    from jaxdesign.preference.fit.proxy_worths import ProxyWorth as ProxyWorth
    from jaxdesign.preference.fit.proxy_worths import proxy_worth as proxy_worth
    from jaxdesign.preference.fit.reference import ReferenceFit as ReferenceFit
    from jaxdesign.preference.fit.reference import fit_reference as fit_reference
    from jaxdesign.preference.fit.reference import mapped as mapped
    from jaxdesign.preference.fit.reference import reference_target as reference_target
    from jaxdesign.preference.fit.reliability import Reliability as Reliability
    from jaxdesign.preference.fit.reliability import estimate_reliability as estimate_reliability
    from jaxdesign.preference.fit.reliability import flip_of as flip_of
    from jaxdesign.preference.fit.reliability import reliable_annotators as reliable_annotators
    from jaxdesign.preference.fit.reliability import with_estimated_flip as with_estimated_flip
    from jaxdesign.preference.fit.residual_variance import ResidualVariance as ResidualVariance
    from jaxdesign.preference.fit.residual_variance import estimate_residual as estimate_residual
    from jaxdesign.preference.fit.slopes_by_length import LengthSlopes as LengthSlopes
    from jaxdesign.preference.fit.slopes_by_length import length_slopes as length_slopes
    from jaxdesign.preference.fit.smooth import smooth_belief as smooth_belief
    from jaxdesign.preference.label_posteriors import label_log_odds as label_log_odds
    from jaxdesign.preference.label_posteriors import label_posterior as label_posterior
    from jaxdesign.preference.label_posteriors import updated_reliability as updated_reliability
    from jaxdesign.preference.labels.labels import Labels as Labels
    from jaxdesign.preference.labels.labels import as_labels as as_labels
    from jaxdesign.preference.labels.labels import check_labels as check_labels
    from jaxdesign.preference.labels.labels import concatenated as concatenated
    from jaxdesign.preference.labels.labels import counted as counted
    from jaxdesign.preference.labels.labels import counted_by_annotator as counted_by_annotator
    from jaxdesign.preference.labels.preference_files import write_preferences as write_preferences
    from jaxdesign.preference.labels.store import LabelStore as LabelStore
    from jaxdesign.preference.labels.task_files import read_answers as read_answers
    from jaxdesign.preference.labels.task_files import write_tasks as write_tasks
    from jaxdesign.preference.labels.tasks import LabelRecord as LabelRecord
    from jaxdesign.preference.labels.tasks import Task as Task
    from jaxdesign.preference.labels.tasks import answered as answered
    from jaxdesign.preference.labels.tasks import check_tasks as check_tasks
    from jaxdesign.preference.labels.tasks import make_tasks as make_tasks
    from jaxdesign.preference.labels.tasks import task_id as task_id
    from jaxdesign.preference.list_losses import listwise_exo_loss as listwise_exo_loss
    from jaxdesign.preference.llama.cached import HeadCache as HeadCache
    from jaxdesign.preference.llama.cached import TailCache as TailCache
    from jaxdesign.preference.llama.cached import head_cache as head_cache
    from jaxdesign.preference.llama.cached import tail_cache as tail_cache
    from jaxdesign.preference.llama.checkpoints import PolicyCheckpoint as PolicyCheckpoint
    from jaxdesign.preference.llama.checkpoints import restore_policy as restore_policy
    from jaxdesign.preference.llama.checkpoints import save_policy as save_policy
    from jaxdesign.preference.llama.config import LlamaConfig as LlamaConfig
    from jaxdesign.preference.llama.features import last_states as last_states
    from jaxdesign.preference.llama.features import mean_states as mean_states
    from jaxdesign.preference.llama.held_back import HeldBackValue as HeldBackValue
    from jaxdesign.preference.llama.held_back import held_back_value as held_back_value
    from jaxdesign.preference.llama.law import TokenLaw as TokenLaw
    from jaxdesign.preference.llama.loading import find_smollm2 as find_smollm2
    from jaxdesign.preference.llama.loading import load_llama as load_llama
    from jaxdesign.preference.llama.loading import load_tokeniser as load_tokeniser
    from jaxdesign.preference.llama.model import Llama as Llama
    from jaxdesign.preference.llama.pair_training import cached_log_probabilities as cached_log_probabilities
    from jaxdesign.preference.llama.pair_training import train_on_cache as train_on_cache
    from jaxdesign.preference.llama.policies import HeadEdit as HeadEdit
    from jaxdesign.preference.llama.policies import Tail as Tail
    from jaxdesign.preference.llama.policies import example_log_probability as example_log_probability
    from jaxdesign.preference.llama.policies import with_adapters as with_adapters
    from jaxdesign.preference.llama.sampling import Drawn as Drawn
    from jaxdesign.preference.llama.sampling import Followed as Followed
    from jaxdesign.preference.llama.sampling import draw_completions as draw_completions
    from jaxdesign.preference.llama.sampling import follow_completions as follow_completions
    from jaxdesign.preference.llama.tokeniser import LlamaTokeniser as LlamaTokeniser
    from jaxdesign.preference.log_linear import kl_divergence as kl_divergence
    from jaxdesign.preference.log_linear import log_policy as log_policy
    from jaxdesign.preference.log_linear import optimal_policy as optimal_policy
    from jaxdesign.preference.log_linear import policy_gap as policy_gap
    from jaxdesign.preference.log_linear import policy_value as policy_value
    from jaxdesign.preference.log_linear import tabular_pool as tabular_pool
    from jaxdesign.preference.losses import LOSSES as LOSSES
    from jaxdesign.preference.losses import conservative_dpo_loss as conservative_dpo_loss
    from jaxdesign.preference.losses import dpo_loss as dpo_loss
    from jaxdesign.preference.losses import exo_loss as exo_loss
    from jaxdesign.preference.losses import hinge_loss as hinge_loss
    from jaxdesign.preference.losses import implicit_reward as implicit_reward
    from jaxdesign.preference.losses import importance_weighted_dpo_loss as importance_weighted_dpo_loss
    from jaxdesign.preference.losses import ipo_loss as ipo_loss
    from jaxdesign.preference.losses import log_ratio_gap as log_ratio_gap
    from jaxdesign.preference.losses import margin_dpo_loss as margin_dpo_loss
    from jaxdesign.preference.losses import per_token as per_token
    from jaxdesign.preference.losses import ramp_loss as ramp_loss
    from jaxdesign.preference.losses import robust_dpo_loss as robust_dpo_loss
    from jaxdesign.preference.losses import ropo_loss as ropo_loss
    from jaxdesign.preference.losses import rpo_loss as rpo_loss
    from jaxdesign.preference.losses import sigmoid_loss as sigmoid_loss
    from jaxdesign.preference.losses import slic_hf_loss as slic_hf_loss
    from jaxdesign.preference.losses import soft_label_dpo_loss as soft_label_dpo_loss
    from jaxdesign.preference.losses import unhinged_loss as unhinged_loss
    from jaxdesign.preference.losses import weighted_mean as weighted_mean
    from jaxdesign.preference.posterior_labels import SoftLabels as SoftLabels
    from jaxdesign.preference.posterior_labels import posterior_policy as posterior_policy
    from jaxdesign.preference.posterior_labels import soft_labels as soft_labels
    from jaxdesign.preference.ranking_metrics import RankingAccuracy as RankingAccuracy
    from jaxdesign.preference.ranking_metrics import StrengthCorrelation as StrengthCorrelation
    from jaxdesign.preference.ranking_metrics import ranking_accuracy as ranking_accuracy
    from jaxdesign.preference.ranking_metrics import strength_correlation as strength_correlation
    from jaxdesign.preference.rejection_sampling import acceptance_probabilities as acceptance_probabilities
    from jaxdesign.preference.rejection_sampling import accepted as accepted
    from jaxdesign.preference.round_plan import RoundPlan as RoundPlan
    from jaxdesign.preference.round_residuals import ResidualUsed as ResidualUsed
    from jaxdesign.preference.rounds import RoundsResult as RoundsResult
    from jaxdesign.preference.rounds import next_batch as next_batch
    from jaxdesign.preference.rounds import run_rounds as run_rounds
    from jaxdesign.preference.simulation.annotators import SimulatedAnnotators as SimulatedAnnotators
    from jaxdesign.preference.simulation.annotators import choice_probabilities as choice_probabilities
    from jaxdesign.preference.simulation.annotators import make_annotators as make_annotators
    from jaxdesign.preference.simulation.annotators import simulate_labels as simulate_labels
    from jaxdesign.preference.simulation.hidden_reward import HiddenReward as HiddenReward
    from jaxdesign.preference.simulation.hidden_reward import random_reward as random_reward
    from jaxdesign.preference.small_model.checkpoints import Checkpoint as Checkpoint
    from jaxdesign.preference.small_model.checkpoints import restore_checkpoint as restore_checkpoint
    from jaxdesign.preference.small_model.checkpoints import save_checkpoint as save_checkpoint
    from jaxdesign.preference.small_model.corpus import Corpus as Corpus
    from jaxdesign.preference.small_model.corpus import grammar_corpus as grammar_corpus
    from jaxdesign.preference.small_model.dpo_training import PreferredPairs as PreferredPairs
    from jaxdesign.preference.small_model.dpo_training import compiled_log_probability as compiled_log_probability
    from jaxdesign.preference.small_model.dpo_training import preferred_pairs as preferred_pairs
    from jaxdesign.preference.small_model.dpo_training import train_on_pairs as train_on_pairs
    from jaxdesign.preference.small_model.fine_tuning import Examples as Examples
    from jaxdesign.preference.small_model.fine_tuning import fine_tune as fine_tune
    from jaxdesign.preference.small_model.fine_tuning import fine_tuning_optimiser as fine_tuning_optimiser
    from jaxdesign.preference.small_model.language_model import LanguageModel as LanguageModel
    from jaxdesign.preference.small_model.language_model import LanguageModelConfig as LanguageModelConfig
    from jaxdesign.preference.small_model.language_model import Prediction as Prediction
    from jaxdesign.preference.small_model.language_model import sequence_log_probability as sequence_log_probability
    from jaxdesign.preference.small_model.language_model import token_log_probabilities as token_log_probabilities
    from jaxdesign.preference.small_model.posterior_training import train_on_posterior as train_on_posterior
    from jaxdesign.preference.small_model.sampled_value import PolicyValue as PolicyValue
    from jaxdesign.preference.small_model.sampled_value import sampled_policy_value as sampled_policy_value
    from jaxdesign.preference.small_model.sampled_value import sequence_divergence as sequence_divergence
    from jaxdesign.preference.small_model.sampling import Samples as Samples
    from jaxdesign.preference.small_model.sampling import sample_completions as sample_completions
    from jaxdesign.preference.small_model.tokens import Tokeniser as Tokeniser
    from jaxdesign.preference.small_model.training import ProgressBar as ProgressBar
    from jaxdesign.preference.small_model.training import Trained as Trained
    from jaxdesign.preference.small_model.training import train as train
    from jaxdesign.preference.targets import DeploymentTarget as DeploymentTarget
    from jaxdesign.preference.targets import SampledTarget as SampledTarget
    from jaxdesign.preference.targets import deployment_target as deployment_target
    from jaxdesign.preference.targets import effective_sample_size as effective_sample_size
    from jaxdesign.preference.targets import implicit_rewards as implicit_rewards
    from jaxdesign.preference.targets import sampled_target as sampled_target
else:  # or any misspelt name would have a type
    __getattr__, __dir__ = lazily(__name__, _HOMES, during=needed_for)
