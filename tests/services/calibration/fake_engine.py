"""A capture engine that speaks the real protocol (services/calibration/ENGINE.md)
with tensors from a file, and can be told to misbehave. Standard library only.

Called as the worker calls any engine, with these arguments before the worker's:

  --geometry L,H,Q,D   layers, KV heads, query heads, head_dim
  --tensors FILE       float32, [sequence][layer][K, V, dK, dV][head, token, dim];
                       read from its start again where it is too short
  --fault NAME         see FAULTS
  --pid-file FILE      where to write this process's number
"""

import argparse
import json
import mmap
import os
import signal
import struct
import subprocess
import sys
import time

DIGEST = "ab" * 32


def main() -> None:
    args = parse()
    if args.pid_file:
        # Of its own: two engines of one worker may start at once.
        unfinished = f"{args.pid_file}.{os.getpid()}"
        with open(unfinished, "w", encoding="ascii") as out:
            out.write(str(os.getpid()))
        os.rename(unfinished, args.pid_file)
    with open(args.text, encoding="utf-8") as text:
        assert text.read().strip(), "the worker passes no empty text"
    Engine(args).run()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--geometry", required=True)
    parser.add_argument("--tensors", required=True)
    parser.add_argument("--fault", default="none")
    parser.add_argument("--pid-file")
    parser.add_argument("--model", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--sequences", type=int, required=True)
    parser.add_argument("--sequence-length", type=int, required=True)
    return parser.parse_args()


class Engine:
    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.fault = args.fault
        self.layers, self.heads, self.query_heads, self.dim = map(int, args.geometry.split(","))
        self.tensor_bytes = self.heads * args.sequence_length * self.dim * 4
        self.layers_sent = 0

    def run(self) -> None:
        self.at("start")
        self.hello()
        self.at("hello")
        start = json.loads(sys.stdin.readline())
        assert start["type"] == "start" and start["slot_bytes"] == 4 * self.tensor_bytes
        with open(start["segment"], "r+b") as file:
            self.segment = mmap.mmap(file.fileno(), start["slots"] * start["slot_bytes"])
        self.free = list(range(start["slots"]))
        with open(self.args.tensors, "rb") as self.tensors:
            for sequence in range(self.args.sequences):
                self.run_sequence(sequence)
        self.at("end")
        self.send("done")
        if self.fault == "no-exit":
            time.sleep(1000)
        if self.fault == "bad-exit":
            sys.exit(9)

    def hello(self) -> None:
        sequences = self.args.sequences + (1 if self.fault == "wrong-sequences" else 0)
        geometry = dict(layers=self.layers, kv_heads=self.heads, query_heads=self.query_heads, head_dim=self.dim)
        if self.fault == "missing-field":
            del geometry["head_dim"]
        if self.fault == "text-for-number":
            geometry["layers"] = "2"
        self.send(
            "hello",
            protocol=2 if self.fault == "wrong-protocol" else 1,
            geometry=geometry,
            dtype="float64" if self.fault == "bad-dtype" else "float32",
            device="cpu",
            sequences=sequences,
            sequence_length=self.args.sequence_length,
            model_digest="XYZ" if self.fault == "bad-digest" else DIGEST,
            tokenizer_digest=DIGEST,
            token_digest=DIGEST,
            software=["fake-engine 1"],
        )

    def run_sequence(self, sequence: int) -> None:
        # Like a backward pass: the last layer first.
        for layer in reversed(range(self.layers)):
            self.send_layer(sequence, layer)
            self.layers_sent += 1
            if self.layers_sent == self.layers + 1:
                self.at("middle")
            if self.fault == "slow":
                time.sleep(0.2)
        loss = -1.0 if self.fault == "bad-loss" else 2.5 * (self.args.sequence_length - 1)
        self.send("sequence", sequence=sequence, loss_sum=loss, loss_tokens=self.args.sequence_length - 1)

    def send_layer(self, sequence: int, layer: int) -> None:
        slot = 0 if self.fault == "ignore-release" else self.take_slot()
        size = 4 * self.tensor_bytes
        available = os.fstat(self.tensors.fileno()).st_size // size
        self.tensors.seek((sequence * self.layers + layer) % available * size)
        data = bytearray(self.tensors.read(size))
        self.spoil(data, sequence, layer)
        self.segment[slot * size : (slot + 1) * size] = bytes(data)
        message = dict(sequence=sequence, layer=layer, slot=slot)
        if self.fault == "bad-slot":
            message["slot"] = 1000
        if self.fault == "bad-layer":
            message["layer"] = self.layers
        if self.fault == "bad-sequence":
            message["sequence"] = sequence + 1
        if self.fault == "same-layer":
            message["layer"] = 0
        self.send("layer", **message)
        if self.fault == "early-done":
            self.send("done")
            time.sleep(1000)

    def take_slot(self) -> int:
        while not self.free:
            release = json.loads(sys.stdin.readline())
            assert release["type"] == "release"
            self.free.append(release["slot"])
        return self.free.pop(0)

    def spoil(self, data: bytearray, sequence: int, layer: int) -> None:
        size = self.tensor_bytes
        # Head 1, token 7, channel 3 of the layer that "nan@sequence.layer" names.
        place = ((1 * self.args.sequence_length + 7) * self.dim + 3) * 4
        if self.fault == f"nan@{sequence}.{layer}":
            struct.pack_into("<f", data, place, float("nan"))
        if self.fault == f"inf-gradient@{sequence}.{layer}":
            struct.pack_into("<f", data, 3 * size + place, float("inf"))
        if self.fault == "zero-values" and layer == 0:
            data[size : 2 * size] = bytes(size)
        if self.fault == "zero-gradients":
            data[2 * size :] = bytes(2 * size)
        if self.fault == "zero-head":
            data[2 * size : 2 * size + size // self.heads] = bytes(size // self.heads)

    def send(self, type_: str, **fields) -> None:
        sys.stdout.write(json.dumps(dict(type=type_, **fields)) + "\n")
        sys.stdout.flush()

    def at(self, place: str) -> None:
        """Does what a fault like "crash@middle" says."""
        name, _, where = self.fault.partition("@")
        if where == place:
            FAULTS[name](self)


def crash(engine: Engine) -> None:
    print("Traceback: the fake engine's last words", file=sys.stderr)
    sys.exit(3)


def crash_with_child(engine: Engine) -> None:
    """Leaves a process behind that holds the pipes open."""
    child = subprocess.Popen(["/bin/sleep", "1000"])
    print(f"child {child.pid}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(3)


def close_output(engine: Engine) -> None:
    os.close(1)
    time.sleep(1000)


def flood_stderr(engine: Engine) -> None:
    sys.stderr.write("noise " * 200_000)


def beat(engine: Engine) -> None:
    for _ in range(12):
        engine.send("heartbeat", note="thinking")
        time.sleep(0.5)


def write(text: str):
    def fault(engine: Engine) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
        time.sleep(1000)

    return fault


def report(reason: str):
    def fault(engine: Engine) -> None:
        engine.send("error", reason=reason, message="the fake engine says so")
        sys.exit(1)

    return fault


FAULTS = {
    "crash": crash,
    "crash-with-child": crash_with_child,
    "exit": lambda engine: sys.exit(0),
    "hang": lambda engine: time.sleep(1000),
    "sigkill": lambda engine: os.kill(os.getpid(), signal.SIGKILL),
    "close-output": close_output,
    "flood-stderr": flood_stderr,
    "beat": beat,
    "garbage": write("\x00\x01 not JSON\n"),
    "array": write("[1, 2]\n"),
    "unknown-type": write('{"type": "surprise"}\n'),
    "oversized": write("x" * 300_000),
    "second-hello": lambda engine: engine.hello(),
    "unreadable": report("MODEL_UNREADABLE"),
    "unsupported": report("UNSUPPORTED_MODEL"),
    "too-short": report("TEXT_TOO_SHORT"),
    "out-of-memory": report("ENGINE_OUT_OF_MEMORY"),
    "engine-error": report("ENGINE_ERROR"),
    "unknown-reason": report("NOBODY_KNOWS"),
}

if __name__ == "__main__":
    main()
