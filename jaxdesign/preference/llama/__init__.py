"""A real language model as a policy: a Llama from a file, its tokens, completions drawn from it."""

from typing import TYPE_CHECKING

from jaxdesign._lazy import lazily
from jaxdesign.preference._extras import needed_for

_HOMES = {
    "Drawn": "sampling",
    "Followed": "sampling",
    "HeadCache": "cached",
    "HeadEdit": "policies",
    "HeldBackValue": "held_back",
    "Llama": "model",
    "LlamaConfig": "config",
    "LlamaTokeniser": "tokeniser",
    "PolicyCheckpoint": "checkpoints",
    "Tail": "policies",
    "TailCache": "cached",
    "TokenLaw": "law",
    "cached_log_probabilities": "pair_training",
    "draw_completions": "sampling",
    "example_log_probability": "policies",
    "find_smollm2": "loading",
    "follow_completions": "sampling",
    "head_cache": "cached",
    "held_back_value": "held_back",
    "last_states": "features",
    "load_llama": "loading",
    "load_tokeniser": "loading",
    "mean_states": "features",
    "restore_policy": "checkpoints",
    "save_policy": "checkpoints",
    "tail_cache": "cached",
    "train_on_cache": "pair_training",
    "with_adapters": "policies",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
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
else:  # or any misspelt name would have a type
    __getattr__, __dir__ = lazily(__name__, _HOMES, during=needed_for)
