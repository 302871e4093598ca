"""Options of `train` that belong to a part of the loss that was left out."""

import typer

from auvtool.cli.options import is_typed
from auvtool.errors import UsageError

_NEEDS = {
    "terms": ("--loss duo or classwise", ""),
    "weights": ("--loss duo with its weights", " --no-reweight"),
    "noise": ("--loss duo with its noise head", " --no-denoise"),
}


def refuse_idle_loss_options(context: typer.Context, loss: str, *, reweight: bool, denoise: bool) -> None:
    """Refuse what was typed and would change nothing; defaults of a file or the environment may be for another loss.

    Raises:
        UsageError: see above.
    """
    from auvtool.training.loss_options import PART_OF, parts_of

    for option, wanted in (("reweight", reweight), ("denoise", denoise)):
        if wanted and loss != "duo" and is_typed(context, option):
            raise UsageError(f"--{option}: expected --loss duo, got --loss {loss}; leave one of them out")
    parts = parts_of(loss, reweight=reweight, denoise=denoise)
    for option, part in PART_OF.items():
        name = option[2:].replace("-", "_")
        # --no-scale-grad says what is so.
        if part not in parts and is_typed(context, name) and context.params[name] is not False:
            expected, left_out = _NEEDS[part]
            found = f"--loss {loss}{left_out if loss == 'duo' else ''}"
            raise UsageError(f"{option}: expected {expected}, got {found}; leave it out")
