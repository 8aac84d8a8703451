"""Orders in which a loader goes through a list."""

from torch.utils.data.sampler import RandomSampler, SequentialSampler

from .._left_out import names_left_out

__getattr__ = names_left_out(__name__, "RandomDomainSampler", "SeqDomainSampler", "RandomClassSampler")


def build_sampler(
    sampler_type: str, cfg=None, data_source=None, batch_size: int = 32, n_domain: int = 0, n_ins: int = 16
):
    """Construct a sampler over the list ``data_source``: "RandomSampler" or "SequentialSampler" of torch.

    Raises:
        ValueError: Another type.
    """
    if sampler_type == "RandomSampler":
        return RandomSampler(data_source)
    if sampler_type == "SequentialSampler":
        return SequentialSampler(data_source)
    raise ValueError(
        f"The sampler {sampler_type!r} is not in this toolbox; available: ['RandomSampler', 'SequentialSampler']"
    )
