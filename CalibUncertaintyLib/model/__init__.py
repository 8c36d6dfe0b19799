"""A trained nnU-Net v2 folder and the calibration record stored beside it."""
