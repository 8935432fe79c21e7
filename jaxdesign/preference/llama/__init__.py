"""A real language model as a policy: a Llama from a file, its tokens, completions drawn from it."""

from typing import TYPE_CHECKING

from jaxdesign._lazy import lazily
from jaxdesign.preference._extras import needed_for

_HOMES = {
    "Drawn": "sampling",
    "Followed": "sampling",
    "Llama": "model",
    "LlamaConfig": "config",
    "LlamaTokeniser": "tokeniser",
    "TokenLaw": "law",
    "draw_completions": "sampling",
    "find_smollm2": "loading",
    "follow_completions": "sampling",
    "load_llama": "loading",
    "load_tokeniser": "loading",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from jaxdesign.preference.llama.config import LlamaConfig as LlamaConfig
    from jaxdesign.preference.llama.law import TokenLaw as TokenLaw
    from jaxdesign.preference.llama.loading import find_smollm2 as find_smollm2
    from jaxdesign.preference.llama.loading import load_llama as load_llama
    from jaxdesign.preference.llama.loading import load_tokeniser as load_tokeniser
    from jaxdesign.preference.llama.model import Llama as Llama
    from jaxdesign.preference.llama.sampling import Drawn as Drawn
    from jaxdesign.preference.llama.sampling import Followed as Followed
    from jaxdesign.preference.llama.sampling import draw_completions as draw_completions
    from jaxdesign.preference.llama.sampling import follow_completions as follow_completions
    from jaxdesign.preference.llama.tokeniser import LlamaTokeniser as LlamaTokeniser
else:  # or any misspelt name would have a type
    __getattr__, __dir__ = lazily(__name__, _HOMES, during=needed_for)
