"""Why a solver stopped. The value of each member is the sentence the user reads."""

from enum import Enum


class Status(Enum):
    """Reason a design was returned; `str(status)` is the sentence."""

    CERTIFIED = "Certified: the relative gap is at most tol."
    EVALUATED = "Evaluated: the certificate of the given allocation; nothing was optimised."
    NOT_CERTIFIED = "Stopped at max_passes with relative gap above tol; raise max_passes or loosen tol."
    PRECISION_LIMIT = (
        "Stopped because passes no longer reduce the gap: tol is below what this dtype can reach; "
        "loosen tol, or use float64 features with x64 enabled."
    )
    ILL_CONDITIONED = (
        "Rounding limits this certificate, not the budget: the information is so ill-conditioned that float64 tells "
        "the criterion no better; pass a larger prior (a ridge), or use jaxdesign.restrict_to_range with a larger rtol."
    )
    STOPPED_BY_CALLBACK = "Stopped because the callback returned True; the certificate is that of the last pass."
    INACCURATE = "The reference solver stopped short of relative gap 1e-6; the certificate says how near it came."
    EXACT = (
        "Whole labels chosen; efficiency is against a certified bound on all allowed choices, as report['bound'] says."
    )

    def __str__(self) -> str:
        return self.value
