"""The panel of the CalibUncertainty module: what a person sees. MRML and Qt live here and not in CalibUncertaintyLib."""
