"""Kernels for CPUs that are built on the machine they run on."""

from .build import kernels, why_no_kernels
from .stages import FusedStages, fuse_stages

__all__ = ["FusedStages", "fuse_stages", "kernels", "why_no_kernels"]
