"""DPO of the language model experiment on a tiny Llama: cheap heads are the library's, labels, lines, summaries."""

import json

import numpy as np
import optax
import pytest
from flax import nnx

from bench.experiments import dpo_arms as da
from bench.experiments import head_laws, llama_dpo
from bench.experiments import llama_cases as lc
from bench.experiments.files import append_lines, read_lines
from jaxdesign.preference import gradient_rows, split_model
from jaxdesign.preference.llama import (
    HeadEdit,
    TokenLaw,
    cached_log_probabilities,
    example_log_probability,
    follow_completions,
    head_cache,
    mean_states,
    train_on_cache,
)
from tests.support.tiny_llama import tiny_llama

PROMOTION = "standard"  # optax raises floats to whole powers
PROMPTS, COMPLETIONS, LENGTH, OUTPUTS = 14, 6, 3, 40
LAW = TokenLaw(outputs=OUTPUTS, banned=[7], temperature=3.0)
OWN = {kind: dict.fromkeys(da.VARIANTS, 10.0) for kind in ("ridge", "pull")}
OWN |= {"proxy_ridge": 10.0, "rate": 1e-2}
OWN |= {"schedules": {arm: [1e-2, 2] for arm in da.SCHEDULED}}
LABELS = 20


@pytest.fixture(scope="module")
def parts():
    rng = np.random.default_rng(0)
    model = tiny_llama(0)
    prompts = rng.integers(8, OUTPUTS, (PROMPTS, 4)).astype(np.int32)
    tokens = rng.integers(8, OUTPUTS, (PROMPTS, COMPLETIONS, LENGTH)).astype(np.int32)
    states = follow_completions(model, prompts, tokens, LAW).states
    return HeadEdit(model, LAW, rank=2, rngs=nnx.Rngs(0)), head_cache(states, tokens), mean_states(states, tokens)


@pytest.fixture(scope="module")
def world(parts):
    policy, cache, features = parts
    head, laws = head_laws.EditedHead(policy), head_laws.pool_laws(policy, cache.states, cache.tokens)
    rng = np.random.default_rng(1)
    scores = features @ rng.standard_normal(features.shape[-1]) / 3
    noisy = lambda size: scores + size * rng.standard_normal(scores.shape)  # noqa: E731
    rewards = {name: lc.Reward(name, noisy(0.3), noisy(1.0)) for name in da.FEATURES}
    pool = lc.Pool(features, rewards, np.ones(scores.shape, bool))
    capped = {name: np.minimum(reward.values, 2.0) for name, reward in rewards.items()}
    reference = head_laws.log_probabilities(head, laws, np.arange(PROMPTS))
    return da.World(pool, head_laws.projected_gradients(policy, laws, 20), capped, head, laws, reference)


def test_a_head_on_laws_is_that_of_the_library(parts, world):
    policy, cache, _ = parts
    np.testing.assert_allclose(world.reference, cached_log_probabilities(policy, cache), atol=0.02)
    rng = np.random.default_rng(2)
    edited = HeadEdit(tiny_llama(0), LAW, rank=2, rngs=nnx.Rngs(0))  # the same R
    edited.write[...] = 0.3 * rng.standard_normal(policy.write[...].shape).astype(np.float32)
    edited.bias[...] = 0.1 * rng.standard_normal(policy.bias[...].shape).astype(np.float32)
    some = np.array([3, 0, 9])
    moved = head_laws.log_probabilities(head_laws.EditedHead(edited), world.laws, some) - world.reference[some]
    expected = (cached_log_probabilities(edited, cache) - cached_log_probabilities(policy, cache))[some]
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(moved, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.thorough
def test_states_of_a_pool_are_computed_once_and_whole(parts, tmp_path, monkeypatch):
    cache = parts[1]
    prompts = np.random.default_rng(0).integers(8, OUTPUTS, (PROMPTS, 4)).astype(np.int32)
    monkeypatch.setattr(head_laws, "BLOCK", 5)
    found = head_laws.cached_states(tmp_path, tiny_llama(0), LAW, prompts, cache.tokens)
    np.testing.assert_allclose(found, cache.states, rtol=2e-3, atol=2e-3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.npy", "10.npy", "5.npy"]
    again = head_laws.cached_states(tmp_path, None, LAW, prompts, cache.tokens)  # no model is asked
    np.testing.assert_array_equal(again, found)


@pytest.mark.thorough
def test_training_on_laws_is_that_of_the_library(parts, world):
    policy, cache, _ = parts
    pairs = np.array([[p, i, i + 1] for p in range(PROMPTS) for i in range(4)])
    label = np.linspace(0, 1, len(pairs))
    found = head_laws.trained(world.head, world.laws, world.reference, pairs, label, rate=0.02, steps=8, seed=3)
    adam = optax.adam(optax.cosine_decay_schedule(0.02, 8))
    own = train_on_cache(policy, cache, pairs, label, beta=1.0, optimiser=adam, steps=8, seed=3).model
    expected = cached_log_probabilities(own, cache) - cached_log_probabilities(policy, cache)
    moved = head_laws.log_probabilities(found, world.laws, np.arange(PROMPTS)) - world.reference
    assert np.abs(expected).max() > 0.3
    np.testing.assert_allclose(moved, expected, atol=0.02 * np.abs(expected).max())


def test_gradients_are_those_of_the_library(parts, world):
    """Kernels of projected rows, up to the error of projecting: those of the library's rows."""
    policy, cache, _ = parts
    function, params = split_model(policy, example_log_probability)
    rows = [gradient_rows(function, params, cache.examples(), parameters=[name]) for name in ("write", "bias")]
    rows = np.concatenate([np.asarray(part).reshape(PROMPTS * COMPLETIONS, -1) for part in rows], axis=1)
    found = head_laws.projected_gradients(policy, world.laws, 20_000).reshape(len(rows), -1)
    np.testing.assert_allclose(found @ found.T, rows @ rows.T, atol=0.05 * np.abs(rows @ rows.T).max())


@pytest.mark.thorough
def test_a_pair_has_one_label_in_all_arms(world):
    """Raw and clipped features, with a proxy or without: one split, and one label a pair and seed."""
    rewards = world.pool.rewards["sentiment"].values
    cases = da.cases_of(world, 5)
    every = np.array([[p, i, j] for p in range(11) for i in range(COMPLETIONS) for j in range(i + 1, COMPLETIONS)])
    one, other = (lc.ask(cases[variant], rewards, every).choices for variant in lc.VARIANTS)
    np.testing.assert_array_equal(one, other)
    known = dict(zip(map(tuple, every), np.asarray(one) == da.FIRST, strict=True))
    seen = []
    for arm in da.PLAIN:
        given = da.training_of(world, cases, "sentiment", arm, OWN, LABELS, 5)
        assert given.pairs.shape == (LABELS, 3) and given.steps == 3
        assert len(set(map(tuple, given.pairs))) == LABELS
        assert [bool(known[tuple(pair)]) for pair in given.pairs] == given.label.tolist()
        seen.append(set(map(tuple, given.pairs)))
    assert len({frozenset(pairs) for pairs in seen}) == len(da.PLAIN)
    assert (lc.ask(da.cases_of(world, 6)["raw"], rewards, every).choices != one).any()
    truth = da.training_of(world, cases, "sentiment", "ceiling_steps", OWN, LABELS, 5)
    p, i, j = truth.pairs.T
    margin = rewards[cases["raw"].training[p], i] - rewards[cases["raw"].training[p], j]
    np.testing.assert_allclose(truth.label, 1 / (1 + np.exp(-margin)))


@pytest.mark.thorough
def test_training_on_the_posterior_has_the_schedule_of_its_kind(world):
    """Random pairs: tuned for a fit with a proxy and for one without."""
    cases = da.cases_of(world, 5)
    own = OWN | {"schedules": {"random_posterior": [1e-2, 2], "random_proxy": [3e-2, 1]}}
    found = {arm: da.training_of(world, cases, "sentiment", arm, own, LABELS, 5) for arm in da.SCHEDULED}
    assert {arm: [given.rate, given.steps] for arm, given in found.items()} == own["schedules"]
    assert [len(given.pairs) for given in found.values()] == [2 * da.BATCH, da.BATCH]


SHORT = ["random_distinct", "ceiling_steps", "ceiling"]  # no design, which takes long to compile


def run(world, path, monkeypatch, *more):
    monkeypatch.setattr(da, "CEILING_STEPS", 3)
    monkeypatch.setattr(da, "BATCH", 20)  # there are 165 pairs
    files = ["--tuning", "t", "--pool", "p", "--cache", "c", "--lines", str(path)]
    given = llama_dpo.parse(
        [*files, "--rewards", "sentiment", "--labels", str(LABELS), "--splits", "2", "--arms", *SHORT, *more]
    )
    return llama_dpo.run(given, path, {}, lambda name: {"p": world}[name])


@pytest.mark.thorough
def test_a_run_goes_on_where_it_was_stopped(world, tmp_path, monkeypatch):
    path = tmp_path / "lines.jsonl"
    tried = {
        number: {arm: [[*place, 0.0] for place in grid] for arm, grid in llama_dpo.grids_of(number).items()}
        for number in (0, LABELS)
    }
    append_lines(path, [{"settled": {f"sentiment/{n}": OWN | {"tried": each} for n, each in tried.items()}}])
    whole = run(world, path, monkeypatch, "--json", str(tmp_path / "found.json"))
    lines = read_lines(path)
    assert len(lines) == 1 + 2 * len(SHORT) and all(len(line["gains"]) == 3 for line in lines[1:])
    assert {line["labels"] for line in lines[1:] if line["arm"] == "ceiling"} == {0}
    path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines()[:-2]))  # as a kill leaves it
    run(world, path, monkeypatch)
    again = read_lines(path)
    for line in (*lines[1:], *again[1:]):
        del line["cpu_seconds"]
    assert again == lines
    stored = json.loads((tmp_path / "found.json").read_text())
    assert {row["arm"] for row in stored["rows"]} == set(SHORT) == {row["arm"] for row in whole["rows"]}


@pytest.mark.thorough
def test_what_is_tuned_is_the_best_of_what_was_tried(world, monkeypatch):
    for name, grid in {"RATES": (1e-3, 1e-2), "POSTERIOR_RATES": (1e-2,), "POSTERIOR_STEPS": (2, 3)}.items():
        monkeypatch.setattr(llama_dpo, name, grid)
    monkeypatch.setattr(da, "BATCH", 20)
    own = llama_dpo.tuned(world, "sentiment", LABELS, [7, 8], {})
    tried = own["tried"]
    assert {row[0]: row[1] for row in tried["random_distinct"]}.keys() == {1e-3, 1e-2}
    assert [own["rate"]] == max(tried["random_distinct"], key=lambda row: row[1])[:1]
    for arm in da.SCHEDULED:
        assert own["schedules"][arm] == max(tried[arm], key=lambda row: row[2])[:2] and len(tried[arm]) == 2
    assert own["proxy_ridge"] == own["ridge"]["clipped"] == max(tried["ridge_clipped"], key=tried["ridge_clipped"].get)
    cases = da.cases_of(world, 7)
    by_hand = [da.line_of(world, da.cases_of(world, s), "sentiment", "random_distinct", own, LABELS, s) for s in (7, 8)]
    assert [own["rate"], pytest.approx(np.mean([line["capped"] for line in by_hand]))] in tried["random_distinct"]
    ridge, correlation, scale = llama_dpo.implied(world, cases, "sentiment", own, LABELS, 7)["raw"]
    assert ridge > 0 and 0 < correlation <= 1 and scale > 0
    assert not llama_dpo.missing_of(json.loads(json.dumps(own)), LABELS)


@pytest.mark.thorough
def test_a_wider_grid_goes_on_from_what_was_tried(world, monkeypatch):
    monkeypatch.setattr(da, "BATCH", 20)
    monkeypatch.setattr(da, "CEILING_STEPS", 3)
    monkeypatch.setattr(llama_dpo, "POSTERIOR_RATES", (1e-2,))
    before = json.loads(json.dumps(llama_dpo.tuned(world, "sentiment", 0, [7], {})))
    before["tried"]["ceiling"][0][1] = 1e3  # as if found: it is not asked again
    monkeypatch.setattr(llama_dpo, "POSTERIOR_RATES", (1e-3, 1e-2))
    assert llama_dpo.missing_of(before, 0) == {"ceiling": [(1e-3,)]}
    own = llama_dpo.tuned(world, "sentiment", 0, [7], before)
    assert own["rate"] == 1e-2 and [row[0] for row in own["tried"]["ceiling"]] == [1e-2, 1e-3]


def test_differences_are_of_the_same_prompts_and_seeds():
    """Gains that differ from prompt to prompt and are .1 larger in one arm: a difference without spread."""
    rng, lines = np.random.default_rng(0), []
    for seed in range(4):
        prompts = np.sort(rng.permutation(12)[:5])
        base = rng.standard_normal(5)
        for arm, more in (("random_distinct", 0.0), ("trace", 0.1)):
            each = {"gains": (base + more).tolist(), "capped": (base - more).tolist(), "kl": 1.0 + seed}
            each |= {f"gap_pull_{name}": 0.5 - more * seed for name in da.VARIANTS}
            lines.append(
                {"seed": seed, "reward": "sentiment", "labels": 9, "arm": arm, "prompts": prompts.tolist()} | each
            )
    lines += [{**line, "labels": 0, "arm": "ceiling"} for line in lines if line["arm"] == "trace"]
    rows = {row["arm"]: row for row in llama_dpo.summary(lines)}
    for arm in ("trace", "ceiling"):
        found = [rows[arm][f"{name}_difference"] for name in ("gains", "capped")]
        assert [row[end] for row in found for end in ("mean", "low", "high")] == pytest.approx([0.1] * 3 + [-0.1] * 3)
        assert [(row["better_in"], row["of_seeds"]) for row in found] == [(4, 4), (0, 4)]
        assert (rows[arm]["labels"], rows[arm]["seeds"], rows[arm]["means"]["kl"]) == (9, 4, 2.5)
    assert rows["random_distinct"]["gains"]["low"] < rows["random_distinct"]["gains"]["high"]
    assert "gains_difference" not in rows["random_distinct"]
    promised = rows["trace"]["controllable"]
    assert promised == pytest.approx(dict.fromkeys(da.VARIANTS, 0.15) | {"seeds": 4})
    panels = llama_dpo.panels_of(list(rows.values()))
    assert {title: [row["arm"] for row in panel] for title, panel in panels.items()} == {
        "sentiment": ["trace", "ceiling"],
        "sentiment, capped": ["trace", "ceiling"],
    }
