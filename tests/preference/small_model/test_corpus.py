"""The generated corpus and the hidden reward."""

import numpy as np
import pytest

from jaxdesign.preference.simulation.hidden_reward import HiddenReward, random_reward
from jaxdesign.preference.small_model.corpus import ALPHABET, SHARES, grammar_corpus
from jaxdesign.preference.small_model.tokens import Tokeniser

pytestmark = pytest.mark.slow


def test_seeds_decide_everything():
    one, again, other = (grammar_corpus(50, seed=seed) for seed in (0, 0, 1))
    assert one.prompts == again.prompts and one.prompts != other.prompts
    assert one.draw(range(50), seed=3) == again.draw(range(50), seed=3)
    assert one.draw(range(50), seed=3) != one.draw(range(50), seed=4)


def test_equal_prompts_have_equal_laws():
    corpus = grammar_corpus(2_000, seed=2)
    laws = {}
    for prompt, own in zip(corpus.prompts, corpus.laws, strict=True):
        for law, known in zip(own, laws.setdefault(prompt, own), strict=True):
            assert law.words == known.words
            np.testing.assert_array_equal(law.probabilities, known.probabilities)
    assert len(laws) < 2_000


def test_frequencies_and_entropies_are_those_of_the_laws():
    corpus = grammar_corpus(20, seed=0, shares={"ode": 1.0})
    texts = corpus.draw([0] * 4_000, seed=1)
    law = {"": 1.0}
    for place in corpus.laws[0]:
        words = list(zip(place.words, place.probabilities, strict=True))
        law = {text + word: p * q for text, p in law.items() for word, q in words}
    assert len(law) == np.prod([len(place.words) for place in corpus.laws[0]])  # every text has one reading
    expected = -np.array([np.log(law[text]) for text in texts])
    assert corpus.entropies()[0] == pytest.approx(expected.mean(), abs=4 * expected.std() / 4_000**0.5)
    common = max(law, key=law.get)
    assert texts.count(common) / 4_000 == pytest.approx(law[common], abs=4 * (law[common] / 4_000) ** 0.5)


def test_prompts_differ_in_how_much_their_answers_vary():
    corpus = grammar_corpus(500, seed=0)
    entropies = {kind: corpus.entropies()[corpus.rows_of([kind])] for kind in SHARES}
    assert entropies["name"].max() < 0.3 and entropies["hue"].max() < 1
    assert entropies["tale"].min() > 2.5 and entropies["ode"].min() > 4


def test_texts_fit_forty_tokens():
    corpus = grammar_corpus(500, seed=3)
    tokeniser = Tokeniser(ALPHABET)
    tokeniser.encode_prompts(corpus.prompts, 11)
    assert tokeniser.encode_completions(corpus.draw(range(500), seed=0), 27).shape == (500, 27)


def test_rewards_add_up():
    reward = HiddenReward({"fox": 1.0, "red": 0.5, "!": -0.25}, best_length=10, length_cost=2.0)
    texts = np.array([["red fox!", "a dog."], ["foxred!", ""]], dtype=object)
    expected = [[1.25 - 2 * 0.2, -2 * 0.4], [-0.25 - 2 * 0.3, -2.0]]
    np.testing.assert_allclose(reward(texts), expected)


def test_rewards_vary_with_words_length_and_style():
    reward = random_reward(0, scale=2.0)
    texts = [
        "shy fox runs.",
        "old fox runs.",
        "shy fox naps.",
        "shy fox runs!",
        "oh, shy fox runs.",
        "shy fox runs soon.",
    ]
    assert len(np.unique(reward(np.array(texts, dtype=object)))) == 6
    assert 1 < np.std(list(reward.values.values())) < 3
    assert random_reward(0).values != random_reward(1).values


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"shares: \['poem'\] found; kinds are name"):
        grammar_corpus(3, shares={"poem": 1.0})
    with pytest.raises(ValueError, match="shares=0: must be positive"):
        grammar_corpus(3, shares={"ode": 0.0})
    with pytest.raises(ValueError, match="prompts=0: must be at least 1"):
        grammar_corpus(0)
    with pytest.raises(ValueError, match="scale=-1: must be positive"):
        random_reward(0, scale=-1)
