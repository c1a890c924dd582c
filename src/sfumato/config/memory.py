"""How a training fits on its device."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sfumato.config.strict import Strict


class MemoryConfig(Strict):
    """What is done to need less memory; the gradient is the same. docs/scaling.md says what each brings."""

    lean: bool = Field(
        True, description="frozen convolutions do not keep their inputs, GEGLUs compute their activation again"
    )
    decode_singly: bool = Field(
        False, description="images are decoded one at a time, and again in the backward pass, by any VAE"
    )
    decoder_checkpointing: bool = Field(
        False, description="the VAE's own gradient checkpointing: its blocks are computed again in the backward pass"
    )
    offload: list[Literal["text_encoders", "reward"]] = Field(
        [], description="what lies on the CPU while it is idle: `text_encoders`, `reward`"
    )
    shard: bool = Field(
        False, description="each process keeps only its share of the denoiser's frozen weights, by FSDP"
    )
