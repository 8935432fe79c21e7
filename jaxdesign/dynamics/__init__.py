"""Rounds over time: where they end, whether they get there, and what the next pairs should be.

A loop trains on labels, samples from what it has trained, and asks again. `LoopPlan` says how; preferences P_ij = Pr(i
beats j) say what labels will answer, with draws as leading axes where they are uncertain; policies are
log-probabilities up to a constant. Nothing here changes a design: it says what one would do.
"""

from jaxdesign.dynamics.best_temper import Tempering as Tempering
from jaxdesign.dynamics.best_temper import best_temper as best_temper
from jaxdesign.dynamics.boundary_score import BoundaryScore as BoundaryScore
from jaxdesign.dynamics.boundary_score import boundary_score as boundary_score
from jaxdesign.dynamics.certificates import Certificates as Certificates
from jaxdesign.dynamics.certificates import Evidence as Evidence
from jaxdesign.dynamics.check_round import Advice as Advice
from jaxdesign.dynamics.check_round import BatchWeights as BatchWeights
from jaxdesign.dynamics.check_round import RoundCheck as RoundCheck
from jaxdesign.dynamics.check_round import check_round as check_round
from jaxdesign.dynamics.cyclic_share import CyclicShare as CyclicShare
from jaxdesign.dynamics.estimate_preferences import PreferenceEstimate as PreferenceEstimate
from jaxdesign.dynamics.estimate_preferences import estimate_preferences as estimate_preferences
from jaxdesign.dynamics.fastest_plan import FasterPlan as FasterPlan
from jaxdesign.dynamics.fastest_plan import fastest_plan as fastest_plan
from jaxdesign.dynamics.fixed_point import FixedPoint as FixedPoint
from jaxdesign.dynamics.fixed_point import fixed_point as fixed_point
from jaxdesign.dynamics.importance_weights import importance_weights as importance_weights
from jaxdesign.dynamics.iterate import Regime as Regime
from jaxdesign.dynamics.iterate import Trajectory as Trajectory
from jaxdesign.dynamics.iterate import iterate as iterate
from jaxdesign.dynamics.labels_to_see_cycle import labels_to_see_cycle as labels_to_see_cycle
from jaxdesign.dynamics.misfit import Misfit as Misfit
from jaxdesign.dynamics.plan import LoopPlan as LoopPlan
from jaxdesign.dynamics.round_noise import RoundNoise as RoundNoise
from jaxdesign.dynamics.round_noise import round_noise as round_noise
from jaxdesign.dynamics.round_optimum import RoundOptimum as RoundOptimum
from jaxdesign.dynamics.round_optimum import round_optimum as round_optimum
from jaxdesign.dynamics.sampler_shift import SamplerShift as SamplerShift
from jaxdesign.dynamics.sampler_shift import sampler_shift as sampler_shift
from jaxdesign.dynamics.stability import Stability as Stability
from jaxdesign.dynamics.stability import stability as stability
from jaxdesign.dynamics.stage_value import StageValue as StageValue
from jaxdesign.dynamics.stage_value import stage_value as stage_value
from jaxdesign.dynamics.tournaments import TransitivityViolations as TransitivityViolations
from jaxdesign.dynamics.tournaments import borda_scores as borda_scores
from jaxdesign.dynamics.tournaments import condorcet_winner as condorcet_winner
from jaxdesign.dynamics.tournaments import cyclic_part as cyclic_part
from jaxdesign.dynamics.tournaments import smith_set as smith_set
from jaxdesign.dynamics.tournaments import transitivity_violations as transitivity_violations
from jaxdesign.dynamics.win_tables import win_tables as win_tables
