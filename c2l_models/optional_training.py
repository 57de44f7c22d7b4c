"""The commands of the training pipeline, `c2l_models.training`, and instructions for installing it.

The pipeline may be missing, so this module never imports it.
"""

from importlib.util import find_spec

from .errors import C2LError

TRAINING_COMMANDS = {
    "prepare": "Decode radiographs on disk into an image store: one uint8 array and one index.",
    "join": "Join the shards that `c2l prepare --shard` wrote into one image store.",
    "pretrain": "Pretrain a network: `c2l pretrain RECIPE --store STORE --out RUN`.",
    "curves": "Compare runs over their hours: the k-NN AUROC that each run logged, as a picture and a table.",
    "slim": "Copy a run without teacher, queue and optimizer, to carry it elsewhere: 45 MB for a ResNet-18.",
    "average": "Average the weights of a run with other weights of its architecture, as a run that can be released.",
    "release": "Turn a run into a release: export it, probe it, write its file, provenance and registry entry.",
    "probe": "Measure frozen features with a linear probe or k-NN: AUROC with patient-level intervals.",
    "compare": "Compare frozen networks on all tasks of a store: linear probes in one table and one plot.",
    "few-shot": "Compare networks on a few labelled images: linear probes on the same draws, as curves with intervals.",
    "finetune": "Fine-tune a network on a task's labels: `c2l finetune TASK --store STORE --init INIT --out RUN`.",
    "detect": "Fine-tune and measure a pneumonia detector: `c2l detect rsna --init INIT --data DIR --out RUN`.",
    "look": "Draw nearest films, a feature map, and a fine-tuned network's class activation maps.",
    "atlas": "Draw a collection as a map in one HTML page: similar films lie close together, colours are labels.",
    "reproduce": "Reproduce a table of the paper, or a release's metrics, from raw data folders.",
    "benchmark": "Measure speed or coverage: `c2l benchmark step|input|prepare|embed|probe|peer|scaling|coverage`.",
    "demo": "Run every stage in a few minutes, on synthetic films or on a folder of your own.",
}
"""Commands of `c2l_models.training`, with the first line of their help. They are listed here so that `c2l --help` needs
no import of the training pipeline."""

HOW_TO_GET_TRAINING = (
    "Clone the repository with git, because a zip download breaks the link c2l_models/training (on Windows: turn "
    "on Developer Mode, then git clone -c core.symlinks=true). In the clone, run: pip install '.[train]'"
)


def has_training() -> bool:
    """Whether this installation holds the training pipeline, `c2l_models.training`."""
    return find_spec("c2l_models.training") is not None


def require_training(what: str) -> None:
    """Raise C2LError with installation instructions if the pipeline is missing. `what`: the feature that needs it."""
    if not has_training():
        raise C2LError(f"{what} needs the training pipeline, which is not installed. {HOW_TO_GET_TRAINING}")
