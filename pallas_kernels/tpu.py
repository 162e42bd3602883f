"""In the making."""


def refusal(operation, *args):
    return NotImplementedError("in the making")
