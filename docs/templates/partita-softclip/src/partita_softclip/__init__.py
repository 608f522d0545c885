"""A bottleneck that clips softly; importing it registers `bottleneck/softclip`."""

from .softclip import SoftClip, SoftClipConfig

__all__ = ["SoftClip", "SoftClipConfig"]
