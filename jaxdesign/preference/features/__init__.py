"""Features of completions from a model: gradients, hidden states, their projections and components."""

from typing import TYPE_CHECKING

from jaxdesign._lazy import lazily
from jaxdesign.preference._extras import needed_for

_HOMES = {
    "ClippedRows": "clipping",
    "Components": "components",
    "clip_rows": "clipping",
    "first_of_equals": "equals",
    "gradient_pool": "pools",
    "gradient_rows": "gradients",
    "hidden_pool": "pools",
    "last_hidden_states": "hidden_states",
    "mean_hidden_pool": "pools",
    "mean_hidden_states": "hidden_states",
    "parameter_paths": "gradients",
    "principal_components": "components",
    "project": "projection",
    "projected_gradients": "gradients",
    "split_model": "nnx_policy",
}

__all__ = sorted(_HOMES)

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
else:  # or any misspelt name would have a type
    __getattr__, __dir__ = lazily(__name__, _HOMES, during=needed_for)
