"""Tests of the whole tree; one folder for each package."""
