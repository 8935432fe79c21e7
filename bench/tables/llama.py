"""Tables of experiments on a real small language model: what features explain, and what choosing pairs gains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from bench.rules import RULES, in_order
from bench.tables.markdown import hardware, interval, limits, percent, table

FEATURES, SOLVED, TRAINED = "llama-features", "llama-log-linear", "llama-dpo"
FORECAST, SPREAD = "forecast-check", "processors"
REWARDS = {
    "word_length": "Letters of a word",
    "bounded_word_length": "Letters of a word, at most 15 counted",
    "sentiment": "Sentiment (VADER)",
    "first_person": "Words in the first person",
    "near_length": "Near 90 characters",
}
PREDICTED = {"trace_gradients": "gradients", "trace": "raw", "trace_clipped": "clipped"}  # and in which features
EXPECTED = ("trace", "bait")  # to gain, by the hypotheses
HYPOTHESES = (("word_length", "raw"), ("sentiment", "clipped"), ("first_person", "clipped"))  # where they are
VARIANTS = {"raw": "raw rows", "clipped": "clipped rows", "by_slope": "as the pilot's slope says"}


def section(results: dict[str, dict[str, Any]]) -> list[str]:
    """Paragraphs and tables; results by file name."""
    return [
        "## A real small language model",
        "SmolLM2-135M-Instruct: 400 prompts that nothing was tuned on, 32 completions of 20 tokens each "
        "(`python -m bench.experiments.llama_pool`). Limits are 95% and speak of new prompts: prompts and splits are "
        "drawn anew (`bench.experiments.by_prompt`).",
        *_features(results[FEATURES]),
        *_solved(results[SOLVED]),
        *_processors(results[SPREAD]),
        *_forecast(results[FORECAST]),
        *_trained(results[TRAINED]),
    ]


def _features(found: dict[str, Any]) -> list[str]:
    by = {(row["reward"], row["features"]): row["r2"] for row in found["rows"]}
    rows = [
        [REWARDS[reward], *(limits(*by[reward, kind].values()) for kind in ("mean", "last"))]
        for reward in dict.fromkeys(reward for reward, _ in by)
    ]
    return [
        "### What features explain",
        "`python -m bench.experiments.llama_features`. R2 within held-back prompts of a ridge fit on 64 principal "
        "components. The mean hidden state of a completion tells three to five times as much as that of its last "
        "token. Letters of a word are what no linear head fits well; a few completions are one endless word "
        "(\"Hiiiii...\"), and weigh more than all others unless a word counts for 15 letters at most. *Near 90 "
        "characters* had been made as the reward that no linear head fits; it is the best fitted, and was not taken "
        "further.",
        table(["reward", "mean hidden state", "last token's"], rows),
        hardware(found["machine"], FEATURES),
    ]  # fmt: skip


def _solved(found: dict[str, Any]) -> list[str]:
    rows = found["rows"]
    most = max(row["K"] for row in rows)
    own = {(r["reward"], r["variant"], r["arm"], r["labels"]): r for r in rows if r["K"] == most}
    counts = sorted({row["labels"] for row in rows})
    rewards = [reward for reward in REWARDS if any(key[0] == reward for key in own)]
    parts = [
        "### Log-linear policies on its features",
        "`python -m bench.experiments.llama_log_linear`. Policies on 64 components of the mean hidden state, J exact "
        f"on held-back prompts, beta 1, {most} completions; ridge and multiple of the fit tuned on other prompts, the "
        "ridge for random pairs of different texts, the multiple for every arm. Hypotheses were stated before these "
        "prompts were seen: trace and BAIT beat random pairs with raw rows on letters of a word, with clipped rows "
        f"on sentiment and first person. {_verdict(own, counts)} Words bounded at 15 letters, and smooth beliefs, were "
        "added afterwards; fits with a smooth belief have a ridge of their own, which was the smallest that was tried "
        "with letters of a word. *Proxy*: the same reward of the first half of a text, in the fit, or (*best against "
        "worst*) in the choice alone; these arms know what the others do not. *All pairs, true probabilities*: as "
        "fitted, with no multiple. Gain in J less that of random pairs of different texts:",
    ]
    for reward in rewards:
        for variant, words in VARIANTS.items():
            arms = in_order({key[2] for key in own if key[:2] == (reward, variant)} - {"random_distinct"})
            if not arms:
                continue
            cells = [
                [RULES[arm].name, *(_difference(own.get((reward, variant, arm, n))) for n in counts)] for arm in arms
            ]
            gains = ", ".join(f"{own[reward, variant, 'random_distinct', n]['gain']['mean']:.3f}" for n in counts)
            asked = ""
            if variant == "by_slope":
                shares = (percent(found["clipped_by_slope"][f"{most}/{reward}/{n}"]) for n in counts)
                asked = f"; clipped rows chosen in {', '.join(shares)} of the splits"
            parts.append(f"**{REWARDS[reward]}, {words}** (gain of random pairs: {gains}{asked})")
            parts.append(table(["rule", *(f"{n} labels" for n in counts)], cells))
    parts.append(hardware(found["machine"], SOLVED))
    parts.append(f"![Gain in J less that of random pairs, by reward, rows and rule](results/{SOLVED}.png)")
    parts += _by_completions(rows, rewards, counts)
    return parts


def _verdict(own: Mapping[tuple, dict[str, Any]], counts: Sequence[int]) -> str:
    """How many of the gains that were expected have limits above 0, and which have not."""
    cells = [(*place, arm, n) for place in HYPOTHESES for arm in EXPECTED for n in counts]
    missed = [cell for cell in cells if own[cell]["difference"]["low"] <= 0]
    said = ", ".join(f"{RULES[arm].name} with {n} labels on {_inside(reward)}" for reward, _, arm, n in missed)
    return f"They do, limits included, in {len(cells) - len(missed)} of {len(cells)} cells; not {said}."


def _by_completions(rows, rewards, counts) -> list[str]:
    """All arms by how often their limits exclude 0, and what was expected to gain, in figures."""
    sizes = sorted({row["K"] for row in rows})
    by = {(r["arm"], r["K"], r["reward"], r["variant"], r["labels"]): r for r in rows}
    cells = [
        [RULES[arm].name, str(completions), REWARDS[reward], VARIANTS[variant],
         *(_difference(by[arm, completions, reward, variant, n]) for n in counts)]
        for arm in EXPECTED
        for completions in sizes
        for reward in rewards
        for variant in ("raw", "clipped")
    ]  # fmt: skip
    found = [row for row in rows if "difference" in row and row["arm"] != "ceiling"]
    shares = [
        [RULES[arm].name, VARIANTS[variant], *(_signs(found, arm, variant, size) for size in sizes)]
        for arm in in_order({row["arm"] for row in found})
        for variant in VARIANTS
        if any(row["arm"] == arm and row["variant"] == variant for row in found)
    ]
    few = sizes[:-1]
    return [
        "By number of completions, with settings tuned with all of them: in how many cells (a reward and a number of "
        "labels) a rule gains over random pairs of different texts, limits included, and in how many it loses.",
        table(["rule", "rows", *(f"{size} completions" for size in sizes)], shares),
        "Trace and BAIT less random pairs of different texts:",
        table(["rule", "completions", "reward", "rows", *(f"{n} labels" for n in counts)], cells),
        *(f"![The same with {size} completions](results/{SOLVED}-{size}.png)" for size in few),
    ]


def _signs(found: Sequence[dict[str, Any]], arm: str, variant: str, completions: int) -> str:
    own = [row["difference"] for row in found if (row["arm"], row["variant"], row["K"]) == (arm, variant, completions)]
    gains, losses = (sum(one[end] * sign > 0 for one in own) for end, sign in (("low", 1), ("high", -1)))
    return f"{gains} gained, {losses} lost of {len(own)}"


def _processors(found: dict[str, Any]) -> list[str]:
    by = {row["arm"]: row for row in found["rows"]}
    rows = [
        [RULES[arm].name, f"{by[arm]['cases']:,}", percent(by[arm]["differ"])]
        + [f"{by[arm][name]:{sign}.4f}" for name, sign in (("gain", ""), ("of a case", ""), ("of the mean", "+"))]
        for arm in in_order(by)
    ]
    return [
        "**Other processors** (`python -m bench.experiments.processors`). The same cases, run again with AVX2 "
        "instructions alone and another kernel of matrix products: sums are rounded otherwise, near ties of pairs are "
        "broken otherwise, and labels of later rounds with them.",
        table(["rule", "cases", "of them not the same", "gain in J", "apart in a case", "apart in the mean"], rows),
        hardware(found["machine"], SPREAD),
    ]


def _forecast(found: dict[str, Any]) -> list[str]:
    judged, asked, signs, right = told_of(found)
    rows = [
        [
            str(row["K"]),
            REWARDS[row["reward"]],
            VARIANTS[row["variant"]],
            str(row["labels"]),
            f"{row['forecast'][judged]['difference']:+.3f}",
            _difference(row["measured"]),
        ]
        for row in asked
    ]
    return [
        "### Forecasts, against that",
        "`python -m bench.experiments.forecast_check`. What trace should gain over random pairs, from features, tuned "
        "fit, and the size and unexplained variance of rewards on training prompts alone. Of "
        f"{found['cells']} measured gains {found['asked']} have limits that exclude zero; the forecast has the sign of "
        f"{signs} of these, and is within a factor of two of {right}. It lies within the limits of "
        f"{percent(found['inside the interval'][judged])} of all. It is criterion (*) of `expected_gap`, told what "
        "training prompts' rewards say of their size and of what features miss, which a pilot must tell a user; those "
        f"that miss are {_missed(asked, judged)}. Other ways of saying the size of rewards are right in "
        f"{', '.join(f'{percent(share)} ({way})' for way, share in found['right'].items() if way != judged)}.",
        table(["completions", "reward", "rows", "labels", "forecast", "measured"], rows),
        hardware(found["machine"], FORECAST),
    ]


class Told(NamedTuple):
    """The way of saying rewards' size that is judged, gains whose limits exclude zero, and how many forecasts have
    their sign, and are within a factor of two."""

    judged: str
    asked: list[dict[str, Any]]
    signs: int
    right: int


def told_of(found: Mapping[str, Any]) -> Told:
    """How good the forecasts of `forecast_check` are."""
    judged, asked = found["judged"], [row for row in found["rows"] if row["asked"]]
    own = [(row["forecast"][judged]["difference"], row["measured"]["difference"]["mean"]) for row in asked]
    return Told(judged, asked, sum(a * b > 0 for a, b in own), sum(row["right"][judged] for row in asked))


def _missed(asked: Sequence[dict[str, Any]], judged: str) -> str:
    """On which side of the measured gains, and at how many completions."""
    wrong = [row for row in asked if not row["right"][judged]]
    gains = [(abs(row["forecast"][judged]["difference"]), abs(row["measured"]["difference"]["mean"])) for row in wrong]
    few = sum(row["K"] <= 8 for row in wrong)
    return f"{sum(a < b for a, b in gains)} of {len(wrong)} too small, {few} with 8 completions or fewer"


def _trained(found: dict[str, Any]) -> list[str]:
    by = {(row["reward"], row["arm"], row["labels"]): row for row in found["rows"]}
    counts = sorted({labels for *_, labels in by})
    parts = [
        "### DPO of the model itself",
        "`python -m bench.experiments.llama_dpo`. A low-rank edit of the last hidden state is trained by DPO on labels "
        "of a reward, everything tuned by capped J on other prompts at each number of labels: for random pairs, and "
        "training on the posterior for random pairs with a proxy and without; J from held-back completions by their "
        "weights. Gain less that of random pairs of different texts, whose own line is its gain. Arms with a proxy, "
        "the same reward of the first half of a text, train on the posterior's soft labels. *Capped*: rewards above "
        "the .998 quantile of the tuning prompts count as that, since a few are one endless word. "
        "Designs were to be judged on mean hidden states; tuning showed that this training hardly "
        "follows those, and gradients by what is trained were added before these prompts were seen. Hypotheses: trace "
        f"gains on letters of a word{_found(by, 'word_length', 'trace', counts)}, trace on clipped rows on sentiment"
        f"{_found(by, 'sentiment', 'trace_clipped', counts)} and first person"
        f"{_found(by, 'first_person', 'trace_clipped', counts)}. {_edges(found['settled'])}",
    ]
    for reward in (reward for reward in REWARDS if any(key[0] == reward for key in by)):
        parts += _trained_on(reward, by, counts)
        fits = [found["settled"][f"{reward}/{n}"]["implied"] for n in counts]
        match = {
            kind: ", ".join(f"{sum(abs(one[kind][1]) for one in fit) / len(fit):.2f}" for fit in fits)
            for kind in ("gradients", "raw", "clipped")
        }
        parts.append(
            "Correlation of the implicit rewards of DPO with those of a fit to the same labels, on pairs without a "
            f"label (tuning prompts): {match['gradients']} in gradients, {match['raw']} in mean hidden states, "
            f"{match['clipped']} with clipped rows."
        )
    parts.append(hardware(found["machine"], TRAINED))
    parts.append(f"![Gain in J less that of random pairs, by rule](results/{TRAINED}.png)")
    return parts


def _found(by: Mapping[tuple[str, str, int], dict[str, Any]], reward: str, arm: str, counts: Sequence[int]) -> str:
    """In brackets, at which numbers of labels the limits exclude 0."""
    there = [f"{n}" for n in counts if by[reward, arm, n]["gains_difference"]["low"] > 0]
    return f" (so with {' and '.join(there)} labels)" if there else " (not established)"


def _edges(settled: Mapping[str, dict[str, Any]]) -> str:
    """Which rates are the smallest or the largest of those that were tried."""
    told = []
    for key, own in settled.items():
        reward, labels = key.split("/")
        for arm, tried in own["tried"].items():
            if arm not in RULES:
                continue  # a ridge
            rates = sorted({row[0] for row in tried})
            rate = max(tried, key=itemgetter(-1))[0]
            if rate in (rates[0], rates[-1]):
                count = f", {labels} labels" if int(labels) else ""
                told.append(f"{rate:g} ({RULES[arm].name}; {_inside(reward)}{count})")
    return f"Rates that are best at an end of what was tried: {', '.join(told)}." if told else "No rate is at an end."


def _inside(reward: str) -> str:
    """The name of a reward inside of a sentence."""
    return REWARDS[reward][0].lower() + REWARDS[reward][1:]


def _trained_on(reward: str, by: Mapping[tuple[str, str, int], dict[str, Any]], counts: Sequence[int]) -> list[str]:
    """The table of one reward, what choosing adds to a proxy, and what was predicted of the design in gradients."""
    rows = []
    for arm in in_order({key[1] for key in by if key[0] == reward}):
        cells = [RULES[arm].name, f"{by[reward, arm, counts[0]]['seeds']}"]
        for n in counts:
            row = by[reward, arm, n]
            for kind in ("gains", "capped"):
                own, sign = (row[kind], "") if arm == "random_distinct" else (row[f"{kind}_difference"], "+")
                cells.append(interval(own, sign))
        rows.append(cells)
    head = ["rule", "seeds", *(f"{n} labels{words}" for n in counts for words in ("", ", capped"))]
    added = [by[reward, "trace_proxy", n]["capped_difference_to_random_proxy"] for n in counts]
    told = [interval(one) for one in added]
    promised = []
    for arm, kind in PREDICTED.items():
        gaps = [f"{by[reward, arm, n]['controllable'][kind]:.3f}" for n in counts]
        promised.append(f"{RULES[arm].name} {_by_count(gaps, counts)}")
    return [
        f"**{REWARDS[reward]}**",
        table(head, rows),
        f"What choosing adds once a proxy is in the fit, capped: {_by_count(told, counts)}. What choosing alone "
        "can gain over random pairs, tr(H A^-1) / 2 with the prior that training implies in the features of the design "
        f"(`ImpliedPrior.pull`, tuning prompts): {'; '.join(promised)}.",
    ]


def _by_count(told: Sequence[str], counts: Sequence[int]) -> str:
    return " and ".join(f"{one} with {n} labels" for one, n in zip(told, counts, strict=True))


def _difference(row: dict[str, Any] | None) -> str:
    return "" if row is None or "difference" not in row else interval(row["difference"])
