"""The README does what it says: its code runs and prints what is printed there, its numbers are the measured ones."""

import itertools
import json
import re

import pytest

from tests.support import CHECKOUT
from tests.support.command import run

README = CHECKOUT / "README.md"
CI = CHECKOUT / ".ci" / "run"
RESULTS = CHECKOUT / "bench" / "results"

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(not README.exists(), reason="README.md is not beside tests/: not a checkout"),
]


def blocks():
    """(language, text) of every fenced block in order."""
    found, language = [], None
    for line in README.read_text(encoding="utf-8").splitlines():
        if line.startswith("```") and language is None:
            language, text = line[3:], []
        elif line.startswith("```"):
            found.append((language, "\n".join(text)))
            language = None
        elif language is not None:
            text.append(line)
    return found


def printed_after(language):
    """(code, what the README says it prints) of the blocks in a language."""
    every = blocks()
    following = [pair for pair in itertools.pairwise(every) if pair[0][0] == language and pair[1][0] == "text"]
    return [(code, said) for (_, code), (_, said) in following]


def words_and_numbers(text):
    return re.sub(r"\d+\.\d+", "#", text), [float(number) for number in re.findall(r"\d+\.\d+", text)]


def check_same(found, said):
    """The same words and whole numbers; others to 0.01, as processors round differently."""
    (words, numbers), (other_words, other_numbers) = words_and_numbers(found.strip()), words_and_numbers(said.strip())
    assert words == other_words
    assert numbers == pytest.approx(other_numbers, abs=0.01)


def test_its_python_prints_what_it_says(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    every, names = printed_after("python"), {}
    assert len(every) == sum(language == "python" for language, _ in blocks()) == 2
    for code, said in every:
        exec(compile(code, "README.md", "exec"), names)
        check_same(capsys.readouterr().out, said)


@pytest.mark.slow  # compiles for the size of that pool; CI runs the same command
def test_its_command_prints_what_it_says(capsys, tmp_path, monkeypatch):
    ((commands, said),) = printed_after("")
    arguments = commands.split("&& jaxdesign ")[1].split()
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 0
    check_same(capsys.readouterr().out, said)


def test_its_commands_are_those_of_ci():
    if not CI.exists():
        pytest.skip("no .ci/run in this checkout")
    script = CI.read_text(encoding="utf-8")
    plain = [text.strip() for language, text in blocks() if not language]
    first, last = plain[0], plain[-1]
    assert first.startswith("pip install . && jaxdesign select --labels ")
    assert last == "pip install '.[test]' && pytest -n auto"
    assert (
        "'.[test]'" in script
        and "jaxdesign select --labels" in script
        and re.search(r"^pytest -n auto$", script, re.MULTILINE)
    )


def test_its_numbers_are_measured_ones():
    text = " ".join(README.read_text(encoding="utf-8").split())
    real, whole, gpu = (
        json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("real-pools", "cpu-2-cores-selection", "gpu-h200-few-rows")
    )
    found = real["cases"]["well_specified"]["free"]["two_rounds_unit"]["labels_saved"].values()
    saved = [value for value, *_ in found]
    assert f"random pairs need {min(saved):.1f} to {max(saved):.1f} times the labels of two rounds" in text
    judged = [real["cases"][case]["free"]["two_rounds_capped"]["ratio"].values() for case in ("judge_1", "judge_4")]
    ratios = [row for rows in judged for row in rows]
    assert f"leave {min(r[0] for r in ratios):.2f} to {max(r[0] for r in ratios):.2f} of random pairs' gap" in text
    assert all(high < 1 for _, _, high in ratios)
    model = json.loads((RESULTS / "transformer.json").read_text(encoding="utf-8"))["summary"]
    limits = {(row["arm"], row["labels"]): row.get("interval") for row in model}
    assert (
        "small transformer capped designs gain, plain ones lose at 400 labels" in text and limits["trace", 400][1] < 0
    )
    assert all(limits["trace_capped", number][0] > 0 for number in (100, 200, 400))
    worst = min(row["efficiency"] for row in whole["batches"]["rows"].values())
    assert f"on a real pool falls to {worst:.2f}" in text
    rows = json.loads((RESULTS / "llama-dpo.json").read_text(encoding="utf-8"))["rows"]
    trained = {(row["reward"], row["arm"], row["labels"]): row for row in rows}
    design = {
        name: trained[name, "trace_gradients", 100]["capped_difference"] for name in ("word_length", "first_person")
    }
    told = [f"+{one['mean']:.3f} [{one['low']:.3f}, {one['high']:.3f}]" for one in design.values()]
    assert f"gained {told[0]} J over 100 random pairs on one reward, {told[1]} on another" in text
    assert all(trained["sentiment", "trace_gradients", n]["capped_difference"]["low"] < 0 for n in (100, 200))
    assert abs(trained["sentiment", "random_distinct", 200]["gains"]["mean"]) < 0.005
    proxy = [row["capped_difference"] for row in rows if (row["arm"], row["labels"]) == ("random_proxy", 100)]
    gained = [row["mean"] for row in proxy]
    assert len(proxy) == 3 and min(row["low"] for row in proxy) > 0
    assert f"gained +{min(gained):.3f} to +{max(gained):.3f} J with the same 100 random pairs of a real model" in text
    (both,) = [row for row in model if (row["arm"], row["labels"]) == ("two_rounds_proxy", 100)]
    low, high = both["interval"]
    assert f"with two rounds +{both['difference']:.3f} [{low:.3f}, {high:.3f}] in a small transformer" in text
    (largest,) = [row for row in gpu["rows"] if row["section"] == "optimize" and row["name"].startswith("201600")]
    assert "10^8 take two seconds on one H200" in text
    assert 1.5 < largest["seconds"]["median"] < 2.5


def test_it_is_one_page():
    prose = re.sub(r"^```.*?^```", "", README.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert len(prose.split()) <= 750
