"""Find the patients of an evaluation list that a release was pretrained on."""

import csv
import io
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import C2LError, WeightsNotFound
from ..files import write_atomically
from .evaluation_list import (
    CHEST,
    RSNA,
    WITHOUT_PATIENTS,
    Entry,
    EvaluationList,
    read_list,
    read_rsna_mapping,
    recognise,
)
from .provenance import damaged, earlier_patients_known, read_provenance
from .record import Weights
from .training_data import PHOTOGRAPHS, data_set_of


@dataclass(frozen=True)
class Leakage:
    """The verdict for each row of an evaluation list, and counts by verdict.

    `verdicts`: one of `VERDICTS` per row. `images`, `patients`: number of distinct images and patients by verdict.
    `seen`: ids of the patients seen. `unlisted`: data sets whose patients are not all published, so that other
    patients of them cannot be judged. `bare`: number of rows that hold only a number.
    """

    release: str
    listed: EvaluationList
    verdicts: list[str]
    images: dict[str, int]
    patients: dict[str, int]
    seen: list[str]
    unlisted: list[str]
    bare: int

    def __str__(self) -> str:
        listed, rows = self.listed, Counter(self.verdicts)
        labels = {SEEN: "seen", NOT_SEEN: "not seen", UNDECIDED: "cannot be judged", UNKNOWN: "unknown form"}
        lines = [
            f"{listed.path}, column {listed.column}: compared with the pretraining patients of {self.release}",
            f"{'':17}{'rows':>10}{'images':>10}{'patients':>10}",
        ]
        for verdict in VERDICTS:
            if rows[verdict] or verdict in (SEEN, NOT_SEEN):
                counts = (rows[verdict], self.images.get(verdict, 0), self.patients.get(verdict, 0))
                cells = [f"{count:,}" for count in counts] if verdict != UNKNOWN else [f"{rows[verdict]:,}", "–", "–"]
                lines.append(f"{labels[verdict]:17}" + "".join(f"{cell:>10}" for cell in cells))
        if repeated := len(listed.fields) - len(set(listed.fields)):
            lines.append(f"{repeated:,} rows repeat a name; images and patients are counted once")
        if self.bare:
            lines.append(f"{self.bare:,} bare numbers were read as patient numbers of ChestX-ray14 or knee_kl")
        if rows[UNDECIDED]:
            lines.append(
                "cannot be judged: RSNA images without --rsna-mapping, or patients whose ids are not published; "
                "FracAtlas and the shoulder implants have none"
            )
        if self.unlisted:
            lines.append(f"also trained on data whose patient ids are not published: {', '.join(self.unlisted)}")
        if rows[UNKNOWN]:
            lines.append(f"unknown form: {_first(self.lines(UNKNOWN), 'line')}")
        if self.seen:
            lines.append(f"patients seen: {_first(self.seen)}")
        return "\n".join(lines)

    @property
    def all_judged(self) -> bool:
        """Whether every row's verdict is seen or not seen."""
        return not {UNDECIDED, UNKNOWN} & set(self.verdicts)

    def lines(self, verdict: str) -> list[int]:
        """The line numbers, from 1, of the rows with this verdict."""
        return [line for line, found in zip(self.listed.lines, self.verdicts, strict=True) if found == verdict]

    def write_cleaned(self, path: Path) -> int:
        """Write only the rows of patients not seen, and return their number. Header, columns and line ends are kept.

        Rows that cannot be judged are left out too, because their patients may have been seen.
        """
        listed = self.listed
        kept = [row for row, verdict in zip(listed.rows, self.verdicts, strict=True) if verdict == NOT_SEEN]
        text = io.StringIO(newline="")
        if listed.delimiter:
            writer = csv.writer(text, delimiter=listed.delimiter, lineterminator=listed.line_end)
            writer.writerows([listed.header, *kept] if listed.header else kept)
        else:
            text.writelines(row[0] + listed.line_end for row in ([listed.header] if listed.header else []) + kept)
        write_atomically(path, text.getvalue().encode())
        return len(kept)


SEEN, NOT_SEEN, UNKNOWN, UNDECIDED = "seen", "not seen", "unknown form", "cannot tell"
"""`UNDECIDED`: a patient of a data set whose training ids are not published, or an RSNA image without a mapping, unless
the training data have no ChestX-ray14 patient. FracAtlas and the shoulder implants have no ids: another image of
them may be of a patient that was seen."""

VERDICTS = (SEEN, NOT_SEEN, UNDECIDED, UNKNOWN)
"""The verdicts in the order of the printed table."""

SEVERITY = (SEEN, UNDECIDED, UNKNOWN, NOT_SEEN)
"""The verdicts from most to least severe. If a row holds several names, the most severe verdict applies."""


def check_leakage(path: Path, weights: Weights, rsna_mapping: Path | None = None, column: str | None = None) -> Leakage:
    """Compare a list of images or patients with the patients that a release was pretrained on.

    The unit is the patient: an image counts as seen if any image of its patient was in the pretraining data.

    `path`: text with one name per line, or a table separated by commas, semicolons or tabs, with or without a header.
    A name is an image name of ChestX-ray14 (`00001336_000.png`), knee_kl (`9000099L.jpg`), FracAtlas (`IMG0000000.jpg`)
    or the shoulder implants (`Zimmer.1.jpg`), an RSNA image id (all with or without a folder), a patient number, or a
    full id (`chestxray14:00001336`). `rsna_mapping`:
    `nih_image_index.csv` or RSNA's own JSON, which map RSNA images to ChestX-ray14 images. `column`: name, or number
    from 1, of the only column to check; by default the column with the most names is checked, and every image name or
    full id in the other columns.

    Raises `C2LError` if the list or mapping cannot be read or holds no known name, and `WeightsNotFound` or
    `WeightsCorrupted` if the release has no list of its patients.
    """
    provenance = read_provenance(weights)
    if "patients" not in provenance:
        raise WeightsNotFound(
            f"expected a list of the patients in {weights.provenance_path()}, found none: it is not known on whom "
            f"{weights.name} was trained, as of most converted weights, so no list can be checked; ask who trained them"
        )
    ids = provenance["patients"]
    if not isinstance(ids, dict) or not all(isinstance(one, list) for one in ids.values()):
        raise damaged(weights, "patients as lists of ids by data set")
    patients = frozenset(one for dataset in ids.values() for one in dataset)
    # The first word of a line about earlier weights is no data set.
    listed_as = data_set_of if earlier_patients_known(provenance) else lambda line: line.split()[0]
    listed_sets = {*ids, *PHOTOGRAPHS}
    lines = [line for line in weights.trained_on if listed_as(line) not in listed_sets]
    unlisted = list(dict.fromkeys(map(data_set_of, lines)))
    unpublished = {*unlisted, *(name for name in WITHOUT_PATIENTS if ids.get(name))}
    mapping = read_rsna_mapping(rsna_mapping) if rsna_mapping else {}
    images_of_rsna = [recognise(one, mapping) for one in patients if one.startswith(f"{RSNA}:")]
    patients |= {entry.patient for entry in images_of_rsna if entry}
    # An RSNA image without a mapping may be any ChestX-ray14 patient's, in the training data and in the list.
    if any(entry is None or not entry.also for entry in images_of_rsna):
        unpublished |= {CHEST}
    if ids.get(CHEST) or ids.get(RSNA) or unlisted:
        unpublished |= {RSNA}
    listed = read_list(path, column)
    fields = [*listed.fields, *(field for row in listed.beside for field in row)]
    known = {field: recognise(field, mapping) for field in dict.fromkeys(fields)}
    if not any(known.values()):
        raise C2LError(
            f"{path}: expected image names or patient ids such as 00001336_000.png, chestxray14:00001336, "
            f"9000099L.jpg, IMG0000000.jpg, Zimmer.1.jpg or RSNA image ids, found none in {len(known):,} names"
        )
    verdict = {field: _verdict(entry, patients, unpublished) for field, entry in known.items()}
    images = {(entry.image, verdict[field]) for field, entry in known.items() if entry and entry.image}
    people = {(entry.patient, verdict[field]) for field, entry in known.items() if entry}
    return Leakage(
        release=weights.name,
        listed=listed,
        verdicts=[
            min((verdict[one] for one in (field, *beside)), key=SEVERITY.index)
            for field, beside in zip(listed.fields, listed.beside, strict=True)
        ],
        images=dict(Counter(found for _, found in images)),
        patients=dict(Counter(found for _, found in people)),
        seen=sorted(patient for patient, found in people if found == SEEN),
        unlisted=unlisted,
        bare=sum(entry is not None and entry.bare for entry in map(known.get, listed.fields)),
    )


def _first(values: Sequence[object], word: str = "") -> str:
    more = f" … ({len(values):,} in all)" if len(values) > 5 else ""
    return f"{word} {', '.join(str(value) for value in values[:5])}{more}".strip()


def _verdict(entry: Entry | None, patients: Collection[str], unpublished: Collection[str]) -> str:
    if entry is None:
        return UNKNOWN
    if entry.patient in patients or entry.also in patients:
        return SEEN
    return UNDECIDED if entry.patient.partition(":")[0] in unpublished else NOT_SEEN
