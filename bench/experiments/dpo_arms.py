"""What the arms of `llama_dpo` are: pairs, labels, training and what it is worth, for one seed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

import jaxdesign as jd
from bench.experiments import arms, head_laws
from bench.experiments import llama_cases as lc
from jaxdesign import preference as pref
from jaxdesign.preference.labels.labels import FIRST
from jaxdesign.preference.llama import HeadEdit, Llama, held_back_value

PLAIN = {  # the rule of `arms`, and which features it sees
    "random_distinct": ("random", "raw"),
    "trace": ("trace", "raw"),
    "trace_clipped": ("trace", "clipped"),
    "trace_gradients": ("trace", "gradients"),
    "distance_gradients": ("largest_distance", "gradients"),
}
ON_POSTERIOR = {  # the rule, and whether the fit has a proxy
    "random_posterior": ("random", False),
    "random_proxy": ("random", True),
    "trace_proxy": ("trace", True),
}
SCHEDULED = ("random_posterior", "random_proxy")  # without a proxy and with: for which schedules are tuned
CEILINGS = ("ceiling_steps", "ceiling")
ARMS = (*PLAIN, *ON_POSTERIOR, *CEILINGS)
FEATURES = {"word_length": "raw", "sentiment": "clipped", "first_person": "clipped"}  # where a proxy is added
RANK, BATCH, EPOCHS = 8, head_laws.BATCH, 6
CEILING_STEPS = 400
VARIANTS = (*lc.VARIANTS, "gradients")
PROJECTED, COMPONENTS = 768, 128  # of gradients
CAP = 0.998  # quantile of the rewards of the tuning pool


class World(NamedTuple):
    """What all arms share: a pool, more of its features, rewards with caps, the policy to train, and all laws."""

    pool: lc.Pool
    gradients: Float[np.ndarray, "p k d"]
    capped: dict[str, Float[np.ndarray, "p k"]]
    head: head_laws.EditedHead
    laws: head_laws.Laws
    reference: Float[np.ndarray, "p k"]


class Training(NamedTuple):
    """Pairs of the pool, labels in [0, 1], rate and steps."""

    pairs: Int[np.ndarray, "n 3"]
    label: Float[np.ndarray, " n"]
    rate: float
    steps: int


def make_world(path: str, cache: Path, model: Llama, policy: HeadEdit, scales: dict) -> World:
    """Everything that is computed once for a pool file."""
    stored = np.load(path)
    tokens, folder = stored["tokens"].astype(np.int32), cache / Path(path).stem
    states = head_laws.cached_states(folder, model, policy.law, stored["prompt_tokens"], tokens)
    head, laws = head_laws.EditedHead(policy), head_laws.pool_laws(policy, states, tokens)
    reference = head_laws.log_probabilities(head, laws, np.arange(len(tokens)))
    pool = lc.load(path, scales["temperatures"])
    capped = {name: np.minimum(pool.rewards[name].values, cap) for name, cap in scales["caps"].items()}
    gradients = head_laws.kept(folder / "gradients.npy", lambda: head_laws.projected_gradients(policy, laws, PROJECTED))
    return World(pool, gradients, capped, head, laws, reference)


def scales_of(path: str) -> dict[str, dict[str, float]]:
    """Temperatures of the rewards of the tuning pool, and what they are capped at in units of them."""
    temperatures = lc.temperatures_of(path)
    pool = lc.load(path, temperatures)
    caps = {name: float(np.quantile(reward.values, CAP)) for name, reward in pool.rewards.items()}
    return {"temperatures": temperatures, "caps": caps}


def cases_of(world: World, seed: int) -> dict[str, lc.Case]:
    """The split of a seed in all kinds of features."""
    each = world.pool.first.shape[1]
    found = {variant: lc.make_case(world.pool, variant, each, seed) for variant in lc.VARIANTS}
    other = world.pool._replace(features=world.gradients)
    return found | {"gradients": lc.make_case(other, "raw", each, seed, COMPONENTS)}


def plain_pairs(case: lc.Case, rule: str, ridge: float, number: int, seed: int) -> Int[np.ndarray, "n 3"]:
    """Pairs of the training prompts, in a random order."""
    problem = arms.Problem(case.pool, case.deployment, ridge, 1.0)
    return arms.choose(rule, problem, jd.Budget(number, per_pair=1), seed)


def on_labels(case: lc.Case, rewards, pairs, own: dict[str, Any]) -> Training:
    """Training on the labels of these pairs."""
    labels = lc.ask(case, rewards, pairs)
    steps = -(-EPOCHS * len(pairs) // BATCH)
    return Training(np.asarray(labels.pairs), np.asarray(labels.choices) == FIRST, own["rate"], steps)


def on_posterior(case: lc.Case, rewards, proxy, rule: str, own: dict[str, Any], number: int, seed: int) -> Training:
    """Labels of random or of designed pairs, a fit with the proxy or none, and training on what it says of the pool."""
    pool, prior = case.pool, own["proxy_ridge"]
    if proxy is not None:
        prior = pref.pool_with_proxy(pool, proxy[case.training], prior)
        pool = prior.pool
    if rule == "trace":
        target = jd.Trace(jd.policy_target(pool))
        pairs = jd.select_pairs(pool, target, jd.Budget(number, per_pair=1), prior=prior, seed=seed).pairs
    else:
        pairs = plain_pairs(case, rule, own["proxy_ridge"], number, seed)
    fit = pref.fit_posterior(pool, lc.ask(case, rewards, pairs), prior)
    rate, steps = own["schedules"][SCHEDULED[proxy is not None]]
    soft = pref.soft_labels(pool, fit, number=steps * BATCH, seed=seed)
    return Training(soft.pairs, soft.probabilities, rate, steps)


def on_truth(case: lc.Case, rewards, rate: float, steps: int, seed: int) -> Training:
    """True probabilities of pairs that are each seen once."""
    problem = arms.Problem(case.pool, case.pool, 1.0, 1.0)
    pairs = arms.choose("random", problem, jd.Budget(steps * BATCH, per_pair=1), seed)
    return Training(pairs, lc.chances(case, rewards, pairs), rate, steps)


def training_of(
    world: World, cases: dict[str, lc.Case], reward: str, arm: str, own: dict[str, Any], number: int, seed: int
) -> Training:
    """What an arm trains on after `number` labels."""
    rewards, proxy = world.pool.rewards[reward][1:]
    if arm in PLAIN:
        rule, variant = PLAIN[arm]
        pairs = plain_pairs(cases[variant], rule, own["ridge"][variant], number, seed)
        return on_labels(cases[variant], rewards, pairs, own)
    if arm in ON_POSTERIOR:
        rule, with_proxy = ON_POSTERIOR[arm]
        case = cases[FEATURES[reward]]
        return on_posterior(case, rewards, proxy if with_proxy else None, rule, own, number, seed)
    if arm == "ceiling":
        return on_truth(cases["raw"], rewards, own["rate"], CEILING_STEPS, seed)
    return on_truth(cases["raw"], rewards, own["rate"], -(-EPOCHS * number // BATCH), seed)


def trained(world: World, case: lc.Case, given: Training, seed: int) -> head_laws.EditedHead:
    """The policy after DPO, `case` giving the prompts that pairs count among."""
    pairs = np.column_stack([case.training[given.pairs[:, 0]], given.pairs[:, 1:]])
    options = {"rate": given.rate, "steps": given.steps, "seed": seed}
    return head_laws.trained(world.head, world.laws, world.reference, pairs, given.label, **options)


def worth(world: World, case: lc.Case, head: head_laws.EditedHead, reward: str) -> dict[str, Any]:
    """J of every held-back prompt less the reference's, by rewards as they are and capped."""
    part = case.held_back
    own = head_laws.log_probabilities(head, world.laws, part)
    found = {}
    for name, rewards in (("gains", world.pool.rewards[reward].values), ("capped", world.capped[reward])):
        value = held_back_value(own, world.reference[part], rewards[part], 1.0)
        found[name] = np.round(value.value - rewards[part].mean(axis=1), 6).tolist()
    means = {"kl": float(value.kl.mean()), "effective": float(value.effective.mean())}
    return {"prompts": part.tolist()} | found | means


def facts(cases: dict[str, lc.Case], rewards, own: dict[str, Any], pairs: Int[np.ndarray, "n 3"]) -> dict[str, Any]:
    """What is predicted of labelled pairs in all kinds of features, their length, and rewards' gaps.

    The gap tr(H A^-1) / 2, A with the ridge that the design has for its prior ("ridge"), and with the one that training
    pulls with ("pull").
    """
    found: dict[str, Any] = {}
    p, i, j = pairs.T
    for variant, case in cases.items():
        features = np.asarray(case.pool.features, np.float64)
        z = features[p, i] - features[p, j]
        target = np.asarray(jd.policy_target(case.deployment), np.float64)
        for kind in ("ridge", "pull"):
            information = own[kind][variant] * np.eye(case.pool.dim) + z.T @ z / 4
            found[f"gap_{kind}_{variant}"] = float(np.trace(np.linalg.solve(information, target)) / 2)
        found[f"length_{variant}"] = float((z**2).sum(axis=1).mean())
    seen = rewards[cases["raw"].training]
    found["reward_gap"] = float(np.abs(seen[p, i] - seen[p, j]).mean())
    return found


def line_of(world: World, cases, reward: str, arm: str, own: dict[str, Any], number: int, seed: int) -> dict[str, Any]:
    """One arm of one seed; the ceiling at 0 labels."""
    start = time.process_time()
    given = training_of(world, cases, reward, arm, own, number, seed)
    head = trained(world, cases["raw"], given, seed)
    line = {"seed": seed, "reward": reward, "labels": number, "arm": arm}
    line |= worth(world, cases["raw"], head, reward)
    if arm in PLAIN:
        line |= facts(cases, world.pool.rewards[reward].values, own, given.pairs)
    line |= {"rate": given.rate, "steps": given.steps}
    return line | {"cpu_seconds": round(time.process_time() - start, 2)}
