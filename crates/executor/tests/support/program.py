"""A persistent program that behaves as each task tells it to, well or badly.

    program.py json_lines|frames [word...]

The first argument of a task is what to do. `start` words change how the process begins and ends.
"""
import base64, json, os, signal, struct, sys, threading, time

protocol, words = sys.argv[1], sys.argv[2:]
source, sink = sys.stdin.buffer, sys.stdout.buffer
held = []


def read():
    """The next request as (id, ping, args, stdin); None at the end."""
    if protocol == "json_lines":
        line = source.readline()
        if not line:
            return None
        asked = json.loads(line)
        return asked["id"], asked.get("ping", False), asked["args"], asked["stdin"].encode()
    head = source.read(4)
    if len(head) < 4:
        return None
    frame = source.read(struct.unpack("!I", head)[0])
    number, kind, count = struct.unpack_from("!QBI", frame)
    at, args = 13, []
    for _ in range(count):
        (length,) = struct.unpack_from("!I", frame, at)
        args.append(frame[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return number, kind == 1, args, frame[at:]


def answer(number, code=0, out=b"", err=b""):
    if protocol == "json_lines":
        text = {"id": number, "exit_code": code, "stderr": err.decode()}
        text["stdout_base64"] = base64.b64encode(out).decode()
        sink.write(json.dumps(text).encode() + b"\n")
    else:
        frame = struct.pack("!QiI", number, code, len(err)) + err + out
        sink.write(struct.pack("!I", len(frame)) + frame)
    sink.flush()


def note(name):
    """Says in the directory of the test that something has happened."""
    with open(os.path.join(os.environ["NOTES"], name), "ab") as file:
        file.write(b"%d\n" % os.getpid())


def noted(name):
    """How often something has happened."""
    with open(os.path.join(os.environ["NOTES"], name), "rb") as file:
        return len(file.readlines())


def wait(name, number, stdin):
    """Answers when the test has left a note."""
    while not os.path.exists(os.path.join(os.environ["NOTES"], name)):
        time.sleep(0.01)
    answer(number, out=stdin)


def on_term(*_):
    note("term")
    if "late" in words and held:
        answer(held[0], out=b"late")
    if "stubborn" not in words:
        os._exit(0)


def do(number, args, stdin):
    what, *rest = args or ["echo"]
    if what == "echo":
        answer(number, out=stdin)
    elif what == "pid":
        answer(number, out=b"%d" % os.getpid())
    elif what == "fail":
        answer(number, int(rest[0]), b"some", b"reason")
    elif what == "exit":
        note("exit")
        os._exit(int(rest[0]))
    elif what == "signal":
        os.kill(os.getpid(), int(rest[0]))
    elif what == "sleep":
        time.sleep(float(rest[0]))
        answer(number, out=stdin)
    elif what == "wait":
        wait(rest[0], number, stdin)
    elif what == "beside":  # As a program that works on several at once.
        threading.Thread(target=wait, args=(rest[0], number, stdin), daemon=True).start()
    elif what == "hang":
        held.append(number)
        note("hang")
        time.sleep(1000)
    elif what == "gather":  # Answers in reverse when it has so many.
        held.append((number, stdin))
        if len(held) == int(rest[0]):
            for number, stdin in reversed(held):
                answer(number, out=stdin)
            held.clear()
    elif what == "garbage":
        sink.write(b"\xff" * 5000 + b"\n")
        sink.flush()
    elif what == "huge":
        sink.write(struct.pack("!I", 2**32 - 1))
        sink.flush()
    elif what == "twice":
        answer(number, out=stdin)
        answer(number, out=b"again")
    elif what == "stranger":
        answer(number + 1000, out=b"not asked")
    elif what == "close":
        os.close(1)
        time.sleep(1000)
    elif what == "grow":
        held.append(bytearray(int(rest[0])))
        answer(number, out=b"%d" % os.getpid())
    elif what == "say":
        sys.stderr.write(stdin.decode() + "\n")
        sys.stderr.flush()
        answer(number)


signal.signal(signal.SIGTERM, on_term)
if "NOTES" in os.environ:
    note("start")
if "crash" in words or ("recover" in words and noted("start") <= 3):
    sys.exit(7)
while (request := read()) is not None:
    number, ping, args, stdin = request
    if ping:
        note("ping")
        if "mute" not in words:
            answer(number)
        if "once" in words:
            words.append("mute")
    else:
        do(number, args, stdin)
note("end")
if "lingering" in words or "stubborn" in words:
    while True:
        time.sleep(1000)
