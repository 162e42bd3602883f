"""The page of a study of dense tasks: scores with intervals, predictions drawn over images."""
