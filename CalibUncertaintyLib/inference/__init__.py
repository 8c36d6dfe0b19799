"""From a CT to what each member of the model says about it."""
