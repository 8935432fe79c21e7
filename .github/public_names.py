"""The index of public names: writes PUBLIC_NAMES.md beside this file, or says that it is out of date (--check).

One line per name, from the packages themselves: the name, the first line of its docstring, and the extra to install
where it needs one. Run it after adding, renaming or documenting a public name:

    python .github/public_names.py
"""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the package beside this file, whichever is installed
INDEX = Path(__file__).with_name("PUBLIC_NAMES.md")
PACKAGES = (
    "jaxdesign",
    "jaxdesign.criteria",
    "jaxdesign.budget",
    "jaxdesign.pricing",
    "jaxdesign.solvers",
    "jaxdesign.reference",
    "jaxdesign.rank_updates",
    "jaxdesign.baselines",
    "jaxdesign.io",
    "jaxdesign.preference",
    "jaxdesign.preference.labels",
    "jaxdesign.preference.fit",
    "jaxdesign.preference.features",
    "jaxdesign.preference.simulation",
    "jaxdesign.preference.small_model",
    "jaxdesign.preference.llama",
    "jaxdesign.dynamics",
)
EXTRAS = {
    "reference": ("cvxpy",),
    "preference": ("flax", "optax", "orbax", "tqdm"),
    "llm": ("gguf", "tokenizers", "safetensors", "jinja2"),
    "plots": ("matplotlib",),
    "data": ("pyarrow",),
}

# names of a package whose import fails without a library of the extra: "package name" a line
WITHOUT = """
import importlib, sys
for library in {libraries}:
    sys.modules[library] = None
for package, names in {packages}.items():
    module = importlib.import_module(package)
    for name in names:
        try:
            getattr(module, name)
        except ImportError as error:
            assert "pip install 'jaxdesign[{extra}]'" in str(error), f"{{package}}.{{name}}: {{error}}"
            print(package, name)
"""


def names_of(package: str) -> list[str]:
    """Public names of a package: all that `preference` knows, `__all__` where there is one, else what it re-exports."""
    module = importlib.import_module(package)
    if package == "jaxdesign.preference":
        return sorted(dir(module))
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    return sorted(name for name, value in vars(module).items() if _is_its_own(module, name, value))


def _is_its_own(module, name: str, value) -> bool:
    """Whether a value is defined in the module or below it, and no module itself."""
    if name.startswith("_") or inspect.ismodule(value):
        return False
    home, package = getattr(value, "__module__", None), hasattr(module, "__path__")
    if home is None:  # a constant, such as a table of selectors by name
        return package and isinstance(value, dict) and bool(value)
    return home == module.__name__ or (package and home.startswith(f"{module.__name__}."))


def public_names() -> dict[str, list[str]]:
    """Names by package; those of sub-packages of `preference` stand there only."""
    listed: dict[str, list[str]] = {package: [] for package in PACKAGES}
    for package in PACKAGES:
        for name in names_of(package):
            value = getattr(importlib.import_module(package), name)
            if not inspect.ismodule(value) and not any(_deeper(other, package, name) for other in PACKAGES):
                listed[package].append(name)
    return listed


def _deeper(other: str, package: str, name: str) -> bool:
    return other.startswith("jaxdesign.preference.") and other.startswith(f"{package}.") and name in names_of(other)


def needs() -> dict[tuple[str, str], str]:
    """Extra of every (package, name) that needs one, to be imported or, by its docstring, to be called."""
    listed, found = public_names(), {}
    for extra, libraries in EXTRAS.items():
        script = WITHOUT.format(libraries=libraries, packages=listed, extra=extra)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
        found |= {tuple(line.split()): extra for line in done.stdout.splitlines()}
    for package, names in listed.items():
        for name in names:
            said = re.search(
                r"jaxdesign\[(\w+)\]", inspect.getdoc(getattr(importlib.import_module(package), name)) or ""
            )
            if said:
                found[package, name] = said[1]
    return found


def index() -> str:
    """The text of the index."""
    extras, lines = (
        needs(),
        [
            "# Public names",
            "",
            "Written by `python .github/public_names.py`; do not edit. *(preference)* after a name means that it needs",
            "`pip install 'jaxdesign[preference]'`, and so on. Names of `jaxdesign.preference.labels` and of the other",
            "sub-packages of `preference` can be imported from `jaxdesign.preference` too.",
        ],
    )
    for package, names in public_names().items():
        module = importlib.import_module(package)
        lines += ["", f"## {package}", "", (inspect.getdoc(module) or "").split("\n\n")[0].replace("\n", " "), ""]
        for name in names:
            extra = f" *({extras[package, name]})*" if (package, name) in extras else ""
            lines.append(f"- `{name}`{extra}: {_summary(getattr(module, name))}")
    return "\n".join(lines) + "\n"


def _summary(value) -> str:
    if isinstance(value, dict):
        return "by name: " + ", ".join(value)
    return (inspect.getdoc(value) or "").split("\n")[0]


def main() -> int:
    if "--check" in sys.argv[1:]:
        current = INDEX.exists() and INDEX.read_text() == index()
        print(f"{INDEX.name} is {'up to date' if current else 'out of date; run python .github/public_names.py'}")
        return 0 if current else 1
    INDEX.write_text(index())
    return 0


if __name__ == "__main__":
    sys.exit(main())
