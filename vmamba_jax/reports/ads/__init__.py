"""The page of the study of Adaptive Scaling: claims with intervals over seeds, tables and figures."""
