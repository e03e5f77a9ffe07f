from __future__ import annotations

import io
import json
import random
from typing import Any

import numpy as np
import pytest

from analogsim.evaluation.report import Report, compare_plot, compare_table
from analogsim.utils.digests import sealed

VALUES = np.array([[0.90, 0.80, 0.60], [0.92, 0.78, 0.70], [0.88, 0.82, 0.50], [0.91, 0.79, 0.65]])


def report(**changes: Any) -> Report:
    settings: dict[str, Any] = {
        "values": VALUES,
        "times": (1.0, 3600.0, 365 * 86400.0),
        "clean": 0.95,
        "metric": "accuracy",
        "device": "pcm",
        "seeds": (0, 1, 2, 3),
        "compensation": "global",
        "chance": 0.1,
        "samples": 500,
    }
    return Report(**(settings | changes))


ONE_CHIP = {"values": VALUES[:1], "seeds": (0,)}


def test_mean_std_and_quantile() -> None:
    answer = report()
    np.testing.assert_allclose(answer.mean, [0.9025, 0.7975, 0.6125])
    np.testing.assert_allclose(answer.std[0], np.sqrt(((VALUES[:, 0] - 0.9025) ** 2).sum() / 3))
    np.testing.assert_allclose(answer.quantile(0), VALUES.min(0))
    np.testing.assert_allclose(answer.quantile(0.5), np.median(VALUES, axis=0))
    np.testing.assert_allclose(answer.quantile(0.05), np.quantile(VALUES, 0.05, axis=0))
    for q in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"quantile: q must be in \[0, 1\]"):
            answer.quantile(q)


def test_interval_is_students() -> None:
    from scipy import stats

    answer = report()
    for confidence in (0.95, 0.5):
        expected = stats.t.interval(confidence, 3, loc=VALUES.mean(0), scale=stats.sem(VALUES))
        np.testing.assert_allclose(answer.interval(confidence), expected)
    # By hand: t(0.975; 3) = 3.182446.
    np.testing.assert_allclose(answer.interval()[1, 0], 0.9025 + 3.182446 * answer.std[0] / 2, rtol=1e-6)
    for confidence in (0, 1, 95):
        with pytest.raises(ValueError, match=r"confidence must be in \(0, 1\)"):
            answer.interval(confidence)


def test_normalized() -> None:
    """1 is the digital network and 0 is chance: A* = 1 - (err - err_digital)/(err_chance - err_digital)."""
    answer = report()
    by_hand = 1 - ((1 - VALUES) - (1 - 0.95)) / ((1 - 0.1) - (1 - 0.95))
    np.testing.assert_allclose(answer.normalized, by_hand)
    np.testing.assert_allclose(report(values=np.array([[0.95, 0.1]]), times=(0, 1), seeds=(0,)).normalized, [[1, 0]])
    for changes in ({"chance": None}, {"chance": 0.95}):
        with pytest.raises(ValueError, match="no chance level"):
            _ = report(**changes).normalized


def test_at_and_labels() -> None:
    answer = report()
    assert answer.labels == ("1s", "1h", "1y")
    np.testing.assert_array_equal(answer.at("1h"), VALUES[:, 1])
    np.testing.assert_array_equal(answer.at(3600), VALUES[:, 1])
    with pytest.raises(ValueError, match="'1d' was not evaluated; there are 1s, 1h, 1y"):
        answer.at("1d")


def test_only_some_times() -> None:
    part = report().only(["1y", 1])
    assert part.labels == ("1y", "1s")
    np.testing.assert_array_equal(part.values, VALUES[:, [2, 0]])
    assert (part.clean, part.seeds, part.described) == (0.95, (0, 1, 2, 3), report().described)
    with pytest.raises(ValueError, match="'1d' was not evaluated; there are 1s, 1h, 1y"):
        report().only(["1s", "1d"])
    with pytest.raises(ValueError, match="at least one of the evaluated times 1s, 1h, 1y"):
        report().only([])


def test_one_chip() -> None:
    answer = report(**ONE_CHIP)
    assert np.isnan(answer.std).all()
    assert np.isnan(answer.interval()).all()
    np.testing.assert_array_equal(answer.mean, VALUES[0])
    assert "±" not in str(answer).replace("mean ± std", "")
    assert "1 chip," in str(answer)
    answer.plot()


def test_to_frame() -> None:
    pandas = pytest.importorskip("pandas")
    frame = report().to_frame()
    assert list(frame.columns) == ["chip", "seconds", "time", "accuracy"]
    assert len(frame) == 12
    pandas.testing.assert_series_equal(
        frame.groupby("seconds")["accuracy"].mean(),
        pandas.Series(report().mean, index=pandas.Index(report().times, name="seconds"), name="accuracy"),
    )
    row = frame[(frame.chip == 2) & (frame.time == "1y")]
    assert row["accuracy"].item() == 0.50


@pytest.mark.parametrize("changes", [{}, ONE_CHIP, {"chance": None, "compensation": None}])
def test_dict_round_trip_through_json(changes: dict[str, Any]) -> None:
    answer = report(**changes)
    again = Report.from_dict(json.loads(json.dumps(answer.to_dict())))
    np.testing.assert_array_equal(again.values, answer.values)
    assert again.to_dict() == answer.to_dict()
    assert str(again) == str(answer)
    assert (again.times, again.seeds) == (answer.times, answer.seeds)


def test_text() -> None:
    assert str(report()).splitlines() == [
        "accuracy [%]    mean ± std  5th pct.",
        "------------  ------------  --------",
        "clean                95.00",
        "after 1s      90.25 ± 1.71     88.30",
        "after 1h      79.75 ± 1.71     78.15",
        "after 1y      61.25 ± 8.54     51.50",
        "pcm, 4 chips, 500 samples, compensation: global",
    ]
    text = str(report(metric="cross_entropy", compensation=None))
    assert text.splitlines()[0].split() == ["cross_entropy", "mean", "±", "std", "95th", "pct."]
    assert "0.9025 ± 0.01708" in text
    assert text.splitlines()[3].split()[-1] == f"{np.quantile(VALUES[:, 0], 0.95):.4g}", "what 19 of 20 stay below"
    assert text.endswith("compensation: none")


def test_unit_and_direction_are_those_of_the_metric_unless_told() -> None:
    assert (report().unit, report().higher_is_better, report().tail) == ("%", True, 0.05)
    loss = report(metric="cross_entropy")
    assert (loss.unit, loss.higher_is_better, loss.tail) == ("", False, 0.95)
    own = report(metric="half")
    assert (own.unit, own.higher_is_better, own.tail, own.tail_label) == ("", None, 0.05, "5th pct.")
    assert str(report(metric="accuracy", unit="")).splitlines()[0].split()[0:2] == ["accuracy", "mean"]
    bits = report(metric="information", unit="bit", higher_is_better=True)
    assert str(bits).startswith("information [bit]")
    assert "0.9025 ± 0.01708" in str(bits)


def test_reports_of_files_without_unit_and_direction_are_read() -> None:
    for metric in ("accuracy", "cross_entropy", "half"):
        stored = report(metric=metric).to_dict()
        del stored["unit"], stored["higher_is_better"]
        assert Report.from_dict(stored).to_dict() == report(metric=metric).to_dict()


def png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        ONE_CHIP,
        {"values": VALUES[:, :1], "times": (0.0,)},
        {"times": (0.0, 1.0, 12345.6)},
        {"values": np.full((4, 3), 0.5), "clean": 0.5},
        {"metric": "cross_entropy", "chance": None},
    ],
    ids=["plain", "one chip", "one time", "time zero", "all the same", "another metric"],
)
def test_plot_renders(changes: dict[str, Any]) -> None:
    figure = pytest.importorskip("matplotlib.figure")
    answer = report(**changes)
    drawn = answer.plot()
    assert isinstance(drawn, figure.Figure)
    assert png(drawn).startswith(b"\x89PNG")
    (axes,) = drawn.axes
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), answer.mean)
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), np.maximum(answer.times, 0.1))
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == list(answer.labels)
    assert axes.get_ylabel() == answer.heading
    shown = axes.yaxis.get_major_formatter()(0.125)  # as the tables beside it have it
    assert shown.startswith("12.5") if answer.unit == "%" else not shown.startswith("12.5")


def test_compare() -> None:
    plain, trained = report(), report(values=VALUES + 0.02, clean=0.94)
    lines = compare_table({"plain": plain, "trained": trained}).splitlines()
    assert lines[0].split() == ["accuracy", "[%]", "plain", "5th", "pct.", "trained", "5th", "pct."]
    assert lines[2].split() == ["clean", "95.00", "94.00"]
    assert lines[3].split() == ["after", "1s", "90.25", "±", "1.71", "88.30", "92.25", "±", "1.71", "90.30"]
    assert lines[-1] == "mean ± std over chips: pcm, 4 chips, 500 samples, compensation: global"
    assert len(lines) == 7
    pytest.importorskip("matplotlib")
    figure = compare_plot({"plain": plain, "trained": trained})
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["plain", "trained"]
    assert "pcm, 4 chips, 500 samples" in figure.axes[0].get_title()
    png(figure)


def test_compare_of_different_settings_tells_each() -> None:
    reports = {"a": report(), "b": report(device="reram", samples=100), "c": report(**ONE_CHIP, compensation=None)}
    assert compare_table(reports).splitlines()[-3:] == [
        "a: mean ± std over chips: pcm, 4 chips, 500 samples, compensation: global",
        "b: mean ± std over chips: reram, 4 chips, 100 samples, compensation: global",
        "c: mean ± std over chips: pcm, 1 chip, 500 samples, compensation: none",
    ]
    pytest.importorskip("matplotlib")
    title = compare_plot(reports).axes[0].get_title()
    assert "pcm" not in title
    assert "different" in title


def test_what_cannot_be_compared() -> None:
    for compare in (compare_table, compare_plot):
        with pytest.raises(ValueError, match="give at least one report"):
            compare({})
        for other in (report(times=(1.0, 3600.0, 7200.0)), report(metric="cross_entropy"), report(unit="")):
            with pytest.raises(ValueError, match="different times or metrics"):
                compare({"a": report(), "b": other})


def test_the_band_holds_the_middle_nine_tenths_of_the_chips() -> None:
    pytest.importorskip("matplotlib")
    values = np.random.default_rng(0).uniform(0.5, 0.9, (40, 3))
    other = report(values=values - 0.3, seeds=tuple(range(40)))
    one = report(values=values, seeds=tuple(range(40)))
    (axes,) = compare_plot({"one": one, "other": other}).axes
    for band, shown in zip(axes.collections, (one, other), strict=True):
        (path,) = band.get_paths()
        seconds, score = path.vertices.T
        for place, t in enumerate(shown.times):
            low, high = (np.sort(shown.values[:, place])[[1, 2]], np.sort(shown.values[:, place])[[-3, -2]])
            edges = score[np.isclose(seconds, t)]
            assert low[0] <= edges.min() <= low[1]  # 5 % of 40 chips are two
            assert high[0] <= edges.max() <= high[1]
            np.testing.assert_allclose([edges.min(), edges.max()], np.quantile(shown.values[:, place], [0.05, 0.95]))


def part(seeds: tuple[int, ...], **changes: Any) -> Report:
    values = np.array([[0.1 * seed, 0.2 * seed] for seed in seeds])
    given = {"times": (1.0, 60.0), "clean": 0.9, "metric": "accuracy", "device": "pcm", "samples": 7}
    return Report(values=values, seeds=seeds, compensation=None, **{**given, **changes})


def test_parts_are_merged_in_the_order_of_their_chips() -> None:
    whole = Report.merged([part((7, 3)), part((4,)), part((0, 1))])
    assert whole == part((0, 1, 3, 4, 7))
    assert Report.merged([part((2,))]) == part((2,))
    assert Report.merged([part((0,)), part((1,), clean=0.9 + 1e-9)]).clean == 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"times": (1.0, 61.0)}, "differ in times: "),
        ({"metric": "recall"}, "differ in metric: 'accuracy' and 'recall'"),
        ({"device": "reram"}, "differ in device"),
        ({"samples": 8}, "differ in samples: 7 and 8"),
        ({"chance": 0.1}, "differ in chance"),
        ({"clean": 0.91}, "score 0.9 and 0.91; their weights or data"),
    ],
)
def test_what_is_no_part_of_the_same_is_not_merged(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Report.merged([part((0, 1)), part((2,), **changes)])


def test_no_chip_counts_twice() -> None:
    with pytest.raises(ValueError, match="chip 1 is in two of the reports"):
        Report.merged([part((0, 1)), part((1, 2))])
    with pytest.raises(ValueError, match="at least one report"):
        Report.merged([])


@pytest.mark.parametrize("given", [[3], 3, {"one": part((0,))}, [part((0,)), part((1,)).to_dict()]])
def test_only_reports_are_merged(given: Any) -> None:
    with pytest.raises(TypeError, match=r"merged: give reports, got (3|'one'|a dict); evaluate makes them") as caught:
        Report.merged(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("given", "got"), [([report()], "mapping .* got a list"), ({"one": 3}, "reports, got 3;")])
def test_only_named_reports_are_compared(given: Any, got: str) -> None:
    for compare in (compare_table, compare_plot):
        with pytest.raises(TypeError, match=f"compare: give .*{got}" if ";" in got else f"compare: give a {got}"):
            compare(given)


def test_reports_are_equal_by_what_they_hold() -> None:
    """As dataclasses are, but for arrays and NaN: one chip's report without a clean score equals its copy from JSON."""
    odd = {"clean": float("nan"), "values": np.array([[0.9, np.nan, 0.7]]), "seeds": (0,)}
    for settings in ({}, APART, odd):
        one = report(**settings)
        read = Report.from_dict(json.loads(json.dumps(one.to_dict())))
        assert one == read
        assert hash(one) == hash(read)
        for changes in ({"clean": 0.5}, {"values": one.values + 1e-16 + one.values * 1e-15}, {"device": "reram"}):
            assert one != report(**settings | changes)
        assert one != report(**settings | {"values": one.values[:, :2], "times": one.times[:2]})
    assert report() != report(seeds=(0, 1, 2, 4))
    assert report() != report().to_dict()


APART = {"clean": 0.93, "digital": 0.87}


def test_clean_and_digital_stand_side_by_side_where_they_differ() -> None:
    one, two = report(), report(**APART)
    assert (one.digital, one.apart) == (0.95, False)
    assert (two.digital, two.apart) == (0.87, True)
    assert "digital" not in str(one)
    lines = str(two).splitlines()
    assert [line.split() for line in lines[2:4]] == [["clean", "93.00"], ["digital", "87.00"]]
    assert "clean: behind the converters, without errors; digital: without converters" in lines
    both = compare_table({"one": one, "two": two}).splitlines()
    assert [line.split() for line in both[2:4]] == [["clean", "95.00", "93.00"], ["digital", "95.00", "87.00"]]
    np.testing.assert_allclose(two.normalized, 1 - (0.93 - VALUES) / (0.93 - 0.1))
    drawn = compare_plot({"one": one, "two": two})
    assert "thin and level: clean, dotted: digital" in drawn.axes[0].get_title()
    assert [line.get_linestyle() for line in drawn.axes[0].lines].count(":") == 1
    assert "dotted" not in compare_plot({"one": one}).axes[0].get_title()


def test_nan_is_not_apart_from_nan() -> None:
    assert not report(clean=float("nan"), digital=float("nan")).apart
    assert report(clean=float("nan"), digital=0.5).apart


def test_digital_in_frames_and_files() -> None:
    pytest.importorskip("pandas")
    frame = report(**APART).to_frame()
    assert list(frame.columns) == ["chip", "seconds", "time", "accuracy", "clean", "digital"]
    assert set(frame["clean"]) == {0.93}
    assert set(frame["digital"]) == {0.87}
    stored = json.loads(json.dumps(report(**APART).to_dict()))
    assert Report.from_dict(stored).digital == 0.87
    del stored["digital"]  # as before there was one
    assert Report.from_dict(stored).digital == 0.93


def test_merged_reports_agree_on_both() -> None:
    first, second = report(**APART), report(**APART, seeds=(4, 5, 6, 7))
    assert Report.merged([first, second]).digital == 0.87
    with pytest.raises(ValueError, match=r"merged: the clean networks score 0\.93 and 0\.9"):
        Report.merged([first, report(clean=0.9, digital=0.87, seeds=(4, 5, 6, 7))])


def test_one_flipped_bit_of_a_file_is_noticed() -> None:
    """Or changes nothing, as one in a name of a number's power does."""
    one, draw = report(**APART), random.Random(0)
    whole = json.dumps(sealed(one.to_dict())).encode()
    assert Report.from_dict(json.loads(whole)) == one
    for place in (draw.randrange(8 * len(whole)) for _ in range(200)):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        try:
            found = Report.from_dict(json.loads(damaged))
        except ValueError:
            continue
        assert found == one, place


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"times": [1.0, float("inf")]}, "times="),
        ({"seeds": [1, 1.5]}, "seeds="),
        ({"seeds": []}, "seeds="),
        ({"clean": "0.9"}, "clean='0.9'"),
        ({"clean": True}, "clean=True"),
        ({"metric": None}, "metric=None"),
        ({"samples": -1}, "samples=-1"),
        ({"higher_is_better": "yes"}, "higher_is_better='yes'"),
        ({"values": [[float("inf")] * 3] * 4}, "infinite"),
        ({"values": [[0.5]]}, r"\(1, 1\) values for "),
        ({"more": 1}, "an unknown 'more'"),
    ],
)
def test_what_is_stored_is_looked_at(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=f"^report: it has .*{told}"):
        Report.from_dict({**report().to_dict(), **change})


def test_what_is_missing_is_told() -> None:
    stored = report().to_dict()
    del stored["clean"]
    with pytest.raises(ValueError, match="it has no 'clean'"):
        Report.from_dict(stored)


@pytest.mark.parametrize("count", [1, 3])
def test_long_settings_leave_the_curves_their_room(count: int) -> None:
    pytest.importorskip("matplotlib")
    told = "pcm (crossbars of 512 rows x any number of columns, 8-bit DAC, 8-bit ADC, output noise 0.04)"
    values = np.full((2, 2), 0.9)
    one = Report(values, (1.0, 86400.0), 0.91, "accuracy", told, (0, 1), "global", 0.1, 100)
    drawn = one.plot() if count == 1 else compare_plot({f"{told}, number {n}": one for n in range(count)})
    drawn.canvas.draw()
    (axes,) = drawn.axes
    page = drawn.bbox
    legend = axes.get_legend().get_window_extent()
    assert axes.get_window_extent().width > 0.7 * page.width
    assert page.x0 <= legend.x0
    assert legend.x1 <= page.x1
    assert axes.get_title().startswith("mean and 5th to 95th percentile")
    assert "output noise 0.04" in axes.get_title().replace("\n", " ")
