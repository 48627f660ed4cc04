"""What `nnUNet_extTrainer` points to: names only.

nnU-Net imports every module of this folder as a top-level one and then forgets it, so a class defined here
could not be pickled. The classes live in the installed package.
"""

from nnunet_integration.trainers import (
    nnUNetTrainerJDM,
    nnUNetTrainerJDMFinetune,
    nnUNetTrainerJDMMix,
    nnUNetTrainerJDMPretrain,
)

__all__ = [
    "nnUNetTrainerJDM",
    "nnUNetTrainerJDMFinetune",
    "nnUNetTrainerJDMMix",
    "nnUNetTrainerJDMPretrain",
]
