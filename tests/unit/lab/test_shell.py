import os
import pty
import threading

import pytest

from omamori_lab.errors import NotReadyError
from omamori_lab.shell import Shell


class SerialBash:
    """bash on a terminal of its own, reached through a second pty as through QEMU's serial port."""

    def __init__(self) -> None:
        self._line, slave = os.openpty()
        self.path = os.ttyname(slave)
        self._slave = slave
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.execvpe("bash", ["bash", "--norc", "--noprofile"], {**os.environ, "TERM": "dumb", "PS1": "guest# "})
        self._threads = [
            threading.Thread(target=self._pump, args=(self._line, self._terminal), daemon=True),
            threading.Thread(target=self._pump, args=(self._terminal, self._line), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _pump(self, source: int, target: int) -> None:
        try:
            while data := os.read(source, 4096):
                os.write(target, data)
        except OSError:
            pass

    def close(self) -> None:
        os.kill(self._pid, 9)
        os.waitpid(self._pid, 0)
        self._threads[1].join()
        os.close(self._slave)


@pytest.fixture
def shell():
    bash = SerialBash()
    made = Shell(bash.path)
    yield made
    made.close()
    bash.close()


def test_status_and_output_of_a_command(shell: Shell) -> None:
    assert shell.run("echo one; echo two").output == "one\ntwo"
    assert shell.run("false").exit_code == 1
    assert shell.run("true").output == ""


def test_output_without_a_final_newline(shell: Shell) -> None:
    result = shell.run("printf abc")
    assert (result.exit_code, result.output) == (0, "abc")


def test_a_command_that_prints_its_own_text_is_not_taken_for_the_answer(shell: Shell) -> None:
    assert shell.run("echo end-000000000000 0").output == "end-000000000000 0"


def test_much_output(shell: Shell) -> None:
    lines = shell.run("seq 1 5000").output.split("\n")
    assert (len(lines), lines[-1]) == (5000, "5000")


def test_a_command_that_takes_too_long(shell: Shell) -> None:
    shell.run("true")
    with pytest.raises(NotReadyError, match="sleep 5"):
        shell.run("sleep 5", timeout_s=0.5)


def test_half_a_quoted_word_before_it_listened_swallows_nothing() -> None:
    bash = SerialBash()
    os.write(bash._terminal, b"%s\\n' begin\n")
    shell = Shell(bash.path)
    try:
        assert shell.run("echo one; echo 'two'").output == "one\ntwo"
    finally:
        shell.close()
        bash.close()


def test_shell_that_missed_to_be_told_not_to_echo_is_told_again() -> None:
    bash = SerialBash()
    os.write(bash._terminal, b"stty() { unset -f stty; }\n")
    shell = Shell(bash.path)
    try:
        for _ in range(5):
            assert shell.run("sleep 0.1; echo one").output == "one"
    finally:
        shell.close()
        bash.close()


def test_echo_that_a_reset_of_the_terminal_has_switched_on_again_is_no_output(shell: Shell) -> None:
    shell.run("stty echo")
    for _ in range(5):
        assert shell.run("sleep 0.1; echo one\necho 'two three'").output == "one\ntwo three"


def test_command_that_is_no_shell_at_all_ends_with_a_status(shell: Shell) -> None:
    assert shell.run("echo 'one").exit_code != 0
    assert shell.run("echo one").output == "one"
