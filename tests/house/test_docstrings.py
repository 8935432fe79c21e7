"""Docstrings of everything public say what goes in, what comes out, what is raised and where it is from.

    function   a summary of one line; Args that name every parameter; Returns, unless it returns None; Raises (`Raises:
               nothing` where nothing is); Source: a paper, or "derived; checked by tests/..."
    class      a summary; Args that name every field or parameter of its constructor; Source, unless it is a tuple of
               results, which is what its function says
    method     a docstring, its own or that of a base, that names every argument where there are several; those of a
               protocol are documented there

Files that a docstring names exist, and a test that a Source names speaks of the function it is to check.
"""

import importlib
import importlib.util
import inspect
import re
import types
from pathlib import Path

import pytest

from jaxdesign.criteria import CriterionLike
from jaxdesign.preference import fit_bradley_terry
from jaxdesign.pricing import Source
from jaxdesign.solvers import Solver

ROOT = Path(__file__).resolve().parents[2]
HEADINGS = ("Args", "Returns", "Raises", "Numerics", "Complexity", "Guarantee", "Source")


def _script():
    spec = importlib.util.spec_from_file_location("public_names", ROOT / ".github" / "public_names.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = _script()


def sections(documentation):
    """Text of every section by its heading; what stands before the first under ""."""
    parts = re.split(rf"^({'|'.join(HEADINGS)}):", documentation, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def parameters(function):
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def lacking(documentation, arguments, headings):
    """What a docstring lacks, one sentence each."""
    if not documentation:
        return ["no docstring"]
    found = sections(documentation)
    summary = found[""].split("\n\n")[0].strip()
    out = [] if summary and "\n" not in summary else ["the summary is not one line"]
    out += [f"no section {heading}" for heading in headings if not found.get(heading, "").strip()]
    heads = re.findall(r"^ +(\w+(?:, \w+)*):", found.get("Args", ""), flags=re.MULTILINE)
    out += [f"Args does not name {argument}" for argument in arguments if argument not in ", ".join(heads).split(", ")]
    files = re.findall(r"(?:tests|bench)/[\w/]+\.py", documentation)
    out += [f"{file} does not exist" for file in files if not (ROOT / file).is_file()]
    return out


def of_function(function):
    arguments, documentation = parameters(function), inspect.getdoc(function) or ""
    headings = ["Args"] if arguments else []
    if inspect.signature(function).return_annotation not in (None, "None"):
        headings.append("Returns")
    out = lacking(documentation, arguments, [*headings, "Raises", "Source"])
    tests = re.findall(r"tests/[\w/]+\.py", sections(documentation).get("Source", ""))
    if tests and not any(function.__name__ in (ROOT / test).read_text() for test in tests if (ROOT / test).is_file()):
        out.append(f"Source: {' and '.join(tests)} does not mention {function.__name__}")
    return out


def of_class(cls):
    fields = getattr(cls, "_fields", None)
    made = "__init__" in vars(cls) and not getattr(cls, "_is_protocol", False)
    arguments = list(fields or (parameters(cls.__init__) if made else []))
    headings = (["Args"] if arguments else []) + ([] if fields else ["Source"])
    out = lacking(inspect.cleandoc(cls.__doc__ or ""), arguments, headings)
    for name, method in methods(cls):
        bases = [vars(base)[name] for base in cls.__mro__ if name in vars(base)]
        documentation = "\n".join(inspect.getdoc(base) or "" for base in bases).strip()
        if not documentation:
            out.append(f"{name}: no docstring")
        elif inspect.isfunction(method) and len(parameters(method)) > 1:
            unnamed = [argument for argument in parameters(method) if argument not in re.findall(r"\w+", documentation)]
            out += [f"{name}: does not name {argument}" for argument in unnamed]
    return out


def methods(cls):
    """Public methods and properties that the package defines; those of pytrees and tuples are JAX's and Python's."""
    for name, value in inspect.getmembers(cls):
        home = next((base for base in cls.__mro__ if name in vars(base)), None)
        if home is None or not home.__module__.startswith("jaxdesign") or name.startswith(("_", "tree_")):
            continue
        if any(hasattr(protocol, name) and cls is not protocol for protocol in (CriterionLike, Solver, Source)):
            continue
        if inspect.isfunction(value) or isinstance(value, property):
            yield name, value


def public():
    """Every public callable once, by the first package that has it."""
    seen = set()
    for package, names in SCRIPT.public_names().items():
        for name in names:
            value = getattr(importlib.import_module(package), name)
            if callable(value) and id(value) not in seen:
                seen.add(id(value))
                yield pytest.param(value, id=f"{package}.{name}")


@pytest.mark.parametrize("value", list(public()))
def test_docstrings_are_complete(value):
    found = of_class(value) if inspect.isclass(value) else of_function(value)
    assert not found, "\n".join(found)


def with_documentation(function, documentation):
    """The same function with another docstring; where annotations are held against calls, without that wrapper."""
    function = inspect.unwrap(function)
    copy = types.FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    copy.__kwdefaults__, copy.__annotations__ = function.__kwdefaults__, function.__annotations__
    copy.__doc__ = documentation
    return copy


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("Args:", "Given:", "no section Args"),
        ("    wins:", "    won:", "Args does not name wins"),
        ("Returns:", "Gives:", "no section Returns"),
        ("Raises:", "Fails:", "no section Raises"),
        ("Source:", "From:", "no section Source"),
        ("w that maximises", "w that\nmaximises", "the summary is not one line"),
        ("test_bradley_terry.py", "test_nowhere.py", "tests/preference/fit/test_nowhere.py does not exist"),
        (
            "test_bradley_terry.py",
            "test_posterior.py",
            "Source: tests/preference/fit/test_posterior.py does not mention",
        ),
    ],
)
def test_what_is_missing_is_noticed(old, new, complaint):
    whole = inspect.getdoc(fit_bradley_terry)
    assert whole.count(old) == 1 and not of_function(with_documentation(fit_bradley_terry, whole))
    found = of_function(with_documentation(fit_bradley_terry, whole.replace(old, new)))
    assert any(line.startswith(complaint) for line in found)


def test_nothing_is_cited_from_memory():
    for file in (ROOT / "jaxdesign").rglob("*.py"):
        assert "from memory" not in " ".join(file.read_text().split()), file
