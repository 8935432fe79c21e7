"""One pass over the pool that finds the best pairs for a given G."""

from jaxdesign.pricing.memory import MemorySource as MemorySource
from jaxdesign.pricing.memory import PassResult as PassResult
