"""Top-k accuracy."""

import torch


def compute_accuracy(output, target, topk=(1,)) -> list[torch.Tensor]:
    """Compute the accuracy over the k highest logits, for each k of ``topk``.

    Args:
        output: Logits, (B, C), or a tuple that begins with them.
        target: Labels, (B,).

    Returns:
        A tensor of one element, in percent, for each k.
    """
    if isinstance(output, (tuple, list)):
        output = output[0]
    ranked = output.topk(max(topk), dim=1).indices  # B K
    hit = ranked == target.view(-1, 1)
    return [hit[:, :k].sum(dtype=torch.float32).view(1) * (100.0 / target.size(0)) for k in topk]
