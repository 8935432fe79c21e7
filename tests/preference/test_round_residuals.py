"""Rounds with a residual: shorter pairs, the same rounds where there is none, the pilot's word kept in the store."""

import json
from dataclasses import replace

import numpy as np
import pytest

import jaxdesign as jd
from jaxdesign.preference.fit.posterior import fit_posterior, posterior_draws, posterior_targets, scored_pool
from jaxdesign.preference.labels.labels import as_labels
from jaxdesign.preference.labels.store import LabelStore
from jaxdesign.preference.labels.tasks import answered, make_tasks
from jaxdesign.preference.round_notes import notes_of
from jaxdesign.preference.round_residuals import ResidualUsed, after_pilot, from_summary, information_left
from jaxdesign.preference.rounds import RoundPlan, next_batch, run_rounds
from tests.support.problems import all_pairs_of

RNG = np.random.default_rng(0)
SIZES = np.exp(0.7 * RNG.standard_normal((12, 4, 1)))
POOL = jd.CompletionPool((SIZES * RNG.standard_normal((12, 4, 3))).astype(np.float32))
TRUTH = np.array([1.0, -0.5, 0.3])
PLAN = RoundPlan((15, 12), prior=0.5, draws=2, floor=0.0)
NONE = as_labels(np.zeros((0, 3), int), np.zeros(0, int))
SOME = as_labels([[0, 0, 1], [0, 0, 1], [1, 0, 2], [4, 1, 3], [5, 0, 3]], [0, 1, 2, 0, 3])


class Killed(Exception):
    pass


def lengths_of(pool, pairs):
    """l_e by hand."""

    def forms(pairs):
        features = np.asarray(pool.features, np.float64)
        p, i, j = np.asarray(pairs).T
        z = features[p, i] - features[p, j]
        return np.einsum("nd,de,ne->n", z, np.linalg.inv(jd.second_moment(pool)), z)

    every = forms(all_pairs_of(pool.num_prompts, pool.completions))
    return forms(pairs) / np.quantile(every, 0.5, method="inverted_cdf")


def labeller(pool, variance=0.0, truth=TRUTH, annotators=1, die_after=None):
    """Labels by a linear reward and a residual of each pair, which depend on the task and the annotator alone."""
    features, given = np.asarray(pool.features, np.float64), []

    def label(tasks):
        for task, length in zip(tasks, lengths_of(pool, [task.pair for task in tasks]), strict=True):
            p, i, j = task.pair
            rng = np.random.default_rng([p, i, j])
            margin = (features[p, i] - features[p, j]) @ truth + np.sqrt(variance * length) * rng.standard_normal()
            for annotator in range(annotators):
                if die_after is not None and len(given) >= die_after:
                    raise Killed
                given.append(task)
                choice = int(rng.random() > 1 / (1 + np.exp(-margin)))
                yield answered(task, choice, annotator=annotator)

    return label


def chosen(store, round):
    return np.array([task.pair for task in store.batch(round)])


# ---- plans and what they say


@pytest.mark.parametrize("residual", [None, 0, 2.0, np.float32(0.5), "cap", "pilot"])
def test_plans_take_a_variance_or_a_word(residual):
    found = RoundPlan((5,), prior=1.0, residual=residual).residual
    assert found == residual and (found is None or isinstance(found, float | str))
    json.dumps(found)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"residual": "caps"}, "residual='caps': expected a variance, 'cap', 'pilot' or None"),
        ({"residual": -1.0}, "residual=-1: must be finite and at least 0"),
        ({"residual": np.inf}, "residual=inf: must be finite"),
        ({"residual": "cap", "budget": jd.Budget(1)}, "per_pair=None: residual='cap' is shared by all labels"),
        ({"residual": 2.0, "budget": jd.Budget(1)}, "use per_pair=1, or residual=None"),
    ],
)
def test_plans_that_make_no_sense_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        RoundPlan((5,), prior=1.0, **given)
    RoundPlan((5,), prior=1.0, residual=0.0, budget=jd.Budget(1))


@pytest.mark.parametrize(
    "used",
    [
        ResidualUsed(None),
        ResidualUsed("cap"),
        ResidualUsed(2.5, 2.5, 0.7, (1.0, 6.0), True),
        ResidualUsed("cap", 3.0, np.inf, (0.0, np.inf), False),
    ],
)
def test_what_is_used_goes_through_json(used):
    found = from_summary(json.loads(json.dumps(used.summary(), allow_nan=False)))
    assert found == used


def test_shrinkage_is_that_of_the_median_pair():
    assert ResidualUsed(None).shrinkage == 1
    assert ResidualUsed(8 / np.pi * 3).shrinkage == pytest.approx(2)
    assert np.isnan(ResidualUsed("cap").shrinkage)


def test_two_residuals_are_refused(tmp_path):
    pool = jd.CompletionPool(POOL.features, residual=jd.residual_of(POOL, 1.0))
    with pytest.raises(ValueError, match=r"plan\.residual='cap': the pool has a residual already"):
        run_rounds(pool, labeller(pool), replace(PLAN, residual="cap"), LabelStore(tmp_path))


def test_draws_and_a_belief_of_the_residual_are_refused():
    pool = jd.CompletionPool(POOL.features, residual=jd.residual_of(POOL, 1.0, belief=np.eye(3)))
    with pytest.raises(ValueError, match=r"pool\.residual\.belief: draws of the posterior average over what"):
        next_batch(pool, jd.Budget(5, per_pair=1), NONE, 1.0, 1.0)


# ---- what labels leave


@pytest.mark.parametrize("variance", [0.0, 3.0, "cap"])
def test_information_is_what_the_residual_leaves_of_each_pair_once(variance):
    """Written out: pair (0, 0, 1) has two labels, one is a skip. Without a residual it is that of the fit."""
    pool = jd.CompletionPool(POOL.features, residual=jd.residual_of(POOL, variance))
    pairs, counts = np.array([[0, 0, 1], [1, 0, 2], [4, 1, 3]]), np.array([2.0, 1, 1])
    p, i, j = pairs.T
    z = np.asarray(POOL.features, np.float64)[p, i] - np.asarray(POOL.features, np.float64)[p, j]
    lengths = lengths_of(POOL, pairs)
    k = np.sqrt(1 + np.pi / 8 * (0 if variance == "cap" else variance) * lengths)
    chance = 1 / (1 + np.exp(-z @ TRUTH / k))
    c = chance * (1 - chance) / k**2 * (np.minimum(1, 1 / lengths) if variance == "cap" else 1)
    expected = 0.5 * np.eye(3) + (z * (c * (counts if variance == 0 else 1))[:, None]).T @ z
    found = information_left(pool, SOME, 0.5, TRUTH)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(information_left(pool, NONE, 0.5, TRUTH), 0.5 * np.eye(3))
    if variance == 0:
        posterior = fit_posterior(pool, SOME, 0.5)
        again = information_left(pool, SOME, 0.5, posterior.parameter)
        np.testing.assert_allclose(again, posterior.information, rtol=1e-5, atol=1e-6)


def test_a_pilot_of_skips_tells_nothing():
    skips = as_labels([[0, 0, 1], [1, 0, 2]], [3, 3])
    assert after_pilot(POOL, skips, 0.5) == ResidualUsed("cap", told=False)


# ---- stores


def stored(path, residual):
    """A store whose first round is there: nothing has to be designed."""
    store = LabelStore(path)
    tasks = make_tasks(0, np.array([[p, 0, 1] for p in range(12)] + [[0, 0, 2], [0, 0, 3], [1, 0, 2]]), np.ones(15))
    notes = notes_of(POOL, PLAN.totals, residual)
    store.write_batch(0, tasks, {name: value for name, value in notes.items() if value != "gone"})
    return store


@pytest.mark.parametrize(("begun", "now"), [(None, "cap"), ("cap", None), ("pilot", "cap"), (2.0, 2.5), (2.0, None)])
def test_a_store_of_another_residual_is_refused(tmp_path, begun, now):
    store = stored(tmp_path, begun)
    run_rounds(POOL, lambda tasks: [], replace(PLAN, residual=begun), store)
    with pytest.raises(ValueError, match=rf"plan\.residual={now!r}: .* was begun with {begun!r}"):
        run_rounds(POOL, lambda tasks: [], replace(PLAN, residual=now), store)


def test_a_store_from_before_there_were_residuals_has_none(tmp_path):
    store = stored(tmp_path, "gone")
    plain = replace(PLAN, residual=None)
    assert run_rounds(POOL, lambda tasks: [], plain, store).residual == ResidualUsed(None)
    with pytest.raises(ValueError, match=r"plan\.residual='cap'"):
        run_rounds(POOL, lambda tasks: [], replace(PLAN, residual="cap"), store)


def test_a_plan_that_says_nothing_counts_a_label_of_the_median_pair_half_and_draws_none_at_random():
    """1 / (4 + (pi / 2) v) at margin 0 is half of 1 / 4."""
    plan = RoundPlan((5,), prior=1.0)
    assert 1 / (4 + np.pi / 2 * plan.residual) == pytest.approx(1 / 8) and plan.floor == 0


def test_before_its_labels_are_there_a_pilot_is_capped(tmp_path):
    found = run_rounds(POOL, lambda tasks: [], replace(PLAN, residual="pilot"), stored(tmp_path, "pilot"))
    assert found.residual == ResidualUsed("cap") and found.gaps == ()
    assert json.loads(json.dumps(found.summary()))["residual"]["variance"] == "cap"


# ---- rounds


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Result and store of a plan in a world with a residual, each made once."""
    made = {}

    def of(residual):
        if residual not in made:
            store = LabelStore(tmp_path_factory.mktemp("rounds"))
            plan = replace(PLAN, residual=residual)
            made[residual] = run_rounds(POOL, labeller(POOL, 10.0), plan, store, seed=3), store
        return made[residual]

    return of


@pytest.mark.thorough
def test_rounds_with_a_residual_choose_shorter_pairs(run):
    """In the first round and in all; and of what they chose no more is said than the residual leaves.

    v is large beside the prior's 1 / 0.5: in one direction a longer pair never tells less, only hardly more.
    """
    kinds = None, 300.0, "cap"
    first, both = (
        [lengths_of(POOL, np.concatenate([chosen(run(kind)[1], round) for round in rounds])).mean() for kind in kinds]
        for rounds in ((0,), (0, 1))
    )
    assert max(first[1:]) < 0.8 * first[0] and max(both[1:]) < 0.95 * both[0]
    gaps = [run(kind)[0].gaps[-1] for kind in kinds]
    assert gaps[0] < min(gaps[1:])


@pytest.mark.thorough
def test_no_variance_is_the_plain_plan(run):
    plain, store = run(None)
    for variance in (0.0, 1e-12):
        found, other = run(variance)
        assert other.records() == store.records()
        np.testing.assert_allclose(found.gaps, plain.gaps, rtol=0 if variance == 0 else 1e-6)
        np.testing.assert_array_equal(found.posterior.parameter, plain.posterior.parameter)
        np.testing.assert_allclose(found.information, plain.information, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(plain.information, plain.posterior.information)


@pytest.mark.thorough
def test_designs_fits_and_gaps_are_written_out(run):
    """The second round by hand: draws of the plain fit, and what the residual leaves of held labels and new ones."""
    result, store = run("cap")
    pool = jd.CompletionPool(POOL.features, residual=jd.residual_of(POOL, "cap"))
    first, both = store.labels(0), store.labels()
    seed = int(np.random.SeedSequence([3, 1]).generate_state(3)[1])
    drawn = posterior_draws(fit_posterior(POOL, first, 0.5), 2, seed)
    held = 0.5 * np.eye(3) + jd.held_information(scored_pool(pool, drawn), np.asarray(first.pairs))
    budget = jd.Budget(12, per_pair=1, exclude=chosen(store, 0))
    target = jd.Trace(posterior_targets(POOL, drawn, 1.0))
    expected = jd.select_pairs(scored_pool(pool, drawn), target, budget, prior=held, seed=seed).pairs
    np.testing.assert_array_equal(np.unique(chosen(store, 1), axis=0), expected)
    plain = fit_posterior(POOL, both, 0.5)
    np.testing.assert_array_equal(result.posterior.parameter, plain.parameter)  # nothing is rescaled
    np.testing.assert_array_equal(result.posterior.information, plain.information)
    np.testing.assert_allclose(result.information, information_left(pool, both, 0.5, plain.parameter))
    H = posterior_targets(POOL, plain.parameter, 1.0)
    assert result.gaps[1] == pytest.approx(np.trace(H @ np.linalg.inv(result.information)) / 2)


@pytest.mark.thorough(cases=2)
@pytest.mark.parametrize("die_after", [7, 15, 20])
def test_a_killed_run_goes_on_with_the_pilots_word(run, tmp_path, die_after):
    whole, store = run("pilot")
    plan = replace(PLAN, residual="pilot")
    with pytest.raises(Killed):
        run_rounds(POOL, labeller(POOL, 10.0, die_after=die_after), plan, LabelStore(tmp_path), seed=3)
    found = run_rounds(POOL, labeller(POOL, 10.0), plan, LabelStore(tmp_path), seed=3)
    assert LabelStore(tmp_path).records() == store.records()
    assert found.residual == whole.residual and found.gaps == whole.gaps
    assert found.summary() == whole.summary()
    notes = store.notes(1)
    assert notes["residual"] == "pilot" and from_summary(notes["residual_used"]) == whole.residual
    assert store.notes(0)["residual_used"]["variance"] == "cap"
    assert whole.residual == after_pilot(POOL, store.labels(0), 0.5)
    assert not whole.residual.told and whole.residual.variance == "cap"  # fifteen labels of fifteen pairs do not tell


@pytest.mark.thorough
def test_a_finished_store_keeps_the_pilots_word_whatever_labels_come_later(run, tmp_path):
    """Another annotator answers tasks of the pilot after the second round was made: its design and gaps stay."""
    store = LabelStore(tmp_path)
    plan = replace(PLAN, residual="pilot")
    before = run_rounds(POOL, labeller(POOL, 10.0), plan, store, seed=3)
    for record in labeller(POOL, 10.0, annotators=2)(store.batch(0)):
        if record.annotator == 1:
            store.append(record)
    after = run_rounds(POOL, labeller(POOL), plan, store, seed=3)
    assert after.residual == before.residual
    assert after_pilot(POOL, store.labels(0), 0.5) != before.residual


WIDE = jd.CompletionPool(
    (np.exp(0.5 * RNG.standard_normal((60, 8, 1))) * RNG.standard_normal((60, 8, 4))).astype(np.float32)
)


@pytest.mark.slow
def test_pilots_with_repeats_tell_worlds_apart(tmp_path):
    """Three annotators: a large residual is found, and none in a linear world."""
    plan = RoundPlan((200, 60), prior=1.0, draws=2, floor=0.0, residual="pilot")
    found = {}
    for variance in (0.0, 20.0):
        store = LabelStore(tmp_path / f"{variance:g}")
        label = labeller(WIDE, variance, np.array([1.0, -1, 0.5, 0.2]), annotators=3)
        found[variance] = run_rounds(WIDE, label, plan, store, seed=1).residual
    for variance, used in found.items():
        assert used.told and used.interval[0] <= variance <= used.interval[1]
    assert found[20.0].variance == pytest.approx(20, rel=0.6) and found[0.0].variance < 0.5
