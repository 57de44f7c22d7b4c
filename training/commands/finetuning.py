"""`c2l finetune` and `detect`: train a network on labels or boxes, and measure it.

A command's flags are its function's arguments. Each command imports its modules when it runs, so that its help
answers at once.
"""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, UseAppendAction, arg

from c2l_models.files import check_folder
from c2l_models.progress import stage

from .options import Device, Html, Initialization, Workers


def finetune(arguments: list[str]) -> None:
    """Fine-tune a network on a task's labels: `c2l finetune TASK --store STORE --init INIT --out RUN`."""
    from ..finetuning.settings import Settings

    def run(
        task: Annotated[Positional[str], arg(metavar="TASK", help="chestxray14, chexpert, knee_kl or folder")],
        store: Path,
        initialization: Initialization,
        out: Path,
        settings: Annotated[Settings, arg(name="")] = Settings(),  # noqa: B008 (frozen)
        device: Device = "auto",
        resume: bool = False,
        versus: Path | None = None,
        html: Html = False,
    ) -> None:
        """Fine-tune a network on a task's training patients, choose the epoch on held-out patients, test once.

        Args:
            store: folder that `c2l prepare` wrote.
            out: run folder; must not exist, except with --resume.
            settings: the run's settings.
            resume: resume from the newest intact checkpoint in the run folder; start a new run if it has none.
            versus: folder of another finished run on the same task; paired differences to it are reported. By default
                none.
        """
        check_folder(out)
        with stage("finetune", show=True):
            from ..evaluation.predictions import Predictions
            from ..evaluation.result import Result
            from ..evaluation.tasks import load_task
            from ..finetuning.finetune import finetune
            from ..finetuning.finetuning_report import page_of, report_of
            from ..store.image_store import ImageStore

            images = ImageStore.open(store)
            result = finetune(initialization, images, task, out, settings, device, resume, versus=versus)
            other = Result.read(versus) if versus else None
            report = report_of(result, Predictions.load(out), load_task(task, images), other)
            if html:
                page_of(report, out, versus).write(out / "report.html")
        report.show()
        print(f"network, predictions, report and plots: {out}")

    tyro.cli(run, args=arguments, prog="c2l finetune")


def detect(arguments: list[str]) -> None:
    """Fine-tune and measure a pneumonia detector: `c2l detect rsna --init INIT --data DIR --out RUN`."""
    from ..detection.settings import Settings

    defaults = Settings()

    def rsna(
        initialization: Initialization,
        data: Path,
        out: Path,
        settings: Annotated[Settings, arg(name="")] = defaults,
        avoid: UseAppendAction[tuple[Path, ...]] = (),
        store: Path | None = None,
        workers: Workers = None,
        device: Device = "auto",
        resume: bool = False,
        html: Html = False,
    ) -> None:
        """Fine-tune a RetinaNet with a ResNet-18 backbone; report the challenge's mAP and COCO's AP.

        A fifth of the patients are test patients. With --html, the page contains boxes.png, which shows films.

        Args:
            data: the challenge's folder, stage 1 or 2, as distributed.
            out: run folder; must not exist, except with --resume.
            settings: the run's settings.
            avoid: a store, or a list of images or patients; its patients are never test patients. For a comparison,
                name the patients that any of the initializations has seen. Can be repeated.
            store: folder for the decoded films; by default a folder beside the run folder, shared by later runs.
            resume: resume from the newest checkpoint in the run folder; start a new run if it has none.
        """
        check_folder(out)
        with stage("detect", show=True):
            from ..detection.detect import detect

            result = detect(
                initialization,
                data,
                out,
                settings,
                device=device,
                avoid=avoid,
                store=store,
                workers=workers,
                resume=resume,
            )
            if html:
                from ..detection.detection_report import page_of

                page_of(result, out).write(out / "report.html")
        for name in result.metrics.names:
            print(f"{name:12}{result.metrics[name]}")
        print(f"report, boxes and plots: {out}")

    description = "Fine-tune and measure a RetinaNet detector."
    tyro.extras.subcommand_cli_from_dict({"rsna": rsna}, prog="c2l detect", args=arguments, description=description)
