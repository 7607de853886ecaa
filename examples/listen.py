# SPDX-License-Identifier: Apache-2.0
"""Listen to a stream of audio: is there a sound, and was it the one that is waited for?

The audio is synthesised: tones, noise bursts, falling and rising chirps at various pitches, lengths and loudnesses, in a
background noise that comes and goes. The "keyword" is the rising chirp; a falling one sweeps the same pitches, so that no single
frame can tell them apart. Every 10 ms the energies of a frame in 24 bands (a NumPy FFT) go to a GRU of 32 units, which gives two
probabilities: a sound is there (as a voice-activity detector does), the keyword was there. Compared with a threshold on
loudness and with a network without memory; the time from samples to probabilities is measured for each frame, at full speed and
at the pace of a microphone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from example_tools import describe, draw, export, fit, need_model, options, percentiles, start_torch, table

import gru_engine as ge

RATE = 16000  # samples per second
HOP = 160  # samples between frames: 10 ms
FRAME = 400  # samples of a frame: 25 ms
BANDS = 24
HIDDEN = 32


# ---- what is deployed: gru_engine and NumPy


def band_edges() -> np.ndarray:
    """Return the first FFT bin of each band and the end of the last, int [BANDS + 1]: equal steps on the mel scale."""
    mel = np.linspace(2595 * np.log10(1 + 100 / 700), 2595 * np.log10(1 + 8000 / 700), BANDS + 1)
    bins = np.round((10 ** (mel / 2595) - 1) * 700 / RATE * 512).astype(int)
    return np.maximum.accumulate(np.maximum(bins, np.arange(BANDS + 1) + bins[0]))


EDGES = band_edges()
WINDOW = np.hanning(FRAME).astype(np.float32)


def features(frame: np.ndarray) -> np.ndarray:
    """Return the logarithms of the energies in BANDS bands of one frame, float32 [BANDS]."""
    spectrum = np.fft.rfft(frame * WINDOW, 512)
    energy = spectrum.real**2 + spectrum.imag**2
    return np.log(np.add.reduceat(energy, EDGES[:-1]) + 1e-6).astype(np.float32)


class Listener:
    """Takes samples as they come, HOP at a time, and says what it hears."""

    def __init__(self, path: str | Path) -> None:
        model = ge.load(path)
        self.stream = model.stream()
        self.samples = np.zeros(FRAME, np.float32)  # the last ones
        self.p = np.zeros(2, np.float32)

    def hear(self, samples: np.ndarray) -> np.ndarray:
        """Take HOP samples; return the probabilities of sound and of the keyword, float32 [2], overwritten by the next call."""
        self.samples[:-HOP] = self.samples[HOP:]
        self.samples[-HOP:] = samples
        return self.stream.step(features(self.samples), out=self.p)


# ---- data


@dataclass
class Audio:
    """Synthesised audio and what is in it."""

    samples: np.ndarray  # float32 [n]
    active: np.ndarray  # bool [frames]
    keyword: np.ndarray  # bool [frames]: from the later part of a rising chirp to a little after it
    keywords: list[tuple[int, int]]  # first and last frame of each rising chirp


def synthesise(seconds: float, seed: int) -> Audio:
    """Return so much audio, whole frames."""
    random = np.random.default_rng(seed)
    frames = int(seconds * RATE) // HOP
    n = frames * HOP
    # Background: noise whose level wanders by a factor of a hundred, so that loudness alone says little.
    knots = int(seconds) + 2
    level = 10 ** np.interp(np.arange(n), np.linspace(0, n, knots), random.uniform(-3.5, -1.5, knots))
    samples = random.standard_normal(n) * level
    active, keyword, keywords = np.zeros(frames, bool), np.zeros(frames, bool), []
    at = int(0.3 * RATE)
    while True:
        length = int(random.uniform(0.2, 0.5) * RATE)
        if at + length >= n:
            break
        kind = random.choice(["tone", "noise", "rising", "falling"])
        t = np.arange(length) / RATE
        low = random.uniform(300, 1500)
        high = low * random.uniform(2, 4)
        if kind == "noise":
            sound = random.standard_normal(length)
        elif kind == "tone":
            sound = np.sqrt(2) * np.sin(2 * np.pi * random.uniform(300, 4000) * t)
        else:
            pitch = np.geomspace(low, high, length) if kind == "rising" else np.geomspace(high, low, length)
            sound = np.sqrt(2) * np.sin(2 * np.pi * np.cumsum(pitch) / RATE)
        fade = np.minimum(1, np.minimum(np.arange(length), np.arange(length)[::-1]) / (0.01 * RATE))
        # 3 to 20 dB above the background.
        samples[at : at + length] += sound * fade * level[at + length // 2] * 10 ** random.uniform(0.15, 1.0)
        first, last = at // HOP, (at + length) // HOP
        active[first + 1 : last + 1] = True
        if kind == "rising":
            keyword[first + 2 * (last - first) // 3 : last + 10] = True
            keywords.append((first, last))
        at += length + int(random.uniform(0.2, 0.8) * RATE)
    return Audio(samples.astype(np.float32), active, keyword, keywords)


def all_features(audio: Audio) -> np.ndarray:
    """Return the features of every frame, float32 [frames, BANDS], as a Listener computes them."""
    padded = np.concatenate([np.zeros(FRAME - HOP, np.float32), audio.samples])
    return np.stack([features(padded[i * HOP : i * HOP + FRAME]) for i in range(len(audio.active))])


# ---- training: PyTorch


def train_model(path: Path, audio: Audio, recurrent: bool, epochs: int, seed: int) -> None:
    """Train a detector, with a GRU or with a dense layer of the same width in its place, and export it."""
    torch = start_torch(seed)
    from torch import nn

    x = torch.from_numpy(all_features(audio))
    y = torch.from_numpy(np.stack([audio.active, audio.keyword], 1).astype(np.float32))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", x.mean(0))
            self.register_buffer("scale", 1 / x.std(0))
            self.layer = nn.GRU(BANDS, HIDDEN, batch_first=True) if recurrent else nn.Linear(BANDS, HIDDEN)
            self.out = nn.Linear(HIDDEN, 2)

        def logits(self, x: Any) -> Any:
            x = (x - self.mean) * self.scale
            return self.out(self.layer(x)[0] if recurrent else torch.tanh(self.layer(x)))

        def forward(self, x: Any) -> Any:
            return torch.sigmoid(self.logits(x))

    module = Net()
    steps = 200

    def batches(random: np.random.Generator) -> Any:
        starts = random.integers(steps) + steps * random.permutation(len(x) // steps - 1)
        for some in np.array_split(starts, len(starts) // 16):
            given = torch.stack([x[s : s + steps] for s in some])
            wanted = torch.stack([y[s : s + steps] for s in some])
            # At the start of a window nobody can know what was before.
            yield nn.functional.binary_cross_entropy_with_logits(module.logits(given)[:, 20:], wanted[:, 20:])

    fit(module.parameters(), batches, epochs, 1e-2, seed)
    export(module, x[None, :30], path, {"features": f"log energies of {BANDS} bands, {HOP} samples at {RATE} Hz"})


# ---- comparing


def listen(path: Path, audio: Audio, paced: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Stream audio through a listener.

    Returns
    -------
    p : array [frames, 2]
    seconds : array [frames]
        From the samples to the probabilities.
    """
    listener = Listener(path)
    p, seconds = np.empty((len(audio.active), 2)), np.empty(len(audio.active))
    start = time.perf_counter()
    for i, samples in enumerate(audio.samples.reshape(-1, HOP)):
        if paced:
            time.sleep(max(0.0, start + i * HOP / RATE - time.perf_counter()))
        began = time.perf_counter()
        p[i] = listener.hear(samples)
        seconds[i] = time.perf_counter() - began
    return p, seconds


def network_seconds(path: Path, audio: Audio) -> list[float]:
    """Return how long the network alone takes, for each frame of at most 10,000."""
    stream, out, seconds = ge.load(path).stream(), np.empty(2, np.float32), []
    for frame in all_features(audio)[:10_000]:
        began = time.perf_counter()
        stream.step(frame, out=out)
        seconds.append(time.perf_counter() - began)
    return seconds


def alarms(p: np.ndarray) -> list[int]:
    """Return the frames at which the keyword is reported: its mean over five exceeds one half; not again for half a second."""
    smooth = np.convolve(p, np.full(5, 0.2))[: len(p)]
    found: list[int] = []
    for i in np.flatnonzero(smooth > 0.5):
        if not found or i - found[-1] > 50:
            found.append(int(i))
    return found


def hits(found: list[int], audio: Audio) -> tuple[int, int]:
    """Return how many keywords were reported, at most 0.3 s late, and how many reports were false."""
    right = [any(first <= i <= last + 30 for i in found) for first, last in audio.keywords]
    false = [i for i in found if not any(first <= i <= last + 30 for first, last in audio.keywords)]
    return sum(right), len(false)


def loudness(audio: Audio) -> np.ndarray:
    """Return the largest band energy of each frame."""
    return all_features(audio).max(1)


@click.command(help=(__doc__ or "").partition("\n\n")[0])
@options("listen", epochs=40)
@click.option("--seconds", type=click.IntRange(min=5), default=600, help="Of audio to listen to.", show_default=True)
@click.option(
    "--paced",
    type=click.IntRange(min=0),
    default=5,
    help="Seconds of it in real time.",
    show_default=True,
)
def main(model: Path, train: bool, epochs: int, seed: int, plot: Path, seconds: int, paced: int) -> None:
    """See the module's docstring."""
    without_memory = model.with_stem(f"{model.stem}_frames")
    known = synthesise(400, seed)
    audio = synthesise(seconds, seed + 1000)
    click.echo(f"{len(known.active)} frames to train; {len(audio.active)} to test, with {len(audio.keywords)} keywords")
    if train:
        for path, recurrent in ((without_memory, False), (model, True)):
            click.echo("GRU" if recurrent else "without memory")
            train_model(path, known, recurrent, epochs, seed)
    else:
        need_model(model)
    describe(ge.load(model))

    # The threshold that is best for the training audio.
    levels, truth = loudness(known), known.active
    threshold = max(np.linspace(levels.min(), levels.max(), 200), key=lambda level: ((levels > level) == truth).mean())
    rows = [["loudness above a threshold", f"{((loudness(audio) > threshold) == audio.active).mean():.3f}", "", "", ""]]
    p = np.zeros((0, 2))
    for name, path in (("without memory, gru_engine", without_memory), ("GRU, gru_engine", model)):
        if path.exists():
            p, times = listen(path, audio)
            right, false = hits(alarms(p[:, 1]), audio)
            frames = [
                f"{((p[:, i] > 0.5) == truth).mean():.3f}" for i, truth in enumerate((audio.active, audio.keyword))
            ]
            rows.append([name, *frames, f"{right} of {len(audio.keywords)}", str(false)])
    table(["", "sound, frames", "keyword, frames", "keywords found", "false alarms"], rows)

    click.echo(f"\nper frame of 10 ms, FFT included: {percentiles(times)}")
    click.echo(f"of which the network:             {percentiles(network_seconds(model, audio))}")
    if paced:
        end = paced * RATE // HOP
        some = Audio(audio.samples[: end * HOP], audio.active[:end], audio.keyword[:end], [])
        click.echo(f"at the pace of a microphone:      {percentiles(listen(model, some, paced=True)[1])}")

    def fill(axes: Any) -> None:
        shown = slice(0, 1000)
        seconds = np.arange(len(p))[shown] * HOP / RATE
        image = all_features(audio)[shown].T
        axes[0].imshow(
            image, origin="lower", aspect="auto", extent=(0, seconds[-1], 0, BANDS), cmap="Greys", interpolation="none"
        )
        axes[0].set(ylabel="band", xticks=[])
        for ax, i, truth, name in ((axes[1], 0, audio.active, "sound"), (axes[2], 1, audio.keyword, "rising chirp")):
            edges = np.flatnonzero(np.diff(truth[shown].astype(int), prepend=0, append=0)) * HOP / RATE
            ax.broken_barh([(a, b - a) for a, b in edges.reshape(-1, 2)], (0, 1), color="#dddddd", label="truth")
            ax.plot(seconds, p[shown, i], color="#1b6ca8", lw=1, label="probability")
            ax.set(ylabel=name, xlim=(0, seconds[-1]), ylim=(0, 1.05))
        axes[1].set(xticks=[])
        axes[2].set(xlabel="seconds")
        axes[2].legend(loc="upper right", fontsize=8)

    draw(plot, (9, 4.6), 3, fill)


if __name__ == "__main__":
    main()
