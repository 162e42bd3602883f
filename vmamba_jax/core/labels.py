"""The label of a pixel that counts for nothing, in losses, scores and sets of dense tasks."""

IGNORE = 255
