"""Scenario files: those that come with it, one of one's own, and what is refused; who is drawn from a population."""

from collections import Counter
from pathlib import Path

import pytest

from bench.compare.population import Population
from bench.compare.scenario import ScenarioError, find, names


def test_five_scenarios_come_with_it_and_each_says_what_it_is_about() -> None:
    assert names() == ["celebrity", "cold-start", "even", "heavy-tailed", "write-heavy"]
    found = dict(find(name) for name in names())
    assert list(found) == names()
    assert all(one.about for one in found.values())
    assert (found["even"].skew, found["cold-start"].cold, found["celebrity"].celebrity, found["write-heavy"].reads_per_write) == (
        0,
        True,
        0.5,
        1,
    )
    assert all(one.repeats >= 5 and len(one.quick().fractions) == 1 for one in found.values())


def test_one_of_ones_own_is_found_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('about = "Mine."\nusers = 7\nrates = [3.0]\n')
    name, one = find(str(tmp_path / "mine.toml"))
    assert (name, one.about, one.users, one.rates, one.repeats) == ("mine", "Mine.", 7, (3.0,), 5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("users = 7", "missing required field `about`"),
        ('about = "x"\nuser = 7', "unknown field `user`"),
        ('about = "x"\nusers = 0', r"`int` >= 1 - at `\$.users`"),
        ('about = "x"\nfractions = [1.5]', r"`float` <= 1.0 - at `\$.fractions"),
        ('about = "x"\nfaults = ["flood"]', "Invalid enum value 'flood'"),
        ("about = ", "Invalid value"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(ScenarioError, match=said):
        find(str(tmp_path / "bad.toml"))
    with pytest.raises(ScenarioError, match="celebrity, cold-start, even"):
        find("no-such")


def test_draws_follow_zipf_and_a_celebrity_is_drawn_as_often_as_was_said() -> None:
    def drawn(skew: float, celebrity: float = 0.0, seed: int = 1) -> Counter[int]:
        population = Population(100, skew, celebrity, seed)
        return Counter(population.draw() for _ in range(20_000))

    even, tailed, famous = drawn(0), drawn(1.2), drawn(0.8, 0.5)
    assert set(even) == set(range(1, 101))
    assert max(even.values()) < 2 * min(even.values())
    first, second = [count for _, count in tailed.most_common(2)]
    assert first / second == pytest.approx(2**1.2, rel=0.15)
    assert famous.most_common(1)[0][1] == pytest.approx(20_000 * (0.5 + 0.5 * 0.116), rel=0.1)
    assert drawn(1.2) == tailed
    assert drawn(1.2, seed=2).most_common(1)[0][0] == tailed.most_common(1)[0][0], "who is popular is the same for all who draw"
