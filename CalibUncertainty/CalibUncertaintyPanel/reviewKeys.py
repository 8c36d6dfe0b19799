"""Keys of the review. They exist while the module is open; every one has a modifier that desktops and text fields leave alone."""

NEXT, PREVIOUS = "Alt+PgDown", "Alt+PgUp"  # Alt with the arrows left and right goes through Slicer's modules
CORRECT, WRONG, UNSURE = "Alt+1", "Alt+2", "Alt+3"
UNDO, REDO = "Alt+Z", "Alt+Shift+Z"
