"""jaxdesign: which pairs of completions to have compared before preference post-training.

From a pool of completions and a label budget to the pairs whose labels improve the trained policy most, with a
certificate of how close to best possible the choice is. This file names the public API and nothing else.
"""

from jaxdesign._lazy import lazily

TYPE_CHECKING = False  # true for type checkers; importing typing for it would take longer than all the rest here

__version__ = "0.1.0"

_HOMES = {
    "Annotators": "annotators",
    "Belief": "belief",
    "Budget": "budget.budget",
    "Certificate": "design",
    "CompletionPool": "pool",
    "CompletionsForecast": "forecasts_by_completions",
    "Constraint": "budget.constraint",
    "ConvexCriterion": "criteria.protocol",
    "Criterion": "criteria.of_function",
    "Design": "design",
    "Forecast": "forecasts",
    "LabelCurve": "label_curves",
    "LogDet": "criteria.log_det",
    "Quota": "budget.quota",
    "Residual": "residual",
    "Status": "design",
    "Trace": "criteria.trace",
    "WorstCase": "criteria.worst_case",
    "evaluate": "certificates.evaluate",
    "expected_gap": "expected_gaps",
    "forecast": "forecasts",
    "forecast_by_completions": "forecasts_by_completions",
    "greedy": "exact.greedy.greedy",
    "held_information": "information",
    "label_curve": "label_curves",
    "label_information": "information",
    "optimize": "solvers.optimize",
    "pair_differences": "information",
    "pair_information": "information",
    "pair_sensitivities": "information",
    "policy_target": "targets",
    "residual_of": "residual_metric",
    "restrict_to_range": "basis",
    "second_moment": "targets",
    "select_pairs": "exact.select",
    "with_uniform_floor": "exact.random_pairs",
}
_MODULES = ("baselines", "dynamics", "io", "preference", "pricing", "reference", "solvers")

__all__ = [*sorted(_HOMES), *_MODULES]

if TYPE_CHECKING:
    from jaxdesign import baselines as baselines
    from jaxdesign import dynamics as dynamics
    from jaxdesign import io as io
    from jaxdesign import preference as preference
    from jaxdesign import pricing as pricing
    from jaxdesign import reference as reference
    from jaxdesign import solvers as solvers
    from jaxdesign.annotators import Annotators as Annotators
    from jaxdesign.basis import restrict_to_range as restrict_to_range
    from jaxdesign.belief import Belief as Belief
    from jaxdesign.budget.budget import Budget as Budget
    from jaxdesign.budget.constraint import Constraint as Constraint
    from jaxdesign.budget.quota import Quota as Quota
    from jaxdesign.certificates.evaluate import evaluate as evaluate
    from jaxdesign.criteria.log_det import LogDet as LogDet
    from jaxdesign.criteria.of_function import Criterion as Criterion
    from jaxdesign.criteria.protocol import ConvexCriterion as ConvexCriterion
    from jaxdesign.criteria.trace import Trace as Trace
    from jaxdesign.criteria.worst_case import WorstCase as WorstCase
    from jaxdesign.design import Certificate as Certificate
    from jaxdesign.design import Design as Design
    from jaxdesign.design import Status as Status
    from jaxdesign.exact.greedy.greedy import greedy as greedy
    from jaxdesign.exact.random_pairs import with_uniform_floor as with_uniform_floor
    from jaxdesign.exact.select import select_pairs as select_pairs
    from jaxdesign.expected_gaps import expected_gap as expected_gap
    from jaxdesign.forecasts import Forecast as Forecast
    from jaxdesign.forecasts import forecast as forecast
    from jaxdesign.forecasts_by_completions import CompletionsForecast as CompletionsForecast
    from jaxdesign.forecasts_by_completions import forecast_by_completions as forecast_by_completions
    from jaxdesign.information import held_information as held_information
    from jaxdesign.information import label_information as label_information
    from jaxdesign.information import pair_differences as pair_differences
    from jaxdesign.information import pair_information as pair_information
    from jaxdesign.information import pair_sensitivities as pair_sensitivities
    from jaxdesign.label_curves import LabelCurve as LabelCurve
    from jaxdesign.label_curves import label_curve as label_curve
    from jaxdesign.pool import CompletionPool as CompletionPool
    from jaxdesign.residual import Residual as Residual
    from jaxdesign.residual_metric import residual_of as residual_of
    from jaxdesign.solvers.optimize import optimize as optimize
    from jaxdesign.targets import policy_target as policy_target
    from jaxdesign.targets import second_moment as second_moment
else:  # or any misspelt name would have a type
    __getattr__ = lazily(__name__, _HOMES, _MODULES)[0]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
