"""Tables of `bench.experiments`: what a choice of pairs is worth, by rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench.experiments import plots
from bench.experiments.paired import labels_saved
from bench.experiments.pool_arms import TAU
from bench.rules import PROBLEMS, RULES, TUNED, in_order
from bench.tables.markdown import digits, hardware, limits, percent, table

DESIGNS = (
    "trace", "rounds", "two_rounds_unit", "two_rounds_capped", "two_rounds_pilot", "two_rounds_capped_smooth",
)  # fmt: skip
ENDS = ("ceiling", "reference")
SOLVED, WEIGHTS, REAL, VOTES, MODEL = "log-linear", "weighted-labels", "real-pools", "human-votes", "transformer"
FORECAST = "forecast-real-pools"


def section(results: dict[str, dict[str, Any]]) -> list[str]:
    """Paragraphs and tables; results by file name."""
    return [
        "## Does it save labels?",
        "Yes where rewards follow the features; where they do not, one round of design gains little and may lose, and "
        "two rounds gain with a residual or the cap, as `RoundPlan` has by default. All rules of a table share "
        "prompts, seeds, labels (a pair chosen by two rules has one label) and fit. Limits are 95%. "
        "`notebooks/labels_saved.ipynb` tells the story.",
        _rules(),
        *_solved(results[SOLVED]),
        *_weights(results[WEIGHTS]),
        *_real(results[REAL]),
        *_forecast(results[FORECAST]),
        *_votes(results[VOTES], results[REAL]),
        *_model(results[MODEL]),
    ]


def _rules() -> str:
    return (
        "**Rules.** *trace*: the design of the reference policy, in one round. *trace, two rounds*: a pilot of a "
        "quarter of the labels (a fifth where policies are solved exactly), then the design at its posterior. "
        "*rounds*: the same with a quarter of either part at random. *v = 8 / pi*: with a residual that costs a label "
        "of the median pair as much as its noise, the default of `RoundPlan`; *capped*: no pair counts for more than "
        "the median one. *smooth belief*: `smooth_belief` in design and fit. *trace, averaged*: one round, over draws "
        "of likely rewards. *trace, a quarter random*: one round around random pairs. "
        "*rewards known*: what no project can do, told the true rewards. The rest are the selectors of "
        "`jaxdesign.baselines`. Where nothing is known of rewards APO chooses by distance, and where all completions "
        "weigh the same T-PILAF and the square root draw alike."
    )


# ---- policies that are solved exactly


def _solved(found: dict[str, Any]) -> list[str]:
    problems = found["problems"]
    order = in_order({rule for problem in problems.values() for rule in problem["rows"]})
    counts = sorted(int(n) for n in problems["log_linear"]["rows"]["random"])
    middle, last = counts[len(counts) // 2], counts[-1]
    saved = [
        [RULES[rule].name, *(_saved(problem["rows"], rule, middle) for problem in problems.values())] for rule in order
    ]
    known = [row[str(last)] for problem in problems.values() for row in problem["rows"].values()]
    known = [row for row in known if row is not None]
    near = sum(abs(row["ratio"] - 1) <= 0.04 for row in known)
    return [
        "### Policies that can be solved exactly",
        f"`python -m bench.experiments.log_linear`. How many labels random pairs need for the policy gap of {middle:,} "
        f"labels of a rule, over {middle:,}; limits count the standard errors of both simulated gaps, and predictions "
        "are those of tr(H A^-1) / (2 beta).",
        table(["rule", *(PROBLEMS[problem] for problem in problems)], saved),
        hardware(found["machine"], SOLVED),
        _picture(SOLVED, "Simulated over predicted gaps, and labels saved, for three problems"),
        "Features with heavy tails make long pairs worth much, and whatever prefers them saves about as much as one "
        "round of design here (A-DPO, BAIT, ARM-FI, the largest distance); what they do not have is the second round. "
        "Far from the reference policy the long pairs that one round asks for have answers known beforehand, and it "
        "loses; a pilot repairs that. The predicted gap, tr(H A^-1) / (2 beta), is the simulated one within 10% or "
        f"three standard errors for {sum(row['agrees'] for row in known)} of {len(known)} designs at n = {last:,} "
        f"(within 4% for {near}); it needs enough labels: the picture shows where it is not yet true. Hollow points: "
        "not all trainings had a maximum.",
    ]


def _saved(rows: Mapping[str, Any], rule: str, labels: int) -> str:
    found = plots.saved(rows, rule, labels)
    if isinstance(found, str):
        return found
    return f"{limits(*found[0][:3])}, predicted {_predicted(rows, rule, labels):.2f}"


def _predicted(rows: Mapping[str, Any], rule: str, labels: int) -> float:
    """Labels saved by the predicted gaps alone, which no luck of simulated labels is part of."""
    known = {int(n): row["predicted"] for n, row in rows["random"].items()}
    return labels_saved({labels: rows[rule][str(labels)]["predicted"]}, known)[labels]


# ---- weights


def _weights(found: dict[str, Any]) -> list[str]:
    problems = found["problems"]
    page = [
        "### Weights that undo a design",
        "`python -m bench.experiments.weighted_labels`. The reward saturates, the policy is linear, and the design's "
        "pairs, three quarters trace and one quarter random, are drawn one by one: with endless labels they teach "
        "another policy than the reference policy's own pairs, unless each is weighted by how much likelier it is "
        f"there. Excess of the gap over that of the best policy of this form: mean of {found['seeds']} seeds with its "
        "standard error, times 1,000.",
    ]
    for problem, made in problems.items():
        counts = list(made["rows"]["random"])
        limits_of = {"random": "random", "trace_drawn": "trace_drawn", "trace_weighted": "random"}
        rows = [
            [
                RULES[rule].name,
                *(f"{digits(1e3 * r['excess'])} ± {digits(1e3 * r['standard_error'], 1)}" for r in row.values()),
                digits(1e3 * made["limits"][limits_of[rule]]) if rule in limits_of else "",
            ]
            for rule, row in made["rows"].items()
        ]
        seen = ", ".join(f"{percent(share)} with {int(n):,}" for n, share in made["shift_seen"].items())
        tempers = ", ".join(f"{t['chosen']:.2f} (best {t['best']:.1f})" for t in made["tempers"].values())
        page += [
            f"**{PROBLEMS[problem].capitalize()}** (`{problem}`)",
            table(["rule", *(f"{int(n):,} labels" for n in counts), "endless"], rows),
            f"The test of `sampler_shift` sees the shift in {seen} labels; `best_temper` chooses {tempers} on average. "
            f"Full weights leave {percent(made['effective'])} of the labels, and the floor under every gap is "
            f"{digits(1e3 * made['floor'])} in these units.",
        ]
    ratios = [row["ratio"][0] for made in problems.values() for row in made["rows"]["trace_weighted"].values()]
    return [
        *page,
        hardware(found["machine"], WEIGHTS),
        _picture(WEIGHTS, "Excess gap over that of random pairs, for two rewards"),
        "Weights undo the design, and that is all they do: fully weighted labels have "
        f"{min(ratios):.1f} to {max(ratios):.1f} times the gap of as many random pairs, whatever their number, for a "
        "quarter of them is what weights leave. They are for labels that one has already. Where the reward is nearly "
        "linear no weight is best, and `best_temper`, which weights only as far as a shift is certain, keeps nearly "
        "all that the design gains. Where it saturates plain labels stop gaining, `best_temper` follows full weights, "
        "which is late, and from 2,000 labels on random pairs would have been the better batch.",
    ]


# ---- real completions


def _real(found: dict[str, Any]) -> list[str]:
    cases = found["cases"]
    page = [
        "### Real completions",
        "`python -m bench.experiments.real_pools --lines FILE`: `alpacaeval` (the judge's scores at two temperatures, "
        "or a reward linear in the features) and `wmt21_ted_zhen` (scores of professional raters), "
        f"{found['settings']['components']} principal components; pairs of different texts only but for *random*. "
        "Policy gap on held-back prompts over that of random pairs of different texts: ratios of means, limits over "
        "new prompts. Designs have as prior the ridge that suits a fit to random pairs. *Ridge of random pairs*: every "
        "fit has it, and the multiple of the fitted parameter is tuned for every rule. *Ridge of every rule's own*: "
        "ridge and multiple of the fit are tuned for every rule together. All on other splits of the same prompts.",
    ]
    for case, made in cases.items():
        gaps = {arm: made["given"][arm]["gap"] for arm in ENDS}
        first = next(iter(gaps["reference"]))
        left = f"v = {digits(made['variance'])}" if made["variance"] else "nothing"
        page += [
            f"**{PROBLEMS[case].capitalize()}** (`{case}`)",
            f"{len(made['seeds'])} splits, seeds {made['seeds'][0]} to {made['seeds'][-1]}. Gap of no label "
            f"{digits(gaps['reference'][first], 3)}, of the true probabilities of all pairs "
            f"{digits(gaps['ceiling'][first], 3)}. Residual of margins that the features leave: {left}.",
        ]
        for tuning, words in TUNED.items():
            arms = {arm: row for arm, row in made[tuning].items() if "_proxy_" not in arm}
            random = arms["random_distinct"]["gap"].items()
            page += [
                f"*{words.capitalize()}.* Gap of random pairs of different texts: "
                f"{', '.join(f'{digits(gap, 3)} with {int(n):,}' for n, gap in random)}.",
                _ratios(arms),
            ]
    return [
        *page,
        hardware(found["machine"], REAL),
        _picture(REAL, "Policy gap over that of random pairs by rule, for four rewards"),
        *_judged(cases),
        *_proxies(cases["well_specified"]),
    ]


def _proxies(case: Mapping[str, Any]) -> list[str]:
    """Arms with a proxy beside the same without, by both ways of tuning."""
    page = [
        "**A proxy of the linear reward**",
        "Scores of the given correlation with the reward are in the belief of design and fit (`proxy_belief`, tau = "
        f"{TAU}, best on tuning seeds). With a ridge of every rule's own a proxy helps designs less, a smooth belief "
        "needs none, and random pairs with many labels are better without.",
    ]
    for tuning, words in TUNED.items():
        proxies = {arm: row for arm, row in case[tuning].items() if "_proxy_" in arm}
        without = {arm: case[tuning][arm] for arm in {arm.split("_proxy_")[0] for arm in proxies}}
        page += [f"*{words.capitalize()}.*", _ratios(proxies | without)]
    return [*page, _picture(f"{REAL}-proxies", "Policy gap over that of random pairs with and without proxies")]


def _forecast(found: dict[str, Any]) -> list[str]:
    rows = [
        [f"{row['labels']:,}", "smooth" if row["belief"].endswith("_smooth") else "a ridge"]
        + [digits(row[name], 2) for name in ("random leaves", "random left", "forecast", "measured")]
        for row in found["rows"]
    ]
    right = sum(row["right"] for row in found["rows"])
    large = sum(not row["right"] and row["forecast"] > row["measured"] for row in found["rows"])
    return [
        "**Told beforehand** (`python -m bench.experiments.forecast_real_pools`): `forecast` for a linear reward, with "
        "the ridge of random pairs and no other knowledge. What trace gains over them is told within a factor of two "
        f"in {right} of {len(rows)} rows, and too large in {large} of the {len(rows) - right} others: this reward lies "
        "in fewer directions than either belief holds, so that few random pairs leave less than is expected.",
        table(["labels", "belief", "random: told", "random: came", "gain: told", "gain: came"], rows),
        hardware(found["machine"], FORECAST),
    ]


def _ratios(arms: Mapping[str, Any]) -> str:
    """A table of ratios by rule and number of labels."""
    counts = sorted({int(n) for row in arms.values() for n in row["ratio"]})
    rows = [
        [RULES[arm].name, *(limits(*found[str(n)]) if str(n) in found else "" for n in counts)]
        for arm in in_order(arms)
        for found in [arms[arm]["ratio"]]
    ]
    return table(["rule", *(f"{n:,} labels" for n in counts)], rows)


def _judged(cases: Mapping[str, Any]) -> list[str]:
    """What is established of designs with a linear reward and with the judge, from the limits of the tables."""
    page = ["**What is established** of designs against random pairs of different texts:"]
    rewards = {"a linear reward": ["well_specified"], "the judge": ["judge_4", "judge_1"]}
    rows = []
    for arm in in_order(DESIGNS):
        for words, chosen in rewards.items():
            cells = [
                [row for case in chosen for row in _of(cases[case], arm, tuning)]
                for tuning in TUNED
                if all(arm in cases[case][tuning] for case in chosen)
            ]
            if cells:
                rows.append([RULES[arm].name, words, *(_range(own) for own in cells)])
    return [*page, table(["rule", "reward", *TUNED.values()], rows)]


def _range(rows) -> str:
    """The smallest and largest ratio, and how many of them are not 1 by their limits."""
    below, above = sum(row[2] < 1 for row in rows), sum(row[1] > 1 for row in rows)
    least, most = (extreme(row[0] for row in rows) for extreme in (min, max))
    return f"{least:.2f} to {most:.2f}; {below} of {len(rows)} below 1 with their limits, {above} above"


def _of(made: Mapping[str, Any], arm: str, tuning: str = "given"):
    """Ratios of a rule, with their limits."""
    return made[tuning][arm]["ratio"].values()


# ---- votes of people


def _votes(found: dict[str, Any], real: dict[str, Any]) -> list[str]:
    by = {(row["arm"], row["labels"]): row for row in found["table"]}
    counts = found["settings"]["labels"]
    rows = [
        [RULES[arm].name, *(f"{by[arm, n]['loss']:.4f}" for n in counts)]
        + [limits(*(1e4 * x for x in by[arm, n]["difference"]), places=0, sign="+") for n in counts]
        for arm in in_order({arm for arm, _ in by})
    ]
    head = [*(f"loss, {n} labels" for n in counts), *(f"difference to random x 10^4, {n}" for n in counts)]
    last = {arm: by[arm, n]["difference"] for arm, n in by if n == counts[-1] and arm != "every_vote"}
    below = sorted(RULES[arm].name for arm, difference in last.items() if difference[2] < 0)
    human = real["cases"]["human"]
    largest = max(abs(row[0] - 1) for arm in human["given"] if arm not in ENDS for row in _of(human, arm))
    return [
        "### People",
        f"`python -m bench.experiments.human_votes --seeds {found['settings']['seeds']}`: `pandalm`, three human votes "
        "a pair, nothing simulated. Log loss of the votes on other prompts; no label gives "
        f"{math.log(2):.4f}. Limits are over new prompts.",
        table(["rule", *head], rows),
        hardware(found["machine"], VOTES),
        _picture(VOTES, "Log loss of votes on other prompts less that of random pairs, by rule"),
        f"With {counts[-1]} labels better than random pairs, limits included: {', '.join(below) or 'no rule'}. "
        f"These features know little of what people prefer: accuracy {by['every_vote', counts[-1]]['accuracy']:.2f} "
        f"with every vote. On `wmt21_ted_zhen` no choice of pairs moves the gap by more than {percent(largest, 1)}.",
    ]


# ---- a transformer


def _model(found: dict[str, Any]) -> list[str]:
    by = {(row["arm"], row["labels"]): row for row in found["summary"]}
    counts = sorted({labels for _, labels in by})
    rows = [
        [RULES[arm].name, *(cell for n in counts for cell in _gained(by[arm, n]))]
        for arm in in_order({arm for arm, _ in by})
    ]
    head = [f"{what}, {n:,}" for n in counts for what in ("gain", "less random, different texts")]
    seeds = by["random_distinct", counts[0]]["seeds"]
    facts = {name: [one[name] for one in found["facts"]] for name in ("distinct", "reward_sd")}
    rest = {place: row for place, row in by.items() if place[0] != "ceiling"}
    better = [f"{RULES[arm].name} with {n}" for (arm, n), row in rest.items() if row.get("interval", [0])[0] > 0]
    worse = [f"{RULES[arm].name} with {n}" for (arm, n), row in rest.items() if row.get("interval", [0, 0])[1] < 0]
    left = ", ".join(f"{by['ceiling', n]['difference']:.2f} with {n}" for n in counts)
    return [
        "### A transformer, end to end",
        "`python -m bench.experiments.transformer --settled FILE --lines FILE`: "
        f"{found['setting']['completions']} completions a prompt sampled from a small character model, repeated texts "
        "dropped for every rule but *random*, pairs chosen, simulated labels, training, and J = reward - beta KL on "
        f"prompts of which no pair was labelled. {seeds} seeds, each a world of its own; limits are over seeds. "
        f"{sum(facts['distinct']) / seeds:.0f} of the completions of a prompt are different texts, and rewards have "
        f"the spread {sum(facts['reward_sd']) / seeds:.1f} within prompts. Rate and epochs of DPO, and those of "
        "training on the posterior, are tuned for random pairs at every number of labels, in other worlds; the ridge "
        "of the fit and rate and steps of training on it were best at the lowest that was tried; lower ones, tried "
        "afterwards in those worlds, were hardly better or worse.",
        table(["rule", *head], rows),
        hardware(found["machine"], MODEL),
        _picture(MODEL, "Gain in J less that of random pairs of different texts, by rule"),
        f"What labels of any pairs could add to random ones is what the ceiling gains more than they do: {left}. "
        "Better than plain DPO on random pairs of different texts, limits included: "
        f"{', '.join(better) or 'no rule'}. Worse: {', '.join(worse) or 'no rule'}.",
        "What choosing adds to a training on the posterior, with a proxy or without: less random pairs that are "
        "trained alike. The two rounds among these were decided on when 13 seeds of the other rules had been seen.",
        _beside_alike(by, counts),
    ]


def _beside_alike(by: Mapping[tuple[str, int], Mapping[str, Any]], counts: Sequence[int]) -> str:
    """Arms that train on the posterior, less random pairs that do."""
    arms = in_order({arm for (arm, _), row in by.items() if "to_alike" in row})
    rows = [[RULES[arm].name, *(limits(*by[arm, n]["to_alike"], sign="+") for n in counts)] for arm in arms]
    return table(["rule", *(f"{n:,} labels" for n in counts)], rows)


def _gained(row: Mapping[str, Any]) -> list[str]:
    difference = limits(row["difference"], *row["interval"], sign="+") if "interval" in row else ""
    return [f"{row['gain']:.2f}", difference]


def _picture(name: str, words: str) -> str:
    return f"![{words}](results/{name}.png)"
