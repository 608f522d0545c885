"""Kernels of our own: in C++ for CPUs, built on the machine they run on, and in Triton for GPUs."""

from .build import kernels, why_no_kernels

__all__ = ["kernels", "why_no_kernels"]
