"""The selectors others use, called like `select_pairs`: name(pool, crit, budget, *, prior=None, seed=0) -> Design.

Each chooses whole labels by its own rule, obeys the budget, and is judged by the certificate of what it chose, so that
comparisons are honest; where the choice leaves the information singular, the value is inf and the efficiency 0.
`SELECTORS` lists them by name.
"""

from collections.abc import Callable

from jaxdesign.baselines.adpo import adpo as adpo
from jaxdesign.baselines.bait import bait as bait
from jaxdesign.baselines.chance import first_two as first_two
from jaxdesign.baselines.chance import random as random
from jaxdesign.baselines.chance import random_distinct as random_distinct
from jaxdesign.baselines.distance import apo as apo
from jaxdesign.baselines.distance import arm_fi as arm_fi
from jaxdesign.baselines.distance import largest_distance as largest_distance
from jaxdesign.baselines.margins import closest_call as closest_call
from jaxdesign.baselines.margins import largest_score_gap as largest_score_gap
from jaxdesign.baselines.sampled import square_root as square_root
from jaxdesign.baselines.sampled import square_root_law as square_root_law
from jaxdesign.baselines.sampled import t_pilaf as t_pilaf
from jaxdesign.baselines.sampled import t_pilaf_law as t_pilaf_law
from jaxdesign.design import Design

ON_SOURCES = ("random", "random_distinct")  # take a `pricing.Source` too; the others need all features in memory
SELECTORS: dict[str, Callable[..., Design]] = {
    "random": random,
    "random_distinct": random_distinct,
    "first_two": first_two,
    "largest_distance": largest_distance,
    "largest_score_gap": largest_score_gap,
    "closest_call": closest_call,
    "adpo": adpo,
    "apo": apo,
    "arm_fi": arm_fi,
    "bait": bait,
    "square_root": square_root,
    "t_pilaf": t_pilaf,
}
