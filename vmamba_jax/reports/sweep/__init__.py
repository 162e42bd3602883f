"""The page and the summary files of a sweep: groups of runs compared over seeds, drawn from saved JSON."""
