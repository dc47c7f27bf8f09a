"""What a stage is told; `config_document` reads it.

The sections carry the field names of the SPPORun resource (camelCase there, snake_case here). A stage receives the
sections it uses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sppo_trainer.errors import ConfigError

Precision = Literal["BFloat16", "Float32"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Which run this is; `digest` is the operator's digest of the immutable fields."""

    namespace: str
    name: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Model:
    """A causal language model or a preference model."""

    source: str
    """hf://owner/name, s3://bucket/folder, an absolute folder, or a folder relative to the workspace."""
    revision: str | None = None
    """Commit, branch or tag of a hub model; prepare records the commit that it resolved to."""
    system_prompt: str | None = None


@dataclass(frozen=True, kw_only=True)
class Prompts:
    source: str
    """hf://datasets/owner/name, s3://…, or a JSONL, Parquet or CSV file or a folder of them."""
    revision: str | None = None
    column: str = "prompt"
    """Holds a plain prompt or a list of chat messages that ends with the user's."""
    split: str = "train"
    per_iteration: int
    reuse: Literal["Never", "Reshuffle"] = "Never"
    held_out: int
    max_tokens: int = 1024

    def __post_init__(self) -> None:
        at_least("prompts.perIteration", self.per_iteration, 1)
        at_least("prompts.heldOut", self.held_out, 2)


@dataclass(frozen=True, kw_only=True)
class Objective:
    beta: float
    """1/eta, in 1/nats."""
    normalizer: Literal["Half", "Estimated", "Constant"] = "Half"
    constant: float | None = None
    responses: Literal["BestAndWorst", "All"] = "BestAndWorst"
    target: Literal["Soft", "Hard"] = "Soft"
    allow_estimated_above_eta10: bool = False

    @property
    def eta(self) -> float:
        return 1 / self.beta

    def __post_init__(self) -> None:
        positive("objective.beta", self.beta)
        if self.normalizer == "Constant" and not (self.constant is not None and 0.5 <= self.constant <= 1):
            raise ConfigError(f"objective.constant is {self.constant}: the Constant normalizer needs one from 0.5 to 1")
        if self.target == "Hard" and (self.responses, self.normalizer) != ("BestAndWorst", "Half"):
            raise ConfigError(
                f"objective.target is Hard with responses {self.responses} and normalizer {self.normalizer}: "
                "use BestAndWorst and Half, or target Soft"
            )
        if self.normalizer == "Estimated" and self.eta > 10 and not self.allow_estimated_above_eta10:
            raise ConfigError(
                f"objective.normalizer is Estimated with eta {self.eta:g}: above eta 10 it caps the best target at "
                "log K; use Half, beta of at least 0.1, or set objective.allowEstimatedAboveEta10"
            )


@dataclass(frozen=True, kw_only=True)
class Generation:
    samples: int = 5
    """K, responses per prompt."""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps all tokens."""
    max_tokens: int = 2048
    engine: Literal["vLLM", "Transformers"] = "vLLM"
    precision: Precision = "BFloat16"
    chunk_prompts: int = 64
    """Prompts per chunk, the unit that a worker finishes and a restart keeps."""

    def __post_init__(self) -> None:
        at_least("generation.samples", self.samples, 2)
        positive("generation.temperature", self.temperature)
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"generation.topP is {self.top_p}: use a number above 0 and up to 1")
        at_least("generation.topK", self.top_k, 0)
        at_least("generation.maxTokens", self.max_tokens, 1)
        at_least("generation.chunkPrompts", self.chunk_prompts, 1)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One check of a Verifier; it scores 0..1, and passes at 1."""

    kind: Literal["Finished", "Length", "Regex", "Exact", "Number", "JSON"]
    weight: float = 1.0
    column: str | None = None
    """Exact, Number: the row's column that holds the expected answer."""
    pattern: str | None = None
    """Regex: searched in the response; {column} stands for the row's escaped value.
    Exact, Number: where to find the answer, its first group if it has one; without it Exact takes the whole
    response and Number the last number."""
    tolerance: float = 0.0
    """Number: the largest accepted |difference|."""
    keys: tuple[str, ...] = ()
    """JSON: keys that the response's object must have; the score is the share of them that it has."""
    unit: Literal["Words", "Characters", "Tokens"] = "Words"
    min: int | None = None
    max: int | None = None
    """Length: inclusive bounds."""

    def __post_init__(self) -> None:
        positive("preference.verifier.rules.weight", self.weight)


@dataclass(frozen=True, kw_only=True)
class Verifier:
    rules: tuple[Rule, ...]


@dataclass(frozen=True, kw_only=True)
class PairRM:
    model: Model
    temperature: float = 1.0
    precision: Precision = "Float32"


@dataclass(frozen=True, kw_only=True)
class RewardModel:
    model: Model
    temperature: float = 1.0
    precision: Precision = "BFloat16"
    max_tokens: int = 4096


@dataclass(frozen=True, kw_only=True)
class Judge:
    """An OpenAI-compatible chat endpoint that is asked both ways round."""

    endpoint: str
    model: str
    rubric: str
    opponents: int = 0
    """At most so many opponents per response; 0 compares all pairs."""


@dataclass(frozen=True, kw_only=True)
class Preference:
    kind: Literal["PairRM", "RewardModel", "Verifier", "Judge"]
    pair_rm: PairRM | None = field(default=None, metadata={"key": "pairRM"})
    reward_model: RewardModel | None = None
    verifier: Verifier | None = None
    judge: Judge | None = None

    def __post_init__(self) -> None:
        members = {
            "PairRM": self.pair_rm,
            "RewardModel": self.reward_model,
            "Verifier": self.verifier,
            "Judge": self.judge,
        }
        if [kind for kind, member in members.items() if member is not None] != [self.kind]:
            raise ConfigError(f"preference.kind is {self.kind}: set the section of that name, and no other")

    @property
    def model(self) -> Model | None:
        """The preference model that prepare has to copy, if there is one."""
        section = self.pair_rm or self.reward_model
        return section.model if section else None


@dataclass(frozen=True, kw_only=True)
class LoRA:
    rank: int = 16
    alpha: int = 32
    target_modules: tuple[str, ...] = ()
    """Empty: all linear layers but the head."""


@dataclass(frozen=True, kw_only=True)
class Training:
    learning_rate: float
    optimizer: Literal["RMSprop", "AdamW"] = "RMSprop"
    batch_size: int = 64
    """Prompts per optimizer step."""
    epochs: int = 1
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises linearly from 0."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    """0 turns clipping off."""
    precision: Precision = "BFloat16"
    save_dtype: Precision = "BFloat16"
    tokens_per_micro_batch: int = 8192
    activation_checkpointing: bool = True
    lora: LoRA | None = None
    checkpoint_minutes: int = 10
    """0 writes a checkpoint after every step."""

    def __post_init__(self) -> None:
        positive("training.learningRate", self.learning_rate)
        at_least("training.batchSize", self.batch_size, 1)
        at_least("training.epochs", self.epochs, 1)
        if not 0 <= self.warmup <= 1:
            raise ConfigError(f"training.warmup is {self.warmup}: use a share of the steps from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    samples: int = 1
    """S, responses per held-out prompt."""
    against: tuple[Literal["Base", "Previous"], ...] = ("Base", "Previous")
    group_column: str | None = None
    """Prompts with equal values are resampled together by the bootstrap."""
    preference: Preference | None = None
    """A second oracle that training never sees."""

    def __post_init__(self) -> None:
        at_least("evaluation.samples", self.samples, 1)


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """What every stage is told."""

    contract: int
    stage: str
    run: Run
    workspace: str
    """A mounted folder."""
    iteration: int
    """0 for prepare and for the evaluation of the base."""
    seed: int
    workers: int = 1

    def __post_init__(self) -> None:
        at_least("iteration", self.iteration, 0)
        at_least("seed", self.seed, 0)
        at_least("workers", self.workers, 1)

    @property
    def ranks(self) -> int:
        """Processes that do this stage together; workers that share nothing but the workspace are on their own."""
        return 1


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(StageConfig):
    iterations: int
    model: Model
    prompts: Prompts
    generation: Generation
    preference: Preference
    evaluation: Evaluation

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("iterations", self.iterations, 1)


@dataclass(frozen=True, kw_only=True)
class GenerateConfig(StageConfig):
    prompts: Prompts
    generation: Generation


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(StageConfig):
    generation: Generation
    preference: Preference


@dataclass(frozen=True, kw_only=True)
class TrainConfig(StageConfig):
    objective: Objective
    training: Training
    processes_per_worker: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("processesPerWorker", self.processes_per_worker, 1)

    @property
    def ranks(self) -> int:
        return self.workers * self.processes_per_worker


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(StageConfig):
    generation: Generation
    preference: Preference
    evaluation: Evaluation
    training: Training


def positive(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigError(f"{name} is {value:g}: use a number above 0")


def at_least(name: str, value: int, bound: int) -> None:
    if value < bound:
        raise ConfigError(f"{name} is {value}: use at least {bound}")
