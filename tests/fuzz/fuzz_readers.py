"""Fuzzing of one reader with coverage of its Python code (atheris, which is not a dependency: pip install atheris).

    python tests/fuzz/fuzz_readers.py nifti CORPUS_FOLDER -max_total_time=300 -rss_limit_mb=4000 -timeout=20

The first argument is a key of `reader_targets.TARGETS`, the folder keeps what was found to reach new code (it is filled
with the valid files to start from), and the others are libFuzzer's. It ends at the first input that a reader answers
with anything but a value or an AuvtoolError, and writes it as crash-*, timeout-* or oom-* into the current folder.
`AUVTOOL_FUZZ_ON=1` writes every such error once, by where it was raised, and goes on.
"""

import os
import sys
import tempfile
import traceback
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent.parent))
with atheris.instrument_imports(include=["auvtool", "nibabel", "tifffile", "reader_targets"]):
    from reader_targets import TARGETS, strike

name, corpus = sys.argv[1], Path(sys.argv[2])
target = TARGETS[name]
corpus.mkdir(parents=True, exist_ok=True)
for number, seed in enumerate(target.seeds()):
    (corpus / f"seed_{number}").write_bytes(seed)
scratch = tempfile.TemporaryDirectory(prefix="fuzz-")
seen = set()


def one_input(content: bytes) -> None:
    try:
        strike(target, content, Path(scratch.name))
    except Exception as error:
        if not os.environ.get("AUVTOOL_FUZZ_ON"):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "/auvtool/" in frame.filename][-1:]
        where = (type(error).__name__, *((frame.filename, frame.lineno) for frame in ours))
        if where not in seen:
            seen.add(where)
            Path(f"found-{name}-{len(seen)}").write_bytes(content)
            print(f"FOUND {name}: {where} {str(error)[:300]}", flush=True)


atheris.Setup([sys.argv[0], str(corpus), *sys.argv[3:]], one_input)
atheris.Fuzz()
