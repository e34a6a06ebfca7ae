"""The domain matrix as tables: the right rows side by side, drops as words, and the spread over seeds by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.params.errors import PixelCAMError
from pipeline.params.vocabulary import AdaptationMethod
from pipeline.report.matrix import (
    METHODS,
    Cell,
    adaptation_groups,
    domain_groups,
    read_matrix,
    seed_count,
    seed_groups,
    selection_groups,
)

NAN = float("nan")


def variant(  # what evaluate_ood writes about one seed, selection and option at test time
    *,
    seed: int = 0,
    weights: str = "selected",
    test_time: str = "none",
    adapted_to: str = "",
    adaptation: str = "source_only",
    home: float = 0.75,
    away: float = 0.5,
) -> list[dict[str, object]]:
    return [
        {
            "seed": seed,
            "weights": weights,
            "test_time": test_time,
            "adapted_to": adapted_to,
            "adaptation": adaptation,
            "domain": domain,
            "in_domain": domain == "home",
            "model": model,
            "pxap": value + more,
            "dice": NAN,
            "accuracy": value,
            "balanced_accuracy": value,
            "pxap_drop": home - value,
            "accuracy_drop": home - value,
        }
        for domain, value in (("home", home), ("away", away))
        for model, more in (("teacher", 0.0), ("pixelcam", 0.125))
    ]


def table(*variants: list[dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame([row for rows in variants for row in rows])


def values(cells: tuple[Cell, ...]) -> list[str]:
    return [cell.value for cell in cells]


def test_each_option_at_test_time_has_every_domain_with_its_drop() -> None:
    groups = domain_groups(table(variant(), variant(test_time="macenko", away=0.8), variant(weights="last", away=0)))
    assert [group.title for group in groups] == ["images as they are", "stain normalized (Macenko)"]
    home, away = groups[0].rows
    assert (home.title, home.note, away.title, away.note) == ("home", "in domain", "away", "")
    assert home.cells == (Cell("75.0", ""), Cell("87.5", ""), Cell("75.0", ""), Cell("75.0", ""))
    assert values(away.cells) == ["50.0", "62.5", "50.0", "50.0"]  # PxAP, then accuracy; the teacher's, then PixelCAM's
    assert {cell.detail for cell in away.cells} == {"drop 25.0"}
    assert {cell.detail for cell in groups[1].rows[1].cells} == {"gain 5.0"}


def test_selections_stand_side_by_side_in_each_domain() -> None:
    groups = selection_groups(table(variant(), variant(weights="val_pxap", home=0.7), variant(seed=1, home=0.1)))
    assert [group.title for group in groups] == ["home", "away"]
    assert [row.title for row in groups[0].rows] == ["selected", "best PxAP on validation masks (B-LOC)"]
    assert [row.cells[0] for row in groups[0].rows] == [Cell("75.0", ""), Cell("70.0", "")]


def test_seeds_have_mean_and_standard_deviation_of_a_sample() -> None:
    # Of 0.7, 0.75 and 0.8 the mean is 0.75, and the variance 2 * 0.05^2 / 2, so that the deviation is 0.05.
    found = table(variant(), variant(seed=1, home=0.7), variant(seed=2, home=0.8), variant(test_time="macenko", home=0))
    (group,) = seed_groups(found)
    assert seed_count(found) == 3
    assert group.rows[0].title == "home"
    assert group.rows[0].cells == tuple(Cell(mean, "± 5.0") for mean in ("75.0", "87.5", "75.0", "75.0"))


def test_what_was_not_varied_has_no_table() -> None:
    only = table(variant())
    assert selection_groups(only) == ()
    assert seed_groups(only) == ()
    assert [group.title for group in domain_groups(only)] == ["images as they are"]


def test_adapted_models_stand_beside_those_before_and_never_among_them() -> None:
    plain = table(variant(), variant(test_time="macenko"), variant(seed=1))
    found = table(
        variant(),
        variant(test_time="macenko"),
        variant(seed=1),
        variant(adapted_to="away", adaptation="shot", home=0.5, away=0.55),
        variant(adapted_to="away", adaptation="tent, transductive", away=0.45),
        variant(adapted_to="away", adaptation="supervised", weights="last", away=0.5),
    )
    for tables in (domain_groups, selection_groups, seed_groups):
        assert tables(found) == tables(plain)
    (group,) = adaptation_groups(found)
    assert group.title == "away"
    titles = ["source only", "SHOT", "Tent, transductive", "supervised"]
    assert [row.title for row in group.rows] == titles
    assert group.rows[2].note == "adapted to the very images that are scored"
    assert [row.cells[0] for row in group.rows] == [
        Cell("50.0", ""),
        Cell("55.0", "gain 5.0"),
        Cell("45.0", "drop 5.0"),
        Cell("50.0", "as before"),
    ]
    assert values(group.rows[1].cells) == ["55.0", "67.5", "55.0", "55.0"], "of the domain, not of the source"


def test_without_an_adapted_model_there_is_no_table_of_them() -> None:
    assert adaptation_groups(table(variant(), variant(seed=1))) == ()


def test_every_method_has_a_name_for_people() -> None:
    assert set(METHODS) == set(AdaptationMethod)


def test_what_is_not_defined_is_a_dash() -> None:
    found = table(variant(), variant(seed=1))
    found.loc[found["domain"] == "away", ["pxap", "pxap_drop"]] = NAN
    away = domain_groups(found)[0].rows[1]
    assert away.cells[:2] == (Cell("–", ""), Cell("–", ""))
    assert seed_groups(found)[0].rows[1].cells[:2] == (Cell("–", ""), Cell("–", ""))


def test_a_score_that_one_seed_lacks_has_no_mean() -> None:
    found = table(variant(), variant(seed=1), variant(seed=2))
    found.loc[0, "pxap"] = NAN
    assert seed_groups(found)[0].rows[0].cells[0] == Cell("–", "")


def test_names_that_look_like_numbers_or_gaps_stay_names(tmp_path: Path) -> None:
    path = tmp_path / "matrix.csv"
    found = table(variant())
    found["domain"] = ["007", "007", "NA", "NA"]
    found.loc[2:, "pxap"] = NAN
    found.to_csv(path, index=False)
    read = read_matrix(path)
    assert read["domain"].tolist() == ["007", "007", "NA", "NA"]
    assert read["in_domain"].tolist() == [True, True, False, False]
    assert np.isnan(read["pxap"]).tolist() == [False, False, True, True]
    assert [row.title for row in domain_groups(read)[0].rows] == ["007", "NA"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read as a domain matrix"),
        ("", "cannot be read as a domain matrix"),
        ("seed,weights\n0,last\n", "the column test_time is missing"),
        (",".join(variant()[0]) + "\n", "it holds no row"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "matrix.csv"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(PixelCAMError, match=rf"matrix\.csv: {said}.*run 'dvc repro'"):
        read_matrix(path)
