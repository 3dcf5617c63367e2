import json

import pytest

from rotoscope.cli import doctor
from rotoscope.cli.__main__ import main


def test_the_doctor_finds_this_machine_fit(capsys) -> None:
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "FAIL" not in shown
    assert "a moving square: IoU" in shown


def test_the_findings_as_json(capsys) -> None:
    main(["doctor", "--json"])
    findings = json.loads(capsys.readouterr().out)
    assert {"python", "packages", "weights", "tracking"} <= {finding["what"] for finding in findings}


def test_a_check_that_breaks_is_a_finding_and_exit_code_1(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def _weights() -> list[doctor.Finding]:
        message = "no such folder"
        raise OSError(message)

    monkeypatch.setattr(doctor, "_weights", _weights)
    assert main(["doctor"]) == 1
    assert "FAIL  weights" in capsys.readouterr().out
