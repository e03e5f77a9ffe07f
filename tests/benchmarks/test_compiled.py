"""Benchmarks that compile: they run, and what they compare is the same."""

import json

import pytest
import torch

CPU = torch.device("cpu")


@pytest.mark.slow
def test_steps_under_compilation(tiny, monkeypatch):
    """Compiled without machine code, for time's sake."""
    from benchmarks import compiled

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **_: compile_(model, backend="eager"))
    printed = []
    rows = {row["method"]: row for row in compiled.run(tiny, CPU, rounds=2, steps=1, say=printed.append)}
    assert rows["plain"]["ratio"]["median"] == rows["plain, compiled"]["ratio_to_compiled"]["median"] == 1
    assert {"convert, gaussian, compiled", "convert, 8 bits, compiled", "convert, pcm, compiled"} < set(rows)
    assert "to plain compiled" in "".join(printed)


def test_steps_with_compiled_noise(tiny, monkeypatch):
    import analogsim
    from analogsim.draws import compiled
    from analogsim.noise import counter_based
    from benchmarks import draws

    monkeypatch.setattr(compiled, "compile_kernel", lambda kernel: kernel)
    monkeypatch.setattr(
        counter_based, "compiled_normal", lambda: lambda count, key: counter_based.normal((count,), key)
    )
    compiled.kernel_of.cache_clear()
    printed = []
    rows = {row["method"]: row for row in draws.run(tiny, CPU, rounds=2, steps=1, say=printed.append)}
    assert compiled.kernel_of.cache_info().misses == 1, "pcm's"
    compiled.kernel_of.cache_clear()
    assert rows["plain"]["ratio"]["median"] == 1
    assert len(rows) == 7
    assert {f"convert, {kind}, compiled noise" for kind in ("gaussian", "8 bits", "pcm")} < set(rows)
    assert "convert, pcm, compiled noise" in "".join(printed)
    assert analogsim.noise.sources._compiled is None, "the process draws as before"


def test_noise_is_checked_before_it_is_timed(monkeypatch):
    from analogsim.draws import compiled
    from analogsim.noise import counter_based
    from benchmarks import noise

    monkeypatch.setattr(compiled, "compile_kernel", lambda kernel: kernel)
    compiled.kernel_of.cache_clear()
    monkeypatch.setattr(noise, "COUNTS", (2**10,))
    monkeypatch.setattr(noise, "_torch_compiled", lambda: torch.randn_like)
    monkeypatch.setattr(
        counter_based, "compiled_normal", lambda: lambda count, key: counter_based.normal((count,), key)
    )
    rows = noise.run(CPU, rounds=2, steps=1, say=lambda _: None)
    compiled.kernel_of.cache_clear()
    assert len({row["source"] for row in rows}) == len(rows) == 6
    assert all(row["nanoseconds"]["median"] > 0 for row in rows)
    monkeypatch.setattr(noise, "_torch_compiled", lambda: torch.rand_like)
    with pytest.raises(RuntimeError, match=r"compiled: the mean of 1024 numbers is off by .*do not time it"):
        noise.run(CPU, rounds=2, steps=1, say=lambda _: None)


@pytest.mark.slow
def test_the_commands(tmp_path, capsys):
    from benchmarks.__main__ import main

    torch._dynamo.reset()
    for arguments in (["noise"], ["compiled", "--models", "mlp"], ["draws", "--models", "mlp"]):
        file = tmp_path / f"{arguments[0]}.json"
        assert main([*arguments, "--rounds", "1", "--steps", "1", "--json", str(file)]) == 0
        assert json.loads(file.read_text(encoding="utf-8"))["results"]
    assert "convert, pcm, compiled" in capsys.readouterr().out
