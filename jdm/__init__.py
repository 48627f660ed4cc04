"""Joint image-mask diffusion for nnU-Net datasets; see `jdm.api`."""

# These functions replace the packages of the same names as attributes; `import jdm.train.loop` still works.
from jdm.api import export, plan, sample, train
from jdm.errors import JdmError
from jdm.export.request import ExportRequest
from jdm.sample.request import (
    ChannelsRequest,
    ImagesRequest,
    InpaintRequest,
    InterpolateRequest,
    LikelihoodRequest,
    SegmentRequest,
    VaryRequest,
)
from jdm.train.request import TrainRequest

__version__ = "0.1.0"

__all__ = [
    "ChannelsRequest", "ExportRequest", "ImagesRequest", "InpaintRequest", "InterpolateRequest", "JdmError",
    "LikelihoodRequest", "SegmentRequest", "TrainRequest", "VaryRequest", "export", "plan", "sample", "train",
]  # fmt: skip
