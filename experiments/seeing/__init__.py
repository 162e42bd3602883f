"""Parts of `experiments.analyze`: the models that it looks into, and what it measures of each."""
