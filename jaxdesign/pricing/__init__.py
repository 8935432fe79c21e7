"""Passes over a pool, and what a pool is to them: a `Source`, in memory, in a file, or of one's own."""

from jaxdesign.pricing.host_fold import folded as folded
from jaxdesign.pricing.memory import MemorySource as MemorySource
from jaxdesign.pricing.memory import as_chunk as as_chunk
from jaxdesign.pricing.memory import memory_source as memory_source
from jaxdesign.pricing.passes import PassResult as PassResult
from jaxdesign.pricing.passes import price as price
from jaxdesign.pricing.sharded import ShardedSource as ShardedSource
from jaxdesign.pricing.sharded import sharded_source as sharded_source
from jaxdesign.pricing.source import Chunk as Chunk
from jaxdesign.pricing.source import Kernel as Kernel
from jaxdesign.pricing.source import PairRows as PairRows
from jaxdesign.pricing.source import Source as Source
from jaxdesign.pricing.source import pair_rows as pair_rows
from jaxdesign.pricing.streamed import StreamedSource as StreamedSource
from jaxdesign.pricing.streamed_source import streamed_source as streamed_source
