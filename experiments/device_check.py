"""One bounded run on an accelerator: kernels compared, timed beside others, and adversarial training, in one JSON file.

    python -m experiments.device_check prepare --work check
    python -m experiments.device_check run --work check --budget 520 --data /data/cifar10
    python -m experiments.device_check prepare run --work dry --dry

`prepare` lowers every program for the platform on any machine, with the device's version of JAX, and stores the inputs and the float64 results of
those that are compared. `run` deserializes and compiles them on the device: Python lowers a kernel slowly, and a device's minutes are few. It
writes device.json into the folder after every step; a part that fails becomes a note. --dry uses tiny sizes and, on a CPU, the scan in plain XLA.

Compared: every kernel and every gradient, run twice, which must agree to the bit. Timed: the scans and VMamba-T, as a share of the bandwidth of a
copy; beside them lax.associative_scan, jax-linear-attention (where `jla` is installed at `prepare`), timm's Swin-T and ConvNeXt-T in torch, and
mamba-ssm's CUDA scan (--mamba: its unpacked sources). The time left goes to PGD-10 adversarial training on CIFAR-10.
"""
import argparse
import os
import sys

PLATFORMS = ("cuda", "tpu", "cpu")


def parser():
    """The command line."""
    found = argparse.ArgumentParser(prog="python -m experiments.device_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("what", nargs="+", choices=("prepare", "run"))
    found.add_argument("--work", required=True, help="folder of the prepared programs and the report")
    found.add_argument("--platform", choices=PLATFORMS, help="to prepare for; by default cuda, or cpu with --dry")
    found.add_argument("--budget", type=float, default=520, help="seconds of a run")
    found.add_argument("--data", default="", help="folder of CIFAR-10 as released")
    found.add_argument("--mamba", default="", help="folder of mamba-ssm's sources")
    found.add_argument("--plans", action="store_true", help="prepare only the geometries that a map's scan may be cut into on a GPU, beside four scans")
    found.add_argument("--dry", action="store_true", help="tiny sizes")
    return found


def main(argv=None):
    """Exit status: 0, or 1 if a comparison failed or a program was not compared, or 2 for wrong arguments."""
    given = parser().parse_args(argv)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")     # torch uses the same GPU
    from experiments.device_checks import preparing, running
    say = lambda line: print(line, flush=True)
    try:
        if "prepare" in given.what:
            preparing.prepare(given.work, given.platform or ("cpu" if given.dry else "cuda"), given.dry, say, given.plans)
        if "run" not in given.what:
            return 0
        check = running.Run(given.work, given.budget, given.data, given.mamba, say)
    except ValueError as error:
        print(f"device_check: {error}", file=sys.stderr)
        return 2
    report = check.run()
    compared = sum(facts["part"] == "parity" for facts in check.index["programs"].values())
    right = [row for row in report["parity"] if row["right"] and row["same_twice"]]
    say(f"{len(right)} of {compared} comparisons right, {len(report['times'])} times, {len(report['notes'])} notes: {check.work / running.REPORT}")
    return int(len(right) != compared)


if __name__ == "__main__":
    sys.exit(main())
