"""The sampling engine on vLLM's offline interface, in this process.

What is promised: every sample draws from its own seed, and no cached prefix survives a call, so on one CPU machine
with fixed wheels and thread count a call's outcome depends only on its arguments and the weights. On GPUs vLLM's
kernels may round otherwise from run to run, and a sample may then differ.
"""

from __future__ import annotations

import gc
import importlib
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from sppo_trainer.engines import NonFiniteLogitsError, Sample, Sampling, check_request, finish_reason
from sppo_trainer.errors import ConfigError

# Read when vllm is imported or makes its engine; a user's own value wins.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine dies with this process, and its errors are raised here
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
}
CPU_KV_CACHE_BYTES = 2 * 2**30
MIN_BATCHED_TOKENS = 8192


class EngineUnavailableError(ConfigError):
    """The engine's package is not installed."""


class VLLMEngine:
    """Samples with vLLM. See `sppo_trainer.engines.Engine`."""

    def __init__(self, model_dir: Path, *, dtype: torch.dtype, max_model_len: int) -> None:
        """Load the model.

        Args:
            max_model_len: tokens of the longest prompt and its response together.

        Raises:
            EngineUnavailableError: vllm is not installed.
        """
        self._max_model_len = max_model_len
        with ExitStack() as stack:
            stack.enter_context(_process_settings())
            vllm = _import_vllm()
            if _on_cpu():
                # Some of vLLM's functions are compiled even when its models are eager, for which a CPU needs a C++
                # compiler; a machine without one would fail here.
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            self._parameters_type = vllm.SamplingParams
            self._llm = vllm.LLM(
                model=str(model_dir),
                dtype=str(dtype).removeprefix("torch."),
                max_model_len=max_model_len,
                max_num_batched_tokens=max(max_model_len, MIN_BATCHED_TOKENS),
                generation_config="vllm",  # ignore the model's own sampling settings
                logprobs_mode="raw_logprobs",
                skip_tokenizer_init=True,  # token ids in, token ids out
                use_tqdm_on_load=False,
                disable_log_stats=True,
                **_platform_settings(),
            )
            stack.callback(self._shut_down)
            self._scope = stack.pop_all()

    def sample(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[Sequence[int]], sampling: Sampling
    ) -> list[list[Sample]]:
        """See `Engine.sample`. Also refuses a prompt that leaves no room for max_tokens."""
        check_request(prompts, seeds, sampling)
        for b, prompt in enumerate(prompts):
            if len(prompt) + sampling.max_tokens > self._max_model_len:
                raise ValueError(
                    f"prompts[{b}] has {len(prompt)} tokens: with max_tokens {sampling.max_tokens} it exceeds "
                    f"max_model_len {self._max_model_len}; raise max_model_len or lower max_tokens"
                )
        self._llm.reset_prefix_cache()  # what is cached changes the batches, and so the rounding
        # One request for each sample, because vLLM derives the seeds of n > 1 from one; the prefix is shared anyway.
        outputs = self._llm.generate(
            [{"prompt_token_ids": list(prompt)} for prompt in prompts for _ in range(sampling.samples)],
            [self._parameters(seed, sampling) for row in seeds for seed in row],
            use_tqdm=False,
        )
        samples = [_sample(output.outputs[0], sampling) for output in outputs]
        return [samples[start : start + sampling.samples] for start in range(0, len(samples), sampling.samples)]

    def close(self) -> None:
        """See `Engine.close`. Also puts the environment and torch's thread setting back."""
        self._scope.close()

    def _shut_down(self) -> None:
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        gc.collect()  # the engine holds reference cycles, and the weights with them
        cleanup_dist_env_and_memory()

    def _parameters(self, seed: int, sampling: Sampling) -> Any:
        return self._parameters_type(
            seed=seed % 2**63,  # vLLM takes signed integers and reads -1 as no seed
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            stop_token_ids=list(sampling.eos_ids),
            ignore_eos=True,  # eos_ids alone decide
            logprobs=0,  # of the sampled token
            detokenize=False,
        )


@contextmanager
def _process_settings() -> Iterator[None]:
    """What vLLM reads from the environment; afterwards that, and the function vLLM on a CPU replaces, are as before."""
    added = {name: value for name, value in ENVIRONMENT.items() if name not in os.environ}
    set_num_threads = torch.set_num_threads
    os.environ.update(added)
    try:
        yield
    finally:
        torch.set_num_threads = set_num_threads
        for name in added:
            os.environ.pop(name, None)


def _import_vllm() -> Any:
    """vLLM is optional, and reads the environment when it is imported."""
    try:
        return importlib.import_module("vllm")
    except ImportError as error:
        raise EngineUnavailableError(
            f"generation.engine vLLM needs the vllm package ({error}): "
            "install the trainer's vllm extra or set generation.engine: Transformers"
        ) from error


def _on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def _platform_settings() -> dict[str, Any]:
    if not _on_cpu():
        return {}
    return {
        "enforce_eager": True,  # compiling takes a minute
        "kv_cache_memory_bytes": CPU_KV_CACHE_BYTES,  # instead of most of the machine's memory
        # A prompt cut into pieces makes vLLM rewind the sample's generator: "CPU Generator does not use offset".
        "enable_chunked_prefill": False,
    }


def _sample(completion: Any, sampling: Sampling) -> Sample:
    token_ids = tuple(completion.token_ids)
    logprobs = tuple(step[token].logprob for token, step in zip(token_ids, completion.logprobs, strict=True))
    if not all(map(math.isfinite, logprobs)):
        raise NonFiniteLogitsError
    return Sample(token_ids=token_ids, logprobs=logprobs, finish_reason=finish_reason(token_ids, sampling.eos_ids))
