"""What `cwjax serve` endures: how soon it is ready, bad requests by the thousand, mixed load and its memory.

    python benchmarks/serving.py --model MODEL [--minutes 60] [--clients 6] [--bad 10000] [--talk FILE]

Starts the server twice, with an empty cache of compiled programs and with the one that the first start has filled.
Then sends requests that cannot be answered as they ask, and lets clients ask for all kinds of things for some minutes:
every format, streams, contexts, hang-ups. Prints what became of them, and by how many MB a minute the server's memory
grew after the first quarter of the time. With `--talk`, a recording is said to `/v1/realtime` at the pace of speech:
how long after a word's end it is told, and how the text differs from that of the file.
"""

import argparse
import base64
import contextlib
import io
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
Place = tuple[str, int]


def request_head(port: int, length: int, *more: str) -> bytes:
    """The beginning of a request to transcribe a form whose boundary is "b"."""
    lines = [
        "POST /v1/audio/transcriptions HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Content-Type: multipart/form-data; boundary=b",
        f"Content-Length: {length}",
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def bad_requests(port: int, count: int, seed: int = 0) -> Iterator[bytes]:
    """Requests that cannot be answered as they ask: noise, broken forms, huge headers, absurd fields, cut off ones."""
    draw = np.random.default_rng(seed)
    fields = ["model", "language", "temperature", "response_format", "include[]", "stream", "prompt", "\0", "x" * 5000]
    values = ["", "-1", "nan", "1e999", "\0\x01", "🐝" * 100, "[" * 1000, "../../etc/passwd", "true", "x" * 20_000]
    for number in range(count):
        noise = draw.bytes(int(draw.integers(1, 3000)))
        kind = number % 7
        if kind == 0:
            yield noise + b"\r\n\r\n"
        elif kind == 1:
            yield request_head(port, len(noise)) + noise
        elif kind == 2:
            yield request_head(port, 10, "X-Huge: " + "x" * int(draw.integers(10_000, 200_000)))
        elif kind == 3:
            yield request_head(port, 10 ** int(draw.integers(1, 19))) + noise
        elif kind == 4:
            body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="../../x"\r\n\r\n' + noise
            body += b"\r\n--b--\r\n"
            yield request_head(port, len(body)) + body
        elif kind == 5:
            chosen = [(draw.choice(fields), draw.choice(values)) for _ in range(4)]
            parts = [f'--b\r\nContent-Disposition: form-data; name="{one}"\r\n\r\n{value}\r\n' for one, value in chosen]
            body = "".join([*parts, "--b--\r\n"]).encode()
            yield request_head(port, len(body)) + body
        else:
            whole = request_head(port, 500, "Expect: 100-continue") + noise
            yield whole[: int(draw.integers(1, len(whole)))]


def say(place: Place, *parts: bytes, pause: float = 0.0, wait: float = 10.0) -> bytes:
    """What a server answers to bytes, to the end of a JSON object."""
    answer = b""
    with socket.create_connection(place, wait) as connection:
        with contextlib.suppress(OSError):
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        with contextlib.suppress(OSError):
            while chunk := connection.recv(1 << 16):
                answer += chunk
                if b"}" in answer:
                    break
    return answer


@contextlib.contextmanager
def started(model: str, cache: Path, *options: str) -> Iterator[tuple[str, int, float]]:
    """A server that is ready: its address, its process, and the seconds that it took."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "cwjax.cli", "serve", "--model", model, "--port", "0", *options],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ
        | {"PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": str(cache)}
        | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"},
    )
    try:
        address, lines = "", []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"at (http://\S+)", line):
                address = found[1]
            if line.rstrip().endswith(" ready"):
                break
        else:
            raise SystemExit("".join(lines))
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield address, process.pid, time.monotonic() - began
    finally:
        process.terminate()
        process.wait()


def resident(pid: int) -> float:
    """Megabytes of a process that are in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1000


def ask_at_random(address: str, recordings: list[bytes], until: float, seed: int, told: Counter) -> None:
    """A client that asks for one thing after another."""
    import httpx

    draw = random.Random(seed)
    with httpx.Client(timeout=600) as client:
        while time.monotonic() < until:
            fields = {"model": "whisper-1", "language": "en"}
            fields["response_format"] = draw.choice(["json", "text", "srt", "vtt", "verbose_json"])
            fields["context"] = draw.choice(["", "yacht racing", "a shop sale", f"a talk about topic {draw.random()}"])
            if fields["response_format"] == "verbose_json":
                fields["timestamp_granularities[]"] = ["word", "segment"]
                fields["include[]"] = ["without_context", "context_words"]
            if fields["response_format"] in ("json", "text") and draw.random() < 0.5:
                fields["stream"] = "true"
            hangs_up = draw.random() < 0.1
            how = {"data": fields, "files": {"file": draw.choice(recordings)}}
            try:
                with client.stream(
                    "POST", f"{address}/v1/audio/transcriptions", timeout=0.3 if hangs_up else 600, **how
                ) as answer:
                    content = answer.read()
                    lost = answer.status_code == 200 and fields.get("stream") and b"[DONE]" not in content
                    told["broken off" if lost else answer.status_code] += 1
            except httpx.TimeoutException:
                told["hung up"] += 1
            except httpx.TransportError as error:
                told[type(error).__name__] += 1


def load(address: str, pid: int, minutes: float, clients: int) -> None:
    """Asks for some minutes, and measures."""
    from agreement import speech_with_pauses

    recordings = []
    for seconds in (3, 8, 20, 45, 100):
        buffer = tempfile.SpooledTemporaryFile()  # noqa: SIM115
        import soundfile

        soundfile.write(buffer, speech_with_pauses(seconds, seconds), 16_000, format="WAV")
        buffer.seek(0)
        recordings.append(buffer.read())
    told: Counter = Counter()
    began = time.monotonic()
    until = began + 60 * minutes
    threads = [
        threading.Thread(target=ask_at_random, args=(address, recordings, until, seed, told)) for seed in range(clients)
    ]
    for thread in threads:
        thread.start()
    sizes: list[tuple[float, float]] = []
    while time.monotonic() < until:
        time.sleep(2)
        sizes.append(((time.monotonic() - began) / 60, resident(pid)))
    for thread in threads:
        thread.join()
    later = [pair for pair in sizes if pair[0] > minutes / 4]
    slope, _ = np.polyfit(*zip(*later, strict=True), 1)
    print(f"{minutes:g} minutes of load by {clients} clients: {dict(told)}")
    print(f"memory: {later[0][1]:.0f} MB, at the end {later[-1][1]:.0f} MB, {slope:+.2f} MB a minute")


def dictate(address: str, path: Path, longest: float = 24.0) -> None:
    """Says the beginning of a recording in real time, and tells how late its words come."""
    import jiwer
    import soundfile
    import soxr
    from openai import OpenAI

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    samples = soxr.resample(samples[: round(longest * rate)].mean(axis=1), rate, 24_000)
    client = OpenAI(base_url=f"{address}/v1", api_key="none")
    file = io.BytesIO()
    soundfile.write(file, samples, 24_000, format="WAV")
    asked = {"model": "whisper-1", "language": "en", "response_format": "verbose_json"}
    whole = client.audio.transcriptions.create(
        file=("a.wav", file.getvalue()), timestamp_granularities=["word"], **asked
    )
    told: list[float] = []
    said: list[str] = []
    with client.realtime.connect(extra_query={"intent": "transcription"}) as session:
        sound = {"transcription": {"model": "whisper-1", "language": "en"}, "turn_detection": None}
        session.session.update(session={"type": "transcription", "audio": {"input": sound}})
        began = time.monotonic()

        def speak() -> None:
            for first in range(0, len(samples), 2400):
                block = (samples[first : first + 2400] * 32767).astype("<i2")
                session.input_audio_buffer.append(audio=base64.b64encode(block.tobytes()).decode())
                time.sleep(max(0.0, began + (first + 2400) / 24_000 - time.monotonic()))
            session.input_audio_buffer.commit()

        threading.Thread(target=speak, daemon=True).start()
        for event in session:
            if event.type.endswith(".delta"):
                words = event.delta.split()
                said += words
                told += [time.monotonic() - began] * len(words)
            elif event.type.endswith(".completed"):
                break
            elif event.type == "error":
                raise SystemExit(f"serving: {event.error.message}")
    late = [time - word.end for time, word in zip(told, whole.words, strict=False)]
    differing = jiwer.wer(*(re.sub(r"[^\w\s]", "", text.lower()) for text in (whole.text, " ".join(said))))
    print(f"{len(samples) / 24_000:.0f} s of speech, said: {100 * differing:.1f} % of words differ from the file's")
    half, most = np.quantile(late, [0.5, 0.9])
    print(f"a word is told {half:.1f} s after its end (median), nine of ten within {most:.1f} s")


def main() -> None:
    """Measures everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--minutes", type=float, default=60, help="of load (60)")
    parser.add_argument("--clients", type=int, default=6, help="at once (6)")
    parser.add_argument("--bad", type=int, default=10_000, help="bad requests (10,000)")
    parser.add_argument("--batch-size", default="8")
    parser.add_argument("--talk", type=Path, help="recording of English speech that is said to /v1/realtime")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        options = ("--batch-size", arguments.batch_size, "--max-minutes", "5")
        with started(arguments.model, Path(cache), *options) as (_, _, seconds):
            print(f"ready after {seconds:.1f} s with an empty cache")
        with started(arguments.model, Path(cache), *options) as (address, pid, seconds):
            print(f"ready after {seconds:.1f} s the second time")
            if arguments.talk:
                dictate(address, arguments.talk)
            host, port = address.removeprefix("http://").split(":")
            place = (host, int(port))
            before = resident(pid)
            with ThreadPoolExecutor(16) as pool:
                answers = pool.map(lambda one: say(place, one, wait=0.5)[9:12], bad_requests(place[1], arguments.bad))
                statuses = Counter(answer.decode() or "closed" for answer in answers)
            print(f"{arguments.bad} bad requests: {dict(statuses)}; memory {before:.0f} to {resident(pid):.0f} MB")
            if arguments.minutes:
                load(address, pid, arguments.minutes, arguments.clients)


if __name__ == "__main__":
    main()
