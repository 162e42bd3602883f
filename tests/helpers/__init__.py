"""What several test files share: writers of files, small models, comparisons."""
