"""What follows from what was found, in sentences and tables."""

from __future__ import annotations

from analogsim.evaluation.display import deviation, number, spread
from analogsim.recipes.judge.bench import Measured
from analogsim.recipes.judge.findings import Findings, Tried, cheapest
from analogsim.recipes.judge.judgement import Row
from analogsim.recipes.judge.paired import Difference


def say_nothing_to_do(found: Findings) -> str:
    """Why there is nothing to do."""
    loss, report = found.asis.loss(found.where), found.asis.report
    if found.knows_nothing():
        return (
            f"Nothing to do: the network has nothing to lose. Clean it scores {number(report.clean, report.unit)}, on "
            f"{report.samples} samples no better than guessing ({number(found.guess or 0.0, report.unit)}); train it "
            "first, or look at its weights and data."
        )
    # Of samples that are all alike, no error is seen: of n, a share of 3 / n may still be otherwise (95 %).
    unseen = 3 / report.samples if report.unit == "%" and not loss.error else 1.96 * loss.error
    if found.seems_to_lose():
        return (
            f"Not known: {number(loss.mean, report.unit)} ± {number(loss.error, report.unit)} seem to be lost after "
            f"{found.at}, which may be chance, with {report.samples} samples and {len(found.asis.rows)} chips; give "
            "more data or minutes to know."
        )
    if unseen > found.allowed:
        return (
            f"Nothing to do as far as can be seen: no loss is beyond its error, but with {report.samples} samples and "
            f"{len(found.asis.rows)} chips one of {number(unseen, report.unit)} "
            "would not be; give more data or minutes to know better."
        )
    return "Nothing to do: at none of these times does the network lose anything that is worth a remedy."


def say_recommended(found: Findings, chosen: Tried, final: Measured, gain: Difference) -> str:
    """What to do, and what that brings and takes."""
    unit = final.report.unit
    said = [
        f"Recommended: {chosen.variant.name}. On test data and chips that had no part in the choice it brings "
        f"{number(gain.mean, unit)} ± {number(gain.error, unit)} after {found.at}, from "
        f"{number(found.asis.score(found.where), unit)} to {number(final.score(found.where), unit)}."
    ]
    takes = [f"{each.name}: {each.what}" for each in chosen.remedies]
    if chosen.variant.digital:
        work = f", {found.share(chosen.variant.digital):.1%} of the multiply-accumulates" if found.shares else ""
        takes.append(f"digital stay {', '.join(chosen.variant.digital)}{work}")
    said.append(f"It takes: {'; '.join(takes)}.")
    worse = [
        label
        for at, label in enumerate(final.report.labels)
        if final.over(found.asis, at).mean < -2 * final.over(found.asis, at).error
    ]
    if worse:
        said.append(f"It costs after {', '.join(worse)}.")
    return " ".join(filter(None, [*said, _without_spending(found, chosen), say_what_then(found, final)]))


def say_no_remedy(found: Findings, chosen: Tried | None, final: Measured | None) -> str:
    """That nothing helps, and of what that is known.

    Args:
        found: so far.
        chosen: by the data that are chosen by; None where that was nothing.
        final: it on test data.
    """
    if chosen is None or final is None:
        return f"No remedy helps beyond its error. {say_what_then(found, None)}".rstrip()
    gain = final.over(found.asis, found.where)
    return (
        f"No remedy helps beyond its error: {chosen.variant.name}, chosen on validation data, brings "
        f"{spread(gain.mean, gain.error, final.report.unit)} on test data. {say_what_then(found, final)}"
    ).rstrip()


def _without_spending(found: Findings, chosen: Tried) -> str:
    """What is reached without cells and digital products, where some are recommended."""
    if chosen.is_cheap or not found.tried:
        return ""
    cheap = cheapest([each for each in found.tried if each.is_cheap])
    if not cheap.remedies:
        return "Without more cells or digital layers nothing helps."
    score = number(cheap.measured.score(), found.asis.report.unit)
    return f"Without more cells or digital layers {cheap.variant.name} reaches {score} on validation data."


def say_what_then(found: Findings, final: Measured | None) -> str:
    """What is left, and what to do about that.

    Args:
        found: so far.
        final: with what is recommended; None where that is nothing.
    """
    measured = found.asis if final is None or not final.over(found.asis, found.where).beyond() else final
    loss, unit = measured.loss(found.where), measured.report.unit
    said = []
    if loss.mean > found.allowed:
        worst = f" (most of it from {found.parts[0].name})" if found.parts and found.parts[0].beyond else ""
        said.append(
            f"{number(loss.mean, unit)} ± {number(loss.error, unit)} are lost then{worst}; what is left is a "
            "matter of training with the noise of the chip (analogsim train)."
        )
    if found.is_guessing(measured):
        said.append(f"That is no better than guessing ({number(found.guess or 0.0, unit)}).")
    return " ".join(said)


def rows_of_remedies(found: Findings) -> tuple[Row, ...]:
    """What each remedy brings, the best first."""
    if not (found.tried and found.can_choose):
        return ()
    rows = [_row(each, found) for each in found.tried]
    return tuple(sorted(rows, key=lambda row: -row.gain))


def _row(tried: Tried, found: Findings) -> Row:
    measured, digital = tried.measured, tried.variant.digital
    gain = measured.over(found.start)
    cost = tried.remedies[0].what if len(tried.remedies) == 1 else ""  # of several, each has a row of its own
    if digital and found.shares:
        cost = f"{found.share(digital):.1%} of the multiply-acc. digital"
    beyond = gain.beyond() or Difference(-gain.mean, gain.error, gain.freedom).beyond()
    std = deviation(measured.report.values[:, -1])
    chips = len(measured.rows)
    return Row(tried.variant.name, measured.score(), std, gain.mean, gain.error, beyond, cost, chips)
