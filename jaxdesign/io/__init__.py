"""Pools in, selections out. NumPy only: nothing here imports jax."""

from jaxdesign.io.design_files import check_writable as check_writable
from jaxdesign.io.design_files import report_path as report_path
from jaxdesign.io.design_files import selection_rows as selection_rows
from jaxdesign.io.design_files import task_rows as task_rows
from jaxdesign.io.design_files import write_selection as write_selection
from jaxdesign.io.featurise import featurise as featurise
from jaxdesign.io.joined_texts import with_texts as with_texts
from jaxdesign.io.pool_files import PoolFile as PoolFile
from jaxdesign.io.pool_files import demo_pool_path as demo_pool_path
from jaxdesign.io.pool_files import read_completions as read_completions
from jaxdesign.io.pool_files import read_features as read_features
