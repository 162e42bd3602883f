"""From a config to the objects it names. Every wrong name or value raises a ConfigError with the field's name."""
import dataclasses
import functools
import json
from typing import Any

import jax

import vmamba_jax
from experiments.common import cli, limits, phases
from experiments.common.cli import ConfigError, checking
from experiments.common.schedule import Lengths
from vmamba_jax import attacks, checkpoints, data, parallel, training
from vmamba_jax.data.subsets import numbered
from vmamba_jax.models import Classifier, catalog
from vmamba_jax.reports import labels


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything that training needs, made from one config.

    Attributes:
        config: the config, with every key of `configs.base.run`.
        mesh: devices that share each batch.
        train: source of the training images.
        validation: source of the validation images.
        batches: `data.Batches` or `data.Pipeline` of this process.
        steps: number of training steps.
        classifier: the model with its preprocessing.
        optimizer: optax transformation with its schedule.
        step: the objective's training step.
        attack: the attack of the validation.
        variables: weights to start from; None: random weights.
        first: number of steps of the earlier phases; `steps` counts them too.
        earlier: the `Run` of every earlier phase, in order.
        part: the config of this phase, see `experiments.common.phases`; None: `config`, of a training in one phase.
    """
    config: Any
    mesh: jax.sharding.Mesh
    train: data.Source
    validation: data.Source
    batches: Any
    steps: int
    classifier: Classifier
    optimizer: Any
    step: training.objectives.Step
    attack: attacks.Attack
    variables: dict | None
    first: int = 0
    earlier: tuple = ()
    part: Any = None

    own = property(lambda self: self.config if self.part is None else self.part, doc="The config of this phase.")


def build(config, mesh=None, load=None):
    """The `Run` of a config; every field is checked before anything is trained.

    Args:
        config: ConfigDict with every key of `configs.base.run`.
        mesh: devices that share each batch; None: all of JAX.
        load: function (config, split, limit) -> source of the images; None: `source`.

    Raises:
        ConfigError: a field with a value that cannot be run.
    """
    limits.check_run(config)
    parts = phases.configs(config)
    for part in parts:
        for name in ("epochs", "batch_size"):  # 0 in a config for evaluation only
            with checking():
                limits.count(f"config.{name}", part[name])
    load = load or source
    train = load(config, "train", 0)
    with checking("config.data"):
        validation = data.match_classes(load(config, "validation", config.validation.limit), train.classes)
    check_head(config, class_names(config, train))
    mesh = mesh or parallel.data_mesh()
    loaded = [_batches(part, phases.resized(config, i, train if part is config else load(part, "train", 0)), mesh) for i, part in enumerate(parts)]
    lengths = [part.epochs * loader.steps_per_epoch for part, (_, loader) in zip(parts, loaded, strict=True)]
    if sum(lengths) > limits.LARGEST:
        raise ConfigError(f"config.epochs={config.epochs}: expected at most {limits.LARGEST // loaded[-1][1].steps_per_epoch}, as steps are counted in 32 bits")
    rule, model = optimizer(config, sum(lengths), phases.rate(parts, lengths)), classifier(config, train)
    made, weights = [], variables(config, phases.model(config, 0, model), train.classes)
    for i, (part, (images, loader)) in enumerate(zip(parts, loaded, strict=True)):
        first, epochs = sum(lengths[:i]), sum(earlier.epochs for earlier in parts[:i])
        own = phases.model(config, i, model)
        trained, update = training.linear_probe(own, rule) if config.init.freeze else (own, rule)
        with checking("config.phases"):
            numbered = loader if not i else data.Shifted(loader, epochs * loader.steps_per_epoch - first)  # goes on with the next epoch's order
        made.append(Run(config, mesh, images, validation, numbered, first + lengths[i], own, update, objective(part, trained, update, lengths[i]),
                        attack(config.validation.attack, "config.validation.attack"), weights if not i else None, first, part=part if config.phases else None))
    return dataclasses.replace(made[-1], earlier=tuple(made[:-1]))


def _batches(config, train, mesh):
    """(train, this process's batches of it); a ConfigError for a batch size that does not fit the devices or the images."""
    if config.batch_size % mesh.size or config.batch_size > len(train):
        raise ConfigError(f"config.batch_size={config.batch_size}: expected a multiple of the {mesh.size} devices, "
                          f"at most the {len(train)} training images")
    if (config.mix.mixup or config.mix.cutmix) and config.batch_size // mesh.size % 2:
        raise ConfigError(f"config.batch_size={config.batch_size}: expected an even number of images on each of the {mesh.size} devices, "
                          "because config.mix mixes them in pairs")
    return train, batches(config, train)


def source(config, split, limit=0):
    """A split of the config's data set.

    Args:
        config: with a data section.
        split: "train", "validation" or "test".
        limit: size of a random subset; 0: all images.
    """
    with checking("config.data"):
        loaded = data.load(config.data.name, split, root=config.data.root or None, **config.data.options.to_dict())
        return data.subset(loaded, min(limit, len(loaded)), seed=0) if limit else loaded


def check_head(config, names):
    """ConfigError if config.model.overrides.num_classes is not the number of classes of the training images.

    Args:
        config: of a run.
        names: the class names. Label numbers may be fewer than the classes, since a set without names may lack the highest.
    """
    count = config.model.overrides.get("num_classes", len(names))
    if count != len(names) and not (numbered(names) and count > len(names)):
        shown = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
        raise ConfigError(f"config.model.overrides.num_classes={count!r}: expected {len(names)}, the classes of the training images ({shown}), or no such "
                          "override")


def batches(config, train):
    """This process's training batches: `data.Pipeline` if config.transform names a transform or for a detector, else `data.Batches`.

    config.extra adds a second set, see `data.Mixed`; config.repeats copies of each image, see `data.Repeated`; config.loader: see `data.Pipeline`.
    """
    options = {"seed": config.seed, "shard": (jax.process_index(), jax.process_count())}
    if config.extra.fraction:
        with checking("config.extra"):
            extra = data.load(config.extra.name, "train", root=config.extra.root or None, **config.extra.options.to_dict())
            train = data.Mixed(train, data.match_classes(extra, train.classes), config.extra.fraction)
    if config.repeats > 1:
        train = data.Repeated(train, config.repeats)
    if config.transform.name == "none" and not is_detector(config):
        with checking("config.batch_size"):
            return data.Batches(train, config.batch_size, **options)
    dense_set = isinstance(train, data.DenseSource)
    if is_detector(config):
        options["instances"] = train.most_instances
    with checking("config.transform"):
        create = (data.transforms.joint if dense_set else data.transforms).create
        transform = None if config.transform.name == "none" else create(**config.transform.to_dict())
    with checking("config.loader"):
        loader = config.loader.to_dict()
        return (data.DensePipeline if dense_set else data.Pipeline)(train, config.batch_size, transform=transform, threads=loader.pop("threads") or None, **loader, **options)


def variables(config, classifier, classes=None):
    """The weights that training starts from, as config.init says, see `checkpoints.read_variables`; None if config.init.checkpoint is "".

    Args:
        config: with a section init. A new head is that of random weights with the same config.seed.
        classifier: the model of the run.
        classes: names of its classes in label order; None: not known.
    """
    section = config.init
    if not section.checkpoint:
        return None
    if is_dense(config):
        return backbone_variables(config, classifier)
    with checking("config.init.checkpoint"):
        return checkpoints.read_variables(classifier.model, section.checkpoint, section.head, checkpoint=section.step, weights=section.weights or None,
                                          classes=classes, key=keys(config)[0], log=cli.report)


def backbone_variables(config, classifier):
    """Random variables of a dense model with the backbone's weights from config.init, which is of a classifier.

    The classifier's head is left out; the heads, and the norms of the maps ("outnorm0", ...), which no classifier has, are those of random weights
    with the same config.seed.
    """
    section, backbone = config.init, classifier.model.backbone
    with checking("config.init.checkpoint"):
        plain = backbone.clone(out_indices=())
        found = checkpoints.read_variables(plain, section.checkpoint, "new", checkpoint=section.step, weights=section.weights or None, key=keys(config)[0],
                                           log=cli.report)
        made = jax.jit(lambda key: classifier.init(key, (64, 64, backbone.in_channels)))(keys(config)[0])
        fresh = made["params"]["backbone"]
        if absent := [name for name in fresh if name not in found["params"] and not name.startswith("outnorm")]:
            raise ValueError(f"{section.checkpoint}: expected the weights of the backbone, {', '.join(absent)} are absent")
        taken = {name: found["params"].get(name, value) for name, value in fresh.items()}
        return {**made, "params": {**made["params"], "backbone": taken}}


def keys(config):
    """(key of the random initialization, key of the training) of config.seed."""
    return jax.random.split(jax.random.key(config.seed))


def classifier(config, like):
    """The model with its preprocessing.

    Args:
        config: with sections model and preprocessing.
        like: source that sets num_classes and in_channels if config.model.overrides does not.
    """
    if like.image_shape is None:
        raise ConfigError("config.data.options: expected an option that sets the image size, such as size=224")
    fields = {"num_classes": len(class_names(config, like)), "in_channels": like.image_shape[-1], **config.model.overrides.to_dict()}
    if is_dense(config) != isinstance(like, data.DenseSource):
        raise ConfigError(f"config.model.name={config.model.name!r} with config.data.name={config.data.name!r}: expected a dense model, such as "
                          "'upernet_vmamba_tiny', for a dense set, such as 'dense_shapes', and for no other")
    if is_detector(config) and not like.has_instances:
        raise ConfigError(f"config.model.name={config.model.name!r} with config.data.name={config.data.name!r}: expected a set with instances for a detector")
    if is_dense(config):
        fields["backbone"] = {"in_channels": fields.pop("in_channels"), **fields.get("backbone", {})}
    with checking("config.model"):
        model = vmamba_jax.create_model(config.model.name, **fields)
    with checking("config.preprocessing"):
        made = Classifier(model, tuple(config.preprocessing.mean), tuple(config.preprocessing.std))
    with checking("config.model"):
        jax.eval_shape(lambda key: made.init(key, like.image_shape), jax.random.key(0))
    return made


def is_dense(config):
    """Whether config.model names a segmenter or a detector."""
    with checking("config.model"):
        return catalog.entry(config.model.name).family in catalog.HEADS.values()


def is_detector(config):
    """Whether config.model names a detector."""
    return is_dense(config) and catalog.entry(config.model.name).family is catalog.HEADS["mask_rcnn"]


def class_names(config, source):
    """The classes that config.model tells apart: of a detector those of the set's instances, of others those of its labels."""
    return source.instance_classes if is_detector(config) else source.classes


def trained(config, folder, checkpoint="latest"):
    """(classifier, variables of a run's checkpoint, source of its training split).

    Args:
        config: of the run.
        folder: of the run.
        checkpoint: "best", "latest" or a step.
    """
    like = source(config, "train")
    made = classifier(config, like)
    with cli.checking("checkpoint"):
        return made, checkpoints.read_variables(made, folder, checkpoint=checkpoint), like


def attack(options, where):
    """The attack of one config section, {"name": ..., its options}; `where` is the section's name in the error."""
    with checking(where):
        if "name" not in options:
            raise ValueError("expected an attack's name and its options")
        return attacks.create(**options.to_dict())


def resized(attack, radius):
    """The attack at another radius, with its step size in proportion.

    Radius and step size are arguments of the compiled program, so one program serves all radii.
    """
    scaled = {"eps": radius, "step_size": radius / attack.eps * attack.step_size} if hasattr(attack, "step_size") else {"eps": radius}
    return dataclasses.replace(attack, **scaled)


def attack_label(attack):
    """An attack's display name with every departure from its protocol: see `vmamba_jax.reports.labels.attack_label`."""
    return labels.attack_label(attack.settings, getattr(attack, "published", None))


def optimizer(config, steps, rate=None):
    """The optimizer with its learning-rate schedule over the updates of `steps` steps; "free" makes one update per replay.

    The parts of the schedule are those of `Lengths.of`; `rate`: another schedule.
    """
    rate = Lengths.of(config, steps).rate(config.schedule) if rate is None else rate
    with checking("config.optimizer"):
        return training.optimizer.create(learning_rate=rate, **config.optimizer.to_dict())


def objective(config, classifier, optimizer, steps):
    """The training step of config.objective, whose attack's radius grows from 0 over the ramp of `Lengths.of`."""
    options = config.objective.to_dict()
    name, attacked, replays, *_ = (options.pop(field) for field in ("name", "attack", "replays", "ramp", "ramp_epochs"))
    options |= {"ema_decay": ema_decay(config), "reduce_dtype": config.reduce_dtype or None}
    if is_detector(config) != (name == "detection"):
        raise ConfigError(f"config.objective.name={name!r} with config.model.name={config.model.name!r}: expected 'detection' for a detector, and for no other")
    if name == "detection" and options.pop("label_smoothing"):
        raise ConfigError(f"config.objective.label_smoothing={config.objective.label_smoothing!r}: expected 0 for the objective 'detection'")
    if attacked:
        options["attack"] = attack(config.objective.attack, "config.objective.attack")
    if name == "free":
        options["replays"] = replays
    elif replays != 1:
        raise ConfigError(f"config.objective.replays={replays!r}: expected 1 for the objective {name!r}; only 'free' replays a batch")
    if ramp := Lengths.of(config, steps).ramp:
        options["eps_schedule"] = training.schedules.ramp(ramp)
    with checking("config.augment"):
        made = data.augment.create(**config.augment.to_dict())
        options["augment"] = None if config.augment.name == "none" else made
    if config.mix.mixup or config.mix.cutmix or config.mix.label_smoothing:
        with checking("config.mix"):
            options["mix"] = functools.partial(data.mix.create(**config.mix.to_dict()), num_classes=classifier.model.num_classes)
    with checking("config.objective"):
        return training.objectives.create(name, classifier, optimizer, **options)


def ema_decay(config):
    """The decay of the weights' average; None if config.ema_decay is 0, for no average."""
    return config.ema_decay or None


def description(classifier):
    """A classifier's family, preprocessing and fields as JSON, the same in every process."""
    model = classifier.model
    fields = {field.name: getattr(model, field.name) for field in dataclasses.fields(model) if field.name not in ("parent", "name")}
    columns = {} if classifier.columns is None else {"columns": classifier.columns}
    named = {"family": type(model).__name__, "mean": classifier.mean, "std": classifier.std, **columns, **fields}
    return json.loads(json.dumps(named, default=lambda value: getattr(value, "__name__", str(value))))
