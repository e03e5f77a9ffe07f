"""The benchmark of wires runs on tiny crossbars, and both modes agree with nodal analysis."""


def test_it_runs_and_agrees(monkeypatch, capsys):
    from benchmarks import wires

    calls = []

    def once(call):
        calls.append(call())
        return 1e-3

    monkeypatch.setattr(wires, "seconds", once)
    monkeypatch.setattr("sys.argv", ["wires", "--sizes", "4", "--threads", "1"])
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    wires.main()
    printed = capsys.readouterr().out
    assert len(calls) == 5
    lines = [line.split() for line in printed.splitlines()]
    exact = [line for line in lines if line[:1] == ["4"]][: len(wires.OHMS)]
    assert [float(line[1]) for line in exact] == list(wires.OHMS)
    assert all(float(error) < 1e-9 for line in exact for error in line[2:4])
    assert all(float(error) < 1e-4 for line in exact for error in line[4:6])
    for kind in wires.KINDS:
        assert kind in printed


def test_a_large_one(capsys, monkeypatch):
    from benchmarks import wires

    monkeypatch.setattr("sys.argv", ["wires", "--large", "8", "--threads", "1"])
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    wires.main()
    assert capsys.readouterr().out.count("8 x 8, torch.float") == 2
