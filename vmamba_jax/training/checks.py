"""The checks of `vmamba_jax.checks` as pairs (holds, message): `require` reports every problem of a call at once."""
import functools

from vmamba_jax.core import checks


def require(*pairs):
    """Raise one ValueError naming every failed check. pairs: (holds, "what was expected, and what was given")."""
    problems = [message for holds, message in pairs if not holds]
    if problems:
        raise ValueError("; ".join(problems))


def _told(check):
    @functools.wraps(check)
    def told(*args, **options):
        try:
            check(*args, **options)
        except (TypeError, ValueError) as error:
            return False, str(error)
        return True, ""
    return told


choice, count, number = _told(checks.choice), _told(checks.count), _told(checks.number)
