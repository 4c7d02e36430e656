"""The blocks of params.yaml about language models behind an API: what labels texts, and what writes them.

What they mean is told in models/teachers/chat.py, models/teachers/chat_classifier.py and tasks/written.py.
"""

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, computed_field, model_validator

from tasks.schema import Fraction, Positive, PositiveFloat, Section, Weight

Word = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
NAMED = ("name", "version")
Temperature = Annotated[float, Field(ge=0, le=2)]


def check_url(url: str) -> str:
    """An address of http or https without a password, query or fragment in it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an address such as http://127.0.0.1:8000/v1 or https://api.example.com/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("no name, password or query in the address: the key comes from the environment")
    return url


class Chat(Section):
    """A model behind an OpenAI-compatible API, and what may be spent on it (models/teachers/chat.py)."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    version: Positive  # raise it when another model stands behind the same name: kept answers are then not its
    model: Word  # as the server calls it
    base_url: Annotated[str, AfterValidator(check_url)]  # what comes before /chat/completions
    # The environment variable that holds the key, such as OPENAI_API_KEY; "" where the server asks for none. Capitals
    # only, so that a key that was pasted here is refused.
    key_variable: Annotated[str, StringConstraints(pattern=r"^([A-Z][A-Z0-9_]{0,62})?$")] = ""
    timeout_s: PositiveFloat = 120.0
    parallel: Annotated[int, Field(ge=1, le=64)] = 4  # calls at once
    calls_per_minute: PositiveFloat
    max_calls: Positive  # over all runs of this name and version
    price_in: Weight  # per million tokens that are asked, in the currency of max_cost
    price_out: Weight  # and that are answered
    max_cost: Weight


class Labels(Section):
    """How a model is asked of which class a text is (models/teachers/chat_classifier.py)."""

    instruction: Word  # what the classes are about: "Is this review of a film positive or negative?"
    orders: Positive = 2  # orders of the classes in which it is asked, where the server tells log-probabilities
    votes: Positive = 5  # answers that vote, where it does not
    temperature: Temperature = 0.7
    smoothing: PositiveFloat = 0.5  # votes that every class has beforehand
    max_characters: Positive = 4000  # longer texts are refused

    @model_validator(mode="after")
    def _asked_at_least_as_often(self) -> Self:
        if self.votes < self.orders:
            raise ValueError(
                f"votes {self.votes} are fewer than orders {self.orders}: the first votes are in these orders"
            )
        return self


class ChatTeacher(Section):
    """A model behind an API as the teacher of a text classifier (models/teachers/chat_classifier.py)."""

    kind: Literal["chat"]
    api: Chat
    labels: Labels
    classes: Annotated[dict[Word, str], Field(min_length=2)]  # name -> what it means, in the data set's order

    @model_validator(mode="before")
    @classmethod
    def _named_by_its_api(cls, value: Any) -> Any:
        """A block that was written out has both names, which params.yaml has not."""
        if not isinstance(value, dict) or not isinstance(value.get("api"), dict):
            return value
        return {key: told for key, told in value.items() if key not in NAMED or told != value["api"].get(key)}

    @computed_field  # type: ignore[prop-decorator]
    @property
    def name(self) -> str:
        """As other teachers have one."""
        return self.api.name

    @computed_field  # type: ignore[prop-decorator]
    @property
    def version(self) -> int:
        """As other teachers have one."""
        return self.api.version


class Style(Section):
    """What the writer is told besides the class; each call draws one of each list."""

    language: Word = "English"
    topics: Annotated[list[Word], Field(min_length=1)]
    styles: Annotated[list[Word], Field(min_length=1)]
    lengths: Annotated[list[Word], Field(min_length=1)]  # in words: "one short sentence", "three or four sentences"


class Keep(Section):
    """What a written text has to be to be kept (tasks/written_rules.py)."""

    min_characters: Positive = 10
    max_characters: Positive = 1000
    min_score: Annotated[int, Field(ge=1, le=10)] = 6  # the judge's, of 10
    min_agreement: Fraction = 0.5  # probability that the labeller gives the class that the writer meant
    # Cosine of two texts' character n-grams from which they are near-duplicates, or a leak of a held-out one.
    near: Annotated[float, Field(gt=0, lt=1)] = 0.8

    @model_validator(mode="after")
    def _some_length_fits(self) -> Self:
        if self.min_characters > self.max_characters:
            raise ValueError(f"min_characters {self.min_characters} is more than max_characters {self.max_characters}")
        return self


class Written(Section):
    """Texts that a language model writes and another judges and labels, for one data set (tasks/written.py)."""

    writer: Chat
    judge: Chat  # judges and labels; another model than the writer's sees more of its faults
    labels: Labels
    classes: Annotated[dict[Word, str], Field(min_length=2)]  # name -> what it means, for the prompts; "" says no more
    style: Style
    keep: Keep = Keep()
    per_class: Positive  # texts that the writer is asked for, made up to whole calls
    per_call: Annotated[int, Field(ge=1, le=50)] = 5
    max_tokens: Positive = 2000  # of a call's answer
    temperature: Temperature = 1.0
    seed: Annotated[int, Field(ge=0)] = 0
    # Splits of data/datasets/NAME to which no text may be near; [] where there is no such data set yet.
    apart_from: list[Literal["train", "val", "test"]] = Field(default=["val", "test"])

    @model_validator(mode="after")
    def _one_name_is_one_model(self) -> Self:
        writer, judge = self.writer, self.judge
        if (writer.name, writer.version) == (judge.name, judge.version) and writer != judge:
            raise ValueError(f"writer and judge are both {writer.name} v{writer.version}, and differ: name them apart")
        return self
