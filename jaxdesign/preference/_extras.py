"""What to install where a library of the extra `preference` is missing."""

from collections.abc import Iterator
from contextlib import contextmanager

LIBRARIES = ("flax", "optax", "orbax", "tqdm")


@contextmanager
def needed_for(what: str) -> Iterator[None]:
    """ModuleNotFoundError that says what to install, where an import inside finds one of LIBRARIES missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in LIBRARIES:
            raise
        raise ModuleNotFoundError(
            f"{what} needs {error.name}, which is not installed; pip install 'jaxdesign[preference]'", name=error.name
        ) from error
