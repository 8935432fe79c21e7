"""Every rule of choosing pairs that is compared anywhere: its readable name and colour; and the problems' names."""

from __future__ import annotations

from typing import NamedTuple


class Rule(NamedTuple):
    """How tables and pictures show a rule."""

    name: str
    colour: str


RULES = {
    "trace": Rule("trace", "#d62728"),
    "trace_two_rounds": Rule("trace, two rounds", "#ff7f0e"),
    "rounds": Rule("rounds", "#e377c2"),
    "trace_clipped": Rule("trace, clipped rows", "#fb8072"),
    "trace_by_slope": Rule("trace, rows by the pilot's slope", "#800080"),
    "trace_gradients": Rule("trace, gradient rows", "#8b0000"),
    "distance_gradients": Rule("largest distance, gradient rows", "#bc8f8f"),
    "trace_capped": Rule("trace, capped", "#e7298a"),
    "rounds_capped": Rule("rounds, capped", "#f7b6d2"),
    "trace_posterior": Rule("trace, posterior trained on", "#b2182b"),
    "random_posterior": Rule("random, posterior trained on", "#525252"),
    "two_rounds_posterior": Rule("two rounds, posterior trained on", "#2f4f4f"),
    "two_rounds_proxy": Rule("two rounds, proxy in the fit", "#00441b"),
    "trace_proxy": Rule("trace, proxy in the fit", "#1b7837"),
    "random_proxy": Rule("random, proxy in the fit", "#a6dba0"),
    "best_worst_proxy": Rule("best against worst by proxy", "#bf812d"),
    "best_worst_proxy_5": Rule("best against worst, proxy of .5", "#f6e8c3"),
    "best_worst_proxy_8": Rule("best against worst, proxy of .8", "#8c510a"),
    "trace_unit": Rule("trace, v = 8 / pi", "#b5cf6b"),
    "two_rounds_unit": Rule("two rounds, v = 8 / pi", "#31a354"),
    "two_rounds_capped": Rule("two rounds, capped", "#3182bd"),
    "two_rounds_known": Rule("two rounds, v known", "#756bb1"),
    "two_rounds_pilot": Rule("two rounds, v from the pilot", "#e6550d"),
    "random_distinct_smooth": Rule("random, smooth belief", "#bdb76b"),
    "trace_smooth": Rule("trace, smooth belief", "#ff1493"),
    "two_rounds_unit_smooth": Rule("two rounds, v = 8 / pi, smooth belief", "#006400"),
    "two_rounds_capped_smooth": Rule("two rounds, capped, smooth belief", "#00008b"),
    "random_distinct_proxy_80": Rule("random, proxy 0.8", "#41ab5d"),
    "random_distinct_proxy_50": Rule("random, proxy 0.5", "#a0a0a0"),
    "random_distinct_proxy_0": Rule("random, useless proxy", "#cccccc"),
    "trace_proxy_80": Rule("trace, proxy 0.8", "#a50f15"),
    "trace_proxy_50": Rule("trace, proxy 0.5", "#fb6a4a"),
    "trace_proxy_0": Rule("trace, useless proxy", "#fcbba1"),
    "trace_smooth_proxy_80": Rule("trace, smooth belief, proxy 0.8", "#c71585"),
    "trace_smooth_proxy_50": Rule("trace, smooth belief, proxy 0.5", "#db7093"),
    "trace_smooth_proxy_0": Rule("trace, smooth belief, useless proxy", "#ffc0cb"),
    "trace_two_rounds_proxy_80": Rule("two rounds, proxy 0.8", "#a63603"),
    "trace_two_rounds_proxy_50": Rule("two rounds, proxy 0.5", "#fd8d3c"),
    "trace_two_rounds_proxy_0": Rule("two rounds, useless proxy", "#fdd0a2"),
    "trace_averaged": Rule("trace, averaged", "#843c39"),
    "trace_floor": Rule("trace, a quarter random", "#fdae6b"),
    "trace_drawn": Rule("trace, drawn at random", "#a55194"),
    "trace_weighted": Rule("the same, full weights", "#637939"),
    "trace_tempered": Rule("the same, tempered weights", "#cedb9c"),
    "trace_best_temper": Rule("the same, best temper known", "#8ca252"),
    "logdet": Rule("log det", "#1f77b4"),
    "bait": Rule("BAIT", "#17becf"),
    "adpo": Rule("A-DPO", "#9467bd"),
    "arm_fi": Rule("ARM-FI", "#c5b0d5"),
    "apo": Rule("APO", "#c49c94"),
    "largest_distance": Rule("largest distance", "#8c564b"),
    "first_two": Rule("first two", "#bcbd22"),
    "square_root": Rule("square root", "#2ca02c"),
    "t_pilaf": Rule("T-PILAF", "#98df8a"),
    "random": Rule("random", "#000000"),
    "random_distinct": Rule("random, different texts", "#7f7f7f"),
    "trace_oracle": Rule("trace, rewards known", "#67000d"),
    "largest_score_gap": Rule("largest gap, rewards known", "#393b79"),
    "closest_call": Rule("closest call, rewards known", "#7b4173"),
    "every_vote": Rule("every vote", "#aec7e8"),
    "ceiling_steps": Rule("true probabilities, same steps", "#969696"),
    "ceiling": Rule("all pairs, true probabilities", "#bdbdbd"),
    "reference": Rule("no label", "#dbdb8d"),
}
"""By key. trace: the design of the reference policy, in one round; trace_two_rounds: a pilot, then the design at its
posterior; rounds: the same with a quarter of either part at random; trace_averaged: one round, over draws of likely
rewards; trace_drawn: pairs drawn from the design's law, a quarter from that of random pairs, and then the same labels
weighted to the latter; v, capped: designs of `jaxdesign.residual_of`, v = 8 / pi the default of `preference.RoundPlan`;
proxy 0.8: scores of that correlation with the reward, in the belief of design and fit; smooth belief: rewards vary most
where completions do; "rewards known": what no project can do, told the true ones."""


PROBLEMS = {
    "tabular": "one softmax over 16 completions",
    "log_linear": "log-linear, near the reference policy",
    "log_linear_far": "log-linear, far from it",
    "bent": "reward nearly linear, bounded by 8",
    "saturated": "reward bounded by 2",
    "well_specified": "real completions, linear reward",
    "judge_4": "real completions, judge, temperature 4",
    "judge_1": "real completions, judge, temperature 1",
    "human": "translations, scores of raters",
}
"""What the problems of `bench.experiments` are called in tables and pictures."""

TUNED = {"given": "ridge of random pairs", "free": "ridge of every rule's own"}
"""How fits of `bench.experiments.real_pools` are tuned, and what that is called."""


def look(key: str) -> dict[str, str]:
    """The arguments of matplotlib's `plot` for a rule."""
    return {"label": RULES[key].name, "color": RULES[key].colour}


def in_order(keys) -> list[str]:
    """These rules, all of them, in the order of RULES; KeyError for one that has no name."""
    unknown = set(keys) - set(RULES)
    if unknown:
        raise KeyError(f"no name and colour for {', '.join(sorted(unknown))}: add them to bench/rules.py")
    return [key for key in RULES if key in keys]
