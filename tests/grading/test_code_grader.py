"""Code of answers gets the share of tests that it passes, whatever it tries: no network, files or environment, and an end."""

from __future__ import annotations

import os
import sys

import pytest

from ipr_engine.errors import BackendUnavailableError
from ipr_engine.grading import sandbox
from ipr_engine.grading.code_grader import CodeGrader, python_code, reference_tests
from ipr_engine.grading.grade import UngradableError
from ipr_engine.grading.grader_specs import CodeSpec
from tests.support.graded_answers import to_grade
from tests.support.skips import NAMESPACES

TESTS = "assert f(1) == 2\nassert f(2) == 3\n"
OWN = (sys.prefix, sys.base_prefix)  # what a program sees of this machine: its interpreter
IN_TMP = sorted({path.split("/")[2] for path in OWN if path.startswith("/tmp/")})
PLUS = "\ndef f(x): return x + 1\n"


@pytest.fixture(scope="module")
def grader():
    try:
        return CodeGrader(CodeSpec(seconds=6, test_seconds=1.5, memory_mb=256))
    except BackendUnavailableError as error:
        pytest.skip(f"{NAMESPACES}: {error}")


def score(grader, code: str, reference=TESTS):
    return grader.grade([to_grade(f"Here it is:\n```python\n{code}\n```\n", reference)])[0]


def test_the_score_is_the_share_of_tests_passed(grader):
    assert score(grader, PLUS) == (1.0, None, None)
    assert score(grader, "def f(x): return 2").score == 0.5
    assert score(grader, "def g(x): return 2").score == 0


def test_asserts_and_test_functions_are_tests_and_all_else_runs_before_them(grader):
    reference = "wanted = 3\nassert f(1) == 2\ndef test_two():\n    assert f(2) == wanted\ndef test_three():\n    assert f(3) == 5\n"
    assert score(grader, PLUS, reference).score == pytest.approx(2 / 3)


def test_a_source_without_either_is_one_test(grader):
    reference = "def check(candidate):\n    assert candidate(1) == 2\ncheck(f)\n"
    assert [score(grader, code, reference).score for code in (PLUS, "def f(x): return x")] == [1, 0]


def test_a_program_is_held_against_what_it_shall_print(grader):
    reference = [{"input": "2\n", "output": "4\n"}, {"input": "3\n", "output": "7"}]
    assert score(grader, "print(2 * int(input()))", reference).score == 0.5
    assert (
        score(grader, "import sys\nprint(open(0).read().strip())\nsys.exit(1)", [{"input": "2", "output": "2"}]).score
        == 0
    )


def test_an_endless_test_costs_that_test_alone(grader):
    assert score(grader, "def f(x):\n    while x == 2: pass\n    return x + 1").score == 0.5


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import os\nwhile True: os.fork()",
        "import os; os._exit(0)",
        "raise SystemExit(0)",
        "x = bytearray(10**10)",
        "x = ' ' * 10\nwhile True: x += x",
        "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
        "import os, signal\nos.kill(-1, signal.SIGKILL)",
        "import socket\nsocket.create_connection(('127.0.0.1', 80), 1)",
        "import socket\nsocket.create_connection(('1.1.1.1', 53), 1)",
        "import socket\nsocket.getaddrinfo('example.com', 80)",
        "import socket\nsocket.socket(socket.AF_UNIX).connect('/run/docker.sock')",
        "open('/tmp/big', 'wb').write(b'0' * (17 << 20))",
        "for i in range(9): open(f'/tmp/{i}', 'wb').write(b'0' * (4 << 20))",
        "open('/etc/passwd')",
        "open('/usr/lib/mine', 'w')",
        "open('/mine', 'w')",
        "import os\nfor fd in range(3, 30):\n    try: os.write(fd, b'x' * 10**6)\n    except OSError: pass",
        "import ctypes\nctypes.string_at(0)",
        "import sys\nsys.setrecursionlimit(10**9)\ndef g(): return g()\ng()",
        "import os\nassert os.listdir('/proc')",
        "import ctypes\nassert ctypes.CDLL(None).mount(b'tmpfs', b'/usr', b'tmpfs', 0, None) == 0",
        "import os\nos.setuid(0)",
        "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
        "import os\nos.memfd_create('mine')",
        "import ctypes\nassert ctypes.CDLL(None).shmget(0, 1 << 20, 0o1600) >= 0",
        "import ctypes, os\nassert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0",
    ],
)
def test_code_that_does_harm_or_does_not_end_gets_nothing_and_is_ended(grader, code):
    assert score(grader, code + PLUS).score == 0


@pytest.mark.parametrize(
    "code",
    [
        "print('x' * 10**7)",
        f"import os\nassert os.getcwd() == '/tmp' and os.listdir('/tmp') == {IN_TMP}",
        "import os\nassert os.getuid() != 0 and 'IPR_SECRET' not in os.environ and len(os.environ) < 9",
        "import os\nassert not os.path.exists('/root') and not os.path.exists('/home') and not os.path.exists('/work')",
        "open('/tmp/mine', 'w').write('x')",
        "import os, time\ntry:\n    while os.fork(): pass\n    os.setsid(); time.sleep(99)\nexcept OSError: pass",
        "import time\nfrom threading import Timer\ntry:\n    while True: Timer(99, print).start()\nexcept RuntimeError: pass",
    ],
)
def test_code_that_is_merely_odd_is_graded_by_its_tests(grader, code, monkeypatch):
    monkeypatch.setenv("IPR_SECRET", "1")
    if "/root" in code and any(path.startswith(("/root", "/home", "/work")) for path in OWN):
        code = "import os\nassert not os.path.exists('/etc/passwd') and not os.path.exists('/var')"
    assert score(grader, code + PLUS).score == 1


def test_nothing_of_a_run_is_left_behind(grader, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    score(grader, "import os\nos.fork()\nos.setsid()\nopen('/tmp/mine', 'w').write('x')\nwhile True: pass")
    assert list(tmp_path.iterdir()) == []
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and b"_end_all_others" in command_of(pid)]


def command_of(pid: str) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def test_answers_may_be_graded_side_by_side(grader):
    many = CodeGrader(CodeSpec(parallel=4))
    answers = [to_grade(PLUS, TESTS), to_grade("def f(x): return 2", TESTS)] * 4
    assert [grade.score for grade in many.grade(answers)] == [1, 0.5] * 4


@pytest.mark.parametrize("reference", [None, "", "def (", [], [1], [{"input": "1"}], 3])
def test_a_reference_that_holds_no_tests_is_told(reference):
    with pytest.raises(UngradableError, match=r"^reference: "):
        reference_tests(reference)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("```python\na = 1\n```\nand\n```python\nlonger = 1\n```\n```\nthe longest of all\n```", "longer = 1\n"),
        ("```\na = 1\n```", "a = 1\n"),
        ("a = 1", "a = 1"),
        ("```py\ncut off = ", "cut off = "),
    ],
)
def test_the_code_of_an_answer(answer, code):
    assert python_code(answer) == code


def test_an_answer_without_code_or_with_too_much_is_wrong(grader):
    empty, huge = grader.grade([to_grade("```python\n\n```", TESTS), to_grade("x" * 1_000_001, TESTS)])
    assert (empty.score, empty.reason) == (0, "no code in the answer")
    assert (huge.score, huge.reason) == (0, "the code is too long")


def test_where_a_sandbox_cannot_be_had_nothing_is_run(tmp_path, monkeypatch):
    refusing = tmp_path / "launcher.py"
    refusing.write_text("import os\nos.write(2, b'unshare: Operation not permitted\\n')\nos._exit(97)\n")
    monkeypatch.setattr(sandbox, "LAUNCHER", refusing)
    sandbox.check_sandbox.cache_clear()
    try:
        with pytest.raises(BackendUnavailableError, match=r"unshare: Operation not permitted; code runs in namespaces"):
            CodeGrader(CodeSpec())
    finally:
        sandbox.check_sandbox.cache_clear()
