"""What is asked, about which images, of how many people: the study's YAML as typed values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from sfumato.config.recipe import RecipeError, explain, parse_mapping, read_arguments
from sfumato.config.strict import Strict

NAME = re.compile(r"[\w.-]{1,64}")


class PointSource(Strict):
    """Where the images of an operating point are: in an evaluated run, or in a folder."""

    run: str | None = Field(None, description="run folder")
    point: str | None = Field(None, description="the run's name for the operating point; null: the name it has here")
    folder: str | None = Field(
        None, description="instead, a folder with a folder for each prompt, or with images.jsonl: prompt, file, seed"
    )

    @model_validator(mode="after")
    def _one_source(self) -> PointSource:
        if (self.run is None) == (self.folder is None) or (self.folder and self.point):
            raise ValueError("give either a run, with the name of its operating point, or a folder")
        return self


class _Question(Strict):
    kind: str
    name: str | None = Field(None, description="what the data call it; null: its kind")
    text: str | None = Field(None, max_length=500, description="the question; null: as in the strings of the language")
    repeats: int = Field(1, ge=1, description="how often each prompt asks it, each time with other pictures")
    items: int | None = Field(
        None,
        ge=1,
        description="instead, so many in all, dealt out evenly over prompts; a multiple of the design's",
    )

    @property
    def label(self) -> str:
        """What the data call the question."""
        return self.name or self.kind

    @property
    def points(self) -> int:
        """How many operating points an item compares."""
        return 2

    @property
    def pictures(self) -> int:
        """How many pictures an item shows of each of them."""
        return 1


class PairQuestion(_Question):
    """Which of two pictures is better?"""

    kind: Literal["pair"] = Field("pair", description="pair")
    ties: bool = Field(True, description="whether a rater may find both alike")


class BestOfQuestion(_Question):
    """Which of several pictures is the best?"""

    kind: Literal["best_of"] = Field("best_of", description="best_of")
    options: int = Field(4, ge=2, le=9, description="pictures side by side")

    @property
    def points(self) -> int:
        return self.options


class RankQuestion(_Question):
    """In which order does a rater like several pictures?"""

    kind: Literal["rank"] = Field("rank", description="rank")
    options: int = Field(3, ge=2, le=6, description="pictures side by side")

    @property
    def points(self) -> int:
        return self.options


class VarietyQuestion(_Question):
    """Which of two sets of pictures is more varied?"""

    kind: Literal["variety"] = Field("variety", description="variety")
    set_size: int = Field(8, ge=2, le=16, description="pictures in a set")
    ties: bool = Field(True, description="whether a rater may find both alike")

    @property
    def pictures(self) -> int:
        return self.set_size


class RatingQuestion(_Question):
    """How good is a picture?"""

    kind: Literal["rating"] = Field("rating", description="rating")
    scale: int = Field(5, ge=2, le=9, description="the best rating; the worst is 1")

    @property
    def points(self) -> int:
        return 1


Question = Annotated[
    PairQuestion | BestOfQuestion | RankQuestion | VarietyQuestion | RatingQuestion, Field(discriminator="kind")
]


class ExclusionConfig(Strict):
    """Whose votes are left out of analysis and pairs; fixed when the study is created, before there are any."""

    failed_checks: float | None = Field(0.34, ge=0, le=1, description="who fails more than this share of the checks")
    seconds: float | None = Field(1.0, ge=0, description="whose median time for a vote is less than this")
    same_place: float | None = Field(
        0.9,
        gt=0,
        le=1,
        description="who chooses the same place on the page in more than this share of 20 votes or more",
    )


class StudyConfig(Strict):
    """A user study."""

    name: str = Field(min_length=1, max_length=100, description="what reports call it; raters do not see it")
    folder: str | None = Field(None, description="the study folder; null means studies/NAME")
    points: dict[str, PointSource] = Field(min_length=1, description="what is compared: name -> where its images are")
    questions: list[Question] = Field([PairQuestion()], min_length=1, description="what is asked")
    prompts: list[str] | int | None = Field(
        None, description="about which prompts, or about so many at random; null means all that every point has"
    )
    votes_per_item: int = Field(3, ge=1, le=1000, description="answers to each item, by as many raters")
    items_per_rater: int | None = Field(30, ge=1, description="after which a rater is thanked; null means all")
    check_every: int | None = Field(
        10, ge=2, description="one of so many items is an attention check, whose answer is plain; null means none"
    )
    exclusion: ExclusionConfig = Field(ExclusionConfig(), description="whose votes are left out")
    title: str | None = Field(None, max_length=200, description="what raters read at the top; null: as in the strings")
    consent: str | None = Field(None, description="what raters agree to, in place of the usual text")
    contact: str | None = Field(None, description="whom raters can write to")
    language: str = Field("en", description="en, zh, or the path of a YAML file with the same keys as theirs")
    quality: int | None = Field(None, ge=1, le=100, description="of the WebP that raters see; null means lossless")
    lease_minutes: float = Field(30.0, gt=0, description="after which an item that was not answered goes to others")
    seed: int = Field(0, ge=0, description="of the choice of prompts and pictures, and of the design")

    @model_validator(mode="after")
    def _names_are_fit(self) -> StudyConfig:
        names = [question.label for question in self.questions]
        for name in [*self.points, *names]:
            if not NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name: use up to 64 letters, digits, dots, - and _")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two questions are called {twice[0]!r}: give one another name")
        for question in self.questions:
            if question.points > len(self.points):
                raise ValueError(
                    f"question {question.label!r} compares {question.points} points, and there are {len(self.points)}"
                )
        return self

    @property
    def path(self) -> Path:
        return Path(self.folder or f"studies/{self.name}")

    def question(self, name: str) -> Question:
        """The question of that name."""
        return next(question for question in self.questions if question.label == name)

    def resolved(self) -> dict[str, Any]:
        """Plain values, which load again to an equal configuration wherever the folder is moved."""
        return self.model_dump(mode="json", exclude={"folder"})


def load_study_config(arguments: Sequence[str]) -> StudyConfig:
    """Read a study's configuration.

    Args:
        arguments: the path of a YAML file, if any; then `key=value`.

    Raises:
        RecipeError: no such file, broken YAML, an unknown or missing key, or a wrong value.
    """
    values, file = read_arguments(arguments, _read)
    return parse_study_config(values, file or "study")


def parse_study_config(values: dict[str, Any], where: str) -> StudyConfig:
    """Check plain values; raises RecipeError."""
    try:
        return StudyConfig.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{where}: " + "; ".join(explain(error, StudyConfig))) from None


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise RecipeError(f"there is no {path}: give a YAML file, or key=value settings alone")
    return parse_mapping(path.read_text(encoding="utf-8", errors="replace"), str(path))
