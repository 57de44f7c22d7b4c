"""Has a release seen the patients of an evaluation list?"""

import csv
import io
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import C2LError
from ..files import write_atomically
from .evaluation_list import CHEST, RSNA, Entry, EvaluationList, read_list, read_rsna_mapping, recognise
from .provenance import damaged, read_provenance
from .record import Weights


@dataclass(frozen=True)
class Leakage:
    """What became of a list's rows: `verdicts`, a word of `VERDICTS` each, and what is counted over them.

    `images`, `patients`: different ones, by verdict. `unlisted`: what the release was trained on beside its listed
    patients, whose patients are not published: of these nothing can be told. `bare`: rows that hold a number alone.
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
        what = {SEEN: "of patients seen", NOT_SEEN: "not seen", UNTOLD: "cannot be told", UNKNOWN: "of unknown form"}
        lines = [
            f"{listed.path}, column {listed.column}: held against the patients of {self.release}'s pretraining",
            f"{'':17}{'rows':>10}{'images':>10}{'patients':>10}",
        ]
        for verdict in VERDICTS:
            if rows[verdict] or verdict in (SEEN, NOT_SEEN):
                counts = (rows[verdict], self.images.get(verdict, 0), self.patients.get(verdict, 0))
                told = [f"{count:,}" for count in counts] if verdict != UNKNOWN else [f"{rows[verdict]:,}", "–", "–"]
                lines.append(f"{what[verdict]:17}" + "".join(f"{text:>10}" for text in told))
        if repeated := len(listed.fields) - len(set(listed.fields)):
            lines.append(f"{repeated:,} rows repeat a name; images and patients are counted once")
        if self.bare:
            lines.append(f"{self.bare:,} bare numbers were taken for patients of ChestX-ray14 or of the knees")
        if rows[UNTOLD]:
            lines.append("cannot be told: RSNA images without --rsna-mapping, or patients whose ids are not published")
        if self.unlisted:
            lines.append(f"also trained on, with patients that are not published: {'; '.join(self.unlisted)}")
        if rows[UNKNOWN]:
            lines.append(f"of unknown form: {_first(self.lines(UNKNOWN), 'line')}")
        if self.seen:
            lines.append(f"patients seen: {_first(self.seen)}")
        return "\n".join(lines)

    @property
    def all_judged(self) -> bool:
        """Whether each row is known to be seen or not."""
        return not {UNTOLD, UNKNOWN} & set(self.verdicts)

    def lines(self, verdict: str) -> list[int]:
        """The numbers of the lines with this verdict, from 1."""
        return [line for line, found in zip(self.listed.lines, self.verdicts, strict=True) if found == verdict]

    def write_cleaned(self, path: Path) -> int:
        """Write the list with the rows of patients not seen alone, header, columns and line ends kept; their number.

        Rows that could not be judged are left out too: nothing vouches for them.
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


SEEN, NOT_SEEN, UNKNOWN, UNTOLD = "seen", "not seen", "unknown form", "cannot tell"
VERDICTS = (SEEN, NOT_SEEN, UNTOLD, UNKNOWN)
GRAVITY = (SEEN, UNTOLD, UNKNOWN, NOT_SEEN)
"""Of several names in a row, the gravest verdict is the row's."""
"""`UNTOLD`: an RSNA image without its mapping, or a patient of a set that was trained on and whose ids are secret."""


def check_leakage(path: Path, weights: Weights, rsna_mapping: Path | None = None, column: str | None = None) -> Leakage:
    """Hold a list of images or patients against those that a release was pretrained on.

    `path`: text, one name a line, or a table with commas, semicolons or tabs, with a header or without; names are
    image names of ChestX-ray14 (`00001336_000.png`), of the knees (`9000099L.jpg`), ids of RSNA images, with any path
    before them, patients' numbers, or ids of ours (`chestxray14:00001336`). `rsna_mapping`: `nih_image_index.csv` or
    RSNA's own JSON, which say of which ChestX-ray14 image each is. `column`: its name, or its number from 1; by
    default the one that holds most names. The unit is the patient: an image counts as seen where any image of its
    patient was trained on.

    Raises `C2LError` for a list or mapping that cannot be read or names nothing known, and `WeightsNotFound` or
    `WeightsCorrupted` where the release has no list of its patients.
    """
    ids = _patients_seen(weights)
    patients = frozenset(one for dataset in ids.values() for one in dataset)
    unlisted = [text for text in weights.trained_on if text.split()[0] not in ids]
    secret = {text.split()[0] for text in unlisted}
    mapping = read_rsna_mapping(rsna_mapping) if rsna_mapping else {}
    images_of_rsna = [recognise(one, mapping) for one in patients if one.startswith(f"{RSNA}:")]
    patients |= {entry.patient for entry in images_of_rsna if entry}
    if any(entry is None or not entry.also for entry in images_of_rsna):
        secret |= {CHEST}  # RSNA's films are ChestX-ray14's: of these nothing tells whose
    listed = read_list(path, column)
    fields = [*listed.fields, *(field for row in listed.beside for field in row)]
    known = {field: recognise(field, mapping) for field in dict.fromkeys(fields)}
    if not any(known.values()):
        raise C2LError(
            f"{path}: no line of {len(known):,} is an image name or patient id that is known here. Wanted such as "
            "00001336_000.png, chestxray14:00001336, 9000099L.jpg or an RSNA image id"
        )
    verdict = {field: _verdict(entry, patients, secret) for field, entry in known.items()}
    images = {(entry.image, verdict[field]) for field, entry in known.items() if entry and entry.image}
    people = {(entry.patient, verdict[field]) for field, entry in known.items() if entry}
    return Leakage(
        release=weights.name,
        listed=listed,
        verdicts=[
            min((verdict[one] for one in (field, *beside)), key=GRAVITY.index)
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


def _patients_seen(weights: Weights) -> dict[str, list[str]]:
    ids = read_provenance(weights, "patients")
    if not isinstance(ids, dict) or not all(isinstance(one, list) for one in ids.values()):
        raise damaged(weights, "patients as lists of ids by data set")
    return ids


def _verdict(entry: Entry | None, patients: Collection[str], secret: Collection[str]) -> str:
    if entry is None:
        return UNKNOWN
    if entry.patient in patients or entry.also in patients:
        return SEEN
    # An RSNA image is one of ChestX-ray14's: without the mapping nobody knows of which patient.
    return UNTOLD if entry.patient.partition(":")[0] in (RSNA, *secret) else NOT_SEEN
