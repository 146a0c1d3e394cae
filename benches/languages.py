"""What a tool costs in each language: size, first call, first call after a restart, warm call, fuel, memory.

    make languages && python3 benches/languages.py target/release/toolkeep target/tools

A daemon of its own is started for each tool, over a directory that is removed. The first call compiles the component; after a restart it is
loaded as it was compiled. Each tool reads one small text file.
"""

import asyncio
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "clients/python/src"))
import toolkeep  # noqa: E402

WARM = 500
TOOLS = [
    ("Rust", "notes", "notes.list", {}),
    ("C", "lines-c", "lines-c.count-lines", {"path": "todo.txt"}),
    ("JavaScript", "lines-js", "lines-js.count-lines", {"path": "todo.txt"}),
    ("Python", "lines-python", "lines-python.count-lines", {"path": "todo.txt"}),
]
# What is described by its manifest, because it does not describe itself.
DESCRIBED = {"lines-c": pathlib.Path(__file__).parents[1] / "sample-tools/c/lines/lines.toml"}


async def until_ready(socket):
    for _ in range(600):
        try:
            client = toolkeep.Client(socket)
            await client.connection()
            return client
        except toolkeep.DaemonUnreachable:
            await asyncio.sleep(0.05)
    sys.exit("the daemon does not start")


async def timed(client, tool, input):
    began = time.perf_counter()
    reply = await client.calls.execute(tool, input)
    return (time.perf_counter() - began) * 1000, reply


async def measure(program, tools, component, tool, input):
    with tempfile.TemporaryDirectory(prefix="toolkeep-languages-") as home:
        place = pathlib.Path(home)
        for directory in ("notes", "work", "tools"):
            (place / directory).mkdir()
        (place / "work/todo.txt").write_text("one\n\ntwo\n")
        config = '[daemon]\nstate_dir = "state"\nruntime_dir = "run"\ntools_dir = "tools"\n'
        grants = ""
        for name in ("notes", "work"):
            config += f'[[workspace]]\nname = "{name}"\npath = "{name}"\n'
            grants += f'[[workspace]]\nname = "{name}"\naccess = "write"\n'
        (place / "toolkeep.toml").write_text(config)
        wasm = (tools / f"{component}.wasm").read_bytes()
        (place / f"tools/{component}.wasm").write_bytes(wasm)
        manifest = f'format = 1\nname = "{component}"\ncomponent = "{component}.wasm"\ntier = 1\n{grants}'
        if component in DESCRIBED:
            manifest = DESCRIBED[component].read_text().replace('name = "lines"', f'name = "{component}"')
        (place / f"tools/{component}.toml").write_text(manifest)

        def serve():
            command = [program, "--config", "toolkeep.toml", "serve"]
            environment = {"HOME": home, "PATH": os.environ["PATH"]}
            return subprocess.Popen(command, cwd=home, env=environment, stderr=subprocess.DEVNULL)

        def stop(daemon):
            daemon.send_signal(signal.SIGTERM)
            daemon.wait()

        daemon = serve()
        try:
            client = await until_ready(place / "run/agent/agent.sock")
            first, reply = await timed(client, tool, input)
            await client.close()
            stop(daemon)
            daemon = serve()
            client = await until_ready(place / "run/agent/agent.sock")
            again, _ = await timed(client, tool, input)
            warm = sorted([(await timed(client, tool, input))[0] for _ in range(WARM)])
            await client.close()
        finally:
            stop(daemon)
        usage = reply.usage
        return len(wasm), first, again, statistics.median(warm), warm[int(WARM * 0.99)], usage.fuel, usage.memory_peak


async def main(program, tools):
    print("| language | component | first call | first call after a restart | warm call p50 | p99 | fuel | memory |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for language, component, tool, input in TOOLS:
        size, first, again, p50, p99, fuel, memory = await measure(program, tools, component, tool, input)
        print(
            f"| {language} | {size / 1e6:.1f} MB | {first / 1000:.1f} s | {again:.0f} ms | {p50:.2f} ms | {p99:.2f} ms "
            f"| {fuel:,} | {memory / 1e6:.1f} MB |",
            flush=True,
        )


asyncio.run(main(os.path.abspath(sys.argv[1]), pathlib.Path(sys.argv[2])))
