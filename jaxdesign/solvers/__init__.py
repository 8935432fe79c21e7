"""Solvers: `optimize` drives them by name; `frank_wolfe` and `multiplicative` also run inside the caller's jit.

A solver of one's own is an object with `init` and `step` (see `Solver`), passed as `optimize(..., solver=...)`.
"""

from jaxdesign.solvers.atoms.coupled_atoms import CoupledAtoms as CoupledAtoms
from jaxdesign.solvers.atoms.matrix_atoms import MatrixAtoms as MatrixAtoms
from jaxdesign.solvers.column_generation.interior_point import InteriorPoint as InteriorPoint
from jaxdesign.solvers.column_generation.solver import ColumnGeneration as ColumnGeneration
from jaxdesign.solvers.dense.frank_wolfe import frank_wolfe as frank_wolfe
from jaxdesign.solvers.dense.host import FrankWolfe as FrankWolfe
from jaxdesign.solvers.dense.host import Multiplicative as Multiplicative
from jaxdesign.solvers.dense.multiplicative import multiplicative as multiplicative
from jaxdesign.solvers.low_rank import low_rank_design as low_rank_design
from jaxdesign.solvers.optimize import optimize as optimize
from jaxdesign.solvers.states import Scored as Scored
from jaxdesign.solvers.states import Solver as Solver
from jaxdesign.solvers.states import SolverState as SolverState
