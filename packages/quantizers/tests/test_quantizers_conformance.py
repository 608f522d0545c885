"""Every component of this package, and every way of looking up codes, against the conformance suite of quantizers."""

import pytest
from partita_core import components, lookup
from partita_quantizers import FSQConfig, ResidualVQConfig
from partita_testing import QUANTIZER_CHECKS

COMPONENTS = [
    "quantizer/fsq",
    "quantizer/rebottleneck",
    "quantizer/residual",
    "quantizer/split",
]
VARIANTS = {
    "residual_plain": ResidualVQConfig(num_quantizers=3, codebook_size=16, codebook_dim=None),
    "residual_normalized": ResidualVQConfig(num_quantizers=3, codebook_size=16, codebook_dim=4, normalize=True),
    "fsq_clamp": FSQConfig(levels=(8, 5, 3, 4), bound="clamp"),
}


def test_every_component_has_an_entry():
    registered = components("quantizer/*").items()
    assert COMPONENTS == [tag for tag, config in registered if config.__module__.startswith("partita_quantizers.")]


def case(name, check):
    """Exports take seconds; two are in the default suite."""
    slow = check.__name__ == "exports" and name not in ("quantizer/fsq", "quantizer/residual")
    return pytest.param(name, check, id=f"{name}-{check.__name__}", marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize(
    "name, check", [case(name, check) for name in [*COMPONENTS, *VARIANTS] for check in QUANTIZER_CHECKS]
)
def test_conformance(name, check):
    check(VARIANTS[name] if name in VARIANTS else lookup(name).example())
