"""`jaxdesign forecast`: the figures of the library for the prior that its options mean, and mistakes in its words."""

import re

import numpy as np
import pytest

import jaxdesign as jd
from jaxdesign.cli.forecasting import prior_of
from jaxdesign.preference import proxy_worth
from tests.support.command import run
from tests.support.problems import random_pool

SHAPE = (10, 4, 3)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A small pool, scores of its completions, and files that are neither."""
    rng = np.random.default_rng(0)
    features = rng.standard_normal(SHAPE).astype(np.float32)
    scores = features[..., 0] + rng.standard_normal(SHAPE[:2])
    np.save(tmp_path / "features.npy", features)
    np.save(tmp_path / "proxy.npy", scores)
    np.save(tmp_path / "few.npy", scores[:3])
    np.save(tmp_path / "cube.npy", features)
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    np.savez(tmp_path / "several.npz", a=scores, b=scores)
    (tmp_path / "half.npz").write_bytes((tmp_path / "several.npz").read_bytes()[:200])
    scores[2, 1] = np.nan
    np.save(tmp_path / "gap.npy", scores)
    (tmp_path / "text.npy").write_text("no numbers")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("unit", [1.0, 1e-4, 300.0])
@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_the_prior_holds_rewards_to_have_the_spread_that_was_asked_for_in_any_unit(unit, spread):
    """E Var_p(phi . w) over w ~ N(0, Lambda^-1), by hand, a prompt counting as often as another."""
    pool = random_pool(0, scores="no")
    pool = jd.CompletionPool(unit * np.asarray(pool.features), mask=pool.mask)
    covariance = np.linalg.inv(prior_of(pool, np.asarray(jd.policy_target(pool), np.float64), spread))
    mask, features = np.asarray(pool.mask), np.asarray(pool.features, np.float64)
    held = [
        np.trace(np.cov(rows[own].T, bias=True) @ covariance)
        for rows, own in zip(features, mask, strict=True)
        if own.sum() > 1
    ]
    assert np.mean(held) == pytest.approx(spread**2, rel=1e-5)


def test_it_says_what_the_library_finds(files, capsys):
    options = ["--labels", 24, 12, 12, "--spread", 2, "--beta", 0.5, "--worth", 0.001, "--seed", 3]
    assert run("forecast", "features.npy", *options) == 0
    said, err = capsys.readouterr()
    pool, _ = jd.restrict_to_range(jd.CompletionPool(np.load("features.npy")))
    settings = {"prior": prior_of(pool, np.asarray(jd.policy_target(pool), np.float64), 2.0), "beta": 0.5, "seed": 3}
    found = jd.forecast(pool, jd.Budget(1, per_pair=1), [12, 24], **settings)
    assert said.startswith("for rewards of standard deviation 2 (--spread) within a prompt")
    assert said.endswith(found.summary(0.001) + "\n")
    assert [line for line in err.splitlines() if line.startswith("forecasting: ") and "compiling" not in line] == [
        "forecasting: 12 labels",
        "forecasting: 24 labels",
    ]
    assert {path.suffix for path in files.iterdir()} == {".npy", ".npz"}  # nothing was written


@pytest.mark.thorough
def test_completions_and_a_proxy_where_asked(files, capsys):
    assert run("forecast", "features.npy", "--labels", 12, "--by-completions", "--proxy", "proxy.npy") == 0
    said = capsys.readouterr().out
    pool, _ = jd.restrict_to_range(jd.CompletionPool(np.load("features.npy")))
    given = {"prior": prior_of(pool, np.asarray(jd.policy_target(pool), np.float64), 1.0), "beta": 1.0, "seed": 0}
    budget = jd.Budget(1, per_pair=1)
    assert jd.forecast_by_completions(pool, budget, [12], **given).summary() in said
    assert proxy_worth(pool, np.load("proxy.npy"), budget, [12], **given).summary() in said


def test_flat_features_are_told(files, capsys):
    features = np.load("features.npy")
    np.save("flat.npy", np.concatenate([features, features[..., :1]], axis=-1))
    assert run("forecast", "flat.npy", "--labels", 12) == 0
    assert capsys.readouterr().out.startswith("features: rank 3 of 4; worked in the 3 dimensions they span\n")


MISTAKES = {
    "no such pool": (["nowhere.npy", "--labels", 5], "nowhere.npy: does not exist"),
    "more labels than pairs": (["features.npy", "--labels", 5, 61], "--labels 61: the caps allow at most 60 labels"),
    "no such proxy": (["features.npy", "--labels", 5, "--proxy", "no.npy"], "--proxy: no.npy does not exist"),
    "a proxy of text": (["features.npy", "--labels", 5, "--proxy", "text.npy"], "--proxy: text.npy is no NumPy file"),
    "half an archive": (["features.npy", "--labels", 5, "--proxy", "half.npz"], "--proxy: half.npz is no NumPy file"),
    "a proxy of words": (["features.npy", "--labels", 5, "--proxy", "words.npy"], "words.npy holds <U1 (1, 1); expect"),
    "features for a proxy": (
        ["features.npy", "--labels", 5, "--proxy", "cube.npy"],
        "cube.npy holds float32 (10, 4, 3); expected one array of numbers",
    ),
    "several arrays": (["features.npy", "--labels", 5, "--proxy", "several.npz"], "several.npz holds an archive"),
    "another pool's proxy": (
        ["features.npy", "--labels", 5, "--proxy", "few.npy"],
        "--proxy: shape (3, 4) found; expected (10, 4) (prompts, completions), one score each",
    ),
    "a proxy with NaN": (
        ["features.npy", "--labels", 5, "--proxy", "gap.npy"],
        "--proxy: nan at prompt 2, completion 1",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_in_one_line(files, capsys, name):
    arguments, text = MISTAKES[name]
    assert run("forecast", *arguments) == 2
    out, err = capsys.readouterr()
    last = err.splitlines()[-1]
    assert out == "" and last.startswith("jaxdesign: error: ") and text in last
    assert not re.search(r"prior|budget|total\b|per_pair", last)


@pytest.mark.parametrize("spread", ["0", "nan", "1e4", "wide"])
def test_a_spread_that_means_nothing_is_refused(capsys, spread):
    with pytest.raises(SystemExit) as left:
        run("forecast", "--labels", 5, "--spread", spread)
    assert left.value.code == 2
    assert f"argument --spread: '{spread}' found; must be a number, at least 0.001" in capsys.readouterr().err
