"""What to install where a library of an extra that the preference side uses is missing."""

from collections.abc import Iterator
from contextlib import contextmanager

EXTRAS = {
    "preference": ("flax", "optax", "orbax", "tqdm"),
    "llm": ("gguf", "tokenizers", "safetensors", "jinja2"),
}


@contextmanager
def needed_for(what: str) -> Iterator[None]:
    """ModuleNotFoundError that says what to install, where an import inside finds a library of EXTRAS missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        extra = next((extra for extra, libraries in EXTRAS.items() if missing in libraries), None)
        if extra is None:
            raise
        raise ModuleNotFoundError(
            f"{what} needs {error.name}, which is not installed; pip install 'jaxdesign[{extra}]'", name=error.name
        ) from error
