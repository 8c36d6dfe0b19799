"""The verbs: one file each. Here the rooms meet."""
