"""The small random CLIP that the recordings in tests/golden were made with; it serves the other tests too."""

import math

import torch

RESOLUTION, PATCH, VISION, TEXT, LAYERS, JOINT = 64, 16, 192, 128, 3, 128


def state_dict(layers_text: int = LAYERS, seed: int = 0, vision=VISION, text=TEXT, joint=JOINT) -> dict:
    """Draw the weights, every one exact in fp16, in the order of the recording.

    Args:
        layers_text: Other numbers of text layers than 3 give towers of different depth (and other weights than the
            recorded ones).
        seed: Of the draws.
        vision, text, joint: Widths of the towers and of the joint space.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, std):
        return torch.randn(*shape, generator=generator) * std

    def tower(prefix, width, layers):
        attn_std, fc_std = width**-0.5, (2 * width) ** -0.5
        proj_std = attn_std * (2 * layers) ** -0.5
        for i in range(layers):
            block = f"{prefix}transformer.resblocks.{i}."
            for name, shape, std in (
                ("attn.in_proj_weight", (3 * width, width), attn_std),
                ("attn.in_proj_bias", (3 * width,), 0.02),
                ("attn.out_proj.weight", (width, width), proj_std),
                ("attn.out_proj.bias", (width,), 0.02),
            ):
                weights[block + name] = normal(*shape, std=std)
            layer_norm(block + "ln_1", width)
            for name, shape, std in (
                ("mlp.c_fc.weight", (4 * width, width), fc_std),
                ("mlp.c_fc.bias", (4 * width,), 0.02),
                ("mlp.c_proj.weight", (width, 4 * width), proj_std),
                ("mlp.c_proj.bias", (width,), 0.02),
            ):
                weights[block + name] = normal(*shape, std=std)
            layer_norm(block + "ln_2", width)

    def layer_norm(name, width):
        weights[name + ".weight"] = 1 + normal(width, std=0.05)
        weights[name + ".bias"] = normal(width, std=0.02)

    weights = {
        "positional_embedding": normal(77, text, std=0.01),
        "text_projection": normal(text, joint, std=text**-0.5),
        "visual.class_embedding": normal(vision, std=vision**-0.5),
        "visual.positional_embedding": normal((RESOLUTION // PATCH) ** 2 + 1, vision, std=vision**-0.5),
        "visual.proj": normal(vision, joint, std=vision**-0.5),
        "visual.conv1.weight": normal(vision, 3, PATCH, PATCH, std=(3 * PATCH**2) ** -0.5),
    }
    layer_norm("visual.ln_pre", vision)
    layer_norm("visual.ln_post", vision)
    tower("visual.", vision, LAYERS)
    tower("", text, layers_text)
    weights["token_embedding.weight"] = normal(49408, text, std=0.02)
    layer_norm("ln_final", text)
    weights = {name: value.half().float() for name, value in weights.items()}
    weights["logit_scale"] = torch.tensor(math.log(100.0))
    return weights
