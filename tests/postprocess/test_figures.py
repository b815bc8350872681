"""Figures and tables show what is in the files: numbers, groups over seeds, labels."""

import csv
import io

import numpy as np
import pytest

from mpicoded.data.compare import by_seed, differences, labels
from mpicoded.data.merged import load_all
from mpicoded.errors import InputError
from mpicoded.figures import allocation, curves, heatmap, look, phases, suspects, table


@pytest.fixture
def groups(sweep):
    return by_seed(load_all(sweep))


def test_labels_say_what_differs(here):
    results = load_all(["fixed.h5", "uncoded.h5"])
    differing = {"allocation.name", "allocation.redundancy", "allocation.permute", "rounds", "identities", "byzantine"}
    assert set(differences(results)[0]) == differing
    assert labels(results) == [
        "cyclic, byzantine 4, identities fixed, rounds 40",
        "partition, byzantine 20, identities resampled, rounds 30",
    ]
    assert labels([results[0], results[0]]) == ["(fixed.h5)", "(fixed.h5)"]


def test_what_comes_with_a_component_tells_nothing(here):
    (one,) = load_all(["fixed.h5"])

    def changed(**tables):
        return one._replace(experiment=one.experiment | tables)

    masked = changed(compressor={"name": "rand_k", "kept": 10, "shared": True})
    assert labels([one, masked]) == ["no compressor", "rand_k"]
    more = changed(compressor={"name": "rand_k", "kept": 20, "shared": True})
    assert labels([one, masked, more]) == ["no compressor", "rand_k, kept 10", "rand_k, kept 20"]
    filtered = changed(filters=[{"name": "clip", "tau": 1.0}])
    assert labels([one, filtered]) == ["no filter", "clip"]
    assert [list(group.settings) for group in by_seed([one, masked])] == [["compressor.name"]] * 2


def test_seeds_with_data_of_their_own_are_one_experiment(groups):
    assert [group.label for group in groups] == [
        "ipm, redundancy 5",
        "ipm, redundancy 20",
        "sign_flip, redundancy 5",
        "sign_flip, redundancy 20",
    ]
    assert all(sorted(one.experiment["seed"] for one in group.results) == [3, 4] for group in groups)


def test_the_same_seed_on_other_data_is_another_experiment(here, sweep):
    results = load_all(sweep)
    one = results[0]
    changed = one._replace(experiment=one.experiment | {"data": {"path": "other.h5"}})
    assert [len(group.results) for group in by_seed([one, changed])] == [1, 1]
    assert [group.settings for group in by_seed([one, changed])] == [
        {"data.path": one.experiment["data"]["path"]},
        {"data.path": "other.h5"},
    ]
    assert [len(group.results) for group in by_seed([one, one])] == [1, 1]
    assert len(by_seed(results, apart=True)) == 8


def test_a_curve_is_the_mean_of_the_seeds_with_its_deviation(groups):
    group = groups[0]
    columns = np.array([one.history["suboptimality"] for one in group.results])
    drawn = curves.curve(group, "gradients", "suboptimality")
    np.testing.assert_array_equal(drawn.x, group.results[0].history["gradients"])
    np.testing.assert_allclose(drawn.mean, (columns[0] + columns[1]) / 2, rtol=1e-15)
    half = np.abs(columns[0] - columns[1]) / np.sqrt(2)  # the deviation of two values
    np.testing.assert_allclose([drawn.high - drawn.mean, drawn.mean - drawn.low], [half, half], rtol=1e-9)
    spanned = curves.curve(group, "round", "suboptimality", "range")
    np.testing.assert_array_equal([spanned.low, spanned.high], np.sort(columns, axis=0))


def test_runs_of_other_lengths_are_compared_where_both_were_evaluated(groups):
    long, short = groups[0].results
    cut = short._replace(history={name: values[::2] for name, values in short.history.items()})
    both = groups[0]._replace(results=[long, cut])
    np.testing.assert_array_equal(curves.curve(both, "round", "loss").x, cut.history["round"])


def test_every_experiment_has_its_labelled_curve(groups):
    made = curves.draw(groups, "bytes_up", "suboptimality", log_x=True)
    axes = made.axes[0]
    assert [line.get_label() for line in axes.lines] == [group.label for group in groups]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlabel() == "bytes sent by all devices"
    drawn = [line.get_ydata()[-1] for line in axes.lines]
    expected = [np.mean([one.history["suboptimality"][-1] for one in group.results]) for group in groups]
    np.testing.assert_allclose(drawn, expected, rtol=1e-15)
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 4
    assert len(axes.collections) == 4  # the bands


def test_of_a_grid_dashes_say_one_setting_and_colours_the_other(groups):
    many = [
        group._replace(settings={"attack": attack, "redundancy": str(number)})
        for attack, group in (("ipm", groups[0]), ("sign_flip", groups[1]))
        for number in range(5)
    ]
    drawn = [curves.curve(group, "round", "loss") for group in many]
    looks = [(style["linestyle"], style["color"]) for style in curves.styles(many, drawn)]
    assert len(set(looks)) == 10
    assert {dash for dash, _ in looks[:5]} == {"-"}
    assert {dash for dash, _ in looks[5:]} == {"--"}
    assert [colour for _, colour in looks[:5]] == [colour for _, colour in looks[5:]]


def test_dollars_are_no_mathematics(groups, tmp_path):
    one = groups[0]._replace(label="costs $1 and $x_", settings={})
    look.save(curves.draw([one, groups[1]], "round", "loss", title="$$"), str(tmp_path / "c.png"))
    assert (tmp_path / "c.png").stat().st_size > 5000


def test_what_rounding_leaves_below_zero_stays_on_a_logarithmic_axis(groups):
    def scale(*values):
        history = {"round": np.arange(len(values)), "suboptimality": np.array(values)}
        one = groups[0]._replace(results=[groups[0].results[0]._replace(history=history)])
        return curves.draw([one], "round", "suboptimality").axes[0].get_yscale()

    assert scale(1e3, 1.0, 1e-12, -1e-13) == "log"
    assert scale(1e3, 1.0, 0.5, -2.0) == "linear"


def test_diverged_runs_are_drawn(groups, tmp_path):
    history = groups[0].results[0].history | {"loss": np.array([1.0, 1e300, np.inf, np.nan])}
    one = groups[0]._replace(results=[groups[0].results[0]._replace(history=history)])
    look.save(curves.draw([one], "round", "loss"), str(tmp_path / "c.png"))


def test_cells_of_a_heatmap_are_means_over_seeds(sweep):
    results = load_all(sweep)
    assert heatmap.axes_of(results, None, None) == ("allocation.redundancy", "attack.name")
    names, numbers, values = heatmap.field(results, "attack.name", "allocation.redundancy", "loss")
    assert (sorted(names), numbers) == (["ipm", "sign_flip"], [5, 20])
    for (row, column), value in np.ndenumerate(values):
        of = [
            one.history["loss"][-1]
            for one in results
            if one.experiment["attack"]["name"] == names[row]
            and one.experiment["allocation"]["redundancy"] == numbers[column]
        ]
        assert len(of) == 2
        assert value == pytest.approx(sum(of) / 2, rel=1e-15)
    texts = [text.get_text() for text in heatmap.draw(results, "attack.name", "seed", "loss", log=True).axes[0].texts]
    assert len(texts) == 4  # two attacks by two seeds


def test_a_heatmap_without_two_settings_says_which_there_are(sweep):
    results = load_all(sweep)
    with pytest.raises(InputError, match="'rounds' is the same in all files; these vary: "):
        heatmap.axes_of(results, "rounds", None)
    with pytest.raises(InputError, match=r"which two settings\? --rows and --columns choose from: "):
        heatmap.axes_of(results[:1], None, None)


def test_a_table_has_mean_and_deviation(groups):
    made = table.make(groups, ["suboptimality", "bytes_up"])
    assert made.settings == ["allocation.redundancy", "attack.name"]
    ends = np.array([[one.history["suboptimality"][-1] for one in group.results] for group in groups])
    for (values, seeds, cells), group, end in zip(made.rows, groups, ends, strict=True):
        assert (values, seeds) == (list(group.settings.values()), 2)
        assert cells[0].mean == pytest.approx(end.mean(), rel=1e-15)
        assert cells[0].deviation == pytest.approx(abs(end[0] - end[1]) / np.sqrt(2), rel=1e-12)
        assert cells[1] == (30 * 100 * 800, 0.0)
    rows = list(csv.reader(io.StringIO(table.as_csv(made))))
    assert rows[0][2:] == ["seeds", "suboptimality", "suboptimality_std", "bytes_up", "bytes_up_std"]
    assert [float(row[3]) for row in rows[1:]] == [row[2][0].mean for row in made.rows]
    assert "| 2.40 |" in table.as_markdown(made)
    assert " ± " in table.as_text(made)
    latex = table.as_latex(made)
    assert latex.count("\\\\\n") == 5
    assert r"sign\_flip" in latex
    assert latex.count(r"\pm") == 4


@pytest.mark.parametrize(
    ("mean", "deviation", "expected"),
    [
        (103.7, 2.345, "104 ± 2"),
        (1.2345, 0.05, "1.23 ± 0.05"),
        (0.00123, None, "0.00123"),
        (2.5e-12, 1e-13, "2.50e-12 ± 1.0e-13"),
        (2e9, 0.0, "2.00e+09"),
        (0.0, None, "0.00"),
        (np.inf, None, "inf"),
        (np.nan, 1.0, "nan"),
    ],
)
def test_numbers_are_rounded_to_their_digits(mean, deviation, expected):
    assert table.Cell(mean, deviation).text(3) == expected


def test_best_is_the_least_of_losses_and_the_most_of_accuracies(groups):
    history = {"round": np.arange(3), "loss": np.array([3.0, 1.0, 2.0]), "accuracy": np.array([0.1, 0.9, 0.5])}
    one = groups[0]._replace(results=[groups[0].results[0]._replace(history=history)])
    last, best = (table.make([one], ["loss", "accuracy"], which).rows[0][2] for which in ("last", "best"))
    assert [cell.mean for cell in last] == [2.0, 0.5]
    assert [cell.mean for cell in best] == [1.0, 0.9]


def test_phases_of_a_rank_are_all_of_its_seconds(here):
    (result,) = load_all(["fixed.h5"])
    total = sum(values[0] for values in result.timings.values())
    assert sum(values[0] for values in phases.shares(result).values()) == pytest.approx(total)
    bars = phases.draw(result).axes[0].patches
    assert sum(bar.get_width() for bar in bars) == pytest.approx(total)
    assert len(phases.shares(result)) == 8


def test_suspects_are_the_byzantine_devices(here):
    (result,) = load_all(["fixed.h5"])
    rounds, (devices,) = suspects.over_time(result)
    assert rounds.tolist() == [10, 20, 30, 40]
    np.testing.assert_allclose(devices.scores[-1], result.suspicion["score"], rtol=1e-6)
    drawn = [line.get_label() for line in suspects.draw(result).axes[0].lines][:4]
    worst = np.argsort(-result.suspicion["score"])[:4]
    assert drawn == [f"device {one} (rank 0)" for one in worst]


def test_ranks_and_hosts_have_the_means_of_their_devices(here):
    (result,) = load_all(["fixed.h5"])
    rank = np.repeat([0, 1, 2], [40, 30, 30])
    host = np.array(["a", "a", "b"], object)[rank]
    _, (_, ranks, hosts) = suspects.over_time(
        result._replace(suspicion=result.suspicion | {"rank": rank, "host": host})
    )
    score = result.suspicion["score"]
    np.testing.assert_allclose(ranks.scores[-1], [score[:40].mean(), score[40:70].mean(), score[70:].mean()], rtol=1e-5)
    np.testing.assert_allclose(hosts.scores[-1], [score[:70].mean(), score[70:].mean()], rtol=1e-5)
    assert ranks.names == ["rank 0 (a)", "rank 1 (a)", "rank 2 (b)"]


def test_copies_are_counted(here):
    held = np.random.default_rng(1).random((20, 50)) < 0.3
    bars = allocation.draw(held, "some", copies=True).axes[1].patches
    found = {round(bar.get_x() + bar.get_width() / 2): int(bar.get_height()) for bar in bars}
    assert found == {copies: int((held.sum(axis=0) == copies).sum()) for copies in set(held.sum(axis=0).tolist())}
