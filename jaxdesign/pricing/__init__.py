"""One pass over the pool that finds the best pairs for a given G."""

from jaxdesign.pricing.memory import MemorySource as MemorySource
from jaxdesign.pricing.memory import memory_source as memory_source
from jaxdesign.pricing.passes import PassResult as PassResult
from jaxdesign.pricing.passes import price as price
