"""One file per dataset: load(split, root, **options) -> Source."""
