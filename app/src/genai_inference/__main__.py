"""Command line: `serve` (the default), `worker`, `benchmark`, `train`, `package` and `fetch`.

Everything heavy is imported by the command that needs it: `serve` must set the number of threads before numpy and
torch are loaded, and must be able to refuse bad settings without them.
"""

import argparse
import os
import re
import signal
import sys
import time
from functools import partial
from pathlib import Path

MINIMUM_ACCURACY = 0.97
# How long a thread waits for Python's lock before it asks for it. The inference thread does so after every operation of
# a network, and with the default of 5 ms a busy event loop makes it several times slower.
SWITCH_SECONDS = 0.0005


def main(argv: list[str] | None = None) -> int:
    """Runs a command and returns the exit code: 2 bad settings, 3 bad or no model package, 4 model not good enough,
    5 to 7 a benchmark that is not finished, 8 a device that does not compute any more.
    """
    # Until the command has handlers of its own. The first process of a container has no default ones.
    unfinished = 5 if "benchmark" in (argv or sys.argv) else 0
    signal.signal(signal.SIGTERM, lambda *_: os._exit(unfinished))
    arguments = _parser().parse_args(argv)
    if arguments.command == "train":
        return _train(arguments.out, arguments.model_version, arguments.seed)
    if arguments.command == "package":
        return _package(arguments)
    if arguments.command == "fetch":
        return _fetch(arguments)
    return _compute(arguments.command)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="genai-inference", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="serve the model package in GENAI_MODEL_DIR (the default)")
    commands.add_parser("worker", help="compute the jobs of the queue GENAI_WORKER_QUEUE")
    commands.add_parser("benchmark", help="measure every configured model on this node")
    train = commands.add_parser("train", help="train a model and write its package")
    train.add_argument("--out", type=Path, required=True, help="folder for the package")
    train.add_argument("--model-version", type=_word, required=True, help="version of the model, e.g. 1.0.0")
    train.add_argument("--seed", type=int, help="default: derived from the version")
    package = commands.add_parser("package", help="write a package with random weights, for benchmarks")
    package.add_argument("--architecture", required=True, help="digits-cnn-v1, resnet18-v1 or resnet50-v1")
    package.add_argument("--out", type=Path, required=True, help="folder for the package")
    package.add_argument("--name", type=_word, help="default: the architecture")
    package.add_argument("--model-version", type=_word, default="0.0.0", help="default: 0.0.0")
    package.add_argument("--size", type=int, default=224, help="height and width of an image, default 224")
    package.add_argument("--labels", type=int, default=1000, help="default 1000")
    package.add_argument("--seed", type=int, default=0)
    fetch = commands.add_parser("fetch", help="fill a model volume, as an init container does")
    fetch.add_argument(
        "--from", dest="source", required=True, help="s3://BUCKET/PREFIX/, https://HOST/PATH.tar, folder"
    )
    fetch.add_argument("--to", type=Path, required=True, help="folder for the package; replaced as a whole")
    fetch.add_argument("--sha256", type=_digest, help="of model.yaml, which holds that of the weights")
    fetch.add_argument(
        "--max-bytes", type=int, default=16 * 2**30, help="largest package that is taken, default 16 GiB"
    )
    return parser


def _word(text: str) -> str:
    from .model import WORD

    if not re.match(WORD, text):
        raise argparse.ArgumentTypeError(f"{text!r} does not match {WORD}")
    return text


def _digest(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise argparse.ArgumentTypeError("64 hexadecimal digits expected")
    return text


def _compute(command: str | None) -> int:
    """`serve`, `worker` or `benchmark`: the same settings, threads and engine."""
    from .cpus import usable_cpus
    from .model import ModelError
    from .settings import SettingsError, read_settings
    from .watchdog import DeviceLost

    try:
        settings = read_settings()
        threads = settings.torch_threads or usable_cpus()
        sys.setswitchinterval(SWITCH_SECONDS)
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
        from . import benchmark, logs
        from .server import serve
        from .torch_engine import TorchEngine, all_devices
        from .worker import work

        logs.configure(settings.log_level)
        make_engine = partial(TorchEngine, threads=threads)
        if command == "benchmark":
            return benchmark.command(settings, make_engine)
        work(settings, make_engine, all_devices) if command == "worker" else serve(settings, make_engine)
    except (SettingsError, ModelError, DeviceLost) as error:
        print(f"genai-inference: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _train(out: Path, version: str, seed: int | None) -> int:
    from .train import seed_of, train, write_package

    started = time.perf_counter()
    seed = seed_of(version) if seed is None else seed
    network, accuracy, held_out = train(seed)
    took = time.perf_counter() - started
    print(f"digits {version}: held-out accuracy {accuracy:.4f} ({len(held_out[1])} digits), seed {seed}, {took:.1f} s")
    if accuracy < MINIMUM_ACCURACY:
        print(f"genai-inference: accuracy is below {MINIMUM_ACCURACY}, no package written", file=sys.stderr)
        return 4
    write_package(out, version, network, accuracy, held_out)
    return 0


def _package(arguments: argparse.Namespace) -> int:
    from .model import ModelError
    from .packages import write_random

    name = arguments.name or arguments.architecture
    shape = {"size": arguments.size, "labels": arguments.labels, "seed": arguments.seed}
    try:
        write_random(arguments.out, arguments.architecture, arguments.model_version, name=name, **shape)
    except (ModelError, ValueError) as error:
        print(f"genai-inference: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    print(f"{name} {arguments.model_version}: random weights, in {arguments.out}")
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    from . import logs
    from .fetch import fetch
    from .settings import SettingsError, read_settings
    from .sources import FetchError

    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # no volume was filled; leave no rest
    os.umask(0o022)  # whoever serves it may be another user
    try:
        settings = read_settings()
        logs.configure(settings.log_level)
        fetch(arguments.source, arguments.to, arguments.sha256, arguments.max_bytes, settings.fetch_seconds)
    except (SettingsError, FetchError) as error:
        print(f"genai-inference: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a thread that still loads the model would hold up, or crash, the interpreter's own way out
