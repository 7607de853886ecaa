# SPDX-License-Identifier: Apache-2.0
"""The examples, as far as they need no framework: their command lines, what they deploy, and what they compare with."""

import ast
import subprocess
import sys
from pathlib import Path

import classify_text
import click
import example_tools
import forecast
import generate_text
import listen
import numpy as np
import pytest
import recommend
from click.testing import CliRunner

import gru_engine as ge

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PROGRAMS = ["forecast", "generate_text", "classify_text", "recommend", "listen"]


def small_network(inputs: int, hidden: int, outputs: int, activation: str, *, tokens=False, last=False, seed=0):
    """Input or tokens, a GRU, a dense layer, with random weights."""
    random = np.random.default_rng(seed)
    net = ge.Network()
    x = net.tokens(inputs) if tokens else net.input(inputs)
    arrays = [random.normal(0, 0.7, shape) for shape in ((3 * hidden, inputs), (3 * hidden, hidden), (3 * hidden,))]
    h = net.gru(x, *arrays)
    h = net.last(h) if last else h
    net.output(net.dense(h, random.normal(0, 0.7, (outputs, hidden)), activation=activation))
    return net


# ---- command lines


@pytest.mark.parametrize("name", PROGRAMS)
def test_help_needs_nothing_but_click(name):
    """The programs start where neither PyTorch nor statsmodels nor matplotlib can be imported."""
    code = (
        "import sys, runpy; sys.modules.update(dict.fromkeys(['torch', 'statsmodels', 'matplotlib'])); "
        f"sys.argv = ['{name}.py', '--help']; sys.path.insert(0, {str(EXAMPLES)!r}); "
        f"runpy.run_path({str(EXAMPLES / f'{name}.py')!r}, run_name='__main__')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    for option in ("--model", "--train / --no-train", "--epochs", "--seed", "--plot"):
        assert option in result.stdout


@pytest.mark.parametrize("name", ["torch", "statsmodels.datasets.co2"])
def test_a_missing_package_is_named_with_how_to_get_it(monkeypatch, name):
    package = name.partition(".")[0]
    monkeypatch.setitem(sys.modules, package, None)
    for loaded in [module for module in sys.modules if module.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    with pytest.raises(click.ClickException, match=f"{package} is not installed.*--group examples"):
        example_tools.need(name)


@pytest.mark.parametrize("name", ["generate_text", "classify_text", "recommend", "listen"])
def test_no_train_without_a_model_is_refused(tmp_path, name):
    path = tmp_path / "none.gru"
    result = CliRunner().invoke(sys.modules[name].main, ["--no-train", "--model", str(path)])
    assert result.exit_code == 1
    assert str(path) in result.output


def test_no_train_without_a_model_is_refused_by_forecast(tmp_path, monkeypatch):
    series = forecast.Series("co2", "", np.arange(30.0), np.arange(30.0), 3, True, 20, (1,), 4, 1)
    monkeypatch.setattr(forecast, "load_series", lambda name: series)
    result = CliRunner().invoke(forecast.main, ["--no-train", "--series", "co2", "--model", str(tmp_path / "none.gru")])
    assert result.exit_code == 1
    assert "none_co2.gru" in result.output


def test_generate_runs_with_a_model_that_is_there(tmp_path):
    characters = generate_text.UNKNOWN + "\n " + "".join(map(chr, range(33, 127)))
    net = small_network(len(characters), 8, len(characters), "log_softmax", tokens=True)
    net.metadata["characters"] = characters
    net.save(tmp_path / "m.gru")
    options = ["--no-train", "--model", str(tmp_path / "m.gru"), "--plot", str(tmp_path / "p.svg"), "--length", "50"]
    result = CliRunner().invoke(generate_text.main, [*options, "--prompt", "abc"])
    assert result.exit_code == 0, result.output
    assert "GRU, gru_engine" in result.output and "abc" in result.output
    empty = CliRunner().invoke(generate_text.main, [*options, "--prompt", ""])
    assert empty.exit_code == 2 and "--prompt" in empty.output


def test_sources_leave_out_tests_and_what_is_not_python(tmp_path, monkeypatch):
    files = {"a.py": "x = 1", "b/c.py": "def f(): pass", "test/d.py": "", "broken.py": "def", "latin.py": b"# \xe9"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.setattr(example_tools.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    monkeypatch.setattr(example_tools.importlib.util, "find_spec", lambda name: None)
    found = {name.partition("/")[2]: held_out for name, held_out, _ in example_tools.python_sources()}
    assert sorted(found) == ["a.py", "b/c.py"]
    for i in range(500):
        (tmp_path / f"n{i}.py").touch()
    held_out = np.mean([held_out for _, held_out, _ in example_tools.python_sources()])
    assert 0.05 < held_out < 0.16


# ---- forecast


@pytest.mark.parametrize("changes", [False, True])
def test_forecasts_are_those_of_the_reference(tmp_path, changes):
    net = small_network(1, 5, 1, "linear")
    net.metadata["changes"] = changes
    net.save(tmp_path / "m.gru")
    values = np.random.default_rng(1).normal(size=20).cumsum()
    forecaster = forecast.Forecaster(tmp_path / "m.gru")
    for value in values:
        forecaster.update(value)
    said = forecaster.ahead(4)

    fed = list(np.diff(values) if changes else values)
    for _ in range(4):
        fed.append(ge.reference.run(net, np.array(fed)[:, None])[-1, 0])
    expected = np.cumsum(fed[-4:]) + values[-1] if changes else np.array(fed[-4:])
    np.testing.assert_allclose(said, expected, rtol=0, atol=1e-5)
    assert np.array_equal(forecaster.ahead(4), said)  # looking ahead does not move the stream


def test_naive_forecasts_and_their_errors():
    cycle = np.tile([1.0, 2.0, 4.0], 10)
    series = forecast.Series("s", "", cycle, np.arange(30.0), 3, False, 15, (1, 3), 4, 1)
    assert forecast.errors(forecast.seasonal(series), series) == ["0.00", "0.00"]
    # One step later it differs by 1, 2 or -3; 14 forecasts, the first of value 1.
    by_hand = np.sqrt(np.mean((cycle[16:] - cycle[15:-1]) ** 2))
    assert forecast.errors(forecast.persistence(series), series) == [f"{by_hand:.2f}", "0.00"]
    growing = forecast.Series("s", "", cycle + np.arange(30), np.arange(30.0), 3, True, 15, (1, 3), 4, 1)
    for mean_growth in (False, True):
        assert forecast.errors(forecast.seasonal(growing, mean_growth), growing) == ["0.00", "0.00"]
    growing.values[15:] += np.arange(15)  # twice as fast after the training: 3 behind where it should be, a cycle ahead
    assert forecast.errors(forecast.seasonal(growing, mean_growth=True), growing)[1] == "3.00"


# ---- generate_text


@pytest.fixture
def writer(tmp_path):
    net = small_network(6, 7, 6, "log_softmax", tokens=True)
    net.metadata["characters"] = generate_text.UNKNOWN + "abcde"
    net.save(tmp_path / "m.gru")
    return net, generate_text.Writer(tmp_path / "m.gru")


def test_bits_are_those_of_the_reference(writer):
    net, writer = writer
    tokens = writer.tokens("abcxde")
    assert tokens.tolist() == [1, 2, 3, 0, 4, 5]
    log_p = ge.reference.run(net, tokens)
    expected = [-log_p[i, tokens[i + 1]] / np.log(2) for i in range(5)]
    np.testing.assert_allclose(writer.bits("abcxde"), expected, atol=1e-5)


def test_greedy_text_is_that_of_the_reference(writer):
    net, writer = writer
    tokens = writer.tokens("ab").tolist()
    for _ in range(20):
        tokens.append(int(np.argmax(ge.reference.run(net, tokens)[-1])))
    assert writer.tokens(writer.continued("ab", 20, temperature=0)).tolist() == tokens[2:]


def test_samples_follow_the_probabilities(writer):
    net, writer = writer
    for temperature in (1.0, 0.5):
        p = np.exp(ge.reference.run(net, writer.tokens("ab"))[-1] / temperature)
        p /= p.sum()
        first = [writer.tokens(writer.continued("ab", 1, temperature, seed))[0] for seed in range(3000)]
        found = np.bincount(first, minlength=6)
        # Chi-square of 5 degrees of freedom: above 20.5 once in a thousand.
        assert ((found - 3000 * p) ** 2 / (3000 * p)).sum() < 20.5
    assert writer.continued("ab", 30, 1.0, 7) == writer.continued("ab", 30, 1.0, 7)
    assert writer.continued("ab", 30, 1.0, 7) != writer.continued("ab", 30, 1.0, 8)


def test_bad_prompts_and_temperatures_are_refused(writer):
    with pytest.raises(ValueError, match="prompt"):
        writer[1].continued("", 5)
    for bad in (-0.1, float("nan")):
        with pytest.raises(ValueError, match="temperature"):
            writer[1].continued("a", 5, temperature=bad)


def test_compared_compressor_and_frequencies():
    assert generate_text.order_0_bits("ab" * 5000, "abab") == pytest.approx(1, abs=1e-3)
    text = "".join(np.random.default_rng(0).choice(list("abcdefgh"), 4000))
    assert 2.9 < generate_text.compressed_bits("x" * 100, text) < 4
    assert generate_text.compressed_bits(text, text) < 0.1


# ---- classify_text


def test_padded_sentences_get_the_probabilities_of_the_reference(tmp_path):
    words = ["<unknown>", "a", "queue", "return", "."]
    net = small_network(5, 6, 1, "sigmoid", tokens=True, last=True)
    net.metadata["words"] = words
    net.save(tmp_path / "m.gru")
    classifier = classify_text.Classifier(tmp_path / "m.gru")
    texts = ["A queue.", "Return", "return a QUEUE of strangers .", "", "a " * 100]
    sentences = [classify_text.words_of(text) for text in texts]
    assert sentences[0] == ["a", "queue", "."] and sentences[3] == [""] and len(sentences[4]) == classify_text.LONGEST
    p = classifier.probabilities(sentences, batch=3)
    for sentence, got in zip(sentences, p):
        tokens = [words.index(word) if word in words else 0 for word in sentence]
        assert got == pytest.approx(ge.reference.run(net, tokens)[0], abs=1e-6)
    assert np.array_equal(p, classifier.probabilities(sentences, batch=1))


def test_naive_bayes_by_hand():
    train = [(["a", "x"], True), (["b", "x"], False), (["b", "y"], False)]
    p = classify_text.naive_bayes(train, [(["a"], True), (["b"], False), (["new"], False)])
    # counts + 1/2 over sentences + 1: a 1.5/2 and 0.5/3, b 0.5/2 and 2.5/3; one class to two functions
    odds = [1.5 / 2 / (0.5 / 3) / 2, 0.5 / 2 / (2.5 / 3) / 2, 1 / 2]
    np.testing.assert_allclose(p, [o / (1 + o) for o in odds])


def test_area_under_the_curve_counts_pairs():
    p, labels = np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, True, False, True])
    assert classify_text.area(p, labels) == pytest.approx((1 + 0.5 + 2) / 4)
    assert classify_text.scores(np.zeros(4), labels)[:3] == ["0.500", "-", "0.000"]


# ---- recommend


def test_sessions_in_a_pool_get_the_scores_of_the_reference(tmp_path):
    net = small_network(5, 6, 5, "linear", tokens=True)
    net.metadata["items"] = list("vwxyz")
    net.save(tmp_path / "m.gru")
    recommender = recommend.Recommender(tmp_path / "m.gru", 3)
    history = {"p": [0, 3, 1], "q": [4, 4], "r": [2]}
    recommender.events(["p"], np.array([0]))
    recommender.events(["q", "p"], np.array([4, 3]))
    scores = recommender.events(["p", "r", "q"], np.array([1, 2, 4]))
    for row, session in zip(scores, ["p", "r", "q"]):
        np.testing.assert_allclose(row, ge.reference.run(net, history[session])[-1], atol=1e-5)
    best = np.argsort(-scores[0])[:2]
    assert recommender.best(scores[0], 2) == ["vwxyz"[i] for i in best]
    recommender.end("q")
    (fresh,) = recommender.events(["s"], np.array([4]))  # in the place that has become free
    np.testing.assert_allclose(fresh, ge.reference.run(net, [4])[-1], atol=1e-5)


def test_replayed_ranks_are_those_of_whole_sessions(tmp_path):
    net = small_network(5, 6, 5, "linear", tokens=True)
    net.metadata["items"] = list("vwxyz")
    net.save(tmp_path / "m.gru")
    sessions = [[0, 1, 2, 3], [4, 0], [3, 3, 3], [2, 1, 0, 4, 1]]
    found, seconds, most = recommend.replay(tmp_path / "m.gru", sessions, live=2, seed=0)
    expected = []
    for session in sessions:
        scores = ge.reference.run(net, session[:-1])
        expected += recommend.ranks(scores, np.array(session[1:])).tolist()
    assert sorted(found.tolist()) == sorted(expected)
    assert most == 2 and len(seconds) > 0


def test_ranks_and_baselines_by_hand():
    scores = np.array([[0.1, 0.9, 0.5], [0.5, 0.5, 0.5]])
    assert recommend.ranks(scores, np.array([2, 0])).tolist() == [2, 3]
    found = recommend.baselines([[0, 1, 0, 1, 2]], [[0, 1], [1, 2], [2, 0]], 3)
    assert found["popularity"].tolist() == [2, 3, 1]  # 0 and 1 equally often, 0 first
    assert found["Markov, item to item"].tolist() == [1, 2, 1]


def test_calls_of_a_function_in_the_order_of_the_source():
    tree = ast.parse("def f(a):\n    x = open(a).read()\n    print(len(x), a[0](1))\n    return x.strip()")
    assert recommend.called(tree) == ["open", "read", "print", "len", "strip"]
    assert recommend.coded([["open", "new", "len"], ["len"]], ["len", "open"]) == [[1, 0]]


# ---- listen


def test_a_listener_hears_what_the_reference_hears(tmp_path):
    net = small_network(listen.BANDS, 6, 2, "sigmoid")
    net.save(tmp_path / "m.gru")
    audio = listen.synthesise(6, seed=3)
    features = listen.all_features(audio)
    p, seconds = listen.listen(tmp_path / "m.gru", audio)
    np.testing.assert_allclose(p, ge.reference.run(net, features), atol=1e-5)
    assert len(p) == len(seconds) == 600 and len(audio.samples) == 600 * listen.HOP


def test_features_of_a_tone_are_in_its_band():
    t = np.arange(listen.FRAME) / listen.RATE
    for band in (3, 12, 20):
        middle = (listen.EDGES[band] + listen.EDGES[band + 1]) / 2 - 0.5
        tone = np.sin(2 * np.pi * middle * listen.RATE / 512 * t).astype(np.float32)
        assert np.argmax(listen.features(tone)) == band
    assert (np.diff(listen.EDGES) > 0).all() and listen.EDGES[-1] <= 257


def test_audio_is_labelled_and_reproducible():
    audio = listen.synthesise(30, seed=5)
    again = listen.synthesise(30, seed=5)
    assert np.array_equal(audio.samples, again.samples)
    assert len(audio.keywords) > 3 and 0.2 < audio.active.mean() < 0.8
    for first, last in audio.keywords:
        assert audio.active[first + 1 : last + 1].all()
        assert audio.keyword[last] and not audio.keyword[first]
    # Where a rising chirp is, the loudest band goes up.
    bands = listen.all_features(audio).argmax(1)
    rises = [
        np.mean(bands[last - 5 : last - 2]) > np.mean(bands[first + 4 : first + 7]) for first, last in audio.keywords
    ]
    assert np.mean(rises) > 0.8


def test_alarms_and_hits_by_hand():
    p = np.zeros(200)
    p[20:30] = p[35:40] = p[150:160] = 1
    p[100:102] = 1  # too short
    assert listen.alarms(p) == [22, 152]
    audio = listen.Audio(np.zeros(0), np.zeros(0), np.zeros(0), [(10, 20), (60, 70)])
    assert listen.hits([22, 152], audio) == (1, 1)
