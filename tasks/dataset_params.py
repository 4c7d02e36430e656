"""The `datasets:` blocks of params.yaml: where labelled examples come from, one section for each kind of source."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from tasks.schema import Count, Positive, Section

Sha256OrNone = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{64})?$")]
Share = Annotated[float, Field(gt=0, lt=0.5)]
# File names below `source`, by side; none where `source` is the one file itself.
FileName = Annotated[str, StringConstraints(pattern=r"^[^/.][^/]*(/[^/.][^/]*)*$")]
Files = dict[Literal["all", "train", "val", "test"], FileName]


class Shares(Section):
    """Shares of the examples that go to validation and test, where the source does not say which go there."""

    val: Share
    test: Share


class Labelled(Section):
    """What every source says besides of what kind it is."""

    source: str  # the file or folder that is read; DVC looks at it
    split: Shares
    seed: Count  # of the shares
    classes: list[str] = Field(default_factory=list)  # in the order of the logits; left out: those found, by name
    most: Count = 0  # examples of each side, the first ones by digest; 0 takes all

    @model_validator(mode="after")
    def _each_class_once(self) -> "Labelled":
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes: one is named twice")
        return self


class DigitsDataset(Labelled):
    """The 1,797 handwritten digits that scikit-learn carries, 8 x 8 pixels each, enlarged to `size`.

    `source` is the note that says whose they are.
    """

    kind: Literal["digits"]
    size: Annotated[int, Field(ge=8, multiple_of=8)]  # pixels, both sides


class FoldersDataset(Labelled):
    """Pictures in folders by class, CLASS/FILE or SPLIT/CLASS/FILE, in a folder or an archive (zip, tar)."""

    kind: Literal["folders"]
    sha256: Sha256OrNone = ""  # of an archive
    size: Positive  # pixels, both sides; pictures are cut to a square in their middle and scaled


class TableDataset(Labelled):
    """A CSV, JSON-lines or Parquet file, or one for each side, with a column of texts or pictures and one of labels."""

    kind: Literal["table"]
    files: Files = Field(default_factory=dict)
    text: str = ""  # the column of texts
    image: str = ""  # or of pictures: paths beside the file, or Parquet's bytes
    label: str
    side: str = ""  # a column that says train, val or test
    size: Count = 0  # of pictures

    @model_validator(mode="after")
    def _texts_or_pictures(self) -> "TableDataset":
        if bool(self.text) == bool(self.image):
            raise ValueError("name a column of texts (text) or of pictures (image), one of the two")
        if bool(self.image) != bool(self.size):
            raise ValueError("size is that of pictures, and they need one")
        return self


class LinesDataset(Labelled):
    """Text files with a line an example: the label, a space, the text."""

    kind: Literal["lines"]
    files: Files = Field(default_factory=dict)


Dataset = Annotated[DigitsDataset | FoldersDataset | TableDataset | LinesDataset, Field(discriminator="kind")]
