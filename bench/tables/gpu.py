"""Tables of `python -m bench.gpu`: what limits the package on a GPU."""

from __future__ import annotations

from typing import Any

from bench.tables.markdown import digits, hardware, milliseconds, percent, share, table
from bench.tables.speed import DESIGNS

FIRST, AFTER, LAST = "gpu-h200", "gpu-h200-backend-chunks", "gpu-h200-few-rows"
PHASES = {  # of a whole problem, in the order they come in
    "price": ("price",),
    "lists": ("reaching pairs", "best pairs"),
    "restricted": ("hot start", "gradients", "newton"),
    "float64": ("source", "even information", "rank", "analyse", "exact sensitivities", "information"),
}


def section(results: dict[str, dict[str, Any]]) -> list[str]:
    """Paragraphs and tables; results by file name."""
    return [
        "## One GPU",
        "`python -m bench.gpu --output FILE`, nine minutes. "
        f"[`{FIRST}`](results/{FIRST}.json) was measured with chunks of 2^19 entries, sized for a CPU's cache; "
        f"[`{AFTER}`](results/{AFTER}.json) after chunks were sized for the backend (2^24 on a GPU). Measurements that "
        "did not fit the time left of the first run were made in the second. "
        f"[`{LAST}`](results/{LAST}.json), one more run, after only those rows of a pass's result are moved to "
        "the host that list a pair.",
        *_products(results[FIRST]),
        *_passes(results[FIRST]),
        *_precision(results[FIRST]),
        *_problems({name: results[name] for name in (FIRST, AFTER, LAST)}, results[DESIGNS]),
        *_batches(results[AFTER]),
        *_host(results[FIRST], results[AFTER], results[LAST]),
        *_algebra(results[FIRST]),
    ]


def _rows(found: dict[str, Any], part: str) -> list[dict[str, Any]]:
    return [row for row in found["rows"] if row["section"] == part and row["status"] == "measured"]


def _products(found: dict[str, Any]) -> list[str]:
    rows = [
        [r["name"], milliseconds(r["seconds"]["product"]["median"]), digits(r["tflops"])]
        for r in _rows(found, "matmul")
    ]
    rate = {row["name"]: row["tflops"] for row in _rows(found, "matmul")}
    times = rate["float32, high, 8192 cubed"] / rate["float32, highest, 8192 cubed"]
    return [
        "### Matrix products",
        table(["product", "milliseconds", "TFLOP/s"], rows),
        hardware(found["machine"], FIRST),
        "The package states full float32 products (`highest`) everywhere. `high` and `default` have "
        f"{digits(times)} times the rate of `highest` here; the table after the next says what they would cost.",
    ]


def _passes(found: dict[str, Any]) -> list[str]:
    rows, gains = [], []
    by_shape: dict[str, dict[int, dict]] = {}
    for row in _rows(found, "pass"):
        shape, entries = row["name"].removesuffix(" entries").split(", chunks of ")
        by_shape.setdefault(shape, {})[int(entries)] = row
    for shape, chunks in by_shape.items():
        price = {entries: row["seconds"]["price"]["median"] for entries, row in chunks.items()}
        gains.append(price[2**19] / price[2**24])
        for entries, row in chunks.items():
            times = {key: milliseconds(value["median"]) for key, value in row["seconds"].items()}
            cells = [shape, f"2^{entries.bit_length() - 1}", times["price"], digits(row["tflops"])]
            rows.append([*cells, f"{row['pairs_per_second'] / 1e9:.2f}", times["even information"], times["source"]])
    head = ["pool", "entries a chunk", "price, ms", "TFLOP/s", "10^9 pairs/s", "even information, ms", "source, ms"]
    return [
        "### A pass by length of its chunks",
        table(head, rows),
        hardware(found["machine"], FIRST),
        f"A pass is {digits(min(gains))} to {digits(max(gains))} times as fast with chunks of 2^24 entries as with the "
        "CPU's 2^19; four times longer ones win little more.",
    ]


def _precision(found: dict[str, Any]) -> list[str]:
    rows, cases = [], _rows(found, "precision")
    usual = milliseconds(cases[0]["usual"]["seconds"]["price"]["median"])
    rows.append(["highest", usual, "", ""])
    for row in cases:
        error, over = f"{row['relative_error']:.0e}", digits(row["error_over_bound"])
        rows.append([row["name"], milliseconds(row["seconds"]["price"]["median"]), error, over])
    return [
        "### What lower precision would cost",
        table(["products", "price, ms", "relative error of the top 1%", "error / bound on rounding"], rows),
        hardware(found["machine"], FIRST),
        "Both lower ones are TF32. Certificates rest on a bound on the rounding of a pass, and TF32 products break "
        f"it {rows[1][3]} times over: that is why the package states the highest precision. (65536 x 32, d = 256, "
        "chunks of 2^19: longer chunks win more than TF32 would.)",
    ]


def _problems(runs: dict[str, dict[str, Any]], cpu: dict[str, Any]) -> list[str]:
    rows = []
    for run, found in runs.items():
        chunk = "2^19" if run == FIRST else "2^24"
        for row in _rows(found, "optimize"):
            name, *rest = row["name"].split(", chunks of ")
            length = f"2^{int(rest[0].split()[0]).bit_length() - 1}" if rest else chunk
            spent = {
                name: sum(row["phases"][key]["seconds"] for key in keys if key in row["phases"])
                for name, keys in PHASES.items()
            }
            assert set(row["phases"]) <= {key for keys in PHASES.values() for key in keys}
            cells = [f"`{run}`", name, length, row["passes"], share(row["efficiency"]), digits(row["seconds"]["first"])]
            cells += [digits(row["seconds"]["median"]), *(digits(s) for s in spent.values())]
            rows.append([*cells, digits(row["everything_else"])])
    head = ["run", "pool and tolerance", "chunks", "passes", "efficiency", "first call, s", "warm, s"]
    smallest, largest = (
        next(row for row in _rows(runs[LAST], "optimize") if row["name"].startswith(name))
        for name in ("2048", "201600")
    )
    before = next(row for row in _rows(runs[AFTER], "optimize") if row["name"] == largest["name"])
    cores = cpu["synthetic"]["rows"]["jaxdesign to 1 - 1e-06"]["seconds"]["median"]
    return [
        "### Whole problems: `optimize`, LogDet",
        table([*head, *(f"{name}, s" for name in PHASES), "outside of these, s"], rows),
        " ".join(hardware(found["machine"], run) for run, found in runs.items()),
        "5,000 labels with repeats; one a pair with 20,000 labels and a prior of 1e-3 (m/4) C. Phases are of one more "
        "call, with a wait after each: price is the passes themselves, lists what is read of them, restricted the "
        "working set's problem, float64 the algebra and exact sensitivities; the rest is host work. "
        f"10^8 pairs at d = 256 are certified to 1e-3 in {digits(largest['seconds']['median'])} s warm "
        f"({digits(before['seconds']['median'])} s before few rows were moved), of which about "
        f"{percent(largest['everything_else'] / largest['total'])} is host work outside of the phases and "
        f"{percent(largest['phases']['price']['seconds'] / largest['total'])} passes. 10^6 pairs at d = 64 take "
        f"{digits(smallest['seconds']['median'])} s, two CPU cores {digits(cores)} s: such problems are all latency.",
    ]


def _batches(found: dict[str, Any]) -> list[str]:
    rows = []
    for row in _rows(found, "select_pairs"):
        spent = ", ".join(f"{name} {digits(s)}" for name, s in row["candidates"].items())
        rows.append(
            [
                row["name"],
                share(row["efficiency"]),
                digits(row["seconds"]["first"]),
                digits(row["seconds"]["median"]),
                spent,
            ]
        )
    return [
        "### Whole labels: `select_pairs`",
        table(["problem", "proven efficiency", "first call, s", "warm, s", "of which candidates, s"], rows),
        hardware(found["machine"], AFTER),
        "2048 x 32, d = 256, one label a pair, prior 1e-3 (m/4) C; one warm call.",
    ]


def _host(first: dict[str, Any], after: dict[str, Any], last: dict[str, Any]) -> list[str]:
    (before,), (now,), (few,) = (_rows(found, "host") for found in (first, after, last))
    rows = [
        [name, milliseconds(row["median"]), milliseconds(now["seconds"][name]["median"])]
        for name, row in before["seconds"].items()
    ]
    return [
        "### What is read of a pass",
        table(["step", f"`{FIRST}`, ms", f"`{AFTER}`, ms"], rows),
        f"{hardware(first['machine'], FIRST)} {hardware(after['machine'], AFTER)}",
        f"{before['name']}, 10^8 pairs; the second run also reads the lists by bytes instead of by bits.",
        table(["step", f"`{LAST}`, ms"], [[n, milliseconds(row["median"])] for n, row in few["seconds"].items()]),
        hardware(last["machine"], LAST),
        "Here the lists are read of a result that lies on the device: a pass and its list together take little more "
        "than the pass.",
    ]


def _algebra(found: dict[str, Any]) -> list[str]:
    rows = [
        [part, row["name"], name, milliseconds(kind["median"])]
        for part in ("factorise", "project", "restricted")
        for row in _rows(found, part)
        for name, kind in row["seconds"].items()
    ]
    return [
        "### The d x d algebra and the restricted problem, in float64",
        table(["part", "size", "operation", "milliseconds"], rows),
        hardware(found["machine"], FIRST),
        "Hessian products are 16 after one factorisation.",
    ]
