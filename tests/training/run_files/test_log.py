"""The log: means by hand, each step logged once, plots."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from c2l_models.training.distributed import ALONE
from c2l_models.training.objectives.c2l import C2L
from c2l_models.training.run_files import log
from c2l_models.training.run_files.curves import draw_curves
from c2l_models.training.run_files.log import RunLog, StepGroup
from c2l_models.training.run_files.run_folder import LOG


def metrics(loss):
    return {
        name: torch.tensor(value)
        for name, value in {
            "loss": loss,
            "loss_a": loss,
            "loss_m": 2 * loss,
            "top1": 0.5,
            "spread": 1.0,
        }.items()
    }


def run(folder, first, last, resumed_at=0, every=2):
    """Log steps `first` to `last` with loss = step, one line every `every` steps."""
    group = StepGroup()
    with RunLog(folder, 100, resumed_at, progress=False) as lines:
        for step in range(first, last + 1):
            group.add(8, 0.0, metrics(float(step)))
            if step % every == 0:
                group.read()
                lines.write_group(step, step / 10, 0.1, group)
                group.clear()


def steps(folder):
    return [line["step"] for line in log.read(folder)]


def test_a_line_is_the_mean_of_its_group(tmp_path):
    run(tmp_path, 1, 6, every=3)
    one, two = log.read(tmp_path)
    assert (one["kind"], one["step"], one["epoch"], one["lr"]) == ("train", 3, 0.3, 0.1)
    assert (one["loss"], one["loss_a"], one["loss_m"], one["top1"]) == (2.0, 2.0, 4.0, 0.5)
    assert (two["step"], two["loss"]) == (6, 5.0)
    assert one["images_per_second"] > 0
    assert one["data_wait"] == 0


def test_a_group_keeps_each_steps_figures():
    group = StepGroup()
    for loss in (1.0, 4.0):
        group.add(8, 0.0, metrics(loss))
    assert group.names == ["loss", "loss_a", "loss_m", "top1", "spread"]
    assert group.read(ALONE).tolist() == [[1.0, 1.0, 2.0, 0.5, 1.0], [4.0, 4.0, 8.0, 0.5, 1.0]]
    other = StepGroup()
    other.load_state_dict(group.state_dict())
    assert torch.equal(other.read(), group.read())
    group.clear()
    assert len(group.read()) == 0


def test_a_resumed_group_goes_on_with_figures_of_another_device():
    """Saved metrics were read, so they are on the CPU; new ones may be on a GPU."""
    group = StepGroup()
    group.add(8, 0.0, metrics(1.0))
    group.read()
    resumed = StepGroup()
    resumed.load_state_dict(group.state_dict())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    resumed.add(8, 0.0, {name: value.to(device) for name, value in metrics(4.0).items()})
    assert resumed.read()[:, 0].tolist() == [1.0, 4.0]
    assert not resumed.read().is_cuda


def test_speed_counts_images_and_waiting(monkeypatch):
    clock = iter([100.0, 101.0, 103.0, 106.0])
    monkeypatch.setattr(log.time, "perf_counter", lambda: next(clock))
    group = StepGroup()  # at 100
    group.add(8, 0.5, metrics(1.0))
    with group.paused():  # from 101 to 103
        pass
    group.add(8, 1.5, metrics(1.0))
    assert group.speed() == {"images_per_second": 16 / 4, "data_wait": 2 / 4}  # at 106


def test_each_step_is_told_once_after_a_resume(tmp_path):
    run(tmp_path, 1, 8)
    run(tmp_path, 5, 10, resumed_at=4)
    assert steps(tmp_path) == [2, 4, 6, 8, 10]
    assert [line["loss"] for line in log.read(tmp_path)] == [1.5, 3.5, 5.5, 7.5, 9.5]


def test_a_torn_last_line_is_dropped(tmp_path):
    run(tmp_path, 1, 4)
    file = tmp_path / LOG
    file.write_text(file.read_text() + '{"kind": "train", "st')
    assert steps(tmp_path) == [2, 4]
    run(tmp_path, 5, 6, resumed_at=4)
    assert steps(tmp_path) == [2, 4, 6]


def test_a_line_is_on_disk_at_once(tmp_path):
    group = StepGroup()
    with RunLog(tmp_path, 10, progress=False) as lines:
        group.add(8, 0.0, metrics(1.0))
        lines.write_group(1, 0.1, 0.1, group)
        assert steps(tmp_path) == [1]
        lines.write_probe(1, 1, {"folder": 0.75})
        assert log.read(tmp_path)[-1] == {"kind": "probe", "step": 1, "epoch": 1, "folder": 0.75}
        lines.write_note(1, "something to know")
        assert log.read(tmp_path)[-1] == {"kind": "note", "step": 1, "text": "something to know"}


def test_a_full_disk_loses_no_line(tmp_path):
    """After two failed writes, each line is written once the disk has space."""
    with RunLog(tmp_path, 10, progress=False) as lines:
        file, flushes = lines._file, []

        class Full:
            def __getattr__(self, name):
                return getattr(file, name)

            def flush(self):
                flushes.append(1)
                if len(flushes) < 3:
                    raise OSError(28, "No space left on device")
                file.flush()

        lines._file = Full()
        for step in (1, 2, 3):
            lines.write_probe(step, step, {"folder": 0.5})
        assert steps(tmp_path) == [1, 2, 3]


def test_another_process_writes_and_shows_nothing(tmp_path, capfd):
    group = StepGroup()
    group.add(8, 0.0, metrics(1.0))
    with RunLog(tmp_path, 10, writes=False) as lines:
        lines.advance()
        lines.write_group(1, 0.1, 0.1, group)
        lines.write_probe(1, 1, {"folder": 0.75})
        lines.write_note(1, "something to know")
    assert not list(tmp_path.iterdir())
    assert "".join(capfd.readouterr()) == ""


def test_lines_are_json_without_nan(tmp_path):
    """JSON has no NaN, and readers other than Python's reject it."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    with RunLog(tmp_path, 10, progress=False) as lines:
        lines.write_probe(1, 1, {"folder": float("nan")})
    for text in (tmp_path / LOG).read_text().splitlines():
        assert json.loads(text, parse_constant=refuse)["folder"] is None
    run(tmp_path, 2, 4, resumed_at=1)
    draw_curves(tmp_path, C2L.PANELS)  # a gap in a curve


def test_tensorboard_holds_the_same_figures(tmp_path):
    run(tmp_path, 1, 6)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(2, 1.5), (4, 3.5), (6, 5.5)]


@pytest.mark.parametrize("probes", [0, 3])
def test_curves_are_a_picture(tmp_path, probes):
    run(tmp_path, 1, 6)
    with RunLog(tmp_path, 100, 6, progress=False) as lines:
        for n in range(probes):
            lines.write_probe(7 + n, n, {"folder": 0.5 + 0.1 * n, "knee_kl": 0.6})
    with Image.open(draw_curves(tmp_path, C2L.PANELS)) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300
        assert np.asarray(picture.convert("L")).std() > 5  # something is drawn
    assert (tmp_path / "curves.png").is_file()
