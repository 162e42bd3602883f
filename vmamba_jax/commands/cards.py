"""Model cards of the weights that come with the package, for a terminal."""
import textwrap

from vmamba_jax.checkpoints import examples

WIDTH, COLUMN = 80, 15  # of the text, and of the names before it


def listed():
    """One line for each of the weights that come with the package."""
    lines = ["", "With the package (`vmamba_jax.example(NAME)`; their cards: `models NAME`):"]
    for name in examples.names():
        found = examples.card(name)["evaluation"]
        lines.append(f"{name:<22} {_percent(found['accuracy'])} clean, {_percent(_strongest(found)['robust_accuracy'])} under "
                     f"{_attack(_strongest(found))}")
    return "\n".join(lines)


def text(name):
    """The card of one of `examples.names()`."""
    card = examples.card(name)
    found, recipe, objective = card["evaluation"], card["recipe"], card["objective"]
    options = ", ".join(f"{key} {value}" for key, value in card["overrides"].items())
    optimizer, schedule, attack = recipe["optimizer"], recipe["schedule"], objective["attack"]
    steps = f"{attack['steps']} steps of {attack['step_size']} in {attack['norm']} {attack['eps']}" if attack else ""
    rows = [
        ("model", f"{card['model']} with {options}; {card['parameters']:,} parameters"),
        ("input", f"{card['preprocessing']['size']} x {card['preprocessing']['size']} pixels in [0, 1]; classes {', '.join(card['classes'])}"),
        ("data", card["data_about"]),
        ("training", f"config {card['config']}, seed {card['seed']}: objective {', '.join(filter(None, (objective['name'], steps)))}; {recipe['epochs']} epochs "
                     f"of batches of {recipe['batch_size']}, {optimizer['name']} with learning rate {schedule['learning_rate']}, {schedule['name']} schedule, weight "
                     f"decay {optimizer['weight_decay']}, gradient norm at most {optimizer['clip_norm']}; augmentation {recipe['augment']['name']}; "
                     f"weights of step {card['step']}"),
        ("commit", f"{card['commit']}{' (with changes that are not committed)' if card['commit'].endswith('+') else ''}; "
                   f"vmamba_jax {card['versions']['vmamba_jax']}, jax {card['versions']['jax']}"),
        ("accuracy", f"{_measured(found['accuracy'], found['accuracy_interval'])} clean, on {found['examples']} {found['split']} images, 95 % interval"),
        *(("", f"{_measured(row['robust_accuracy'], row['robust_accuracy_interval'])} under {_attack(row)}") for row in found["attacks"].values()),
        ("intended use", card["intended_use"]), ("limits", card["limits"]), ("license", card["license"]), ("sha256", card["sha256"]),
        ("load", f'vmamba_jax.example("{name}")')]
    lines = [textwrap.fill(f"{name}: {card['about']}", WIDTH), ""]
    for label, value in rows:
        first, *others = textwrap.wrap(value, WIDTH - COLUMN, break_on_hyphens=False)
        lines += [f"{label:<{COLUMN}}{first}", *(" " * COLUMN + line for line in others)]
    return "\n".join(lines)


def _strongest(found):
    """The attack of lowest accuracy."""
    return min(found["attacks"].values(), key=lambda row: row["robust_accuracy"])


def _attack(row):
    return f"{row['label']}, {row['norm']} {row['eps']}"


def _percent(accuracy):
    return f"{100 * accuracy:.1f} %"


def _measured(accuracy, interval):
    return f"{_percent(accuracy)} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
