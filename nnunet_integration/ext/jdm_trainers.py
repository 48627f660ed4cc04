"""The module that nnU-Net finds through `nnUNet_extTrainer`; only re-exports names.

nnU-Net imports every module of this folder as a top-level module and then drops it, so classes defined here could not
be pickled. They are defined in the installed package.
"""

from nnunet_integration.trainers import (
    nnUNetTrainerJDM,
    nnUNetTrainerJDMCutMix,
    nnUNetTrainerJDMFinetune,
    nnUNetTrainerJDMMix,
    nnUNetTrainerJDMPretrain,
)

__all__ = [
    "nnUNetTrainerJDM",
    "nnUNetTrainerJDMCutMix",
    "nnUNetTrainerJDMFinetune",
    "nnUNetTrainerJDMMix",
    "nnUNetTrainerJDMPretrain",
]
