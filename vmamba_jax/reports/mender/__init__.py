"""The page of the mender's study: its claims with intervals over seeds, figures and tables."""
