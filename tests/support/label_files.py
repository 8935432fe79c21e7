"""Tasks with their texts, and files of rows read and written without the package."""

import csv
import json

from jaxdesign.preference.labels.tasks import make_tasks

PROMPTS = [f'prompt {p}, "with" a comma' for p in range(30)]
COMPLETIONS = [[f"completion {k}\nof {p}" for k in range(3)] for p in range(30)]
TASKS = make_tasks(0, [(p, p % 2, 2) for p in range(30)], swap_seed=7)


def read_back(path):
    if path.suffix == ".csv":
        with open(path, newline="") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path, rows):
    if path.suffix == ".csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, sorted({key for row in rows for key in row}))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
