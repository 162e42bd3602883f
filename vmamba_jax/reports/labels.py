"""Display names of attacks from their settings; a name of a protocol is followed by every setting that departs from it."""

NAMES = {"fgsm": "FGSM", "pgd": "PGD", "apgd": "APGD", "patch_fool": "Patch-Fool", "fab": "FAB", "square": "Square"}
PROTOCOLS = {  # attack: {setting: its published value}, for settings whose departure changes what the name promises
    "autoattack": {"steps": 100, "queries": 5000, "n_targets": None, "eot": 20},
    "pgd": {"random_start": True, "loss": "cross_entropy"},
    "apgd": {"loss": "cross_entropy", "n_targets": None, "random_start": True, "eot": 1},
    "fab": {"n_targets": None}, "square": {"queries": 5000}, "fgsm": {"random_start": False, "loss": "cross_entropy"}}
WORDS = {"steps": "{} steps", "queries": "{} queries", "n_targets": "{} target classes", "eot": "{} gradients averaged", "loss": "{} loss"}
BOX = [0.0, 1.0]


def attack_label(settings, published=None):
    """An attack's display name: "PGD-20, 5 restarts"; "AutoAttack standard, 20 steps, 200 queries".

    Args:
        settings: the attack's settings, or a config section; a missing setting has its published value.
        published: name of the published attack that the settings are, such as "mi_fgsm"; None: the attack's own name.
    """
    kind = settings["name"]
    departures = [_words(name, settings[name]) for name, value in PROTOCOLS.get(kind, {}).items() if name in settings and settings[name] != value
                  and (name != "eot" or kind != "autoattack" or settings.get("version") == "rand")]
    if list(settings.get("bounds", BOX)) != BOX:
        departures.append("pixels in [{:g}, {:g}]".format(*settings["bounds"]))
    if kind == "autoattack":
        return ", ".join([f"AutoAttack {settings.get('version', 'standard')}", *departures])
    name = published.upper().replace("_", "-") if published else NAMES.get(kind, kind)
    steps, restarts = settings.get("steps"), settings.get("restarts", 1)
    return ", ".join([name + (f"-{steps}" if steps else ""), *([f"{restarts} restarts"] if restarts > 1 else []), *departures])


def _words(name, value):
    if name == "random_start":
        return "random start" if value else "no random start"
    return WORDS[name].format(value)
