"""Run prepared programs on a device within a budget of seconds, and write the report after every step."""
import concurrent.futures
import contextlib
import json
import os
import pathlib
import shlex
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import pallas_kernels  # noqa: F401  its import tells the compiler where Mosaic GPU's runtime library is, which exported kernels need
from experiments.common import environment
from experiments.device_checks import kernels, rivals
from experiments.device_checks.preparing import INDEX, draw
from vmamba_jax.core import files

BOUND = {"float32": 2e-5, "float16": 2e-3, "bfloat16": 2e-2}     # largest difference over largest value
REPORT = "device.json"
VERSIONS = (*environment.KERNEL_PACKAGES, "torch", "timm")
RESERVE = 90         # seconds kept for training when a timing begins


class Run:
    """One check.

    Attributes:
        report: the JSON-able report.
    """

    def __init__(self, work, budget, data="", mamba="", say=print):
        self.work, self.budget, self.data, self.mamba, self.say, self.began = pathlib.Path(work), budget, data, mamba, say, time.perf_counter()
        path = self.work / INDEX
        if not path.exists():
            raise ValueError(f"--work={work}: expected a folder that `prepare` wrote, got no {INDEX}")
        self.index = json.loads(path.read_text())
        if self.index["jax"] != jax.__version__:
            raise ValueError(f"--work={work}: lowered by jax {self.index['jax']}: expected jax {jax.__version__}, as here; prepare it with this version")
        backend = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
        if backend != self.index["platform"]:
            raise ValueError(f"--work={work}: lowered for {self.index['platform']}: expected {backend}, the platform here")
        device = {"platform": backend, "kind": jax.devices()[0].device_kind, "count": 1, "cores": os.cpu_count()}
        command = shlex.join(["python", "-m", "experiments.device_check", *sys.argv[1:]])
        self.report = {"kind": "device_check", "device": device, "platform": backend, "jax": jax.__version__, "versions": environment.versions(VERSIONS),
                       "command": command, "finished": None, "dry": self.index["dry"], "budget": budget, "seconds": 0.0, "notes": [], "parity": [],
                       "times": [], "kernels": [], "losses": [], "training": None}

    def left(self):
        return self.budget - (time.perf_counter() - self.began)

    @contextlib.contextmanager
    def step(self, what):
        """Save the report afterwards; a failure becomes a note, and the check goes on."""
        try:
            yield
        except Exception as error:
            self.report["notes"].append(f"{what}: {type(error).__name__}: {str(error).strip()[:300]}")
        self.report.update(finished=environment.now(), seconds=round(time.perf_counter() - self.began, 1), losses=losses(self.report["times"]))
        with files.atomic(self.work / REPORT) as path:
            path.write_text(json.dumps(self.report, indent=1))

    def compiled(self, name):
        """(compiled program, tree of its shapes, seconds)."""
        exported, since = jax.export.deserialize((self.work / self.index["programs"][name]["file"]).read_bytes()), time.perf_counter()
        (shapes,), _ = jax.tree.unflatten(exported.in_tree, [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in exported.in_avals])
        return jax.jit(exported.call).lower(shapes).compile(), shapes, round(time.perf_counter() - since, 1)

    def run(self):
        """The report of all parts."""
        dry = self.index["dry"]
        with concurrent.futures.ThreadPoolExecutor(2 if dry else min(14, os.cpu_count() or 2)) as pool:
            built = pool.submit(rivals.build_mamba, self.mamba) if self.mamba else None
            programs = {name: pool.submit(self.compiled, name) for name in self.index["programs"]}
            for part in ("parity", "times"):
                for name, facts in self.index["programs"].items():
                    if facts["part"] == part:
                        with self.step(name):
                            getattr(self, f"_{part}")(name, facts, programs)
            sizes = self.index["rivals"]
            if self.report["platform"] == "cuda" and sizes:
                with self.step("torch's models"):
                    rivals.torch_models(sizes["images"], sizes["size"], self.record, timed)
                with self.step("mamba-ssm"):
                    if built:
                        rivals.mamba_scans(built.result(timeout=max(1, self.left() - RESERVE)), sizes["scans"], self.record, timed, self.copy_rate)
            with self.step("training"):
                self.report["training"] = None if "train" not in programs else self._train(programs, 2 if dry else max(10, self.left() - 40))
        return self.report

    def record(self, facts, seconds, rate=None, **more):
        """Add a row of `times`; rate: bytes per second of a copy, measured beside it."""
        row = {key: value for key, value in facts.items() if key not in ("file", "part")} | {"ms": seconds * 1e3} | more
        if rate:
            row |= {"copy_gb_s": rate / 1e9, "share_of_copy": facts["bytes"] / seconds / rate}
        if "images" in facts:
            row["images_per_s"] = facts["images"] / seconds
        self.report["times"].append(row)
        self.say(json.dumps(row))

    def copy_rate(self):
        """Bytes per second of x + 1 in place, read and written."""
        held, add = [jnp.zeros((64 if self.index["dry"] else 2048) << 18)], jax.jit(lambda x: x + 1, donate_argnums=0)

        def run():
            held.append(add(held.pop()))
            return held[0]
        return 2 * held[0].nbytes / timed(run)

    def _parity(self, name, facts, programs):
        fn, shapes, compiling = programs[name].result()
        (leaves, tree), path = jax.tree.flatten(shapes), self.work / f"{facts['file']}.npz"
        stored = list(np.load(path).values()) if path.exists() else None
        x = jax.tree.unflatten(tree, [jnp.asarray(v, like.dtype) for v, like in zip(stored, leaves, strict=False)]) if stored else draw(shapes, 1)
        found, again = (jax.tree.leaves(jax.device_get(fn(x))) for _ in range(2))
        wanted = stored[len(leaves):] if stored else [np.zeros_like(v) for v in found]
        error = max(float(np.abs(np.float64(v) - w).max() / (np.abs(np.float64(w)).max() or 1)) for v, w in zip(found, wanted, strict=True))
        same = all(a.tobytes() == b.tobytes() for a, b in zip(found, again, strict=True))
        row = {"name": name, "error": error, "right": error < BOUND[facts["dtype"]], "same_twice": same, "compiling": compiling}
        self.report["parity"].append(row)
        self.say(json.dumps(row))

    def _times(self, name, facts, programs):
        if self.left() < (0 if self.index["dry"] else RESERVE):
            raise TimeoutError(f"not timed: {self.left():.0f} s of the budget left")
        fn, shapes, compiling = programs[name].result()
        concurrent.futures.wait(programs.values(), timeout=max(0, self.left() - 300))         # no compiler runs beside a timing
        sets = [draw(shapes, i) for i in range(int(np.clip(3e8 // facts.get("bytes", 1e9) + 1, 1, 4)))]      # more than a cache holds
        calls, memory = iter(range(10**9)), fn.memory_analysis()
        seconds = timed(lambda: fn(sets[next(calls) % len(sets)]))
        self.record(facts, seconds, self.copy_rate() if "bytes" in facts else None, compiling=compiling,
                    temp_mib=None if memory is None else memory.temp_size_in_bytes / 2**20)
        if facts["what"] == "model" and self.report["platform"] == "cuda":
            found = kernels.costliest(lambda: fn(sets[0]))
            self.report["kernels"].append({"by": facts["by"], "pass": facts["pass"], "kernels": found})
            self.say("\n".join(f"{row['ms']:9.3f} ms {row['share']:6.1%} {row['launches']:5d} {row['kernel']}" for row in found))

    def _train(self, programs, seconds):
        """Adversarial training for so many seconds, then clean and PGD-20 accuracy on test images."""
        from vmamba_jax import data
        facts = self.index["programs"]["train"]
        train, test = (data.load(facts["data"], split, root=self.data or None) for split in ("train", "test"))
        (step, *_), (evaluate, *_) = programs["train"].result(), programs["evaluate"].result()
        leaves, losses = [jnp.asarray(x) for x in np.load(self.work / "state.npz").values()], []
        of = lambda batch, seed: {"leaves": leaves, "image": jnp.asarray(batch["image"]), "label": jnp.asarray(batch["label"]), "seed": jnp.int32(seed)}
        began, steps = time.perf_counter(), 0
        for steps, batch in enumerate(data.Batches(train, facts["batch"], seed=0), 1):
            leaves, loss = step(of(batch, steps))
            if steps % 20 == 1:
                losses.append(float(loss))                   # also keeps the queue of the device short
            if time.perf_counter() - began > seconds:
                break
        jax.block_until_ready(leaves)
        took, batches = time.perf_counter() - began, data.Batches(test, facts["batch"], seed=1)
        found = [[float(x) for x in evaluate(of(batches[i], i))] for i in range(min(8, batches.steps_per_epoch))]
        clean, attacked = np.mean(found, 0)
        return {key: facts[key] for key in ("data", "eps", "batch")} | {
            "steps": steps, "images_per_s": steps * facts["batch"] / took, "losses": losses, "test_images": len(found) * facts["batch"],
            "clean": float(clean), "pgd20": float(attacked)}


def timed(run, wait=jax.block_until_ready):
    """Seconds of a call: the median over five groups of calls, each group queued and waited for together."""
    def seconds(calls):
        since = time.perf_counter()
        for _ in range(calls):
            out = run()
        wait(out)
        return (time.perf_counter() - since) / calls
    seconds(1)
    calls = int(np.clip(0.03 / seconds(1), 1, 200))
    return float(np.median([seconds(calls) for _ in range(5)]))


def losses(times):
    """Rows in which another program is faster than ours: what, size, pass, by, and our time over theirs."""
    key = lambda row: json.dumps([row.get(field) for field in ("what", "size", "state", "images", "dtype", "pass")])
    ours = {key(row): row["ms"] for row in times if row["by"] in ("ours", "vmamba_tiny")}
    found = [(ours[key(row)] / row["ms"], row) for row in times if row["by"] not in ("ours", "vmamba_tiny") and key(row) in ours]
    return [{"what": row["what"], "size": row["size"], "pass": row["pass"], "dtype": row["dtype"], "by": row["by"], "ours_over_theirs": ratio}
            for ratio, row in found if ratio > 1]
