"""Numbers from log files: which lines count, mean and spread over seeds."""

import pytest

from clusterprompt.commands import logs

LOG = """* accuracy: 11.1%
{signal}
* total: 2,465
* accuracy: 50.0%
* accuracy: {value}%
* error: 1.0%
"""


def write_logs(folder, values, signal="Finish training"):
    for i, value in enumerate(values, 1):
        (folder / f"seed{i}").mkdir(parents=True)
        (folder / f"seed{i}" / "log.txt").write_text(LOG.format(signal=signal, value=value))


@pytest.mark.parametrize(
    "signal, option", [("Finish training", []), ("Finished training", []), ("=> result", ["--test-log"])]
)
def test_mean_over_seeds(tmp_path, capsys, signal, option):
    """Catches: numbers before the signal counted, the first instead of the last match, a deviation other than the
    family's.
    """
    write_logs(tmp_path, ["90.0", "91.0", "95.0"], signal)
    assert logs.main([str(tmp_path), *option]) == 0
    said = capsys.readouterr().out
    assert "* accuracy: 92.00% +- 2.16%" in said  # sqrt(14 / 3)
    assert "95 % interval 85.43 to 98.57" in said  # 92 +- 4.3027 * 2.6458 / sqrt(3)


def test_unfinished_seeds_are_left_out(tmp_path, capsys):
    """Catches: a run without a result that counts as 0, or stops the parser."""
    write_logs(tmp_path, ["90.0", "80.0"])
    (tmp_path / "seed2" / "log.txt").write_text("epoch [1/2]\n* accuracy: 10.0%\n")
    assert logs.main([str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "seed2: not finished" in said and "accuracy: 90.00% +- 0.00%  (1 runs)" in said


def test_several_experiments(tmp_path, capsys):
    """Catches: seeds of different experiments thrown into one mean."""
    write_logs(tmp_path / "a", ["90.0", "92.0", "94.0"])
    write_logs(tmp_path / "b", ["50.0"])
    assert logs.main([str(tmp_path), "--multi-exp"]) == 0
    assert "Average of 2 experiments: 71.00%" in capsys.readouterr().out


def test_other_keyword(tmp_path, capsys):
    """Catches: --keyword ignored."""
    write_logs(tmp_path, ["90.0"])
    assert logs.main([str(tmp_path), "--keyword", "error"]) == 0
    assert "* error: 1.00%" in capsys.readouterr().out


def test_nothing_to_parse(tmp_path, capsys):
    """Catches: "nan +- nan" for a wrong folder or a forgotten --test-log."""
    write_logs(tmp_path, ["90.0"], "=> result")
    for words in ([str(tmp_path)], [str(tmp_path / "no")]):
        assert logs.main(words) == 2
    said = capsys.readouterr().err
    assert "add --test-log" in said and "no such folder" in said
