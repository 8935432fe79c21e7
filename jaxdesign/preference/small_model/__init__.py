"""A small language model: to fine-tune, train by DPO, sample from, store."""

from typing import TYPE_CHECKING

from jaxdesign._lazy import lazily
from jaxdesign.preference._extras import needed_for

_HOMES = {
    "Checkpoint": "checkpoints",
    "Corpus": "corpus",
    "Examples": "fine_tuning",
    "LanguageModel": "language_model",
    "LanguageModelConfig": "language_model",
    "PolicyValue": "sampled_value",
    "Prediction": "language_model",
    "PreferredPairs": "dpo_training",
    "ProgressBar": "training",
    "Samples": "sampling",
    "Tokeniser": "tokens",
    "Trained": "training",
    "compiled_log_probability": "dpo_training",
    "fine_tune": "fine_tuning",
    "fine_tuning_optimiser": "fine_tuning",
    "grammar_corpus": "corpus",
    "preferred_pairs": "dpo_training",
    "restore_checkpoint": "checkpoints",
    "sample_completions": "sampling",
    "sampled_policy_value": "sampled_value",
    "save_checkpoint": "checkpoints",
    "sequence_divergence": "sampled_value",
    "sequence_log_probability": "language_model",
    "token_log_probabilities": "language_model",
    "train": "training",
    "train_on_pairs": "dpo_training",
    "train_on_posterior": "posterior_training",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
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
else:  # or any misspelt name would have a type
    __getattr__, __dir__ = lazily(__name__, _HOMES, during=needed_for)
