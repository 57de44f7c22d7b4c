"""Markdown tables: alignment, and cells that would break a table."""

from c2l_models.training.evaluation.markdown import markdown_table


def test_the_first_column_is_left_and_all_others_right():
    assert markdown_table(["finding", "films", "AUROC"], [["Mass", 12, "0.812"]]) == (
        "| finding | films | AUROC |\n| --- | ---: | ---: |\n| Mass | 12 | 0.812 |"
    )


def test_columns_are_aligned_as_asked():
    assert markdown_table(["step", ""], [[1, "n/a"]], align="rl") == "| step |  |\n| ---: | --- |\n| 1 | n/a |"


def test_no_cell_ends_its_row():
    assert markdown_table(["a|b"], [["one\ntwo"]]).splitlines() == [r"| a\|b |", "| --- |", "| one<br>two |"]
