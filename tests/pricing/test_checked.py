"""What is no source is refused in words by every function that takes sources, before a pass runs into it."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxdesign as jd
from jaxdesign.exact.random_pairs import random_pairs
from jaxdesign.pricing import as_chunk, folded, memory_source, pair_rows, streamed_source
from jaxdesign.pricing.checked import checked
from jaxdesign.pricing.source import survey
from tests.support.designs import agree

FEATURES = np.random.default_rng(0).standard_normal((6, 3, 2)).astype(np.float32)
POOL = jd.CompletionPool(FEATURES)
BUDGET, PEOPLE = jd.Budget(5), jd.Annotators(flip=[0.1, 0.2])

ENTRIES = {
    "optimize": lambda pool: jd.optimize(pool, jd.LogDet(), BUDGET),
    "optimize for annotators": lambda pool: jd.optimize(pool, jd.LogDet(), BUDGET, annotators=PEOPLE),
    "evaluate": lambda pool: jd.evaluate(pool, jd.LogDet(), BUDGET, [[0, 0, 1]], [5.0], prior=1.0),
    "select_pairs": lambda pool: jd.select_pairs(pool, jd.LogDet(), BUDGET),
    "label_curve": lambda pool: jd.label_curve(pool, jd.LogDet(), BUDGET, [5]),
    "label_curve with a target": lambda pool: jd.label_curve(pool, jd.LogDet(), BUDGET, [5], target=np.eye(2)),
    "restrict_to_range": jd.restrict_to_range,
    "policy_target": jd.policy_target,
    "second_moment": jd.second_moment,
    "random pairs": lambda pool: random_pairs(pool, BUDGET),
    "the rule that draws": lambda pool: jd.baselines.random(pool, jd.LogDet(), BUDGET),
    "a solver that needs all": lambda pool: jd.optimize(pool, jd.LogDet(), BUDGET, solver="frank_wolfe"),
}


class Own:
    """A source that is right."""

    prompts, completions, dim, draws, dtype = 6, 3, 2, 1, np.dtype(np.float32)

    def fold(self, kernel, carry, per_prompt=None, merge=jnp.add):
        return folded([as_chunk(POOL)], kernel, carry, per_prompt)

    def rows(self, pairs):
        return pair_rows(POOL, pairs)

    def subset(self, prompts):
        return memory_source(jd.CompletionPool(FEATURES[prompts]))


def without(name):
    return type("Own", (), {key: value for key, value in vars(Own).items() if key != name})()


def with_(**changed):
    return type("Own", (Own,), changed)()


def old_fold(self, kernel, carry, per_prompt=None):
    return Own.fold(self, kernel, carry, per_prompt)


def other_words(self, kernel, carry, per_prompt=None, combine=None):
    return Own.fold(self, kernel, carry, per_prompt)


# the source, the kind of error, what its text must hold
WRONG = {
    "a fold of old": (with_(fold=old_fold), ["fold of Own takes (kernel, carry, per_prompt=None)", "merge=jnp.add)"]),
    "a fold by other words": (with_(fold=other_words), ["per_prompt=None, combine=None)", "'merge'", "merge=jnp.add)"]),
    "a fold of no inputs": (
        with_(fold=lambda self, kernel, carry, merge=None: None),
        ["fold of Own takes (kernel, carry, merge=None)", "multiple values for argument 'merge'", "per_prompt=None"],
    ),
    "a fold that asks for more": (
        with_(fold=lambda self, kernel, carry, per_prompt, *, seed, merge=None: None),
        ["missing a required argument", "write it fold(kernel, carry, per_prompt=None, merge=jnp.add)"],
    ),
    "no fold": (without("fold"), ["has no fold;", "add fold(kernel, carry, per_prompt=None, merge=jnp.add)"]),
    "no rows": (without("rows"), ["has no rows;", "add rows(pairs)"]),
    "no subset": (without("subset"), ["has no subset;", "add subset(prompts)"]),
    "no draws": (without("draws"), ["Own has no draws; a jaxdesign.pricing.Source has prompts, completions"]),
    "no dtype": (without("dtype"), ["has no dtype;"]),
    "rows of two arguments": (with_(rows=lambda self, pairs, draw: None), ["rows of Own takes (pairs, draw)"]),
    "a subset of none": (with_(subset=lambda self: None), ["subset of Own takes ()", "write it subset(prompts)"]),
    "rows that are an array": (with_(rows=FEATURES), ["pool.rows: ndarray found", "method rows(pairs)"]),
    "prompts as a method": (with_(prompts=lambda self: 6), ["pool.prompts: a method found", "property"]),
    "half a prompt": (with_(prompts=6.5), ["pool.prompts: float found"]),
    "rows in float16": (with_(dtype=np.float16), ["pool.dtype: float16 found", "float32 or float64"]),
    "a dtype that is none": (with_(dtype="single file"), ["pool.dtype: str found"]),
    "listed pairs by prompt": (
        with_(over_pairs=lambda self, pairs: None),
        ["over_pairs of Own takes (pairs)", "over_pairs(kernel, pairs, per_pair=None)"],
    ),
    "another dtype of none": (with_(in_dtype=lambda self: self), ["in_dtype of Own takes ()", "in_dtype(dtype)"]),
    "two devices and no homes": (with_(devices=2), ["has no home, some;"]),
    "a class": (Own, ["pool: expected", "the class Own; pass an instance"]),
    "features": (FEATURES, ["pool: expected jaxdesign.CompletionPool, or a jaxdesign.pricing.Source, found ndarray"]),
}


def refused(call, pool, words):
    with pytest.raises(TypeError, match=r"^pool") as found:
        call(pool)
    for word in words:
        assert word in str(found.value), str(found.value)


@pytest.mark.parametrize("name", WRONG)
def test_it_is_said_what_is_missing_what_was_found_and_how_to_write_it(name):
    refused(checked, *WRONG[name])


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("name", ["a fold of old", "no subset", "features"])
def test_every_function_that_takes_sources_says_so(entry, name):
    refused(ENTRIES[entry], *WRONG[name])


def test_no_prompts_are_refused():
    with pytest.raises(ValueError, match=r"pool\.prompts=0: must be at least 1"):
        checked(with_(prompts=0))


def test_pools_and_sources_pass_as_they_are():
    for pool in (POOL, memory_source(POOL), streamed_source(FEATURES), Own(), with_(prompts=np.int64(6))):
        assert checked(pool) is pool


@pytest.mark.thorough
def test_any_way_to_take_the_arguments_will_do():
    """By position, by name, or all that come: every function calls it so that it works."""

    def by_name(self, kernel, carry, per_prompt=None, **rest):
        assert set(rest) <= {"merge"}
        return Own.fold(self, kernel, carry, per_prompt)

    def all_that_come(self, *args, **rest):
        assert len(args) <= 3
        return Own.fold(self, *args)

    def last_by_name_only(self, kernel, carry, per_prompt=None, *, merge=jnp.add):
        return Own.fold(self, kernel, carry, per_prompt)

    expected = jd.optimize(Own(), jd.LogDet(), BUDGET)
    for fold in (by_name, all_that_come, last_by_name_only):
        agree(jd.optimize(with_(fold=fold), jd.LogDet(), BUDGET), expected)
        survey(jd.restrict_to_range(with_(fold=fold))[0])
        jd.optimize(with_(fold=fold), jd.LogDet(), BUDGET, annotators=PEOPLE)
