"""Fits to labels: Bradley-Terry, posteriors, references, reliability of annotators."""

from typing import TYPE_CHECKING

from jaxdesign._lazy import lazily
from jaxdesign.preference._extras import needed_for

_HOMES = {
    "BradleyTerryFit": "bradley_terry",
    "ImpliedPrior": "implied_priors",
    "PositionBias": "position_bias",
    "LengthSlopes": "slopes_by_length",
    "Posterior": "posterior",
    "ProxyBelief": "proxy",
    "ProxyPool": "proxy",
    "ProxyWorth": "proxy_worths",
    "ReferenceFit": "reference",
    "Reliability": "reliability",
    "ResidualVariance": "residual_variance",
    "estimate_position_bias": "position_bias",
    "estimate_reliability": "reliability",
    "estimate_residual": "residual_variance",
    "fit_bradley_terry": "bradley_terry",
    "fit_posterior": "posterior",
    "fit_reference": "reference",
    "flip_of": "reliability",
    "length_slopes": "slopes_by_length",
    "implied_prior": "implied_priors",
    "mapped": "reference",
    "pool_with_proxy": "proxy",
    "posterior_draws": "posterior",
    "posterior_targets": "posterior",
    "predicted_gap": "posterior",
    "proxy_belief": "proxy",
    "proxy_worth": "proxy_worths",
    "reference_target": "reference",
    "reliable_annotators": "reliability",
    "scored_pool": "posterior",
    "smooth_belief": "smooth",
    "with_estimated_flip": "reliability",
}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from jaxdesign.preference.fit.bradley_terry import BradleyTerryFit as BradleyTerryFit
    from jaxdesign.preference.fit.bradley_terry import fit_bradley_terry as fit_bradley_terry
    from jaxdesign.preference.fit.implied_priors import ImpliedPrior as ImpliedPrior
    from jaxdesign.preference.fit.implied_priors import implied_prior as implied_prior
    from jaxdesign.preference.fit.position_bias import PositionBias as PositionBias
    from jaxdesign.preference.fit.position_bias import estimate_position_bias as estimate_position_bias
    from jaxdesign.preference.fit.posterior import Posterior as Posterior
    from jaxdesign.preference.fit.posterior import fit_posterior as fit_posterior
    from jaxdesign.preference.fit.posterior import posterior_draws as posterior_draws
    from jaxdesign.preference.fit.posterior import posterior_targets as posterior_targets
    from jaxdesign.preference.fit.posterior import predicted_gap as predicted_gap
    from jaxdesign.preference.fit.posterior import scored_pool as scored_pool
    from jaxdesign.preference.fit.proxy import ProxyBelief as ProxyBelief
    from jaxdesign.preference.fit.proxy import ProxyPool as ProxyPool
    from jaxdesign.preference.fit.proxy import pool_with_proxy as pool_with_proxy
    from jaxdesign.preference.fit.proxy import proxy_belief as proxy_belief
    from jaxdesign.preference.fit.proxy_worths import ProxyWorth as ProxyWorth
    from jaxdesign.preference.fit.proxy_worths import proxy_worth as proxy_worth
    from jaxdesign.preference.fit.reference import ReferenceFit as ReferenceFit
    from jaxdesign.preference.fit.reference import fit_reference as fit_reference
    from jaxdesign.preference.fit.reference import mapped as mapped
    from jaxdesign.preference.fit.reference import reference_target as reference_target
    from jaxdesign.preference.fit.reliability import Reliability as Reliability
    from jaxdesign.preference.fit.reliability import estimate_reliability as estimate_reliability
    from jaxdesign.preference.fit.reliability import flip_of as flip_of
    from jaxdesign.preference.fit.reliability import reliable_annotators as reliable_annotators
    from jaxdesign.preference.fit.reliability import with_estimated_flip as with_estimated_flip
    from jaxdesign.preference.fit.residual_variance import ResidualVariance as ResidualVariance
    from jaxdesign.preference.fit.residual_variance import estimate_residual as estimate_residual
    from jaxdesign.preference.fit.slopes_by_length import LengthSlopes as LengthSlopes
    from jaxdesign.preference.fit.slopes_by_length import length_slopes as length_slopes
    from jaxdesign.preference.fit.smooth import smooth_belief as smooth_belief
else:  # or any misspelt name would have a type
    __getattr__, __dir__ = lazily(__name__, _HOMES, during=needed_for)
