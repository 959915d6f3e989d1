"""What other servers take for the same messages: ws, Bun, fastwebsockets, tokio-tungstenite and µWebSockets.

Each is written as its own documentation recommends (benches/peers) and installed once, into target/peers: from npm,
from crates.io, and µWebSockets from its repository, with git and a C++ compiler. One that can't be installed is left
out, with the reason. --only chooses among them; campanile and the kernel's part are always measured.

--also adds a server that is built already, as often as wanted: --also 'mine=path/to/server {port}'. {port} becomes 0;
the first line of its output names the port, "listening on http://127.0.0.1:PORT/"; it answers /echo and /broadcast.
"""

import argparse
import hashlib
import json
import shutil
import tomllib

import rig
from loads import LOADS, measure as measure_load
from options import command, loads_option, names_of
from rig import BENCHES, Failed, Server, say

ROUNDS, SECS = 5, 2.0
SOURCES = BENCHES / "peers"
INSTALLED = rig.TARGET / "peers"
COMPARED = ["echo", "echo-16", "binary-16k", "text-16k", "broadcast", "broadcast-16", "chat", "idle"]

UWEBSOCKETS = "https://github.com/uNetworking/uWebSockets"
UWEBSOCKETS_TAG = "v20.79.0"


# ---- installing ------------------------------------------------------------------------------


def node_modules():
    """Installs the Node packages, once: the folder that has them. None of their scripts runs."""
    folder = INSTALLED / "node"
    files = [SOURCES / "package.json", SOURCES / "package-lock.json"]
    stamp = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    marker = folder / "node_modules/.stamp"
    if not marker.exists() or marker.read_text() != stamp:
        if not shutil.which("npm"):
            raise Failed("npm is not installed")
        say("peers: installing the Node packages")
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, folder)
        rig.call(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder)
        marker.write_text(stamp)
    return folder


def ws(*options):
    """The command of the server on Node's ws, with options for it behind the port."""
    if not shutil.which("node"):
        raise Failed("node is not installed")
    # Beside the packages, where Node.js looks for them.
    server = shutil.copy(SOURCES / "ws.mjs", node_modules())
    return [shutil.which("node"), server, "{port}", *options]


def bun():
    # npm chooses the package by processor and libc; its own script would only move the program.
    for program in node_modules().glob("node_modules/@oven/bun-linux-*/bin/bun"):
        rig.call([program, "--version"])
        return [program, SOURCES / "bun.ts", "{port}"]
    raise Failed("npm has no Bun for this machine")


def rust(name):
    folder = INSTALLED / "rust"
    manifest = SOURCES / "rust/Cargo.toml"
    if not (folder / "release" / name).exists():
        say("peers: building the Rust servers")
    rig.call([rig.CARGO, "build", "--release", "--locked", "--manifest-path", manifest, "--target-dir", folder])
    return [folder / "release" / name, "{port}"]


def uwebsockets():
    folder, source = INSTALLED / "uwebsockets", SOURCES / "uwebsockets.cpp"
    program = folder / "uwebsockets"
    stamp = f"{UWEBSOCKETS_TAG} {hashlib.sha256(source.read_bytes()).hexdigest()}"
    marker = folder / ".stamp"
    if not marker.exists() or marker.read_text() != stamp:
        for tool in ("git", "cc", "c++"):
            if not shutil.which(tool):
                raise Failed(f"{tool} is not installed")
        checkout = folder / UWEBSOCKETS_TAG
        if not (checkout / "uSockets/src/libusockets.h").exists():
            say("peers: fetching µWebSockets")
            shutil.rmtree(checkout, ignore_errors=True)
            words = ["--quiet", "--depth", "1", "--branch", UWEBSOCKETS_TAG, "--config", "advice.detachedHead=false"]
            rig.call(["git", "clone", *words, UWEBSOCKETS, checkout])
            rig.call(["git", "submodule", "--quiet", "update", "--init", "--depth", "1", "uSockets"], cwd=checkout)
        say("peers: building µWebSockets")
        sockets = checkout / "uSockets/src"
        flags = ["-O3", "-march=native", "-flto=auto", "-DLIBUS_NO_SSL", f"-I{sockets}"]
        parts = [*sockets.glob("*.c"), *sockets.glob("eventing/epoll_kqueue.c")]
        rig.call(["cc", *flags, "-std=c11", "-c", *parts], cwd=folder)
        objects = [folder / f"{part.stem}.o" for part in parts]
        flags += ["-DUWS_NO_ZLIB", f"-I{checkout / 'src'}", "-std=c++20"]
        rig.call(["c++", *flags, source, *objects, "-o", program], cwd=folder)
        marker.write_text(stamp)
    return [program, "{port}"]


def versions():
    """The versions that the lock files name."""
    packages = json.loads((SOURCES / "package-lock.json").read_text())["packages"]
    crates = tomllib.loads((SOURCES / "rust/Cargo.lock").read_text())["package"]
    found = {"µWebSockets": UWEBSOCKETS_TAG[1:], "ws": packages["node_modules/ws"]["version"]}
    found["Bun"] = next(
        at["version"] for name, at in packages.items() if name.startswith("node_modules/@oven/bun-linux")
    )
    return found | {crate["name"]: crate["version"] for crate in crates if crate["name"] in INSTALL}


INSTALL = {
    "µWebSockets": uwebsockets,
    "Bun": bun,
    "fastwebsockets": lambda: rust("fastwebsockets"),
    "tokio-tungstenite": lambda: rust("tokio-tungstenite"),
    "ws": ws,
}


# ---- measuring -------------------------------------------------------------------------------


def server_of(text):
    name, _, words = text.partition("=")
    if not name or name in ("kernel", "campanile", *INSTALL):
        raise argparse.ArgumentTypeError(f"expected NAME=COMMAND with a new name, got {text!r}")
    return name, command(words)


def options(parser):
    parser.add_argument(
        "--only", type=names_of(INSTALL), metavar="NAME,...", help=f"of {', '.join(INSTALL)}; '' for none [all]"
    )
    parser.add_argument("--also", type=server_of, action="append", default=[], metavar="NAME=COMMAND", help="[none]")
    loads_option(parser, LOADS, COMPARED)


def measure(arguments, run):
    cpu, client_cpu = rig.cpus()
    campanile, client, baseline = rig.build("campanile", "campanile-loadtest", "kernel-baseline")
    servers = {"kernel": None, "campanile": rig.campanile_command(campanile)}
    for name in INSTALL if arguments.only is None else arguments.only:
        try:
            servers[name] = INSTALL[name]()
        except Failed as problem:
            run.left_out[name] = str(problem)
            say(f"peers: left out: {name}: {problem}")
    run.settings["versions"] = {name: version for name, version in versions().items() if name in servers}
    servers |= dict(arguments.also)
    table = run.table("server CPU time", servers, base="kernel")
    for name in arguments.loads:
        load = LOADS[name]
        table.row(name, load.title, load.unit)
        streams = load.mode == "echo"
        servers["kernel"] = [baseline, "echo" if streams else "broadcast", "{port}"]
        failed = set()
        for n in range(arguments.rounds):
            for column, words in servers.items():
                if column in failed:
                    continue
                try:
                    with Server(words, cpu) as server:
                        stream = streams and column == "kernel"
                        cost, more = measure_load(client, client_cpu, server, load, arguments.secs, stream=stream)
                except Failed as problem:
                    failed.add(column)
                    run.left_out[f"{column}, {load.title}"] = str(problem)
                    say(f"peers: {name}: {column} failed: {problem}")
                    continue
                table.add(name, column, cost, more)
                say(f"peers: {name}, round {n + 1}: {column} {cost:,.0f} {load.unit}")
