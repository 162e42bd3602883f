"""A plan: the programs of a run on a slice, with and without rematerialization, and what they cost."""
import time

from experiments.common import build, environment
from experiments.common.cli import ConfigError
from experiments.planning import chips, counts, depth, estimate, fitting, hlo, kernels, programs, running
from vmamba_jax import training

RESERVED = 0.25 * chips.GiB  # of a TPU's memory, which XLA keeps
LOW = ("compiled with low effort and Pallas kernels without bodies: such a program keeps less in vector memory, so it needs more memory and moves more bytes than "
       "the one that runs, by what docs/plan.md states; --effort=full compiles the latter")
NOTES = {
    "tpu": "time: per instruction the longer of products at peak and bytes at full bandwidth; Pallas kernels by the cycles of their compiled schedules; the "
           "network one collective after the other, without overlap. Vector arithmetic, input and host are not counted: a lower bound",
    "gpu": "time: the CPU program's products at the GPU's dense peak and its bytes at full bandwidth, the network one collective after the other. Another "
           "compiler fuses and stores otherwise, so bytes and memory are an estimate; the scan counts as XLA's, not as the GPU's kernel",
}


def plan(config, slice, *, images=0, batch=0, dtype="", variants=("plain", "remat"), compiles=2, minutes=9.5, blocks=0, effort="low", report=print):
    """The plan as JSON.

    Args:
        config: ConfigDict with every key of `configs.base.run`.
        slice: `chips.Slice`.
        images: see `programs.source`.
        batch: images of a step over all chips; 0: the config's, rounded up to a multiple of the chips.
        dtype: the model's field of that name; "": the config's.
        variants: "plain" (the config's own `remat`) and "remat".
        compiles: programs compiled for each variant besides that of the batch, to find the largest batch that fits.
        blocks: 0: the whole model is compiled; N: a model of equal blocks is compiled with N and 2 N of them, and the rest is extrapolated linearly.
        effort: one of `programs.EFFORTS`.
        minutes: that the plan should take; after the first, no compile begins that would end later if it took as long as the longest so far.
        report: called with a line before each compile.

    Raises:
        ConfigError: a config that cannot be run, or a batch that the chips do not divide.
    """
    began = time.perf_counter()
    mesh, platform, how = programs.mesh(slice)
    rows, note = rows_of(config, slice, batch)
    maker = Maker(config, slice, mesh, platform, programs.source(images), dtype, blocks, effort, report)
    more = lambda: time.perf_counter() - began + maker.longest < 60 * minutes
    made, late = {}, []
    for name in variants:
        if made and not more():
            late.append(f"{name} was not compiled: a compile took {maker.longest:.0f} s of the {60 * minutes:.0f} s that the plan may take (--minutes)")
            continue
        made[name] = Variant(maker, name == "remat")
        made[name].compile(rows)
    for _ in range(compiles):  # in turn, so that the time ends for all of them together
        for variant in made.values():
            if more():
                variant.search(1)
    run = maker.run(rows, False)
    found = {name: variant.result(rows) for name, variant in made.items()}
    chip = slice.chip
    return {
        "kind": "plan", "topology": slice.name, "chips": slice.chips, "shape": list(slice.shape), "compiled": how, "effort": maker.effort,
        "chip": {"label": chip.label, "flops": chip.flops, "memory_bytes": chip.memory, "bandwidth": chip.bandwidth, "network": slice.network, "source": chip.source},
        "model": run.config.model.name, "dtype": str(run.config.model.overrides.get("dtype", "float32")), "image": list(run.train.image_shape), "sharding": run.config.sharding,
        "state_bytes_per_chip": training.sharding.bytes_per_device(maker.state),
        "objective": run.config.objective.name, "attack": run.config.objective.attack.to_dict(), "parameters": programs.parameters(maker.state),
        "batch": rows * slice.chips, "training_images": len(run.train), "epochs": run.own.epochs, "variants": found,
        "notes": [*([note] if note else []), *_described(run), *late, *maker.notes(), NOTES[chip.platform]], "seconds": round(time.perf_counter() - began, 1), "load": environment.load(),
        "date": environment.now()[:10], "versions": environment.versions(environment.KERNEL_PACKAGES)}


def _described(run):
    """A note on a set that was not loaded."""
    if isinstance(run.train, programs.Described):
        yield (f"the data set was not loaded: {len(run.train):,} training images (--images) of {'x'.join(map(str, run.train.image_shape))} in "
               f"{len(run.train.classes):,} classes (--config.model.overrides.num_classes)")


def rows_of(config, slice, batch):
    """(images per chip, a note or ""). ConfigError for a given batch that the chips do not divide."""
    asked, unit = batch or config.batch_size, slice.chips * pairs(config)
    if asked < 1:
        raise ConfigError(f"config.batch_size={asked}: expected at least 1")
    if asked % unit == 0:
        return asked // slice.chips, ""
    up, each = -(-asked // unit) * unit, " with an even number of images on each, because config.mix mixes them in pairs" * (pairs(config) > 1)
    if batch:
        raise ConfigError(f"--batch={batch}: expected a multiple of {unit}, for the {slice.chips} chips of {slice.name}{each}, such as "
                          f"{max(up - unit, unit)} or {up}")
    return up // slice.chips, (f"config.batch_size={asked} does not fit {slice.chips} chips{each}, and experiments.train would refuse it: planned for {up} "
                               f"(--config.batch_size={up})")


def pairs(config):
    """Images that a chip must have a multiple of."""
    return 2 if config.mix.mixup or config.mix.cutmix else 1


class Maker:
    """Compiles the step of a config at any number of images per chip."""

    def __init__(self, config, slice, mesh, platform, load, dtype, blocks, effort, report):
        self.config, self.slice, self.mesh, self.platform, self.load, self.dtype, self.report = config, slice, mesh, platform, load, dtype, report
        self.effort = effort if platform == "tpu" else "full"
        self.depth = depth.full(config, blocks) if blocks else None
        self.depths = (blocks, 2 * blocks) if blocks else (None,)
        self.kernel_seconds = kernels.seconds(slice.kind, slice.chip)
        self.longest = 0.0  # seconds of a compile
        self._states = {}   # by depth: shapes, which depend neither on the batch nor on `remat`

    def run(self, rows, remat, blocks=None):
        """The `build.Run`; on CPU devices that stand for GPUs, with as many images on each. blocks: of the model, None: all."""
        return build.build(programs.changed(self.config, rows * self.mesh.size, remat, self.dtype, blocks), self.mesh, self.load)

    @property
    def state(self):
        """Shapes of the whole model's state; known after the first compile."""
        return self._states[None]

    def notes(self):
        """What was compiled otherwise than it runs."""
        if self.effort == "low":
            yield LOW
        if self.depth:
            yield (f"compiled with {self.depths[0]} and {self.depths[1]} of {self.depth} equal blocks; memory, operations, bytes, collectives and times of "
                   f"{self.depth} blocks are extrapolated linearly (--blocks)")

    def compile(self, rows, remat):
        """(`fitting.Point`, the record of its program or None)."""
        since, costs, seconds = time.perf_counter(), [], []
        try:
            if self.depth:
                self._arguments(self.run(rows, remat), None)
            for blocks in self.depths:
                run = self.run(rows, remat, blocks)
                part = f", {blocks} of {self.depth} blocks" if blocks else ""
                self.report(f"compiling {run.config.model.name}{', remat' if remat else ''}{part}, {rows} images per chip on {self.slice.name}")
                program = programs.compile_step(run, self.platform, self._arguments(run, blocks), self.effort)
                costs.append(self.costs(program))
                seconds.append(program.seconds)
        except programs.TooLarge as error:
            return fitting.Point(rows, error.bytes, False), None
        finally:
            self.longest = max(self.longest, time.perf_counter() - since)
        found = costs[0]
        if self.depth:
            held = {blocks: training.sharding.bytes_per_device(state) for blocks, state in self._states.items()}
            found = depth.extrapolate(*costs, self.depths, self.depth, held[None] - held[self.depths[1]])
        total = found["memory"]["total"]
        fits = (self.platform == "tpu" and not self.depth) or total <= self.capacity  # libtpu refuses what does not fit
        return fitting.Point(rows, total, fits), self.record(run, rows, found, {name: sum(each[name] for each in seconds) for name in seconds[0]})

    def _arguments(self, run, blocks):
        """`programs.arguments`, whose state is kept by depth."""
        args = programs.arguments(run, self._states.get(blocks) if run.step.rule.begin is None else None)
        self._states[blocks] = args[0]
        return args

    @property
    def fixed(self):
        """Bytes that a step needs whatever its batch: the state and the gradients."""
        return 4 * programs.parameters(self.state) + training.sharding.bytes_per_device(self.state)

    @property
    def capacity(self):
        """Bytes that a program may use."""
        return self.slice.chip.memory - (RESERVED if self.platform == "tpu" else 0)

    def costs(self, program):
        """Costs per chip of one compiled program, as nested numbers."""
        module = hlo.parse(program.text)
        works, collectives = counts.count(module), running.collectives(module)
        clock = (self.slice.chip.clock or None) if self.effort == "full" else None  # cycles of a program that was compiled as it runs
        cost = estimate.estimate(works, collectives, self.slice, self.kernel_seconds, clock)
        total = lambda field: sum(work.times * getattr(work, field) for work in works)
        return {
            "memory": program.memory, "matmul": total("matmul"), "vector": total("vector") + total("slow"), "bytes": total("bytes"),
            "collectives": estimate.placed(collectives), "loops": estimate.facts(module), "seconds": {name: value for name, value in cost._asdict().items() if value is not None},
            "unknown": kernels.unknown(works) if self.platform == "tpu" else []}

    def record(self, run, rows, costs, compile_seconds):
        """What one step, and the run, cost. costs: of `costs` for `rows` images per chip."""
        batch, step = rows * self.slice.chips, costs["seconds"]["step"]
        steps = run.own.epochs * (len(run.train) // batch)
        return {
            "rows": rows, "batch": batch, "steps": steps, "memory": {**costs["memory"], "chip": self.slice.chip.memory},
            "flops_per_image": costs["matmul"] / rows, "vector_operations_per_image": costs["vector"] / rows, "bytes_per_image": costs["bytes"] / rows,
            "collectives": costs["collectives"], "seconds": costs["seconds"], **({} if self.depth else {"loops": costs["loops"]}),
            **({"kernels_not_counted": costs["unknown"]} if costs["unknown"] else {}),
            **({"blocks_compiled": list(self.depths), "blocks": self.depth} if self.depth else {}),
            "images_per_second": batch / step, "hours": steps * step / 3600, "chip_hours": steps * step / 3600 * self.slice.chips,
            "compile": compile_seconds}


class Variant:
    """The compiled programs of one variant.

    Args:
        maker: `Maker`.
        remat: whether the blocks' activations are recomputed; False: as the config says.
    """

    def __init__(self, maker, remat):
        self._maker, self._remat, self._points, self._records = maker, remat, [], {}

    def compile(self, rows):
        """Compiles a number of images per chip and returns its `fitting.Point`."""
        point, self._records[rows] = self._maker.compile(rows, self._remat)
        self._points.append(point)
        return point

    def search(self, compiles):
        """Compiles up to so many further programs in search of the largest that fits."""
        rows = self._points[0].rows
        step = 8 if rows >= 16 else pairs(self._maker.config)
        fitting.search(self.compile, self._maker.capacity, self._points, self._maker.fixed, step=step, compiles=compiles)

    def result(self, rows):
        """The variant as JSON. rows: images per chip that were asked for."""
        maker, points = self._maker, sorted(self._points)
        point = next(point for point in points if point.rows == rows)
        best, failing, line = fitting.largest(points), fitting.smallest_failing(points), fitting.line(points, maker.capacity, maker.fixed)
        return {
            "fits": point.fits, "needs_bytes": point.bytes, "asked": self._records[rows] if point.fits else None,
            "largest": best and {"rows": best.rows, "batch": best.rows * maker.slice.chips, "bytes": best.bytes, "record": self._records[best.rows]},
            "smallest_too_large": failing and {"rows": failing.rows, "bytes": failing.bytes}, "by_line": line and round(line, 1),
            "points": [each._asdict() for each in points]}
