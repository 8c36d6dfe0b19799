"""From probabilities to maps of where the model may be wrong."""
