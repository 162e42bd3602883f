"""Tables with models as columns and probes as rows, and how they break into several tables in print."""
import itertools

PER_TABLE = 6  # models that fit side by side on a printed page


def by_probe(probes, rows):
    """A table by models turned into one by probes.

    Args:
        probes: names of the columns behind the model.
        rows: [(model, ..., [cell of each probe]), ...]; missing cells at the end become None.

    Returns:
        ([model, ...], [(probe, [cell of each model]), ...]).
    """
    columns = list(itertools.zip_longest(*(row[-1] for row in rows)))
    return [row[0] for row in rows], [(probe, list(cells)) for probe, cells in zip(probes, columns, strict=False)]


def turned(columns, rows):
    """`by_probe` of a table of text, whose first column has the models."""
    return by_probe(columns[1:], [(row[0], row[1:]) for row in rows])


def slices(columns):
    """[(first, last), ...]: parts of nearly equal length, of at most `PER_TABLE` columns each."""
    n = len(columns)
    count = max(1, -(-n // PER_TABLE))
    edges = [round(i * n / count) for i in range(count + 1)]
    return list(itertools.pairwise(edges))


def spanned(configs):
    """[(field, values), ...] of `tables.configs`; a field that all share has a single value."""
    return [(field, values if differs else values[:1]) for field, values, differs in configs]
