"""Figures that guides quote are those of the result files."""

import pytest

from bench.experiments.files import read_json
from tests.support import CHECKOUT

pytestmark = pytest.mark.thorough


def rows_of(name, key="rows"):
    return read_json(CHECKOUT / "bench" / "results" / f"{name}.json")[key]


def text_of(guide):
    lines = (CHECKOUT / "notebooks" / f"{guide}.py").read_text(encoding="utf-8").splitlines()
    return " ".join(" ".join(line.removeprefix("#").strip() for line in lines).split())


def test_what_few_labels_says_of_smooth_beliefs():
    text, cases = text_of("few_labels"), rows_of("real-pools", "cases")
    of = lambda case, labels: cases[case]["free"]["random_distinct_smooth"]["ratio"][labels][0]  # noqa: E731
    judged = [of(case, n) for case in ("judge_1", "judge_4") for n in cases[case]["free"]["random_distinct"]["gap"]]
    assert f"had {of('well_specified', '64'):.2f} of the gap that a ridge left at 64 labels of a linear reward" in text
    assert f"and {min(judged):.2f} to {max(judged):.2f} with a judge" in text
    found = [r["difference"]["mean"] for r in rows_of("llama-log-linear") if r["arm"] == "random_distinct_smooth"]
    assert f"gained at most {max(found):.3f} J on any of four rewards, and lost up to {-min(found):.3f}" in text


def test_what_few_labels_says_of_proxies_and_posteriors():
    text = text_of("few_labels")
    trained = {(r["reward"], r["arm"], r["labels"]): r.get("capped_difference") for r in rows_of("llama-dpo")}
    proxies = [one["mean"] for (_, arm, n), one in trained.items() if (arm, n) == ("random_proxy", 100)]
    assert f"gained +{min(proxies):.3f} to +{max(proxies):.3f} J with the very pairs, 100 at random" in text
    chosen = [trained[key]["mean"] for key in trained if key[1] in ("trace", "trace_clipped", "trace_gradients")]
    assert f"what choosing pairs alone gained there was {max(chosen):.2f} at most" in text
    pools = rows_of("real-pools", "cases")["well_specified"]
    of = lambda way, arm, n: pools[way][arm]["ratio"][n][0]  # noqa: E731
    cost = [
        of(way, "trace_proxy_0", n) / of(way, "trace", n) - 1 for way in ("given", "free") for n in ("32", "64", "400")
    ]
    assert f"a useless proxy cost designs up to {max(cost):.0%} of the gap" in text
    small = {(r["arm"], r["labels"]): r for r in rows_of("transformer", "summary")}
    assert f"gained +{small['random_posterior', 400]['difference']:.3f} J at 400 labels" in text
    low, high = small["random_posterior", 100]["interval"]
    assert low < 0 < high
    lost = trained["word_length", "random_posterior", 100]
    assert f"it lost {-lost['mean']:.3f} at 100" in text and lost["high"] < 0
    others = [trained[reward, "random_posterior", 100]["mean"] for reward in ("sentiment", "first_person")]
    assert "on two other rewards gained {:.3f} and {:.3f}".format(*others) in text


def test_what_language_model_says_of_features_that_training_follows():
    settled = rows_of("llama-dpo", "settled")
    matches = {
        kind: [
            abs(sum(one[kind][1] for one in own["implied"])) / len(own["implied"])
            for own in settled.values()
            if "implied" in own
        ]
        for kind in ("gradients", "raw")
    }
    said = [f"of {min(own):.2f} to {max(own):.2f}" for own in matches.values()]
    text = text_of("language_model")
    assert f"had a correlation {said[0]} with those of a fit in gradients, and {said[1]} in mean hidden states" in text
