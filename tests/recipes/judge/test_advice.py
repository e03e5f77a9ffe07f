from analogsim.recipes.judge.advice import (
    rows_of_remedies,
    say_no_remedy,
    say_nothing_to_do,
    say_recommended,
    say_what_then,
)
from tests.recipes.judge.test_findings import found, measured, tried


def test_nothing_to_do_because_nothing_is_lost_or_nothing_is_seen():
    told = say_nothing_to_do(found(0.9))
    assert "would not be; give more data" in told or "at none of these times" in told
    few = found(0.9)
    few.asis = measured(0.9, samples=20)
    assert "with 20 samples and 5 chips" in say_nothing_to_do(few)


def test_what_may_be_lost_is_not_called_nothing():
    few = found(0.9)
    few.asis = measured(0.86, samples=16, chips=2, spread=0.04)
    told = say_nothing_to_do(few)
    assert told.startswith("Not known: ")
    assert "with 16 samples and 2 chips; give more data or minutes to know." in told


def test_samples_that_are_all_right_say_little_where_they_are_few():
    few = found(1.0)
    few.asis = measured(1.0, clean=1.0, spread=0.0, samples=16)
    assert "with 16 samples and 5 chips one of 18.75 would not be" in say_nothing_to_do(few)
    few.asis = measured(1.0, clean=1.0, spread=0.0, samples=1000)
    assert "at none of these times" in say_nothing_to_do(few)


def test_a_network_that_knows_nothing_has_nothing_to_lose():
    told = say_nothing_to_do(found(0.1, clean=0.11))
    assert "the network has nothing to lose" in told
    assert "Clean it scores 11.00, on 400 samples no better than guessing (10.00)" in told


def test_what_is_recommended_and_what_it_takes():
    made = found(0.7, tried(0.72, "column"))
    chosen = tried(0.88, "copies-4")
    final = measured(0.88)
    told = say_recommended(made, chosen, final, final.over(made.asis))
    assert "from 70.00 to 88.00" in told
    assert "copies-4: four times the cells" in told
    assert "Without more cells or digital layers column reaches 72.00" in told
    assert "2.00 ±" in told  # what is left


def test_where_nothing_helps():
    made = found(0.7)
    assert say_no_remedy(made, None, None).startswith("No remedy helps beyond its error. 20.00 ±")
    chosen = tried(0.7, "column")
    assert "column, chosen on validation data, brings 0.00 ±" in say_no_remedy(made, chosen, chosen.measured)


def test_guessing_is_said():
    assert "no better than guessing (10.00)" in say_what_then(found(0.11), None)


def test_rows_come_the_best_first():
    rows = rows_of_remedies(found(0.7, tried(0.65, "no-gain"), tried(0.8, "column")))
    assert [row.name for row in rows] == ["column", "as it is", "no-gain"]
    assert rows[0].beyond
    assert rows[0].cost
