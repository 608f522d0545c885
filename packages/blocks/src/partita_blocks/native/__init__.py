"""Custom kernels: in C++ for CPUs, compiled on the machine that they run on, and in Triton for GPUs."""

from .build import kernels, why_no_kernels

__all__ = ["kernels", "why_no_kernels"]
