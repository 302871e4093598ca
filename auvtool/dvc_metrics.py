"""Means of an evaluation as JSON of nested numbers, which DVC shows and compares as it is."""

import json

from auvtool.evaluation import Evaluation, class_means


def render_means(evaluation: Evaluation) -> str:
    """The text of the file: n_cases, and for each column of `class_means` its number for each class.

    A class that has no mean is left out of that column: `dvc metrics diff` then says that it is new or gone.
    """
    rows = class_means(evaluation)
    columns = {
        name: {str(row["class"]): row[name] for row in rows if row[name] is not None}
        for name in rows[0]
        if name != "class"
    }
    return json.dumps({"n_cases": len(evaluation.cases), **columns}, indent=1, ensure_ascii=False) + "\n"
