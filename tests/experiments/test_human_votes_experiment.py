"""The experiment on votes of people: votes turned with their pairs, judged prompt by prompt, arms that ask for them."""

import numpy as np
import pytest

from bench.experiments import human_votes
from jaxdesign.preference.labels.labels import FIRST, SECOND, TIE

pytestmark = pytest.mark.thorough


def test_votes_are_judged_prompt_by_prompt():
    """Two prompts; the second's pair is of rows in another order. Scores that follow every vote lose less."""
    features = np.array([[[1.0], [0.0]], [[0.0], [2.0]]])
    choices = np.array([[FIRST, FIRST, TIE], [SECOND, SECOND, SECOND]], np.int8)
    votes = human_votes.Votes(features, np.ones((2, 2), bool), np.array([[0, 0, 1], [1, 0, 1]]), choices)
    found = human_votes.judged(np.ones(1), votes, (0.0, 1.0))
    up = np.log1p(np.exp(-1.0))
    np.testing.assert_allclose(found.losses[0], 3 * np.log(2))
    np.testing.assert_allclose(found.losses[1], [2 * up + (up + np.log1p(np.e)) / 2, 3 * np.log1p(np.exp(-2.0))])
    assert found.votes.tolist() == [3, 3] and found.decided.tolist() == [1, 1]
    assert found.right.tolist() == [[0.5, 0.5], [1, 1]]
    part = human_votes.of_prompts(votes, np.array([1]))
    assert part.pairs.tolist() == [[0, 0, 1]] and (part.choices == SECOND).all()


def test_pairs_without_votes_and_pairs_of_equal_features_are_closed():
    features = np.array([[[0.0], [1.0], [2.0], [0.0]]])
    votes = human_votes.Votes(
        features, np.ones((1, 4), bool), np.array([[0, 0, 2], [0, 0, 3]]), np.zeros((2, 3), np.int8)
    )
    assert human_votes.closed_pairs(votes).tolist() == [[0, 0, 1], [0, 0, 3], [0, 1, 2], [0, 1, 3], [0, 2, 3]]


def test_votes_on_human_pairs_are_read_the_right_way_round(tmp_path, monkeypatch):
    """Rows 3 and 1 are of one prompt: the pair (3, 1) is stored as (1, 3), and its votes change sides."""
    folder = tmp_path / "pandalm"
    folder.mkdir()
    np.save(folder / "features.npy", np.arange(4.0)[:, None].astype(np.float16))
    np.save(folder / "prompt_index.npy", np.array([7, 9, 7, 9]))
    np.save(folder / "pairs.npy", np.array([[0, 2], [3, 1]]))
    np.save(folder / "votes.npy", np.array([[1, 2, 0], [1, 1, 0]], np.int8))
    monkeypatch.setenv("JAXDESIGN_DATA", str(tmp_path))
    votes = human_votes.load()
    assert votes.features[..., 0].tolist() == [[0, 2], [1, 3]] and votes.pairs.tolist() == [[0, 0, 1], [1, 0, 1]]
    assert votes.choices.tolist() == [[FIRST, SECOND, TIE], [SECOND, SECOND, TIE]]


def some_votes():
    """Votes that follow one feature, but for one in five."""
    rng = np.random.default_rng(1)
    features = rng.standard_normal((20, 3, 4))
    pairs = np.array([(p, i, j) for p in range(20) for i, j in ((0, 1), (0, 2), (1, 2)) if (p + i + j) % 4])
    margin = features[pairs[:, 0], pairs[:, 1], 0] - features[pairs[:, 0], pairs[:, 2], 0]
    follows = rng.random((len(pairs), 3)) < 0.8
    choices = np.where((margin > 0)[:, None] == follows, FIRST, SECOND).astype(np.int8)
    return human_votes.Votes(features, np.ones((20, 3), bool), pairs, choices)


def test_a_second_vote_is_somebody_elses():
    poll = human_votes.make_poll(some_votes(), 3, 0)
    pairs = poll.votes.pairs[::-1]
    people = [poll.ask(pairs, time) for time in range(3)]
    np.testing.assert_array_equal(np.sort(np.stack(people, axis=1)), np.sort(poll.votes.choices[::-1]))
    assert (people[0] != people[1]).any()


@pytest.mark.slow
def test_human_votes_of_chosen_pairs_are_fitted_and_judged(monkeypatch, tmp_path):
    monkeypatch.setattr(human_votes, "load", some_votes)
    arguments = ["--seeds", "2", "--tuning-seeds", "1", "--components", "3", "--labels", "12"]
    arms = ["random_distinct", "trace", "two_rounds_capped", "two_rounds_pilot"]
    results = human_votes.main([*arguments, "--arms", *arms, "--plot", str(tmp_path / "votes.png")])
    table = {line["arm"]: line for line in results["table"]}
    assert set(table) == {*arms, "every_vote"} and table["random_distinct"]["difference"] == (0, 0, 0)
    assert table["every_vote"]["loss"] < min(np.log(2), table["random_distinct"]["loss"])
    assert table["every_vote"]["accuracy"] > 0.6 and (tmp_path / "votes.png").stat().st_size > 5_000
