"""Training of the transformer policy: imitation of a corpus, labelled pairs, what is compiled and what stays."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxdesign.preference.labels.labels import as_labels
from jaxdesign.preference.losses import conservative_dpo_loss, dpo_loss
from jaxdesign.preference.small_model.corpus import Corpus, Law
from jaxdesign.preference.small_model.dpo_training import compiled_log_probability, preferred_pairs, train_on_pairs
from jaxdesign.preference.small_model.fine_tuning import Examples, fine_tune, fine_tuning_optimiser
from jaxdesign.preference.small_model.training import ProgressBar, batch_rows, train
from tests.support.small_policy import tiny_model

pytestmark = pytest.mark.slow

MODEL, TOKENISER = tiny_model("ab", seed=1)
PROMPTS = TOKENISER.encode_prompts(["a", "bb", "ab", "b"], 4)
COMPLETIONS = np.stack([TOKENISER.encode_completions(row, 5) for row in (["a", "ab", ""], ["b", "ba", "aa"])] * 2)
# completions that begin with a are preferred
LABELS = as_labels([[0, 0, 2], [1, 0, 2], [1, 1, 2], [2, 1, 2], [3, 0, 2]], [0, 1, 1, 0, 1])
PAIRS = preferred_pairs(PROMPTS, COMPLETIONS, LABELS)

PROMOTION = "standard"  # optax raises floats to whole powers


def arrays_of(model):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model))]


# ---- imitation


def every_text(laws):
    """All completions of laws, with their probabilities."""
    for choice in itertools.product(*(zip(law.words, law.probabilities, strict=True) for law in laws)):
        yield "".join(word for word, _ in choice), float(np.prod([p for _, p in choice]))


@pytest.mark.slow
def test_imitation_reaches_the_entropy_of_the_corpus():
    """Expected -log pi, exactly by enumeration: never below the entropy, and after training close to it."""
    first = Law(("a", "b"), np.array([0.8, 0.2]))
    corpus = Corpus(("a", "b"), ("x", "y"), ((first, Law(("", "a"), np.array([0.5, 0.5]))), (first, first)))
    prompts = TOKENISER.encode_prompts(corpus.prompts, 2)
    rows = np.arange(2).repeat(400)
    examples = Examples(prompts[rows], TOKENISER.encode_completions(corpus.draw(rows, seed=0), 4))
    model = tiny_model("ab", sharpness=1.0)[0]
    trained = fine_tune(model, examples, steps=150, batch_size=32, optimiser=fine_tuning_optimiser(1e-2, 150))
    assert trained.losses.shape == (150,) and np.isfinite(trained.losses).all()

    def excess(model):
        """Mean over prompts of KL(corpus || policy), nats."""
        laws = [list(every_text(laws)) for laws in corpus.laws]
        texts, law = zip(*itertools.chain(*laws), strict=True)
        which = np.arange(2).repeat([len(each) for each in laws])
        found = compiled_log_probability(model, prompts[which], TOKENISER.encode_completions(texts, 4))
        return -np.asarray(law) @ np.asarray(found, np.float64) / 2 - corpus.entropies().mean()

    assert excess(model) > 0.5
    assert 0 <= excess(trained.model) < 0.03
    assert trained.losses[-30:].mean() == pytest.approx(corpus.entropies().mean(), abs=0.1)


# ---- labelled pairs


def test_labels_become_pairs():
    labels = as_labels([[0, 0, 1], [1, 0, 2], [2, 1, 2], [3, 0, 1]], [0, 1, 2, 3])  # first, second, tie, skip
    pairs = preferred_pairs(PROMPTS, COMPLETIONS, labels)
    assert pairs.weights.tolist() == [1, 1, 0.5, 0.5]
    expected = [(0, 0, 1), (1, 2, 0), (2, 1, 2), (2, 2, 1)]  # prompt, preferred, rejected
    for k, (p, preferred, rejected) in enumerate(expected):
        np.testing.assert_array_equal(pairs.prompts[k], PROMPTS[p])
        np.testing.assert_array_equal(pairs.chosen[k], COMPLETIONS[p, preferred])
        np.testing.assert_array_equal(pairs.rejected[k], COMPLETIONS[p, rejected])


def test_labels_of_another_pool_are_refused():
    for pair in ([4, 0, 1], [0, 0, 3]):
        with pytest.raises(ValueError, match=r"labels\.pairs: .* found for 4 prompts"):
            preferred_pairs(PROMPTS, COMPLETIONS, as_labels([pair], [0]))


def margins(model):
    gap = [compiled_log_probability(model, PAIRS.prompts, each) for each in (PAIRS.chosen, PAIRS.rejected)]
    return np.asarray(gap[0] - gap[1])


@pytest.mark.slow
def test_training_raises_the_margins_of_preferred_completions():
    trained = train_on_pairs(MODEL, PAIRS, dpo_loss, {"beta": 0.5}, optimiser=optax.adam(3e-3), steps=30, batch_size=5)
    gained = 0.5 * (margins(trained.model) - margins(MODEL))
    assert trained.losses[0] == pytest.approx(np.log(2), abs=1e-5)  # the policy is the reference: every margin is 0
    assert (gained > 0.1).all()
    after = train_on_pairs(
        MODEL, PAIRS, dpo_loss, {"beta": 0.5}, optimiser=optax.sgd(0.0), steps=1, batch_size=5, start=trained.model
    )
    assert after.losses[0] == pytest.approx(np.mean(np.log1p(np.exp(-gained))), rel=1e-4)


def test_a_step_is_compiled_once():
    """Whatever the number of steps, the labels, the loss's parameters and the policy started from."""
    traces = []

    def counted_loss(*arrays, beta):
        if isinstance(beta, jax.core.Tracer):  # the check of parameters before training is not compiled
            traces.append(beta)
        return dpo_loss(*arrays, beta=beta)

    optimiser = optax.adam(1e-3)
    options = {"optimiser": optimiser, "batch_size": 3}
    first = train_on_pairs(MODEL, PAIRS, counted_loss, {"beta": 0.5}, steps=12, **options)
    assert len(traces) == 1
    others = PAIRS._replace(chosen=PAIRS.rejected, rejected=PAIRS.chosen)
    train_on_pairs(MODEL, others, counted_loss, {"beta": 2.0}, steps=5, seed=3, start=first.model, **options)
    assert len(traces) == 1
    assert fine_tuning_optimiser(1e-2, 150) is fine_tuning_optimiser(1e-2, 150)  # or `fine_tune` would compile anew


def test_weights_and_options_belong_to_pairs():
    """A pair of weight 0 counts as absent; options may differ by pair."""
    options = {"optimiser": optax.sgd(0.1), "steps": 3, "batch_size": 5}
    flip = np.array([0.0, 0.1, 0.2, 0.3, 0.4], np.float32)
    weights = np.array([1, 0, 2, 0, 1], np.float32)
    trained = train_on_pairs(
        MODEL, PAIRS._replace(weights=weights), conservative_dpo_loss, {"beta": 0.5, "flip": flip}, **options
    )
    swapped = PAIRS.chosen.copy()
    swapped[[1, 3]] = PAIRS.rejected[[1, 3]]  # what stands in a pair of weight 0 does not matter
    again = train_on_pairs(
        MODEL,
        PAIRS._replace(weights=weights, chosen=swapped),
        conservative_dpo_loss,
        {"beta": 0.5, "flip": flip},
        **options,
    )
    np.testing.assert_allclose(again.losses, trained.losses, rtol=1e-6)
    for left, right in zip(arrays_of(trained.model), arrays_of(again.model), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6)
    assert trained.losses[0] == pytest.approx(weights.mean() * np.log(2), abs=1e-5)
    other = train_on_pairs(MODEL, PAIRS, conservative_dpo_loss, {"beta": 0.5, "flip": 0.2}, **options)
    assert abs(other.losses[-1] - trained.losses[-1]) > 1e-4


@pytest.mark.slow
def test_named_parameters_are_trained_and_the_others_stay():
    trained = train_on_pairs(
        MODEL,
        PAIRS,
        dpo_loss,
        {"beta": 0.5},
        optimiser=optax.adam(1e-2),
        steps=3,
        batch_size=5,
        trainable=["head/*", "blocks/1/attention/*"],
    )
    before, after = nnx.to_flat_state(nnx.state(MODEL)), dict(nnx.to_flat_state(nnx.state(trained.model)))
    for path, variable in before:
        changed = bool((variable[...] != after[path][...]).any())
        assert changed == (path[0] == "head" or path[:3] == ("blocks", 1, "attention")), path


def test_the_model_passed_stays_as_it_is():
    before = arrays_of(MODEL)
    train_on_pairs(MODEL, PAIRS, dpo_loss, {"beta": 0.5}, optimiser=optax.sgd(1.0), steps=2, batch_size=5)
    for left, right in zip(before, arrays_of(MODEL), strict=True):
        np.testing.assert_array_equal(left, right)


# ---- the loop


def test_every_example_comes_equally_often():
    rows = batch_rows(7, 4, 9, seed=0)
    assert rows.shape == (9, 4)
    assert set(np.bincount(rows.reshape(-1)).tolist()) <= {5, 6}
    assert sorted(rows.reshape(-1)[:7]) == list(range(7))
    assert (rows == batch_rows(7, 4, 9, seed=0)).all() and (rows != batch_rows(7, 4, 9, seed=1)).any()


def mean_square(model, batch):
    return jnp.mean((model.head.kernel.sum() - batch) ** 2)


def test_callbacks_see_every_step_and_may_stop(capsys):
    seen = []

    def callback(step, loss):
        seen.append((step, loss))
        return step == 4

    data = np.arange(6, dtype=np.float32)
    trained = train(MODEL, data, mean_square, optax.sgd(1e-3), steps=20, batch_size=2, callback=callback)
    assert [step for step, _ in seen] == [1, 2, 3, 4]
    np.testing.assert_allclose(trained.losses, [loss for _, loss in seen], rtol=1e-6)
    with ProgressBar(3, "imitating") as bar:
        train(MODEL, data, mean_square, optax.sgd(1e-3), steps=3, batch_size=2, callback=bar)
    shown = capsys.readouterr().err
    assert "imitating" in shown and "3/3" in shown and "loss=" in shown


def test_training_goes_on_where_it_stopped():
    """In the order of examples too: two parts of a pass see what one pass sees."""
    data, optimiser, seen = np.arange(7, dtype=np.float32), optax.adam(1e-2), []
    whole = train(MODEL, data, mean_square, optimiser, steps=6, batch_size=2)
    half = train(MODEL, data, mean_square, optimiser, steps=3, batch_size=2)
    rest = train(
        half.model,
        data,
        mean_square,
        optimiser,
        steps=3,
        batch_size=2,
        optimiser_state=half.optimiser_state,
        first_step=3,
        callback=lambda step, loss: seen.append(step),
    )
    np.testing.assert_array_equal(np.concatenate([half.losses, rest.losses]), whole.losses)
    assert seen == [4, 5, 6]


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"steps": 0}, ValueError, "steps=0: must be at least 1"),
        ({"batch_size": 0}, ValueError, "batch_size=0: must be at least 1"),
        ({"trainable": ["tail/*"]}, ValueError, "trainable: .* matches no parameter"),
        ({"trainable": ["head/*", "haed/*"]}, ValueError, "trainable: 'haed/.' matches no parameter"),
        ({"trainable": []}, ValueError, "trainable: no pattern"),
        ({"first_step": -1}, ValueError, "first_step=-1"),
        ({"trainable": "head/*"}, TypeError, "must be a list of patterns, not a string"),
        ({"objective": [mean_square]}, TypeError, "objective: list cannot be hashed"),
        ({"data": (np.ones(2), np.ones(3))}, ValueError, r"data: arrays of \[2, 3\] rows"),
    ],
)
def test_bad_input_is_named(change, error, words):
    given = {"data": np.ones(2), "objective": mean_square, "steps": 1, "batch_size": 1} | change
    with pytest.raises(error, match=words):
        train(MODEL, given.pop("data"), given.pop("objective"), optax.sgd(0.1), **given)


@pytest.mark.parametrize(
    ("pairs", "options", "words"),
    [
        (PAIRS, {"beta": -0.1}, "beta=-0.1: must be above 0"),
        (preferred_pairs(PROMPTS, COMPLETIONS, as_labels([[0, 0, 2]], [3])), {"beta": 0.1}, "pairs: none found"),
    ],
)
def test_training_on_pairs_names_what_is_wrong_before_it_starts(pairs, options, words):
    """Inside the compiled step the loss could not look at its parameters."""
    with pytest.raises(ValueError, match=words):
        train_on_pairs(MODEL, pairs, dpo_loss, options, optimiser=optax.sgd(0.1), steps=1)
