# Copyright: (c) 2026, genai.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures the inference service against the bare model loop and its peers, on one core of this machine or on a GPU.

    bench_app.py [--runs 5] [--models digits,...] [--servers ours,...] [--more]     writes build/bench-app.json and build/bench-app.md
    bench_app.py --device cuda:0 --server-cores 2-7 --batch 32 ...

`--more` adds to what an earlier call measured. It says nothing about right or wrong times: only a server that does not start, or answers
other than 200, makes it fail. Environments and packages are kept in the cache, by what they are made from; `--python` and `--peers-python`
are interpreters to use instead, where nothing can be installed.
"""
from __future__ import annotations

import argparse
import base64
import contextlib
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
BUILD = ROOT / "build"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "genai-platform"
sys.path.insert(0, str(HERE.parent))

import report  # noqa: E402
from report import BENTOML, LITSERVE, OURS, PLAIN, RAY  # noqa: E402
from table import Samples  # noqa: E402

CLIENT_CORE = "1"
BATCH = 16
SHARE = 0.7
WARM_UP, SECONDS, START_SECONDS = 1.0, 4.0, 120.0
RARELY = 0.03  # of all requests, so that the p95 is one of hits
MODELS = {
    "digits": ["--architecture", "digits-cnn-v1", "--size", "8"],
    "resnet18": ["--architecture", "resnet18-v1", "--size", "64"],
    "resnet50": ["--architecture", "resnet50-v1", "--size", "64"],
    "resnet50-224": ["--architecture", "resnet50-v1", "--size", "224"],  # for a GPU
}
USUAL = ("digits", "resnet18", "resnet50")
SCRIPTS = {LITSERVE: "lit.py", RAY: "rayserve.py", PLAIN: "plain.py"}
PEERS = (LITSERVE, BENTOML, RAY, PLAIN)


class Wrong(Exception):
    """Something other than a time is not what it has to be."""


def environment(name: str) -> pathlib.Path:
    """The interpreter of a cached environment made from requirements-<name>.txt. Raises Wrong when it cannot be made."""
    wanted = HERE / f"requirements-{name}.txt"
    key = hashlib.sha256(wanted.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = CACHE / f"bench-{name}-{key}"
    if not (folder / ".done").exists():
        print(f">> environment of {name}: some minutes, once", flush=True)
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [*installer(folder), "-r", str(wanted)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Wrong(f"{' '.join(command)}:\n{done.stderr[-2000:]}")
        (folder / ".done").touch()
    return folder / "bin/python"


def installer(folder: pathlib.Path) -> list[str]:
    """The command that installs into an environment: uv where it is, because it keeps torch's gigabytes once for all of them."""
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "-q", "-p", str(folder / "bin/python")]
    return [str(folder / "bin/pip"), "install", "-q", "--disable-pip-version-check"]


@dataclasses.dataclass(frozen=True)
class Server:
    """How one server is started, and what a request to it is."""

    command: list[str]
    path: str
    content_type: str
    body: bytes

    def request(self, port: int) -> dict[str, t.Any]:
        """What of a client's spec says where it sends what."""
        return {"port": port, "path": self.path, "content_type": self.content_type, "bodies": [base64.b64encode(self.body).decode()]}


@dataclasses.dataclass(frozen=True)
class Where:
    """What all servers and the bare loop compute with, and how many instances at once."""

    device: str = "cpu"
    cores: str = "0"
    batch: int = BATCH
    seconds: float = SECONDS

    @property
    def connections(self) -> int:
        """One batch computes, one waits, and one is on its way."""
        return 3 * self.batch

    @property
    def sizes(self) -> list[int]:
        return [size for size in (1, 4, 8, 16, 32, 64, 128) if size < self.batch] + [self.batch]


@dataclasses.dataclass
class Bench:
    """What one benchmark knows: the interpreters, the packages, what it has measured."""

    ours: pathlib.Path
    peers: pathlib.Path | None
    folder: pathlib.Path
    samples: Samples
    where: Where = Where()
    source: pathlib.Path = ROOT / "app/src"

    def variables(self, model: str, port: int) -> dict[str, str]:
        path = os.pathsep.join([str(self.source), str(HERE / "servers")])
        ours = {"GENAI_MODEL_DIR": str(self.package(model)), "GENAI_PORT": str(port), "GENAI_HOST": "127.0.0.1", "GENAI_DRAIN_SECONDS": "20", "GENAI_DEVICE": self.where.device}
        theirs = {"BENCH_MODEL": str(self.package(model)), "BENCH_PORT": str(port), "BENCH_BATCH": str(self.where.batch), "BENCH_DEVICE": self.where.device}
        quiet = {"BENTOML_DO_NOT_TRACK": "True", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        shared = {"PYTHONPATH": path, "GENAI_MAX_BATCH_SIZE": str(self.where.batch), "GENAI_MAX_QUEUE": str(4 * self.where.connections), "GENAI_TORCH_THREADS": "1", "GENAI_LOG_LEVEL": "warning"}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("GENAI_")}  # the service refuses what it does not know
        return {**inherited, **shared, **ours, **theirs, **quiet}

    def package(self, model: str) -> pathlib.Path:
        folder = CACHE / "bench-models" / hashlib.sha256(str(MODELS[model]).encode()).hexdigest()[:12]
        if not (folder / "model.yaml").exists():
            command = [str(self.ours), "-m", "genai_inference", "package", *MODELS[model], "--labels", "10", "--out", str(folder)]
            subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT / "app/src")}, check=True, stdout=subprocess.DEVNULL)
        return folder

    def server(self, name: str, model: str, port: int) -> Server:
        json_body = json.dumps({"instances": [[n % 17 for n in range(64)]]}).encode()
        side = int(MODELS[model][-1])
        raw_body = npy(3, side, side)
        text_body = json.dumps({"image": base64.b64encode(raw_body).decode()}).encode()
        texts_body = json.dumps({"images": [base64.b64encode(raw_body).decode()]}).encode()
        small = model == "digits"
        if name == OURS:
            kind, body = ("application/json", json_body) if small else ("application/x-npy", raw_body)
            return Server([str(self.ours), "-m", "genai_inference"], "/v1/predict", kind, body)
        assert self.peers
        if name == BENTOML:
            command = [str(self.peers), "-m", "bentoml", "serve", "bento:Model", "--host", "127.0.0.1", "--port", str(port)]
            command += ["--working-dir", str(HERE / "servers")]
            return Server(command, "/json" if small else "/raw", "application/json", json_body if small else texts_body)
        command = [str(self.peers), str(HERE / "servers" / SCRIPTS[name])]
        if name == LITSERVE:
            return Server(command, "/predict", "application/json", json_body if small else text_body)
        path = {PLAIN: "/json" if small else "/raw", RAY: "/"}[name]
        return Server(command, path, "application/json" if small else "application/octet-stream", json_body if small else raw_body)


def npy(*shape: int) -> bytes:
    """One instance as an .npy file; made by hand, because this interpreter need not have numpy."""
    size = 1
    for length in shape:
        size *= length
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {(1, *shape)}, }}"
    header = header.ljust(117) + "\n"
    out = io.BytesIO()
    out.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    out.write(bytes(n % 251 for n in range(size)))
    return out.getvalue()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@contextlib.contextmanager
def redis_url() -> t.Iterator[str]:
    """A Redis of our own, on the client's core; an empty URL where none is installed."""
    program = shutil.which("redis-server")
    if not program:
        yield ""
        return
    port = free_port()
    command = ["taskset", "-c", CLIENT_CORE, program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()


@contextlib.contextmanager
def running(server: Server, variables: dict[str, str], port: int, log: pathlib.Path, cores: str = Where.cores) -> t.Iterator[subprocess.Popen]:
    """The server, once it answers. Its whole process group goes when the block ends."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["taskset", "-c", cores, *server.command], env=variables, cwd=log.parent, stdout=out, stderr=out, start_new_session=True
        )
    try:
        until = time.monotonic() + START_SECONDS
        while not answers(server, port):
            if process.poll() is not None or time.monotonic() > until:
                raise Wrong(f"{' '.join(server.command)} does not answer:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.2)
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(3)


def answers(server: Server, port: int) -> bool:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{server.path}", server.body, {"Content-Type": server.content_type})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return b'"probabilities"' in answer.read()
    except OSError:
        return False


def client(bench: Bench, spec: dict) -> dict:
    """What the client saw of a load; see client.py."""
    file = bench.folder / "spec.json"
    whole = {"rate": None, "warm_up": WARM_UP, "seconds": SECONDS, **spec}
    file.write_text(json.dumps(whole), encoding="utf-8")
    command = ["taskset", "-c", CLIENT_CORE, str(bench.ours), str(HERE / "client.py"), str(file)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120 + whole["seconds"]).stdout)


def load(bench: Bench, key: str, spec: dict) -> dict:
    """What the client saw; kept under `key`. Raises Wrong if any answer was not 200."""
    seen = client(bench, spec)
    if set(seen["statuses"]) != {"200"}:
        raise Wrong(f"{key}: answers {seen['statuses']}")
    for name in ("per_second", "p50", "p95", "p99", "client_busy"):
        bench.samples.add(f"{key}.{name}", seen[name])
    return seen


def measure(bench: Bench, model: str, name: str) -> None:
    """One server with one model: throughput, one at a time, at LitServe's load; ours at its own load, and its no-op route, too."""
    port = free_port()
    where = bench.where
    server = bench.server(name, model, port)
    with running(server, bench.variables(model, port), port, bench.folder / f"{name}.log", where.cores) as process:
        request = server.request(port)
        key = f"{model}.{name}"
        whole, half, many = {"seconds": where.seconds}, {"seconds": where.seconds / 2}, {"connections": 4 * where.connections}
        raw, before = ([bare(bench, model)], spent(process.pid, port)) if name == OURS else ([], ())
        full = load(bench, f"{key}.full", {**request, **whole, "connections": where.connections})
        if name == OURS:
            event_loop, others, requests = (now - then for now, then in zip(spent(process.pid, port), before))
            bench.samples.add(f"{key}.cpu.event_loop", 1000 * event_loop / requests)
            bench.samples.add(f"{key}.cpu.others", 1000 * others / requests)
            raw.append(bare(bench, model))
        load(bench, f"{key}.alone", {**request, **half, "connections": 1})
        theirs = bench.samples.values.get(f"{model}.{LITSERVE}.full.per_second")
        if theirs:
            load(bench, f"{key}.even", {**request, **whole, **many, "rate": SHARE * statistics.median(theirs)})
        if name == OURS:
            load(bench, f"{key}.steady", {**request, **whole, **many, "rate": SHARE * full["per_second"]})
            no_op = {"port": port, "path": "/health", "content_type": "text/plain", "bodies": []}
            route = load(bench, f"{key}.no_op", {**no_op, **half, "connections": where.batch})
            limit = report.allowed(statistics.mean(raw), 1 / route["per_second"], where.device)
            bench.samples.add(f"{key}.of_allowed", full["per_second"] / limit)
    if name == OURS:
        measure_cached(bench, model, SHARE * full["per_second"])


def spent(pid: int, port: int) -> tuple[float, float, float]:
    """CPU seconds of our server's event loop, those of its other threads, and its predictions: all since it began."""
    event_loop, whole = (cpu_seconds(pathlib.Path(f"/proc/{pid}/{part}stat")) for part in (f"task/{pid}/", ""))
    return event_loop, whole - event_loop, sum(metrics(port, "genai_batch_size_sum{").values())


def cpu_seconds(file: pathlib.Path) -> float:
    """User and system time of a process or thread: proc_pid_stat(5), fields 14 and 15."""
    fields = file.read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def metrics(port: int, beginning: str) -> dict[str, float]:
    """{sample: value} of what our server counts under names that begin so."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        samples = (line.rpartition(" ") for line in answer.read().decode().splitlines() if line.startswith(beginning))
        return {name: float(value) for name, _, value in samples}


def measure_cached(bench: Bench, model: str, rate: float) -> None:
    """The same question again and again, `rate` times a second: answered by this process, and by Redis."""
    where = bench.where
    with redis_url() as url:
        layers = {"local": {}, "redis": {"GENAI_CACHE_LOCAL_BYTES": "0", "GENAI_REDIS_URL": url}}
        for layer in ("local", "redis") if url else ("local",):
            port = free_port()
            server = bench.server(OURS, model, port)
            variables = {**bench.variables(model, port), "GENAI_CACHE_TTL_SECONDS": "600", **layers[layer]}
            with running(server, variables, port, bench.folder / f"{OURS}.log", where.cores):
                spec = {**server.request(port), "connections": 4 * where.connections, "rate": rate, "seconds": where.seconds / 2}
                load(bench, f"{model}.{OURS}.cached_{layer}", spec)
                results = cache_results(port)
            if results["miss"] > RARELY * sum(results.values()):
                raise Wrong(f"{model}: one question asked again and again was computed again: {results}")


def cache_results(port: int) -> dict[str, float]:
    """How often the server's one model was answered from where."""
    found = metrics(port, "genai_cache_requests_total{")
    return {name.split('result="')[1].split('"')[0]: count for name, count in found.items()}


def bare(bench: Bench, model: str) -> float:
    """Instances a second of the bare loop at its best. Measured right before and after the service, whose server idles meanwhile: the
    speed of a shared machine changes from minute to minute.
    """
    where = bench.where
    loop = [str(HERE / "bare.py"), str(bench.package(model)), where.device, str(where.seconds / 4), *map(str, where.sizes)]
    command = ["taskset", "-c", where.cores, str(bench.ours), *loop]
    found = subprocess.run(command, env=bench.variables(model, 0), check=True, capture_output=True, text=True, timeout=120).stdout
    for size, seconds in json.loads(found).items():
        bench.samples.add(f"{model}.bare.{size}", seconds)
    return max(int(size) / seconds for size, seconds in json.loads(found).items())


def rotated(items: t.Sequence[str], run: int) -> list[str]:
    """LitServe first, because the others are measured at its load; then each run begins with another one."""
    others = [item for item in items if item != LITSERVE]
    start = run % len(others) if others else 0
    return [item for item in items if item == LITSERVE] + others[start:] + others[:start]


def write(bench: Bench, models: list[str], missing: dict[str, str]) -> None:
    BUILD.mkdir(exist_ok=True)
    measured = [model for model in models if f"{model}.{OURS}.no_op.p50" in bench.samples.values]
    (BUILD / "bench-app.json").write_text(json.dumps({**bench.samples.as_json(), "missing": missing}, indent=1) + "\n", encoding="utf-8")
    if measured:
        lines = (HERE / "requirements-peers.txt").read_text(encoding="utf-8").splitlines()
        peers = [line for line in lines if line.startswith(("bento", "fast", "lit", "ray", "uvi"))]
        facts = {
            "runs": min(len(bench.samples.values[f"{model}.{OURS}.full.p50"]) for model in measured),
            "busy": max(max(found) for key, found in bench.samples.values.items() if key.endswith("client_busy")),
            "batch": bench.where.batch, "connections": bench.where.connections, "share": SHARE, "peers": ", ".join(peers), "missing": missing,
            "device": bench.where.device, "cores": bench.where.cores,
        }
        (BUILD / "bench-app.md").write_text(report.markdown(bench.samples, measured, bench.where.sizes, facts), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--models", default=",".join(USUAL))
    parser.add_argument("--servers", default=",".join((OURS, *PEERS)))
    parser.add_argument("--more", action="store_true")
    parser.add_argument("--device", default=Where.device)
    parser.add_argument("--server-cores", default=Where.cores)
    parser.add_argument("--batch", type=int, default=Where.batch)
    parser.add_argument("--seconds", type=float, default=Where.seconds)
    parser.add_argument("--python", type=pathlib.Path)
    parser.add_argument("--peers-python", type=pathlib.Path)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server outlives us
    models, servers = arguments.models.split(","), arguments.servers.split(",")
    missing: dict[str, str] = {}
    samples = Samples()
    if arguments.more and (BUILD / "bench-app.json").exists():
        earlier = json.loads((BUILD / "bench-app.json").read_text(encoding="utf-8"))
        samples = Samples({key: figure["values"] for key, figure in earlier["figures"].items()})
        missing = earlier["missing"]
    try:
        peers = arguments.peers_python or environment("peers") if set(servers) & set(PEERS) else None
    except Wrong as error:
        print(error, file=sys.stderr)
        peers, servers = None, [OURS]
        missing = dict.fromkeys(PEERS, "could not be installed")
    with tempfile.TemporaryDirectory() as folder:
        where = Where(arguments.device, arguments.server_cores, arguments.batch, arguments.seconds)
        bench = Bench(arguments.python or environment("ours"), peers, pathlib.Path(folder), samples, where)
        for run in range(arguments.runs):
            for model in models:
                for name in rotated(servers, run):
                    print(f"run {run + 1} of {arguments.runs}: {model}, {name}", flush=True)
                    try:
                        measure(bench, model, name)
                    except Wrong as error:
                        if name == OURS:
                            raise
                        print(error, file=sys.stderr)
                        missing[name] = "failed, see the log"
                write(bench, list(MODELS), missing)
    file = BUILD / "bench-app.md"
    if file.exists():
        print(file.read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
